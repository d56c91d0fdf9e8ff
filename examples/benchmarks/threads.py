"""Does the default number of threads cost time? Fits with ``n_threads="auto"`` against one thread set by hand.

The script times whole fits of small nets and of a large one, alone and beside another program that computes on all
cores. Times are medians of interleaved repeats, divided by those of the fits with one thread. By default, a small net
may take at most 1.1 times as long. F1 with 512 units shows the gain from all cores on an idle machine. ``--all`` also
times torch's own setting (``n_threads=None``), which takes long on a busy machine. The default avoids this setting for
small nets.

    python examples/benchmarks/threads.py             # some minutes; leave OMP_NUM_THREADS unset, and the machine idle
    python examples/benchmarks/threads.py --quick     # smaller data, few repeats
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from _common import environment, interleaved_medians
from sklearn.base import clone

from sklgap import LBGapClassifier
from sklgap.datasets import make_mnist1d, make_mnist_like

LIMIT = 1.1


def compute(started, seconds):
    """Multiply matrices, as another program on a core."""
    torch.set_num_threads(1)
    A = torch.rand(500, 500)
    started.set()
    ends = time.monotonic() + seconds  # this process ends even if its parent dies
    while time.monotonic() < ends:
        A = (A @ A).div_(A.norm())


@contextmanager
def busy(n_processes) -> Iterator[None]:
    """Run ``n_processes`` other processes that compute without a pause."""
    context = multiprocessing.get_context("spawn")
    started = [context.Event() for _ in range(n_processes)]
    processes = [context.Process(target=compute, args=(event, 3600), daemon=True) for event in started]
    for process in processes:
        process.start()
    for event in started:
        event.wait()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def cases(quick):
    """Yield name, estimator without n_threads, X, y, and whether the net is small."""
    rows = 1000 if quick else 4000
    X, y = make_mnist1d(rows, random_state=0)
    for n in dict.fromkeys([1000, rows]):
        for batch_size in (32, 400):
            epochs = (1 if quick else 5) * (1 if batch_size == 32 else 8)
            model = LBGapClassifier(module__width=64, batch_size=batch_size, max_epochs=epochs)
            yield f"F1, 64 units, {n} rows, batch {batch_size}", model, X[:n], y[:n], True
    rng = np.random.default_rng(0)
    n = 300 if quick else 1000
    images, labels = rng.random((n, 1, 8, 8), dtype=np.float32), np.arange(n) % 10
    model = LBGapClassifier("C1", module__n_filters=8, module__hidden=(32, 16), batch_size=32, max_epochs=2)
    yield f"C1, 8 filters, {n} rows, batch 32", model, images, labels, True
    n = 1024 if quick else 6000
    X, y = make_mnist_like(n, random_state=0)
    model = LBGapClassifier(batch_size=256, max_epochs=1)
    yield f"F1, 512 units, {n} rows, batch 256", model, X.reshape(n, -1), y, False


def compare(name, model, X, y, settings, repeats):
    """Print the ratios of one case and return that of the default."""
    models = {
        key: clone(model).set_params(n_threads=n, tol=None, random_state=0, device="cpu") for key, n in settings.items()
    }
    medians = interleaved_medians({key: lambda m=m: m.fit(X, y) for key, m in models.items()}, repeats)
    ratios = {key: medians[key] / medians["one"] for key in list(settings)[1:]}
    columns = "".join(f"{ratio:8.2f}x" for ratio in ratios.values())
    print(f"{name:38s} {medians['one']:8.3f} s{columns}   {models['default'].n_threads_} thread(s)", flush=True)
    return ratios["default"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use smaller data and few repeats")
    parser.add_argument("--all", action="store_true", help="also time torch's own number of threads")
    parser.add_argument("--repeats", type=int, help="repeats of every fit after a warm-up")
    arguments = parser.parse_args()
    repeats = arguments.repeats or (2 if arguments.quick else 7)
    print(environment())
    if torch.get_num_threads() == 1:
        print("torch has only one thread. Unset OMP_NUM_THREADS to see a difference.")
    cores = os.cpu_count() or 1
    settings = {"one": 1, "default": "auto", **({"all": None} if arguments.all else {})}
    worst = {}
    for place, n_others in (("alone", 0), ("beside another program", cores)):
        heads = "".join(f"{key:>9s}" for key in list(settings)[1:])
        print(f"\n{place:38s} {'one':>10s}{heads}   chosen by default")
        with busy(n_others):
            ratios = [(compare(*case, settings, repeats), small) for *case, small in cases(arguments.quick)]
        worst[place] = max(ratio for ratio, small in ratios if small)
    print()
    for place, ratio in worst.items():
        print(f"small nets, {place}: at most {ratio:.2f} times one thread (limit {LIMIT})")


if __name__ == "__main__":
    main()
