"""Tables in Kaldi's binary formats: scp lists and ark archives, read without running anything that they name."""

import gzip
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# What Kaldi and kaldiio take beside this (commands with a pipe, ranges of rows, standard input) is refused.
_ENTRY = re.compile(r"^(?P<utterance>\S+)\s+(?P<path>[^|\[\]<>]*[^|\[\]<>\s]):(?P<offset>\d+)$")
_BINARY = b"\0B"
_LONGEST_NAME = 1000
# What kaldiio raises on bytes that are not what they say they are; asserts among them.
_DAMAGED = (AssertionError, ValueError, TypeError, IndexError, OverflowError, MemoryError, EOFError, struct.error)

Reader = Callable[[BinaryIO], Any]


def read_matrices(path: str | os.PathLike[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance, features of shape (n_frames, n_features)) from an scp or an ark file.

    Compressed matrices (Kaldi's CM, CM2, CM3) are unpacked.
    """
    for utterance, value in _read_table(Path(path), _kaldiio().read_matrix_or_vector):
        if np.ndim(value) != 2 or not value.size:
            raise ValueError(
                f"'{path}' must hold a matrix of frames for utterance {utterance!r}; found shape {np.shape(value)}."
            )
        if not np.isfinite(value).all():
            raise ValueError(f"'{path}' must hold finite features; those of utterance {utterance!r} are not.")
        yield utterance, np.asarray(value, dtype=np.float32)


def read_integers(path: str | os.PathLike[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance, integers of shape (n_frames,)) from an scp or an ark file."""
    for utterance, value in _read_table(Path(path), _kaldiio().read_int32vector):
        if (value < 0).any():
            raise ValueError(f"'{path}' must hold labels of at least 0; utterance {utterance!r} has {value.min()}.")
        yield utterance, np.asarray(value, dtype=np.int64)


def _kaldiio() -> Any:
    # Of kaldiio only the readers of binary matrices and integer vectors are used. Its load_scp, load_ark and load_mat
    # run commands that an scp file names, and load pickles that an ark file holds.
    if not __debug__:
        raise RuntimeError("Kaldi's files cannot be read under python -O: kaldiio reads within assert statements.")
    try:
        from kaldiio import matio
    except ImportError as error:
        raise ImportError("Kaldi's files need kaldiio: pip install 'sklgap[timit]', or pip install kaldiio.") from error
    return matio


def _read_table(path: Path, read: Reader) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' must be an scp or ark file; there is none.")
    seen = set()
    for utterance, value in (_read_scp if path.suffix == ".scp" else _read_ark)(path, read):
        if utterance in seen:
            raise ValueError(f"'{path}' must list every utterance once; {utterance!r} is there twice.")
        seen.add(utterance)
        yield utterance, value


def _read_scp(path: Path, read: Reader) -> Iterator[tuple[str, Any]]:
    opened: tuple[Path, BinaryIO] | None = None
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
            ark = _archive(path, entry["path"], entry["utterance"])
            if opened is None or opened[0] != ark:
                if opened is not None:
                    opened[1].close()
                opened = ark, ark.open("rb")
            try:
                opened[1].seek(int(entry["offset"]))
            except (OverflowError, ValueError, OSError) as error:  # an offset beyond what a file can have
                raise _damaged(ark, entry["utterance"], error) from error
            yield entry["utterance"], _read_value(opened[1], ark, entry["utterance"], read)
    finally:
        if opened is not None:
            opened[1].close()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' must be a text file in UTF-8; it is none: {error}.") from error


def _archive(scp: Path, name: str, utterance: str) -> Path:
    """Return the file of an entry: relative to the working folder, as in Kaldi, else to the folder of the scp file."""
    candidates = [Path(name), scp.parent / name]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"'{scp}' names '{name}' for utterance {utterance!r}; there is no such file.")
    return found


def _read_ark(path: Path, read: Reader) -> Iterator[tuple[str, Any]]:
    with _open(path) as file:
        while (utterance := _read_name(file, path)) is not None:
            yield utterance, _read_value(file, path, utterance, read)


def _open(path: Path) -> BinaryIO:
    if path.suffix != ".gz":
        return path.open("rb")
    try:
        # kaldiio goes back a few bytes, for which gzip would start again at the beginning of the file.
        return io.BytesIO(gzip.decompress(path.read_bytes()))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"'{path}' must be an undamaged gzip file, but unpacking it failed: {error}.") from error


def _read_name(file: BinaryIO, path: Path) -> str | None:
    """Return the name before the next value, None at the end of the file."""
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
            f"'{path}' must be an archive in Kaldi's binary format; at byte {file.tell() - len(name)} it has no "
            "utterance's name."
        )
    return text


def _read_value(file: BinaryIO, path: Path, utterance: str, read: Reader) -> Any:
    start = file.tell()
    if file.read(len(_BINARY)) != _BINARY:
        raise ValueError(
            f"'{path}' must hold a value in Kaldi's binary format for utterance {utterance!r} at byte {start}; it "
            "holds something else, or ends there."
        )
    file.seek(start)
    try:
        return read(file)
    except _DAMAGED as error:
        raise _damaged(path, utterance, error) from error


def _damaged(path: Path, utterance: str, error: Exception) -> ValueError:
    why = f": {error}" if str(error) else ""
    return ValueError(
        f"'{path}' must hold whole values of the expected type; that of utterance {utterance!r} is damaged, truncated "
        f"or of another type ({type(error).__name__}{why})."
    )
