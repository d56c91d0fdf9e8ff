"""The folder that keeps finished work: whole files or none, checked before they are believed.

Every file is one line that names the format, one with the SHA-256 of the rest, and the rest: tensors and plain values
as ``torch.save`` writes them, read with ``weights_only=True``, which runs no code.
"""

import contextlib
import hashlib
import io
import os
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import torch

MAGIC = b"sklgap memory 1\n"
# A file that is still being written is younger than this.
STALE_SECONDS = 3600


class Memory:
    """Entries by key and kind in one folder, which any number of processes may share.

    Parameters
    ----------
    folder : str or Path
        Made if it does not exist.

    Raises
    ------
    ValueError
        If it is no folder and cannot become one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = check_memory(folder)
        self.failed = False

    def read(self, key: str, kind: str) -> Any:
        """Return what was kept, or None: also, with a warning, for a file that cannot be trusted."""
        path = self._path(key, kind)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.distrust(key, kind, f"could not be read ({error.strerror})")
            return None
        header, body = content[: len(MAGIC) + 65], content[len(MAGIC) + 65 :]
        if not header.startswith(MAGIC):
            self.distrust(key, kind, "is not a file that sklgap wrote")
        elif hashlib.sha256(body).hexdigest().encode() + b"\n" != header[len(MAGIC) :]:
            self.distrust(key, kind, "is damaged")
        else:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of torch, about pickles that it then refuses
                    entry = torch.load(io.BytesIO(body), weights_only=True, map_location="cpu")
                if entry["key"] == key and entry["kind"] == kind:
                    return entry["value"]
                self.distrust(key, kind, "belongs to other work")
            except Exception:  # whatever it holds, it is nothing that `write` wrote
                self.distrust(key, kind, "holds what sklgap does not write")
        return None

    def write(self, key: str, kind: str, value: Any, *, sync: bool = True) -> bool:
        """Keep a value, whole or not at all; say whether it was kept. A full disk is a warning, once.

        Parameters
        ----------
        key, kind : str
            What to find it by.
        value : object
            Tensors, numbers, texts, None, and lists, tuples, sets and dicts of them; see `plain`.
        sync : bool, default=True
            Wait until it is on the disk, not only in the system's cache.
        """
        buffer = io.BytesIO()
        torch.save({"key": key, "kind": kind, "value": value}, buffer)
        body = buffer.getbuffer()
        path = self._path(key, kind)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with open(unfinished, "xb") as file:
                file.write(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n")
                file.write(body)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if not self.failed:
                warnings.warn(
                    f"memory={str(self.folder)!r} could not be written to ({error.strerror}): "
                    "the work goes on, and what it finds is not kept there.",
                    UserWarning,
                    stacklevel=2,
                )
            self.failed = True
            return False
        self.failed = False
        return True

    def forget(self, key: str, kind: str) -> None:
        """Remove an entry, and what dead processes have left of it."""
        path = self._path(key, kind)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        for left in self.folder.glob(f"{path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > STALE_SECONDS:
                    left.unlink()

    def _path(self, key: str, kind: str) -> Path:
        return self.folder / f"{key}.{kind}"

    def distrust(self, key: str, kind: str, what: str) -> None:
        """Warn of an entry that is not believed."""
        warnings.warn(f"memory: {self._path(key, kind)} {what}; the work is done again.", UserWarning, stacklevel=3)


def check_memory(folder: Any) -> Path:
    """Return the folder, made where it does not exist; ValueError for what cannot be one."""
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
