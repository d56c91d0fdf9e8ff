"""Helpers of the benchmark scripts: data, a timer, and medians of interleaved runs."""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import skorch
import torch

import sklgap


def environment() -> str:
    """Return a line of versions and hardware, to print above the figures."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    return (
        f"{device}, {torch.get_num_threads()} thread(s); sklgap {sklgap.__version__}, torch {torch.__version__}, "
        f"skorch {skorch.__version__}, scikit-learn {sklearn.__version__}, scipy {scipy.__version__}, "
        f"numpy {np.__version__}, python {platform.python_version()}"
    )


def interleaved_medians(
    runs: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Run all functions in turn, ``repeats`` times after a warm-up round, and return the median seconds of each.

    Interleaving spreads the noise of a busy machine over all functions. The clock ``time.process_time`` excludes the
    time of other processes.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            started = clock()
            run()
            if repeat:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def write_record(path: Path, **body: Any) -> None:
    """Write a record as JSON, with the running command, versions and hardware, and ``body``."""
    command = f"python examples/benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}"
    path.write_text(json.dumps({"command": command, "environment": environment(), **body}, indent=1) + "\n")
