"""The solvers of Metric 2.1 side by side on converged SB and LB solutions of F1 on MNIST.

For each solver and both epsilons of the paper: value, gradients, seconds. Targets: within the gradient budget of the
paper's procedure ("lbfgsb") "auto" reaches at least its value; run to its own end it reaches at least 99.9 % of the
best value of any solver; its time is at most the paper's procedure's at 2,000 samples. SB and LB get the same budget.

    python examples/benchmarks/sharpness_solvers.py             # trains both first (10 minutes on one core)
    python examples/benchmarks/sharpness_solvers.py --quick     # digits, under a minute: not the paper's
"""

import argparse
import time
import warnings
from pathlib import Path

import joblib
import torch
from _common import environment
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, check_objective, sharpness
from sklgap.datasets import fetch_mnist

EPSILONS = (1e-3, 5e-4)


def solutions(quick, cache):
    """Return data and the fitted SB and LB estimators, from ``cache`` if they have been trained before."""
    if quick:
        X, y = load_digits(return_X_y=True)
        X, epochs, extra = X / 16, {"SB": 15, "LB": 60}, {"module__width": 64}
    else:
        X, y = fetch_mnist(return_X_y=True, flat=True)
        epochs, extra = {"SB": 25, "LB": 60}, {}
    if cache and cache.exists():
        return X, y, joblib.load(cache)
    models = {
        name: LBGapClassifier("F1", batch_regime=name, max_epochs=n, tol=None, random_state=0, **extra).fit(X, y)
        for name, n in epochs.items()
    }
    if cache:
        joblib.dump(models, cache)
    return X, y, models


def measure(objective, solver, epsilon, **kwargs):
    """Return the record and the seconds it took."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a solver that stops at its start shows in the table
        record = sharpness(objective, solver=solver, epsilon=epsilon, random_state=0, **kwargs)
    return record, time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
    parser.add_argument("--samples", type=int, nargs="+", default=[2000, 60000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="file of your own that keeps the two trained models between runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(environment())
    X, y, models = solutions(arguments.quick, arguments.cache)
    for n_samples in [min(n, len(X)) for n in (arguments.samples if not arguments.quick else [len(X)])]:
        for epsilon in EPSILONS:
            for name, model in models.items():
                objective = check_objective(model, X, y, max_samples=n_samples, random_state=0)
                paper, paper_seconds = measure(objective, "lbfgsb", epsilon)
                budget = paper.n_evaluations - 1  # one of them is f0
                rows = {
                    "lbfgsb (the paper's)": (paper, paper_seconds),
                    "lbfgsb-scaled": measure(objective, "lbfgsb-scaled", epsilon),
                    "power": measure(objective, "power", epsilon),
                    "auto": measure(objective, "auto", epsilon),
                    f"auto, {budget} gradients": measure(objective, "auto", epsilon, max_iter=budget),
                }
                best = max(record.value for record, _ in rows.values())
                print(f"\n{name}, {n_samples:,} samples, epsilon {epsilon:g}, f0 {paper.f0:.2e}")
                for solver, (record, seconds) in rows.items():
                    share = record.value / best if best > 0 else float("nan")
                    print(
                        f"  {solver:22s} {record.value:10.3f} %  {100 * share:6.2f} % of the best  "
                        f"{record.n_evaluations:3d} gradients  {seconds:7.2f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
