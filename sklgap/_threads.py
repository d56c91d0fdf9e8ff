"""The number of threads that torch computes with, set for a block and only for the calling thread."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

# The process that imported the package. A process with another id was forked from it.
_PROCESS = os.getpid()
# A setting is read, made and corrected in three steps, and no other thread may come in between.
_TURN = threading.RLock()
if hasattr(os, "register_at_fork"):  # a fork between the steps would leave the lock taken in the new process
    os.register_at_fork(before=_TURN.acquire, after_in_parent=_TURN.release, after_in_child=_TURN.release)


def usable_threads(n_threads: int | None = None) -> int:
    """Return the number of threads of a block that asks for ``n_threads`` (None stands for torch's current setting).

    In a forked process it is 1, because such a process would wait forever for the threads of its parent.
    """
    if is_forked():
        return 1
    return _own_threads() if n_threads is None else n_threads


def is_forked() -> bool:
    """Say whether this process was forked from the one that imported the package."""
    return os.getpid() != _PROCESS


@contextmanager
def using_threads(n_threads: int | None = None) -> Iterator[None]:
    """Compute with `usable_threads` in the calling thread; restore its old setting after the block in any case."""
    before, wanted = _own_threads(), usable_threads(n_threads)
    if wanted == before:
        yield
        return
    try:
        _set_threads(wanted)
        yield
    finally:
        _set_threads(before)


def _own_threads() -> int:
    with _TURN:  # a thread that asks for the first time takes the setting of that moment
        return torch.get_num_threads()


def _set_threads(n_threads: int) -> None:
    """Set the number of threads of the calling thread only.

    ``torch.set_num_threads`` sets two numbers (observed with OpenMP and MKL, torch 2.13): that of the calling thread,
    and that of every thread that has not computed yet. Threads that have computed do not change. A thread that ends at
    once restores the second number here. That number is torch's setting as a new thread sees it, so a setting that the
    user makes meanwhile in another thread stays. Only a thread of the user that computes for the first time in the
    instant between the two steps would take ``n_threads``.
    """
    with _TURN:
        default = _in_a_new_thread(torch.get_num_threads)
        try:
            torch.set_num_threads(n_threads)
        finally:
            _in_a_new_thread(lambda: torch.set_num_threads(default))


def _in_a_new_thread(function: Callable[[], Any]) -> Any:
    returned: list[Any] = []
    thread = threading.Thread(target=lambda: returned.append(function()))
    thread.start()
    thread.join()
    return returned[0]
