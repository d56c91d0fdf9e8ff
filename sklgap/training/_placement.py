"""Which of several CUDA devices a worker trains on: ``device="auto"``."""

import multiprocessing
import os

import torch


def default_device() -> str:
    """Return the device of ``device="auto"``: cuda, else mps, else cpu; among several CUDA devices this worker's own.

    Worker processes (of joblib's loky and multiprocessing, of Dask on one machine, of torchrun) take the visible
    devices in turn; the main process and its threads take torch's current one.
    """
    if torch.cuda.is_available():
        number, n_devices = worker_number(), torch.cuda.device_count()
        return "cuda" if number is None or n_devices < 2 else f"cuda:{number % n_devices}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def worker_number() -> int | None:
    """Return the number of this process among its siblings, or None in a main process.

    The one that torchrun has given it (``LOCAL_RANK``); else the one that ``multiprocessing`` counts the children of a
    process by, from 1 for the first.
    """
    rank = os.environ.get("LOCAL_RANK", "")
    if rank.isdecimal():
        return int(rank)
    identity = getattr(multiprocessing.current_process(), "_identity", ())
    return identity[-1] - 1 if identity else None
