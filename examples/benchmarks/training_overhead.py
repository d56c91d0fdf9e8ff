"""Is a fit faster than the loop that you would write? Ours, a hand-written loop and plain skorch in one run.

The same net, distribution of starting weights, data, optimiser, batch size and number of updates in all three, with
torch's defaults in the loop. Each time is divided by that of the loop: of a whole ``fit``, and of its epochs alone.
A fit also validates the data, and makes one pass over them at its end for the accuracy of the final weights.
For a net with batch norm this pass also gives the statistics. More than 5,000 rows then need a second pass, because the
first one normalises each chunk with its own statistics. Times are medians of interleaved repeats. A peak of memory is
that of a process that does nothing else, without the memory that it has with the data (Linux).

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
    """64-32-10, the size at which overhead shows most."""

    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class TableNet(nn.Sequential):
    """50-64-2, for a table of a million rows."""

    def __init__(self):
        super().__init__(nn.Linear(50, 64), nn.ReLU(), nn.Linear(64, 2))


class MnistF1(F1):
    """F1 with its sizes filled in."""

    def __init__(self):
        super().__init__(784, 10)


class CifarC1(C1):
    """C1 with its sizes filled in."""

    def __init__(self):
        super().__init__((3, 32, 32), 10)


@dataclass(frozen=True)
class Case:
    """What is trained; ``fit`` and ``epochs`` are the ratios to the loop that are aimed at."""

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
    """Return the cases; roughly equal times: the larger the batch, the more epochs."""
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
    """The floor: what one writes by hand."""
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
    """Return the peak of memory of each way, in megabytes above what its process has with the data."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in ("loop", "sklgap", "skorch"):
        with context.Pool(1) as pool:
            found[name] = pool.apply(_peak, (case, name, torch.get_num_threads()))
    return found


def _peak(case: Case, name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    X, y = case.data()
    RUNS[name](replace(case, batch_size=50, n_epochs=1), X[:100], y[:100])  # what is loaded once
    before = _resident()
    RUNS[name](case, X, y)
    return _resident() - before


def _resident() -> float:
    # Not getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024  # type: ignore[index] # Linux always has the line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small cases, few repeats")
    parser.add_argument("--repeats", type=int, help="default: 9 of the small nets, 3 of the others")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the figures")
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
