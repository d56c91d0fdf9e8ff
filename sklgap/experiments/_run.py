"""The loop over the jobs of an experiment, and what ends it early.

A job is a function without arguments that trains, measures and returns. `run` is the only loop over jobs: it shows a
bar, hands the jobs to joblib's backend, and returns what has finished when it is interrupted. An experiment with
several phases calls it once for each.

Ctrl-C and SIGTERM (as batch systems send it before they kill) end an experiment that is decorated with
`interruptible`: no further job is begun, those that run are given up, and the experiment returns what had finished. A
second one ends the wait for processes and threads. What jobs have saved in their ``memory`` is there in any case, also
when the process is killed.
"""

import contextlib
import functools
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from types import FrameType
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from joblib import Parallel, delayed
from tqdm.auto import tqdm

P = ParamSpec("P")
T = TypeVar("T")

# A signal this soon after another is the same press of the keys: the first one may still be on its way to the loop.
_SAME_PRESS = 0.2
# After a signal to a whole group of processes, workers may be gone before the signal has arrived here.
_LATE_SIGNAL = 0.3


class Finished(NamedTuple, Generic[T]):
    """What `run` returns: the results that are there, and whether some are missing because it was interrupted."""

    results: list[T]
    interrupted: bool


def run(
    jobs: Sequence[Callable[[], T]],
    *,
    n_jobs: int | None = None,
    verbose: int | bool = 1,
    unit: str = "fit",
    describe: Callable[[T], str] | None = None,
) -> Finished[T]:
    """Do all jobs, until the last or until Ctrl-C or SIGTERM.

    Parameters
    ----------
    jobs : sequence of callables
        Functions without arguments, such as ``functools.partial``; other processes get a copy.
    n_jobs : int, default=None
        Jobs at once, as in joblib, whose backend is used: ``with joblib.parallel_config(...)``.
    verbose : int, default=1
        0: no progress bar.
    unit : str, default="fit"
        What the bar counts.
    describe : callable, default=None
        What the bar says of a result.

    Returns
    -------
    Finished
        ``results``, in the order in which they were done, and ``interrupted``. Once a run of an experiment has been
        interrupted, further ones do nothing.
    """
    results: list[T] = []
    stop = _stop()
    try:
        with stop.loop(), tqdm(total=len(jobs), unit=unit, disable=not verbose) as bar:
            # One by one: of a batch of jobs none would be finished before all are.
            parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
            done = parallel(delayed(job)() for job in jobs)
            for result in done:
                if stop.asked:
                    break  # a job whose interruption was caught somewhere may return half of its work
                results.append(result)
                if describe is not None:
                    bar.set_postfix_str(describe(result))
                bar.update()
    except KeyboardInterrupt:
        stop.asked = max(stop.asked, 1)
    except pickle.PicklingError as error:
        if "Could not pickle" not in str(error):  # of joblib; any other is one of a job's own
            raise
        reason = str(error.__cause__ or error).strip('"\n ').splitlines()[-1]  # behind a traceback as text
        raise ValueError(
            f"n_jobs must be None or 1 for what cannot be copied to other processes ({reason}): "
            "make it inside of the function, or use joblib.parallel_config('threading')."
        ) from error
    except BrokenProcessPool:
        time.sleep(_LATE_SIGNAL)
        if not stop.asked:
            raise
    return Finished(results, stop.asked > 0)


def interruptible(experiment: Callable[P, T]) -> Callable[P, T]:
    """Decorate an experiment: Ctrl-C and SIGTERM end its loops, and never what is done with their results.

    Outside of the main thread, which alone gets signals, and beside handlers of the user's own it changes nothing.
    """

    @functools.wraps(experiment)
    def interruptible_experiment(*args: P.args, **kwargs: P.kwargs) -> T:
        outer = getattr(_CURRENT, "stop", None)
        stop = _CURRENT.stop = outer or _Stop()  # an experiment within another one ends with it
        try:
            with stop.handlers():
                return experiment(*args, **kwargs)
        finally:
            _CURRENT.stop = outer

    return interruptible_experiment


class _Stop:
    """The signals that an experiment has been sent.

    Until its first loop there is nothing to lose: a signal is a KeyboardInterrupt, as without us. In a loop it is one
    too, which the loop catches. Elsewhere a signal is noted, and the next loop does not begin.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._began, self._loops = False, 0
        self._last = float("-inf")
        self._process = os.getpid()

    @contextlib.contextmanager
    def loop(self) -> Iterator[None]:
        if self.asked:
            raise KeyboardInterrupt
        self._began = True
        self._loops += 1
        try:
            yield
        finally:
            self._loops -= 1

    @contextlib.contextmanager
    def handlers(self) -> Iterator[None]:
        """Take the signals that have no handler but the default one."""
        taken: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            usual_ones = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
            for number, usual in usual_ones.items():
                if signal.getsignal(number) is usual:
                    taken[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for taken_number, handler in taken.items():
                signal.signal(taken_number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork of this process, which is not the experiment
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.asked += 1
        now = time.monotonic()
        raises = self._loops or not self._began
        if raises and now - self._last > _SAME_PRESS:
            self._last = now
            raise KeyboardInterrupt


_CURRENT = threading.local()


def _stop() -> _Stop:
    """Return what the experiment around has been sent; outside of one a `run` stands alone."""
    return getattr(_CURRENT, "stop", None) or _Stop()
