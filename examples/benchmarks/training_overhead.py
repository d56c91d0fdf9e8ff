"""Is a fit faster than a loop written by hand? Times of sklgap, such a loop and plain skorch in one run.

All three have the same net, distribution of initial weights, data, optimiser, batch size and number of updates. The
loop uses torch's defaults. Each time of a whole ``fit``, or of its epochs alone, is divided by that of the loop.

A fit also validates the data. At its end, it makes one pass over the data for the accuracy of the final weights. For
a net with batch norm, this pass also gives the statistics. More than 5,000 samples then need a second pass, because
the first one normalises each chunk with its own statistics. Times are medians of interleaved repeats. Peak memory is
that of a separate process, minus its memory after loading the data (Linux).

    python examples/benchmarks/training_overhead.py --json overhead.json   # ten minutes, on an idle machine
    python examples/benchmarks/training_overhead.py --quick                # small cases, few repeats
"""

import argparse
import multiprocessing
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import environment, interleaved_medians, write_record
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

from sklgap import LBGapClassifier
from sklgap.datasets import make_mnist_like
from sklgap.nets import C1, F1


class DigitsNet(nn.Sequential):
    """A net 64-32-10, where overhead takes a large share of the time."""

    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class TableNet(nn.Sequential):
    """A net 50-64-2 for a table of a million samples."""

    def __init__(self):
        super().__init__(nn.Linear(50, 64), nn.ReLU(), nn.Linear(64, 2))


class MnistF1(F1):
    """F1 with fixed numbers of features and classes."""

    def __init__(self):
        super().__init__(784, 10)


class CifarC1(C1):
    """C1 with a fixed image shape and number of classes."""

    def __init__(self):
        super().__init__((3, 32, 32), 10)


@dataclass(frozen=True)
class Case:
    """A training, where ``fit`` and ``epochs`` are the target ratios to the loop."""

    name: str
    net: Callable[[], nn.Module]
    n: int
    batch_size: int
    n_epochs: int
    fit: float | None = None
    epochs: float | None = None

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return X and y."""
        rng = np.random.default_rng(0)
        if self.net is DigitsNet:
            X, y = load_digits(return_X_y=True)
            return (X / 16).astype(np.float32), y.astype(np.int64)
        if self.net is MnistF1:
            X, y = make_mnist_like(self.n, random_state=0)
            return X.reshape(self.n, -1), y
        shape, classes = ((50,), 2) if self.net is TableNet else ((3, 32, 32), 10)
        return rng.random((self.n, *shape), dtype=np.float32), rng.integers(0, classes, self.n)


def cases(quick: bool) -> list[Case]:
    """Return the cases. Larger batches have more epochs, so that all cases take about the same time."""
    few = 4 if quick else 1
    return [
        Case("digits 64-32-10, batch 32", DigitsNet, 1797, 32, 20 // few, fit=0.9),
        Case("digits 64-32-10, batch 144", DigitsNet, 1797, 144, 60 // few, fit=0.9),
        Case("digits 64-32-10, full batch", DigitsNet, 1797, 1797, 200 // few, fit=1.1),
        Case("F1 on images of MNIST's size, batch 256", MnistF1, 2_000 if quick else 20_000, 256, 3, 0.95, 0.8),
        Case("C1 on images of CIFAR's size, batch 64", CifarC1, 128 if quick else 1_024, 64, 1, epochs=0.7),
        Case("a million rows of 50, batch 1024", TableNet, 1_000_000 // (20 if quick else 1), 1024, 1, fit=1.6),
    ]


def loop(case: Case, X: np.ndarray, y: np.ndarray) -> nn.Module:
    """Train in a loop written by hand."""
    net = case.net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    rows, labels = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(case.n_epochs):
        total = torch.zeros(())
        for batch in torch.randperm(len(X)).split(case.batch_size):
            optimizer.zero_grad()
            loss = criterion(net(rows[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        total.item()
    return net


def ours(case: Case, X: np.ndarray, y: np.ndarray) -> LBGapClassifier:
    model = LBGapClassifier(case.net, batch_size=case.batch_size, max_epochs=case.n_epochs, tol=None, device="cpu")
    return model.set_params(n_threads=None).fit(X, y)


def plain_skorch(case: Case, X: np.ndarray, y: np.ndarray) -> NeuralNetClassifier:
    return NeuralNetClassifier(
        case.net,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=case.batch_size,
        max_epochs=case.n_epochs,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    ).fit(X, y)


RUNS = {"loop": loop, "sklgap": ours, "skorch": plain_skorch}


def compare(case: Case, repeats: int) -> dict[str, Any]:
    """Return seconds and ratios of one case."""
    X, y = case.data()
    epochs: list[float] = []

    def fit() -> None:
        epochs.append(sum(ours(case, X, y).history_[:, "dur"]))

    runs: dict[str, Callable[[], object]] = {
        "loop": lambda: loop(case, X, y),
        "sklgap": fit,
        "skorch": lambda: plain_skorch(case, X, y),
    }
    medians = interleaved_medians(runs, repeats)
    medians["sklgap epochs"] = float(np.median(epochs[1:]))
    return {
        "case": case.name,
        "seconds": medians,
        "ratios": {name: value / medians["loop"] for name, value in medians.items()},
        "aims": {"sklgap": case.fit, "sklgap epochs": case.epochs},
    }


def peaks(case: Case) -> dict[str, float]:
    """Return the peak memory of each way in megabytes, minus the memory after loading the data."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in ("loop", "sklgap", "skorch"):
        with context.Pool(1) as pool:
            found[name] = pool.apply(_peak, (case, name, torch.get_num_threads()))
    return found


def _peak(case: Case, name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    X, y = case.data()
    RUNS[name](replace(case, batch_size=50, n_epochs=1), X[:100], y[:100])  # load everything that is loaded only once
    before = _resident()
    RUNS[name](case, X, y)
    return _resident() - before


def _resident() -> float:
    # The peak of getrusage includes the peak of the parent process.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024  # type: ignore[index] # Linux always has the line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use small cases and few repeats")
    parser.add_argument("--repeats", type=int, help="repeats (default: 9 for the small nets, 3 for the others)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write the figures to, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(environment())
    heads = ("loop", "fit (aim)", "epochs (aim)", "skorch", "MB: loop, sklgap, skorch")
    print(f"{'times the time of the loop':42s}   {'   '.join(heads)}")
    records = []
    for case in cases(arguments.quick):
        repeats = arguments.repeats or (2 if arguments.quick else 9 if case.net is DigitsNet else 3)
        record = compare(case, repeats)
        record["peak_megabytes"] = memory = peaks(case)
        records.append(record)
        ratios = record["ratios"]
        print(
            f"{case.name:42s} {record['seconds']['loop']:7.2f} s   {ratios['sklgap']:4.2f}  ({case.fit or '-'})   "
            f"{ratios['sklgap epochs']:4.2f}  ({case.epochs or '-'})      {ratios['skorch']:5.2f}   "
            f"{memory['loop']:.0f}, {memory['sklgap']:.0f}, {memory['skorch']:.0f}",
            flush=True,
        )
    if arguments.json:
        write_record(arguments.json, cases=records)


if __name__ == "__main__":
    main()
