"""Are results on several cores those of a serial run, how long does a search take, and how much overhead does it have?

The first part runs a grid search with joblib's loky and threading backends and on a Dask cluster of this machine. It
compares them with the same search in a single process, which runs before and after them. It reports whether scores and
weights are equal, and the ratio of the wall times. The first call starts the workers, so the script times the first and
the second call separately.

The second part searches a thousand candidates of a tiny net. It reports the memory after every hundred candidates. It
also compares the processor time of a candidate with that of the same fit and score in a bare loop.

    OMP_NUM_THREADS=1 python examples/benchmarks/parallel.py             # some three minutes on two cores
    OMP_NUM_THREADS=1 python examples/benchmarks/parallel.py --quick     # fewer epochs, two hundred candidates

Without OMP_NUM_THREADS, a worker may have another number of threads than this process, which changes the last digits.
"""

import argparse
import contextlib
import ctypes
import gc
import importlib.util
import logging
import resource
import time

import joblib
import numpy as np
import torch
from _common import environment
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, ShuffleSplit

from sklgap import LBGapClassifier


def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


@contextlib.contextmanager
def workers(backend, n_jobs):
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        yield


@contextlib.contextmanager
def dask_cluster(n_jobs):
    from distributed import Client, LocalCluster

    options = {"n_workers": n_jobs, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.ERROR}
    with LocalCluster(**options) as cluster, Client(cluster), joblib.parallel_config("dask"):
        yield


def equal(first, second):
    """Return whether two searches have the same scores and refitted weights, bit for bit."""
    a, b = (search.best_estimator_.module_.state_dict() for search in (first, second))
    scores = [search.cv_results_["mean_test_score"] for search in (first, second)]
    return np.array_equal(*scores) and all(torch.equal(a[name], b[name]) for name in a)


def compare_backends(n_jobs, n_epochs):
    X, y = digits()
    model = LBGapClassifier(module__width=256, max_epochs=n_epochs, tol=None, random_state=0, device="cpu")
    grid = {"batch_size": [64, 1.0], "lr": [1e-3, 3e-3]}

    def search():
        started = time.perf_counter()
        found = GridSearchCV(model, grid, cv=3).fit(X, y)
        return found, time.perf_counter() - started

    serial, before = search()
    print("\n4 candidates x 3 folds and a refit; ratios of wall times to one process, measured before and after")
    print(f"{'':24s}{'equal to serial':>18s}{'one process':>14s}{'first call':>14s}{'second call':>14s}")
    backends = {
        f"loky, {n_jobs} workers": workers("loky", n_jobs),
        f"threading, {n_jobs} threads": workers("threading", n_jobs),
    }
    if importlib.util.find_spec("distributed") is not None:
        backends[f"Dask, {n_jobs} workers"] = dask_cluster(n_jobs)
    for name, backend in backends.items():
        with backend:
            (first, first_time), (second, second_time) = search(), search()
        same = "yes" if equal(serial, first) and equal(serial, second) else "NO"
        _, after = search()
        seconds = (before + after) / 2
        ratios = f"{first_time / seconds:13.2f}x{second_time / seconds:13.2f}x"
        print(f"{name:24s}{same:>18s}{before:7.1f}, {after:.1f}s{ratios}", flush=True)
        before = after


def resident_megabytes():
    """Return the current memory of this process (Linux), or its peak on other systems."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def trimmed_megabytes():
    """Return the memory of this process after glibc has returned free memory, if this system has glibc."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    return resident_megabytes()


def many_candidates(n_candidates):
    X, y = digits()
    X, y = X[:400], y[:400]
    model = LBGapClassifier(
        module__width=8, module__n_layers=2, batch_size=100, max_epochs=1, tol=None, random_state=0, device="cpu"
    )
    rates = np.geomspace(1e-4, 1e-1, n_candidates)
    ((train, test),) = ShuffleSplit(1, test_size=0.25, random_state=0).split(X)
    memory = []

    def score(fitted, X, y):
        memory.append(resident_megabytes())
        return fitted.score(X, y)

    def loop(rates=rates):
        return [clone(model).set_params(lr=lr).fit(X[train], y[train]).score(X[test], y[test]) for lr in rates]

    def search():
        memory.clear()
        found = GridSearchCV(model, {"lr": rates}, scoring=score, cv=[(train, test)], refit=False).fit(X, y)
        return found.cv_results_["mean_test_score"]

    loop(rates[:50])  # fills the caches
    seconds, scores, held = {}, {}, {}
    for name, run in (("loop", loop), ("search", search)):
        held["before"] = trimmed_megabytes()
        started = time.process_time()
        scores[name] = run()
        seconds[name] = (time.process_time() - started) / n_candidates * 1e3
    n_parameters = sum(p.numel() for p in clone(model).fit(X, y).module_.parameters())
    held["after"] = trimmed_megabytes()
    print(f"\n{n_candidates} candidates of a net of {n_parameters} parameters")
    print(f"scores equal to those of the loop: {'yes' if np.array_equal(*scores.values()) else 'NO'}")
    print(f"per candidate: loop {seconds['loop']:.2f} ms, search {seconds['search']:.2f} ms, ", end="")
    print(f"overhead {seconds['search'] - seconds['loop']:.2f} ms")
    print("memory (MB) after every hundred:", *(f"{megabytes:.1f}" for megabytes in [memory[0], *memory[99::100]]))
    print(
        f"memory (MB) without the free memory of the allocator: {held['before']:.1f} before, {held['after']:.1f} after"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use fewer epochs and two hundred candidates")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    print(environment())
    compare_backends(arguments.jobs, n_epochs=2 if arguments.quick else 5)
    many_candidates(200 if arguments.quick else 1000)


if __name__ == "__main__":
    main()
