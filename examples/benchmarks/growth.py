"""How does the cost grow with samples, parameters, trials and candidates?

The script measures times and fits exponents to them. An exponent is the slope of log time against log size. It is
fitted by least squares to the upper half of the sizes, where the fixed cost of a call no longer shows. An exponent of 1
means linear growth. Times are medians of interleaved repeats.

    python examples/benchmarks/growth.py --json growth.json   # ten minutes at most, on an idle machine
    python examples/benchmarks/growth.py --quick              # smaller sizes, few repeats
"""

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import environment, write_record
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from sklgap import LBGapClassifier, batch_size_curve, compare_regimes, gap_report
from sklgap.objective import Objective, check_objective

# A run returns its seconds.
Run = Callable[[], float]


@dataclass(frozen=True)
class Growth:
    """A growing quantity and the runs to time. ``runs`` returns a run for each name at a size."""

    of: str
    sizes: Sequence[int]
    runs: Callable[[int], dict[str, Run]]
    repeats: int


class TableNet(nn.Sequential):
    """A net 50-64-2."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(50, 64), nn.ReLU(), nn.Linear(64, 2))


class SizedNet(nn.Sequential):
    """A net 64-w-w-10 with about ``n_params`` parameters."""

    def __init__(self, n_params: int = 1000) -> None:
        # the net has w**2 + 76 w + 10 parameters
        width = max(1, round(math.sqrt(38**2 + n_params - 10) - 38))
        super().__init__(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def timed(function: Callable[[], object]) -> Run:
    """Return a run that measures the time of a call."""

    def run() -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    return run


def one_thread(**parameters: Any) -> LBGapClassifier:
    """Return a classifier that does not stop early."""
    return LBGapClassifier(tol=None, device="cpu", random_state=0, n_threads=None, **parameters)


def of_rows(n: int) -> dict[str, Run]:
    rng = np.random.default_rng(0)
    X, y = rng.random((n, 50), dtype=np.float32), rng.integers(0, 2, n)
    model = one_thread(net=TableNet, batch_size=1024, max_epochs=1)
    fitted = one_thread(net=TableNet, batch_size=1024, max_epochs=1).fit(X[:2048], y[:2048])
    objective = check_objective(fitted, X, y)
    return {
        "fit of one epoch": timed(lambda: model.fit(X, y)),
        "predict": timed(lambda: fitted.predict(X)),
        "loss and accuracy of an Objective": timed(objective.evaluate),
    }


def of_parameters(n: int) -> dict[str, Run]:
    rng = np.random.default_rng(0)
    X, y = rng.random((320, 64), dtype=np.float32), rng.integers(0, 10, 320)
    model = one_thread(net=SizedNet, module__n_params=n, batch_size=64, max_epochs=3, recompute_batch_norm=False)
    torch.manual_seed(0)
    objective = Objective(SizedNet(n), nn.CrossEntropyLoss(), (torch.from_numpy(X), torch.from_numpy(y)), device="cpu")

    def update() -> float:
        history = model.fit(X, y).history_
        return statistics.median(history[:, "dur"]) / history[-1, "train_batch_count"]

    return {"update of 64 rows, with ADAM": update, "gradient of sharpness, of 320 rows": timed(objective.gradient)}


def of_trials(n: int) -> dict[str, Run]:
    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = one_thread(module__width=16, max_epochs=2)
    of_report: list[float] = []

    def compare() -> None:
        report = compare_regimes(model, X[:400], y[:400], X[400:], y[400:], n_trials=n, random_state=0, verbose=0)
        of_report.append(timed(lambda: write_all(report))())

    # The script writes the report right after the trainings, because the report caches its numbers.
    return {"compare_regimes, with its report": timed(compare), "its report alone": lambda: of_report[-1]}


def write_all(report: Any) -> None:
    """Write a report in all formats except pictures."""
    for write in (
        str,
        lambda r: r._repr_html_(),
        lambda r: r.to_json(),
        lambda r: r.to_latex(),
        lambda r: r.to_frame(),
    ):
        write(report)


def of_candidates(n: int) -> dict[str, Run]:
    X, y = load_digits(return_X_y=True)
    search = GridSearchCV(
        DecisionTreeClassifier(random_state=0),
        {"max_leaf_nodes": range(2, 2 + n)},
        cv=3,
        return_train_score=True,
    ).fit(X[:120], y[:120] > 4)
    rates = np.geomspace(1e-4, 1, n).tolist()
    sizes = list(range(1, 1 + n))

    def train(batch_size: int, random_state: int, learning_rate: float = 0.1) -> dict[str, Any]:
        rng = np.random.default_rng([random_state, batch_size, int(1e6 * learning_rate)])
        return {"correct": rng.random(200) < 0.9}

    def tuned() -> None:
        options = {"lr": "tuned", "learning_rates": rates, "n_trials": 2, "random_state": 0, "verbose": 0}
        write_all(batch_size_curve(train, batch_sizes=[32, 256], **options))

    return {
        "gap_report of a search": timed(lambda: write_all(gap_report(search, reference=0))),
        "learning rates of a curve": timed(tuned),
        "batch sizes of a curve": timed(
            lambda: write_all(batch_size_curve(train, batch_sizes=sizes, n_trials=2, random_state=0, verbose=0))
        ),
    }


def growths(quick: bool) -> list[Growth]:
    """Return all measurements."""

    def sizes(least: int, most: int, number: int) -> list[int]:
        return sorted({round(size) for size in np.geomspace(least, most, number)})

    if quick:
        return [
            Growth("rows", sizes(10_000, 100_000, 5), of_rows, 1),
            Growth("parameters", sizes(1_000, 1_000_000, 7), of_parameters, 1),
            Growth("trials", sizes(1, 6, 6), of_trials, 1),
            Growth("candidates", sizes(10, 160, 5), of_candidates, 1),
        ]
    return [
        Growth("rows", sizes(10_000, 1_000_000, 7), of_rows, 3),
        Growth("parameters", sizes(1_000, 10_000_000, 9), of_parameters, 5),
        Growth("trials", sizes(1, 20, 7), of_trials, 3),
        Growth("candidates", sizes(10, 1_000, 7), of_candidates, 3),
    ]


def medians(growth: Growth, repeats: int) -> dict[str, list[float]]:
    """Return the median seconds of every name at every size, from interleaved runs after a warm-up round."""
    runs = [growth.runs(size) for size in growth.sizes]
    seconds: dict[tuple[str, int], list[float]] = {}
    for repeat in range(repeats + 1):
        for i, by_name in enumerate(runs):
            for name, run in by_name.items():
                taken = run()
                if repeat:
                    seconds.setdefault((name, i), []).append(taken)
    return {name: [statistics.median(seconds[name, i]) for i in range(len(runs))] for name in runs[0]}


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Return the slope of log time against log size over the upper half of the sizes, and its standard error."""
    half = len(sizes) // 2
    x, t = np.log(sizes[half:]), np.log(seconds[half:])
    x = x - x.mean()
    slope = float(x @ t / (x @ x))
    rest = t - t.mean() - slope * x
    freedom = len(x) - 2
    return slope, float(np.sqrt(rest @ rest / freedom / (x @ x))) if freedom > 0 else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use smaller sizes and few repeats")
    parser.add_argument("--repeats", type=int, help="repeats of every measurement (default: 3 to 5)")
    parser.add_argument(
        "--only", choices=["rows", "parameters", "trials", "candidates"], help="quantity that grows (default: all)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write the figures to, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    print(environment())
    print(f"{'seconds':38s}   exponent ± standard error   seconds at each size")
    records = []
    for growth in growths(arguments.quick):
        if arguments.only not in (None, growth.of):
            continue
        print(f"{growth.of}: {', '.join(f'{size:,}' for size in growth.sizes)}")
        for name, seconds in medians(growth, arguments.repeats or growth.repeats).items():
            slope, error = exponent(growth.sizes, seconds)
            print(f"  {name:36s}   {slope:5.2f} ± {error:.2f}   {', '.join(f'{s:.2g}' for s in seconds)}", flush=True)
            records.append(
                {
                    "of": growth.of,
                    "name": name,
                    "sizes": list(growth.sizes),
                    "seconds": seconds,
                    "exponent": slope,
                    "standard_error": error,
                }
            )
    if arguments.json:
        write_record(arguments.json, growth=records)


if __name__ == "__main__":
    main()
