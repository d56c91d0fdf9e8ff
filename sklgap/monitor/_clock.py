"""When to measure, so that all measurements take at most a given share of the training time."""

import contextlib
import time
from collections.abc import Iterator

# The first measurement is expected to take as long as this number of updates. With eight parts it took 3 to 6 updates.
_UPDATES = 5


class Clock:
    """Decide when a measurement is due; measurements may take ``share`` of the training time, in (0, 1]."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._begin: float | None = None
        self._spent = self._last = 0.0
        self._calls = 0

    def due(self) -> bool:
        """Return whether there is time for a measurement. Call it once per update."""
        now = time.perf_counter()
        if self._begin is None:
            self._begin = now
            return False
        self._calls += 1
        training = now - self._begin - self._spent
        expected = self._last or _UPDATES * training / self._calls
        return self._spent + expected <= self.share * training

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time a measurement."""
        begin = time.perf_counter()
        yield
        self._last = time.perf_counter() - begin
        self._spent += self._last
