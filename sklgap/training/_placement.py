"""The choice of a CUDA device for each worker, for ``device="auto"``."""

import multiprocessing
import os

import torch


def default_device() -> str:
    """Return the device of ``device="auto"``: cuda, else mps, else cpu.

    With several CUDA devices, worker processes (of joblib's loky and multiprocessing, of Dask on one machine, of
    torchrun) use the visible devices in turn. The main process and its threads use torch's current device.
    """
    if torch.cuda.is_available():
        number, n_devices = worker_number(), torch.cuda.device_count()
        return "cuda" if number is None or n_devices < 2 else f"cuda:{number % n_devices}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def worker_number() -> int | None:
    """Return the number of this process among its siblings, or None in a main process.

    It is the number from torchrun (``LOCAL_RANK``), or else the number by which ``multiprocessing`` counts the children
    of a process, minus 1.
    """
    rank = os.environ.get("LOCAL_RANK", "")
    if rank.isdecimal():
        return int(rank)
    identity = getattr(multiprocessing.current_process(), "_identity", ())
    return identity[-1] - 1 if identity else None
