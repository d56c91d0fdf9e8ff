"""A data file, read from front to back without asking for more memory than the file can fill."""

import gzip
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

# A compressed file of unknown content may unpack to ``RATIO`` times its size, and always to ``FREE`` bytes. Features
# reach a ratio of 2, alignments a ratio of 20, and a bomb of zeros a ratio of 1000.
RATIO = 32
FREE = 16 * 2**20
_CHUNK = 2**20


class DataFile:
    """A plain or gzip-compressed file.

    Parameters
    ----------
    path : Path
        The file. It is compressed if its name ends in ``.gz``.
    most : int or None, default=None
        Largest number of bytes to which a compressed file may unpack. It is known for the published images. None means
        32 times the size of the file, or 16 MB if that is more.

    Attributes
    ----------
    most : int
        Largest number of bytes that the file may hold: its size, or the limit for unpacking a compressed file.
    packed : bool
        Whether the file is compressed.

    Raises
    ------
    ValueError
        From every method, if the file is damaged or unpacks to more than its limit.
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
        """Largest number of bytes that may still follow."""
        return max(self.most - self._position, 0)

    def tell(self) -> int:
        """Return the position in the unpacked file."""
        return self._position

    def seek(self, position: int) -> None:
        """Go to a position in a plain file."""
        self._file.seek(position)
        self._position = position

    def read(self, n: int) -> bytes:
        """Return the next bytes, or fewer at the end of the file; for headers and names."""
        try:
            content: bytes = self._file.read(n)
        except (OSError, EOFError, zlib.error) as error:
            raise self._damaged(error) from error
        self._count(len(content))
        return content

    def array(self, dtype: Any, n: int) -> np.ndarray | None:
        """Return the next n elements; None if the file cannot hold as many or ends before them."""
        if not 0 <= n * np.dtype(dtype).itemsize <= self.left:
            return None
        try:
            values = np.empty(n, dtype)
        except MemoryError as error:
            raise ValueError(f"'{self.path}' must fit in memory, but holds {n} values of type {dtype}.") from error
        return values if self._fill(values) else None

    def rest(self) -> np.ndarray:
        """Return the rest of the file as bytes."""
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
                f"'{self.path}' must unpack to at most {self.most} bytes, but it unpacks to more, like a damaged or "
                "forged file; if the file is right, unpack it with gunzip first."
            )

    def _damaged(self, error: Exception) -> Exception:
        if not self.packed:
            return error
        return ValueError(f"'{self.path}' must be an undamaged gzip file, but unpacking it failed: {error}.")
