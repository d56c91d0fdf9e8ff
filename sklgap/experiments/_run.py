"""The loop over the jobs of an experiment, and its early end.

A job is a function without arguments that trains, measures and returns. `run` is the only loop over jobs. It shows a
progress bar, passes the jobs to joblib's backend, and returns the finished results if it is interrupted. An experiment
with several phases calls it once for each phase.

Ctrl-C and SIGTERM (which batch systems send before they kill a process) end an experiment that is decorated with
`interruptible`. No further job starts, running jobs are abandoned, and the experiment returns the finished results. A
second signal ends the wait for processes and threads. Work that jobs have saved in their ``memory`` is never lost, even
if the process is killed.
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

# A signal within this time after another one is the same key press, because the first may not have reached the loop.
_SAME_PRESS = 0.2
# After a signal to a group of processes, workers may end before this process receives the signal.
_LATE_SIGNAL = 0.3


class Finished(NamedTuple, Generic[T]):
    """Result of `run`: the finished results, and whether some are missing because of an interruption."""

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
    """Run all jobs, until the last one or until Ctrl-C or SIGTERM.

    Parameters
    ----------
    jobs : sequence of callables
        Functions without arguments, such as ``functools.partial``. Other processes receive a copy.
    n_jobs : int, default=None
        Number of jobs that run at the same time, as in joblib. ``joblib.parallel_config`` chooses the backend.
    verbose : int, default=1
        0 hides the progress bar.
    unit : str, default="fit"
        Unit of the progress bar.
    describe : callable, default=None
        Function that returns the text of the progress bar for a result.

    Returns
    -------
    Finished
        ``results``, in the order in which they finished, and ``interrupted``. After an interrupted run, further runs of
        the same experiment do nothing.
    """
    results: list[T] = []
    stop = _stop()
    try:
        with stop.loop(), tqdm(total=len(jobs), unit=unit, disable=not verbose) as bar:
            done = _parallel(n_jobs)(delayed(job)() for job in jobs)
            for result in done:
                if stop.asked:
                    break  # a job that caught the interruption may return incomplete work
                results.append(result)
                if describe is not None:
                    bar.set_postfix_str(describe(result))
                bar.update()
    except KeyboardInterrupt:
        stop.asked = max(stop.asked, 1)
    except pickle.PicklingError as error:
        if "Could not pickle" not in str(error):  # joblib's error; other pickling errors come from a job
            raise
        reason = str(error.__cause__ or error).strip('"\n ').splitlines()[-1]  # behind a traceback as text
        raise ValueError(
            f"n_jobs must be None or 1, because an object cannot be copied to other processes ({reason}). "
            "Create it inside the function, or use joblib.parallel_config('threading')."
        ) from error
    except BrokenProcessPool:
        time.sleep(_LATE_SIGNAL)
        if not stop.asked:
            raise
    return Finished(results, stop.asked > 0)


def _parallel(n_jobs: int | None) -> Parallel:
    """Return joblib's runner for jobs that are passed one by one; those of a batch would all finish together."""
    try:
        return Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
    except ValueError as error:
        if "return_as" not in str(error):
            raise
        raise ValueError(
            "joblib.parallel_config must name a backend that returns results one by one, such as 'loky' or "
            f"'threading'; joblib says: {error}."
        ) from error


def interruptible(experiment: Callable[P, T]) -> Callable[P, T]:
    """Decorate an experiment so that Ctrl-C and SIGTERM end its loops, but not the processing of their results.

    It changes nothing outside the main thread, which alone receives signals, or if the user has installed signal
    handlers.
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
    """The signals that an experiment has received.

    Before the first loop, a signal raises KeyboardInterrupt as usual. In a loop it raises KeyboardInterrupt, too, and
    the loop catches it. Elsewhere a signal is only recorded, and the next loop does not start.
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
        """Handle the signals that have only their default handler."""
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
        if os.getpid() != self._process:  # a fork of this process does not run the experiment
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
    """Return the signals of the surrounding experiment, or new ones for a `run` outside an experiment."""
    return getattr(_CURRENT, "stop", None) or _Stop()
