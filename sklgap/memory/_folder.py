"""The folder of saved work: files are complete or absent, and are checked before they are used.

The file FORMAT holds the version of the folder. Every other file of sklgap is named by a key and a kind, and has four
parts: a line with the name of the format, a line with the SHA-256 of the rest, a line of JSON that describes the file,
and tensors and plain values written by ``torch.save``. They are read with ``weights_only=True``, which runs no code.
"""

import contextlib
import hashlib
import io
import json
import os
import time
import uuid
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from sklgap._version import __version__

VERSION = 2
MAGIC = f"sklgap memory {VERSION}\n".encode()
FORMAT_FILE = "FORMAT"
# A file that is still being written is younger than this.
STALE_SECONDS = 3600
# Limits far above every file of sklgap: length of the line of JSON, depth of nested lists and dicts, and bytes of
# tensors beyond those of the file.
_LONGEST_LINE = 10_000
_DEEPEST = 100
_SLACK = 2**20
_PLAIN = (type(None), bool, int, float, str, bytes)
_CONTAINERS = (dict, list, tuple, set)


class Refused(Exception):
    """A description of what is wrong with a file that cannot be trusted."""


class Memory:
    """Entries by key and kind in one folder, which any number of processes may share.

    Parameters
    ----------
    folder : str or Path
        The folder. It is created if it does not exist.
    about : str, default=""
        Description of the work, for a listing of the folder.

    Raises
    ------
    ValueError
        If the path is not a folder and cannot become one, or if the folder has another version.
    """

    def __init__(self, folder: str | Path, about: str = "") -> None:
        self.folder = check_memory(folder)
        check_format(self.folder)
        self.about = about[:1000]
        self.failed = False

    def read(self, key: str, kind: str) -> Any:
        """Return the saved value, or None. A file that cannot be trusted gives None and a warning."""
        path = self._path(key, kind)
        try:
            with open(path, "rb") as file:
                read_head(file)
                entry = _load(file.read())
            if type(entry) is not dict or entry.keys() != {"key", "kind", "value"}:
                raise Refused("holds what sklgap does not write")
            if entry["key"] != key or entry["kind"] != kind:
                raise Refused("belongs to other work")
            return entry["value"]
        except FileNotFoundError:
            return None
        except OSError as error:
            self.distrust(key, kind, f"could not be read ({error.strerror})")
        except Refused as error:
            self.distrust(key, kind, str(error))
        except Exception:  # whatever the file holds, `write` did not write it
            self.distrust(key, kind, "holds what sklgap does not write")
        return None

    def write(self, key: str, kind: str, value: Any, *, sync: bool = True) -> bool:
        """Save a value completely or not at all, and return whether it was saved. A full disk gives one warning.

        Parameters
        ----------
        key, kind : str
            The key and kind under which `read` finds the value.
        value : object
            Tensors, numbers, strings, None, and lists, tuples, sets and dicts of them; see `plain`.
        sync : bool, default=True
            Whether to wait until the value is on the disk, not only in the system's cache.
        """
        buffer = io.BytesIO()
        torch.save({"key": key, "kind": kind, "value": value}, buffer)
        body = buffer.getbuffer()
        head = {"about": self.about, "sklgap": __version__, "torch": torch.__version__, "bytes": len(body)}
        line = json.dumps(head).encode() + b"\n"
        digest = hashlib.sha256(line)
        digest.update(body)
        path = self._path(key, kind)
        try:
            if not (self.folder / FORMAT_FILE).exists():
                _write_whole(self.folder / FORMAT_FILE, [MAGIC], sync=sync)
            _write_whole(path, [MAGIC + digest.hexdigest().encode() + b"\n" + line, body], sync=sync)
        except OSError as error:
            if not self.failed:
                warnings.warn(
                    f"memory={str(self.folder)!r} could not be written to ({error.strerror}). The work continues, but "
                    "its results are not saved there.",
                    UserWarning,
                    stacklevel=2,
                )
            self.failed = True
            return False
        self.failed = False
        return True

    def forget(self, key: str, kind: str) -> None:
        """Remove an entry, and the unfinished files that dead processes have left of it."""
        path = self._path(key, kind)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        for left in self.folder.iterdir():  # no ``glob``, because Python would cache a pattern for every name
            if left.name.startswith(f"{path.name}.") and left.name.endswith(".tmp"):
                with contextlib.suppress(OSError):
                    if time.time() - left.stat().st_mtime > STALE_SECONDS:
                        left.unlink()

    def _path(self, key: str, kind: str) -> Path:
        return self.folder / f"{key}.{kind}"

    def distrust(self, key: str, kind: str, what: str) -> None:
        """Warn of an entry that cannot be trusted."""
        warnings.warn(f"memory: {self._path(key, kind)} {what}; the work is done again.", UserWarning, stacklevel=3)


def _write_whole(path: Path, parts: list[Any], *, sync: bool) -> None:
    """Write a file completely or not at all, whatever other processes do."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(unfinished, "xb") as file:
            file.writelines(parts)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def check_format(folder: Path) -> None:
    """Raise a ValueError if the folder has another version of the format."""
    try:
        with open(folder / FORMAT_FILE, "rb") as file:
            said = file.read(len(MAGIC) + 1)
    except OSError:
        return  # a new folder, or one of which `write` will warn
    if said != MAGIC:
        raise ValueError(
            f"memory must be a folder of format {VERSION} of sklgap, but {str(folder / FORMAT_FILE)!r} says "
            f"{said.decode(errors='replace').strip()!r}; use another folder, or remove this one."
        )


def read_head(file: BinaryIO) -> dict[str, Any]:
    """Return the description in an open file if size and checksum are right. The file is then at its content.

    The content is read in pieces, so a wrong file takes no memory.

    Raises
    ------
    Refused
        For any other file.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise Refused("is not a file that sklgap wrote")
    digest, line = file.read(65), file.readline(_LONGEST_LINE)
    start = file.tell()
    try:
        head = json.loads(line)
        n_bytes = head["bytes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("is damaged") from None
    if type(n_bytes) is not int or n_bytes != os.fstat(file.fileno()).st_size - start:
        raise Refused("is damaged")
    found = hashlib.sha256(line)
    while piece := file.read(2**20):
        found.update(piece)
    if found.hexdigest().encode() + b"\n" != digest:
        raise Refused("is damaged")
    file.seek(start)
    return dict(head)


def _load(body: bytes) -> Any:
    """Return the value that ``torch.save`` wrote, if it takes no more memory than the file."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        parts = archive.infolist()
    stored = all(part.compress_type == zipfile.ZIP_STORED and part.file_size == part.compress_size for part in parts)
    if not stored or sum(part.file_size for part in parts) > len(body) or len({p.filename for p in parts}) < len(parts):
        raise Refused("declares more than it holds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of pickles that it then refuses
        value = torch.load(io.BytesIO(body), weights_only=True, map_location="cpu")
    _check_plain(value, len(body))
    return value


def _check_plain(value: Any, n_bytes: int) -> None:
    """Raise `Refused` unless all values are plain, not nested too deeply, and not multiplied by references."""
    n_values, n_tensor_bytes = 0, 0
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        n_values += 1
        if type(value) is torch.Tensor and value.layout is torch.strided and value.device.type == "cpu":
            n_tensor_bytes += value.nbytes
            if value.nbytes > value.untyped_storage().nbytes():
                raise Refused("declares more than it holds")
        elif type(value) in _CONTAINERS:
            items = [item for pair in value.items() for item in pair] if type(value) is dict else value
            waiting += [(item, depth + 1) for item in items]
        elif type(value) not in _PLAIN:
            raise Refused("holds what sklgap does not write")
        if depth > _DEEPEST or n_values + len(waiting) > n_bytes or n_tensor_bytes > 4 * n_bytes + _SLACK:
            raise Refused("declares more than it holds")


def check_memory(folder: Any) -> Path:
    """Return the folder, and create it if it does not exist; raise a ValueError if that is impossible."""
    if not isinstance(folder, str | os.PathLike) or not str(folder):
        raise ValueError(f"memory must be None or the path of a folder; got {folder!r}.")
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"memory must be None or the path of a folder; got {str(folder)!r}: {error.strerror}."
        ) from error
    return path.absolute()
