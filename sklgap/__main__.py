"""The command line: ``python -m sklgap`` compares regimes on a data set and writes what it found."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sklgap import LBGapClassifier, ParametricPlotDisplay, compare_regimes
from sklgap.cli import _memory as memory
from sklgap.datasets import fetch_cifar10, fetch_cifar100, fetch_mnist
from sklgap.experiments import RegimeComparison

FETCHERS = {"mnist": fetch_mnist, "cifar10": fetch_cifar10, "cifar100": fetch_cifar100}
# F1 has 512 units a layer for MNIST's 784 inputs; the digits have 64 inputs.
DIGITS_WIDTH = 64
# Keskar et al., Figure 4; on the digits the large batch needs up to 160 epochs to satisfy the stopping rule.
EPOCHS, DIGITS_EPOCHS = 100, 300


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog="python -m sklgap",
        description="Compare small- and large-batch training over paired trials: accuracy, sharpness (Metric 2.1 of "
        "Keskar et al. 2017), distance from the start. By default on the digits of scikit-learn, in about a minute.",
        epilog="examples (hours on a CPU; data below --data-home, else from OpenML): python -m sklgap --dataset mnist "
        "--net F1 --subspace-dim 100 --jobs 2; python -m sklgap --dataset cifar10 --net C1. Saved work: "
        "python -m sklgap memory --help",
    )
    p.add_argument("--dataset", choices=["digits", *FETCHERS], default="digits", help="data set (digits)")
    p.add_argument(
        "--net", help="F1, F2, C1, C2, C3, C4, ResNet44 or WRN16-4; F1 if not given (C1 for images in colour)"
    )
    p.add_argument(
        "--regimes", nargs="+", default=["SB", "LB"], help="SB, LB, batch sizes or fractions; first = reference"
    )
    p.add_argument("--trials", type=int, default=5, help="paired trials (5)")
    p.add_argument("--epochs", type=int, help=f"largest number of epochs ({DIGITS_EPOCHS} for digits, else {EPOCHS})")
    p.add_argument("--tol", type=float, default=1e-4, help="stop when the loss falls by less than this fraction (1e-4)")
    p.add_argument("--epsilon", type=float, nargs="*", default=[1e-3, 5e-4], help="box sizes of sharpness (1e-3 5e-4)")
    p.add_argument("--subspace-dim", type=int, nargs="*", default=[], help="also measure in random subspaces")
    p.add_argument("--batch-norm", choices=["batch", "population", "running"], default="batch", help="policy (batch)")
    p.add_argument("--max-samples", type=int, default=10_000, help="training rows for sharpness (10,000)")
    p.add_argument("--train-samples", type=int, default=None, help="train on the first so many rows only")
    p.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, ...")
    p.add_argument("--seed", type=int, default=0, help="random state (0)")
    p.add_argument("--jobs", type=int, help="fits at once (one per core for digits on the CPU, else 1)")
    p.add_argument("--data-home", default=None, help="folder of the data files; else $SKLGAP_DATA, else downloaded")
    p.add_argument("--output", type=Path, default=Path(), help="folder for report.json and report.png (here)")
    return p


def load(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return X, y, X_test, y_test."""
    if arguments.dataset == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        X, y = load_digits(return_X_y=True)
        X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.25, random_state=0, stratify=y)
    else:
        fetch = FETCHERS[arguments.dataset]
        options: dict[str, Any] = {"data_home": arguments.data_home, "return_X_y": True}
        X, y = fetch(subset="train", **options)
        X_test, y_test = fetch(subset="test", **options)
    n_train = arguments.train_samples
    if n_train is not None and n_train < 1:
        raise ValueError(f"--train-samples must be at least 1; got {n_train}.")
    return X[:n_train], y[:n_train], X_test, y_test


def make_estimator(arguments: argparse.Namespace) -> LBGapClassifier:
    """Return the estimator that the arguments describe."""
    net = arguments.net or ("C1" if arguments.dataset.startswith("cifar") else "F1")
    extra: dict[str, Any] = {}
    if arguments.dataset == "digits":
        extra = {"module__width": DIGITS_WIDTH} if net in ("F1", "F2") else {"input_shape": (1, 8, 8)}
    epochs = arguments.epochs
    if epochs is None:
        epochs = DIGITS_EPOCHS if arguments.dataset == "digits" else EPOCHS
    return LBGapClassifier(net, max_epochs=epochs, tol=arguments.tol or None, device=arguments.device, **extra)


def n_jobs(arguments: argparse.Namespace) -> int | None:
    """Return the number of fits at once: nets as small as those for the digits gain nothing from a second thread."""
    small = arguments.dataset == "digits" and arguments.device in ("auto", "cpu") and not torch.cuda.is_available()
    return -1 if arguments.jobs is None and small else arguments.jobs


def write(report: RegimeComparison, arguments: argparse.Namespace, data: tuple[np.ndarray, ...]) -> list[Path]:
    """Write report.json, and report.png where matplotlib is installed; return the paths."""
    folder = arguments.output
    paths = [folder / "report.json"]
    report.to_json(paths[0])
    try:
        import matplotlib
    except ImportError:
        print("No plot: matplotlib is not installed (pip install 'sklgap[plot]').", file=sys.stderr)
        return paths
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = [label for label in report.labels if report.estimators_[label]]
    figure, axes = plt.subplots(1, 3 if len(labels) > 1 else 2, figsize=(15, 4.2), layout="constrained")
    report.plot(axes=axes[:2])
    if len(labels) > 1:
        X, y, X_test, y_test = data
        start, end = (report.estimators_[label][0] for label in labels[:2])
        options = {"batch_norm": arguments.batch_norm, "max_samples": arguments.max_samples, "random_state": 0}
        ParametricPlotDisplay.from_estimators(
            start, end, X, y, X_test, y_test, names=(labels[0], labels[1]), ax=axes[2], **options
        )
    title = (
        f"{arguments.dataset}: {report.settings['n_train']:,} training samples, {report.settings['n_trials']} trials"
    )
    figure.suptitle(title)
    paths.append(folder / "report.png")
    figure.savefig(paths[1], dpi=120)
    plt.close(figure)
    return paths


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["memory"]:
        return memory.main(argv[1:])
    arguments = parser().parse_args(argv)
    regimes = [_number_or_name(regime) for regime in arguments.regimes]
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        data = load(arguments)
        report = compare_regimes(
            make_estimator(arguments),
            *data,
            regimes=regimes,
            reference=regimes[0],
            n_trials=arguments.trials,
            epsilon=arguments.epsilon,
            subspace_dims=[None, *arguments.subspace_dim],
            batch_norm=arguments.batch_norm,
            max_samples=arguments.max_samples,
            random_state=arguments.seed,
            n_jobs=n_jobs(arguments),
            verbose=1,
        )
    except (ValueError, TypeError, OSError) as error:
        print(f"sklgap: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sklgap: interrupted before the first fit had finished.", file=sys.stderr)
        return 130
    print(report)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = write(report, arguments, data)
    print("\nwritten: " + ", ".join(str(path) for path in paths))
    return 130 if report.interrupted else 0


def _number_or_name(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    sys.exit(main())
