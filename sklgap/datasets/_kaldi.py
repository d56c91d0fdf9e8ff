"""Tables in the binary formats of Kaldi (scp lists and ark archives), read without running any command in them."""

import math
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sklgap.datasets._file import DataFile

# Kaldi and kaldiio also accept commands with a pipe, ranges of rows, and standard input. These are refused here.
_ENTRY = re.compile(r"^(?P<utterance>\S+)\s+(?P<path>[^|\[\]<>]*[^|\[\]<>\s]):(?P<offset>\d+)$")
_LONGEST_NAME = 1000
# Number of values of a compressed matrix that are unpacked at once.
_AT_ONCE = 2**20

Reader = Callable[[DataFile], np.ndarray]


class _Damaged(Exception):
    """A description of what is wrong with a value. The reader of the table adds file and utterance."""


def read_matrices(path: str | os.PathLike[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance, features of shape (n_frames, n_features)) from an scp or an ark file.

    Compressed matrices (CM, CM2 and CM3 of Kaldi) are unpacked.
    """
    for utterance, value in _read_table(Path(path), _read_matrix):
        if np.ndim(value) != 2 or not value.size:
            raise ValueError(
                f"'{path}' must hold a matrix of frames for utterance {utterance!r}; found shape {np.shape(value)}."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            features = np.asarray(value, dtype=np.float32)
        if not np.isfinite(features).all():
            raise ValueError(
                f"'{path}' must hold features that are finite in float32; those of utterance {utterance!r} are not "
                "finite."
            )
        yield utterance, features


def read_integers(path: str | os.PathLike[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance, integers of shape (n_frames,)) from an scp or an ark file."""
    for utterance, value in _read_table(Path(path), _read_integers):
        if (value < 0).any():
            raise ValueError(f"'{path}' must hold labels of at least 0; utterance {utterance!r} has {value.min()}.")
        yield utterance, np.asarray(value, dtype=np.int64)


# -- values ------------------------------------------------------------------------------------------------------------


def _read_matrix(file: DataFile) -> np.ndarray:
    """Read a matrix or a vector: type, sizes and numbers (kaldi-matrix.cc and compressed-matrix.cc of Kaldi)."""
    kind = file.read(3)
    if kind in (b"CM ", b"CM2", b"CM3"):
        if kind != b"CM " and file.read(1) != b" ":
            raise _Damaged("its type is unknown to Kaldi")
        return _read_compressed(file, kind)
    if kind not in (b"FM ", b"FV ", b"DM ", b"DV "):
        raise _Damaged(f"its type is {kind!r} instead of FM, FV, DM, DV, CM, CM2 or CM3")
    dtype = "<f4" if kind[:1] == b"F" else "<f8"
    shape = tuple(_read_size(file) for _ in range(2 if kind[1:2] == b"M" else 1))
    return _numbers(file, dtype, shape)


def _read_compressed(file: DataFile, kind: bytes) -> np.ndarray:
    smallest, extent, rows, columns = struct.unpack("<ffii", _exactly(file, 16))
    if rows < 0 or columns < 0:
        raise _Damaged(f"it declares {rows} x {columns} values")

    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses values that are not finite
        if kind == b"CM2":
            return _scaled(_numbers(file, "<u2", (rows, columns)), smallest, extent)
        if kind == b"CM3":
            return _scaled(_numbers(file, "u1", (rows, columns)), smallest, extent)
        # Each column has its smallest value, quartiles and largest value. A byte stands for a value between two of
        # them.
        p0, p25, p75, p100 = _scaled(_numbers(file, "<u2", (columns, 4)), smallest, extent).T
        codes = _numbers(file, "u1", (columns, rows)).T
        matrix = np.empty((rows, columns), np.float32)
        at_once = max(_AT_ONCE // max(columns, 1), 1)
        for start in range(0, rows, at_once):
            steps = codes[start : start + at_once].astype(np.float32)
            low = p0 + (p25 - p0) * steps * (1 / 64)
            middle = p25 + (p75 - p25) * (steps - 64) * (1 / 128)
            high = p75 + (p100 - p75) * (steps - 192) * (1 / 63)
            matrix[start : start + at_once] = np.where(steps <= 64, low, np.where(steps <= 192, middle, high))
        return matrix


def _scaled(codes: np.ndarray, smallest: float, extent: float) -> np.ndarray:
    """Map integers from 0 ... largest of their type to smallest ... smallest + extent, in float32 and in place."""
    values = codes.astype(np.float32)
    values *= extent
    values /= np.iinfo(codes.dtype).max
    values += smallest
    return values


def _read_integers(file: DataFile) -> np.ndarray:
    """Read a vector of 32-bit integers, each after the byte 4."""
    marked = _numbers(file, np.dtype([("bytes", "u1"), ("value", "<i4")]), (_read_size(file),))
    if (marked["bytes"] != 4).any():
        raise _Damaged("its integers are not of four bytes each")
    return marked["value"]


def _read_size(file: DataFile) -> int:
    mark, size = struct.unpack("<bi", _exactly(file, 5))
    if mark != 4 or size < 0:
        raise _Damaged("it does not begin with a size")
    return int(size)


def _numbers(file: DataFile, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    left, values = file.left, file.array(dtype, math.prod(shape))
    if values is None:
        declared = f"it declares {' x '.join(map(str, shape))} values"
        if file.packed and math.prod(shape) * np.dtype(dtype).itemsize > left:
            raise _Damaged(
                f"{declared}, which is more than the file may unpack to; if the file is right, unpack it with gunzip "
                "first"
            )
        raise _Damaged(f"{declared}, but the file does not hold them")
    return values.reshape(shape)


def _exactly(file: DataFile, n: int) -> bytes:
    content = file.read(n)
    if len(content) < n:
        raise _Damaged("the file ends within it")
    return content


# -- tables ------------------------------------------------------------------------------------------------------------


def _read_table(path: Path, read: Reader) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' must be an scp or ark file, but it does not exist.")
    seen = set()
    for utterance, value in (_read_scp if path.suffix == ".scp" else _read_ark)(path, read):
        if utterance in seen:
            raise ValueError(f"'{path}' must list every utterance once, but it lists {utterance!r} twice.")
        seen.add(utterance)
        yield utterance, value


def _read_scp(path: Path, read: Reader) -> Iterator[tuple[str, Any]]:
    opened: DataFile | None = None
    try:
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            entry = _ENTRY.match(line.strip())
            if entry is None:
                raise ValueError(
                    f"'{path}' must have lines 'utterance path:offset', without commands or ranges; line {number} is "
                    f"{line.strip()[:200]!r}."
                )
            ark, utterance = _archive(path, entry["path"], entry["utterance"]), entry["utterance"]
            if opened is None or opened.path != ark:
                if opened is not None:
                    opened.close()
                opened = DataFile(ark)
            if opened.packed:
                raise ValueError(
                    f"'{path}' must name plain archives; '{ark}' of utterance {utterance!r} is compressed."
                )
            offset = int(entry["offset"][:19])
            if offset >= opened.most:
                raise ValueError(
                    f"'{path}' must name positions in archives; '{ark}' ends before the position of utterance "
                    f"{utterance!r}."
                )
            opened.seek(offset)
            yield utterance, _read_value(opened, utterance, read)
    finally:
        if opened is not None:
            opened.close()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' must be a text file in UTF-8; got other bytes: {error}.") from error


def _archive(scp: Path, name: str, utterance: str) -> Path:
    """Return the file of an entry. Its path is relative to the working folder, as in Kaldi, or to the scp file."""
    candidates = [Path(name), scp.parent / name]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"'{scp}' names '{name}' for utterance {utterance!r}, but there is no such file.")
    return found


def _read_ark(path: Path, read: Reader) -> Iterator[tuple[str, Any]]:
    with DataFile(path) as file:
        while (utterance := _read_name(file)) is not None:
            yield utterance, _read_value(file, utterance, read)


def _read_name(file: DataFile) -> str | None:
    """Return the name before the next value; None at the end of the file."""
    name = b""
    while (character := file.read(1)) not in (b" ", b""):
        name += character
        if len(name) > _LONGEST_NAME:
            break
    if not name and not character:
        return None
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if character != b" " or not text.isprintable() or not text or " " in text:
        raise ValueError(
            f"'{file.path}' must be an archive in Kaldi's binary format; at byte {file.tell() - len(name)} it has no "
            "name of an utterance."
        )
    return text


def _read_value(file: DataFile, utterance: str, read: Reader) -> np.ndarray:
    start = file.tell()
    if file.read(2) != b"\0B":
        raise ValueError(
            f"'{file.path}' must hold a value in Kaldi's binary format for utterance {utterance!r} at byte {start}; it "
            "holds something else, or ends there."
        )
    try:
        return read(file)
    except _Damaged as error:
        raise ValueError(
            f"'{file.path}' must hold whole values of the expected type; that of utterance {utterance!r} is damaged, "
            f"truncated or of another type ({error})."
        ) from error
