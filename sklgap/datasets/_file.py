"""A data file from outside, read from front to back: no more memory is asked for than the file can fill."""

import gzip
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

# A compressed file of no stated size may unpack to so many times its size, and always to so many bytes. Features reach
# a ratio of 2, alignments one of 20, a bomb of zeros one of 1000.
RATIO = 32
FREE = 16 * 2**20
_CHUNK = 2**20


class DataFile:
    """A plain or gzip-compressed file.

    Parameters
    ----------
    path : Path
        Compressed if it ends in ``.gz``.
    most : int or None, default=None
        The largest number of bytes that a compressed file may unpack to, where that is known: the published images
        take no more. None: 32 times its size, or 16 MB.

    Attributes
    ----------
    most : int
        The bytes that the file may hold: its size, or for a compressed one the limit up to which it is unpacked.
    packed : bool
        Whether it is compressed.

    Raises
    ------
    ValueError
        From every method: the file is damaged, or unpacks to more than it may.
    """

    def __init__(self, path: Path, most: int | None = None) -> None:
        self.path = path
        self.packed = path.suffix == ".gz"
        size = path.stat().st_size
        self.most = size if not self.packed else max(FREE, RATIO * size) if most is None else most
        self._file: Any = gzip.open(path) if self.packed else path.open("rb")  # noqa: SIM115 - __exit__ closes it
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def left(self) -> int:
        """The largest number of bytes that may still follow."""
        return max(self.most - self._position, 0)

    def tell(self) -> int:
        """Return the position in the unpacked file."""
        return self._position

    def seek(self, position: int) -> None:
        """Go to a position in a plain file."""
        self._file.seek(position)
        self._position = position

    def read(self, n: int) -> bytes:
        """Return the next bytes, fewer where the file ends: for headers and names."""
        try:
            content: bytes = self._file.read(n)
        except (OSError, EOFError, zlib.error) as error:
            raise self._damaged(error) from error
        self._count(len(content))
        return content

    def array(self, dtype: Any, n: int) -> np.ndarray | None:
        """Return the next n elements, or None where the file cannot hold so many or ends before them."""
        if not 0 <= n * np.dtype(dtype).itemsize <= self.left:
            return None
        try:
            values = np.empty(n, dtype)
        except MemoryError as error:
            raise ValueError(f"'{self.path}' must fit in memory, but holds {n} values of type {dtype}.") from error
        return values if self._fill(values) else None

    def rest(self) -> np.ndarray:
        """Return all that follows, as bytes."""
        content = bytearray()
        while chunk := self.read(_CHUNK):
            content += chunk
        return np.frombuffer(memoryview(content).toreadonly(), np.uint8)

    def _fill(self, values: np.ndarray) -> bool:
        view = memoryview(values.view(np.uint8).data)
        done = 0
        while done < len(view):
            try:
                got = self._file.readinto(view[done : done + _CHUNK])
            except (OSError, EOFError, zlib.error) as error:
                raise self._damaged(error) from error
            if not got:
                return False
            done += got
            self._count(got)
        return True

    def _count(self, n: int) -> None:
        self._position += n
        if self.packed and self._position > self.most:
            raise ValueError(
                f"'{self.path}' must unpack to at most {self.most} bytes and unpacks to more, as only a damaged or "
                "forged file does; if it is right, unpack it with gunzip first."
            )

    def _damaged(self, error: Exception) -> Exception:
        if not self.packed:
            return error
        return ValueError(f"'{self.path}' must be an undamaged gzip file, but unpacking it failed: {error}.")
