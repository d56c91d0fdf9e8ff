r"""
What wins the accuracy of small batches back?
=============================================

The script compares small batches (SB) with large ones (LB) on three data sets, with and
without every remedy of Keskar et al. (2017), Hoffer et al. (2017) and later papers. For
each remedy it reports the change of LB's test accuracy, the remaining gap and the cost.

A remedy that evaluates more gradients may help only because of these gradients. The
controls spend the same number of gradients without the remedy:

* ``2x`` trains twice as many epochs. It is the control of adversarial training,
  stability training, SAM and the gradient penalty.
* ``augmentation 2x`` is the control of two augmentations of each sample in a batch.
* ``proximal 0`` uses each batch three times without the penalty.
* ``ghost`` normalises the same parts of a batch as the gradient penalty.
* ``FULL, no penalty`` is the full-batch recipe without the penalty. It runs with and
  without ghost batch norm on parts of the same size.
* ``longer`` makes as many updates as SB.

``--data mnist1d`` generates its data. ``mnist`` and ``cifar10`` use parts of the data
sets. A second run with the same ``--memory`` continues after the last finished fit.
``--quick`` uses few samples and epochs, and shows only that the script runs.
``--table`` prints the tables of several records and trains nothing.

    python examples/study_remedies.py \
        --data mnist1d --memory saved --output mnist1d_remedies.json
    python examples/study_remedies.py \
        --table mnist1d_remedies.json mnist_remedies.json cifar10_remedies.json
"""

# %%
# The data, and the sizes of the experiment.
import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone

import sklgap
from sklgap import (
    SAM,
    Adversarial,
    Augmentation,
    BatchAugmentation,
    EntropySGD,
    ExponentialAveraging,
    GradientPenalty,
    LabelSmoothing,
    LatestAveraging,
    LBGapClassifier,
    Mixup,
    Remedy,
    SampleNoise,
    Stability,
    SwitchBatch,
    WeightAveraging,
    compare_regimes,
    full_batch_recipe,
)
from sklgap.datasets import fetch_cifar10, fetch_mnist, make_mnist1d


class Shift(Remedy):
    """Shift every curve of MNIST-1D in a circle, by up to ``largest`` points."""

    def __init__(self, largest=3):
        self.largest = largest

    def transform_batch(self, batch, rng):
        """Return the batch with its curves shifted."""
        n, length = batch.X.shape
        shift = torch.randint(-self.largest, self.largest + 1, (n, 1), generator=rng)
        points = (torch.arange(length) + shift) % length
        return batch._replace(X=batch.X.gather(1, points.to(batch.X.device)))


def some(X, y, n):
    """Return n samples that a fixed seed draws."""
    rows = np.random.RandomState(0).permutation(len(X))[:n]
    return X[rows], y[rows]


def data_of(name):
    """Return the data, the estimator, its augmentation and the settings of a study."""
    if name == "mnist1d":
        estimator = LBGapClassifier(
            "F1", module__width=128, module__n_layers=3, tol=None
        )
        settings = {
            "small": 32,
            "large": 500,
            "epochs": {"SB": 15, "LB": 30},
            "full": 200,
        }
        return (
            *make_mnist1d(3000, random_state=0),
            *make_mnist1d(3000, random_state=1),
            estimator,
            Shift(),
            settings,
        )
    if name == "mnist":
        X, y = some(*fetch_mnist(return_X_y=True, flat=True), 5000)
        X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
        estimator = LBGapClassifier("F1", module__width=256, tol=None)
        settings = {
            "small": 64,
            "large": 500,
            "epochs": {"SB": 12, "LB": 30},
            "full": 200,
        }
        return (
            X,
            y,
            X_test,
            y_test,
            estimator,
            Augmentation(flip=False, degrees=10, translate=0.1),
            settings,
        )
    X, y = some(*fetch_cifar10(return_X_y=True), 2000)
    X_test, y_test = some(*fetch_cifar10(subset="test", return_X_y=True), 2000)
    estimator = LBGapClassifier(
        "C1", module__n_filters=8, module__hidden=(64, 32), tol=None
    )
    settings = {"small": 32, "large": 250, "epochs": {"SB": 20, "LB": 40}, "full": 200}
    return (
        X,
        y,
        X_test,
        y_test,
        estimator,
        Augmentation(degrees=0, translate=0, crop_padding=4),
        settings,
    )


# %%
# The remedies, at the settings of their papers if these give any.
def regimes_of(small, large, epochs, full, augmentation):
    """Return all regimes by name: SB, LB, and both of them with remedies."""

    def of_both(size, n_epochs):
        plain = {"batch_size": size, "max_epochs": n_epochs}
        return {
            "": plain,
            "augmentation": {**plain, "augmentation": augmentation},
            "SAM": {**plain, "remedies": [SAM(rho=0.05)]},
            "SWA": {**plain, "callbacks": [("average", WeightAveraging())]},
            "mixup": {**plain, "remedies": [Mixup(0.2)]},
            "2x": {**plain, "max_epochs": 2 * n_epochs},
        }

    def with_remedy(*remedies):
        return {"remedies": list(remedies)}

    large_only = {
        "augmentation 2x": {
            "augmentation": augmentation,
            "max_epochs": 2 * epochs["LB"],
        },
        "batch augmentation, 2 copies": with_remedy(BatchAugmentation(augmentation, 2)),
        "proximal": {"proximal_lambda": 1e-3},
        "proximal 0": {"proximal_lambda": 0.0},
        "adversarial": with_remedy(Adversarial(epsilon=0.1)),
        "stability": with_remedy(Stability()),
        "SAM every 5th update": with_remedy(SAM(rho=0.05, every=5)),
        "gradient penalty, whole batch": with_remedy(GradientPenalty(0.1)),
        "gradient penalty, parts": with_remedy(GradientPenalty(0.01, small)),
        "ghost": {"ghost_batch_size": small},
        "Entropy-SGD": with_remedy(EntropySGD(n_steps=5)),
        "label smoothing": with_remedy(LabelSmoothing(0.1)),
        "exponential average": {"callbacks": [("average", ExponentialAveraging(0.95))]},
        "latest average": {"callbacks": [("average", LatestAveraging())]},
        "sqrt lr": {"lr_scaling": "sqrt", "base_batch_size": small},
        "linear lr": {
            "lr_scaling": "linear",
            "base_batch_size": small,
            "lr_warmup_epochs": 3,
        },
        "noise": with_remedy(SampleNoise(base_batch_size=small)),
        "warm start": {
            "batch_size": None,
            "batch_regime": SwitchBatch(2, first=small, then=large),
        },
    }
    adapted = {
        "regime_adaptation": True,
        "base_batch_size": small,
        "max_epochs": epochs["SB"],
    }
    large_only["longer"] = adapted
    large_only["longer, ghost, sqrt lr"] = {
        **adapted,
        "ghost_batch_size": small,
        "lr_scaling": "sqrt",
    }
    found = {
        f"SB {name}".strip(): setting
        for name, setting in of_both(small, epochs["SB"]).items()
    }
    found |= {
        f"LB {name}".strip(): setting
        for name, setting in of_both(large, epochs["LB"]).items()
    }
    found |= {
        f"LB {name}": {"batch_size": large, "max_epochs": epochs["LB"], **s}
        for name, s in large_only.items()
    }
    # Clipping bounds each update, so that the rate of SGD can be this high. It is not
    # comparable with the rates of ADAM.
    recipe = {"lr": 0.4, "sub_batch_size": 128}
    found["FULL"] = full_batch_recipe(full, strength=0.1, **recipe)
    found["FULL, no penalty"] = full_batch_recipe(full, strength=0.0, **recipe)
    found["FULL, no penalty, ghost"] = {
        **found["FULL, no penalty"],
        "ghost_batch_size": recipe["sub_batch_size"],
    }
    return found


# %%
# The cost of a remedy is its processor time per update times its number of updates.
# Short interleaved fits give the time per update. The fits of the studies ran beside
# other programs, so that their seconds say little.
def seconds_per_update(estimator, regimes, X, y, repeats=3, epochs=4):
    """Return the median processor time of an update for each regime."""
    found = {label: [] for label in regimes}
    for _ in range(repeats):
        for label, setting in regimes.items():
            model = clone(estimator).set_params(random_state=0, **setting)
            if "warm start" not in label:  # its first epochs have small batches
                model.set_params(max_epochs=min(epochs, model.max_epochs))
            started = time.process_time()
            model.fit(X, y)
            found[label].append((time.process_time() - started) / model.n_updates_)
    return {label: float(np.median(values)) for label, values in found.items()}


# %%
# The change of LB with a remedy and the remaining gap to plain SB are paired
# differences over trials and test samples. Their 95 % intervals hold for new seeds and
# new test samples.
def rows_of(comparison, seconds):
    """Return the results of every regime, with differences in percentage points."""
    rows = []
    times = {
        label: seconds[label] * np.nanmean(comparison.by_trial(label, "n_updates"))
        for label in comparison.labels
    }
    for label in comparison.labels:
        row = {"regime": label, "time": float(times[label] / times["LB"])}
        for name in (
            "test_accuracy",
            "train_loss",
            "weight_distance",
            "n_updates",
            "sharpness_0.001",
        ):
            row[name] = float(np.nanmean(comparison.by_trial(label, name)))
        if label.startswith(("LB ", "FULL")):
            row["change"] = comparison.difference("LB", label).scaled(-100).to_dict()
        if label != "SB":
            row["gap"] = comparison.difference("SB", label).scaled(100).to_dict()
        own = label.replace("LB ", "SB ")
        if label.startswith("LB ") and own in comparison.labels:
            row["gap of both"] = comparison.difference(own, label).scaled(100).to_dict()
        rows.append(row)
    return rows


def shown(estimate):
    """Return a saved estimate and its interval, in bold if the interval excludes 0."""
    if estimate is None:
        return ""
    # The space in the brackets does not break, so that an interval stays on one line.
    low, high = estimate["low"], estimate["high"]
    text = f"{estimate['value']:+.2f} [{low:+.2f},\u00a0{high:+.2f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def print_table(records):
    """Print the change of LB with every remedy, its time, and the gap that is left."""
    studies = {
        record["data"]: {row["regime"]: row for row in record["remedies"]}
        for record in records
    }
    labels = dict.fromkeys(label for rows in studies.values() for label in rows)
    labels = [label for label in labels if not label.startswith("SB")]
    for title, key in {"change of LB": "change", "gap left": "gap"}.items():
        cells = [f"{name} (gap {shown(s['LB']['gap'])})" for name, s in studies.items()]
        times = key == "change"
        print(f"| {title} | {' | '.join(cells)} |" + " time / LB |" * times)
        print("|---|" + "---|" * (len(cells) + times))
        for label in labels:
            found = [rows[label] for rows in studies.values() if label in rows]
            cells = [shown(rows.get(label, {}).get(key)) for rows in studies.values()]
            line = f"| {label} | {' | '.join(cells)} |"
            print(line + f" {time_range([row['time'] for row in found])} |" * times)
        print()


def time_range(times):
    """Return the smallest and the largest of some ratios of times, as text."""
    low, high = f"{min(times):.1f}", f"{max(times):.1f}"
    return low if low == high else f"{low}\u2013{high}"


def print_details(rows):
    """Print all measurements on one data set."""
    print(
        "| | test accuracy | change of LB | gap to SB | gap, both with it "
        "| train loss | sharpness 1e-3 | updates |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        estimates = [shown(row.get(name)) for name in ("change", "gap", "gap of both")]
        numbers = [
            f"{row['train_loss']:.1e}",
            f"{row['sharpness_0.001']:.3g}",
            f"{row['n_updates']:,.0f}",
        ]
        print(
            f"| {row['regime']} | {100 * row['test_accuracy']:.2f} | "
            + " | ".join([*estimates, *numbers])
            + " |"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", choices=["mnist1d", "mnist", "cifar10"], default="mnist1d"
    )
    parser.add_argument(
        "--quick", action="store_true", help="use few samples and epochs"
    )
    parser.add_argument(
        "--trials", type=int, help="paired trials (5, and 2 with --quick)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="parallel fits (1)")
    parser.add_argument("--memory", help="folder of finished fits")
    parser.add_argument("--output", help="file to write the record to, as JSON")
    parser.add_argument(
        "--table", nargs="+", help="print the tables of these records and train nothing"
    )
    arguments = parser.parse_args()
    if arguments.table:
        print_table(
            [
                json.loads(Path(name).read_text(encoding="utf-8"))
                for name in arguments.table
            ]
        )
        return
    X, y, X_test, y_test, estimator, augmentation, settings = data_of(arguments.data)
    if arguments.quick:
        X, y, X_test, y_test = X[:600], y[:600], X_test[:600], y_test[:600]
        settings = {"small": 32, "large": 150, "epochs": {"SB": 2, "LB": 4}, "full": 5}
    estimator.set_params(n_threads=1)
    regimes = regimes_of(**settings, augmentation=augmentation)
    # In a trial, all regimes start from the same weights.
    comparison = compare_regimes(
        estimator,
        X,
        y,
        X_test,
        y_test,
        regimes=regimes,
        reference="SB",
        n_trials=arguments.trials or (2 if arguments.quick else 5),
        epsilon=[1e-3],
        max_samples=1000,
        random_state=0,
        n_jobs=arguments.jobs,
        memory=arguments.memory,
    )
    record = {
        "data": arguments.data,
        "command": f"python examples/study_remedies.py {' '.join(sys.argv[1:])}",
        "versions": {
            "sklgap": sklgap.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "remedies": rows_of(comparison, seconds_per_update(estimator, regimes, X, y)),
        **json.loads(comparison.to_json()),
    }
    if arguments.output:
        Path(arguments.output).write_text(
            json.dumps(record, indent=1) + "\n", encoding="utf-8"
        )
    print_details(record["remedies"])
    print()
    print_table([record])


if __name__ == "__main__":
    main()
