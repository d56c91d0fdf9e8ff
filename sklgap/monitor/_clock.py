"""When to measure, so that all measurements take at most a share of the training time."""

import contextlib
import time
from collections.abc import Iterator

# The first measurement is expected to take as long as so many updates. With eight parts it took 3 to 6.
_UPDATES = 5


class Clock:
    """Decides when a measurement is due; ``share`` of the training time, in (0, 1], is for measurements."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._begin: float | None = None
        self._spent = self._last = 0.0
        self._calls = 0

    def due(self) -> bool:
        """Say, once an update, whether there is time for a measurement."""
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
        """Take the time of a measurement."""
        begin = time.perf_counter()
        yield
        self._last = time.perf_counter() - begin
        self._spent += self._last
