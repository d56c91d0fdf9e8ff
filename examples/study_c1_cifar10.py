"""
Small and large batches of C1 on images of CIFAR-10
===================================================

Does the large batch lose accuracy, and does it find a sharper minimum? Does the answer
depend on the statistics of batch norm?

The script trains C1 of Keskar et al. (2017) on 10,000 images in five paired trials.
Small batches (SB) have 64 samples and train for 25 epochs. Large batches (LB) have
1,000 samples and train for 60 epochs. There are two tables of test accuracy: one with
the statistics of the test batch and one with those of the training data. The first
table also shows Metric 2.1 in the full space and in 100 dimensions. Both tables show
distances from the initial weights.

``fit`` ends by recomputing the statistics of batch norm. To see the running averages
that a training leaves behind, the script continues each training without that: SB for
one epoch and LB for four. Then it judges the same weights by two policies.

The fits take some six hours on one core. With ``--memory``, a stopped run continues
after its last finished fit. ``--weights`` saves the weights of every trial, so that a
later version can measure them again: ``--measure-again`` trains nothing and measures
sharpness and the line with the saved weights. ``--draw`` draws the line of a record.
``--quick`` uses the digits of scikit-learn, which are not the paper's setting.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
import copy
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from _options import save_figure
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sklgap
from sklgap import (
    LBGapClassifier,
    check_objective,
    compare_regimes,
    loss_along_line,
    sharpness,
)
from sklgap.datasets import fetch_cifar10
from sklgap.inspection import LossCurve, ParametricPlotDisplay

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument(
    "--quick", action="store_true", help="use digits, which are not the paper's setting"
)
parser.add_argument("--trials", type=int, default=5, help="paired trials (5)")
parser.add_argument(
    "--sharpness-samples",
    type=int,
    default=1000,
    help="samples to measure sharpness on, 0 for none (1000)",
)
parser.add_argument("--memory", help="folder of saved work")
parser.add_argument(
    "--weights", type=Path, help="folder to save the weights of every trial to"
)
parser.add_argument(
    "--measure-again", action="store_true", help="measure the weights in --weights"
)
parser.add_argument(
    "--jobs", type=int, default=1, help="nets that --measure-again measures at once (1)"
)
parser.add_argument("--output", type=Path, help="file to write the result to, as JSON")
parser.add_argument(
    "--draw",
    type=Path,
    help="draw the line of this record (JSON) beside it, and train nothing",
)
arguments = parser.parse_args()

if arguments.draw:
    saved = json.loads(arguments.draw.read_text(encoding="utf-8"))
    saved = saved.get("measured_again", saved)
    curves = [
        LossCurve(
            *(np.array(saved[part][name]) for name in ("alphas", "loss", "accuracy")),
            batch_norm="batch",
            n_samples=saved[part]["n_samples"],
        )
        for part in ("line_train", "line_test")
    ]
    display = ParametricPlotDisplay(*curves).plot()
    display.figure_.set_size_inches(7, 4.5)
    display.figure_.suptitle("From the small-batch to the large-batch solution")
    save_figure(display.figure_, arguments.draw.with_suffix(".png"))
    raise SystemExit

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(
        (digits / 16).astype(np.float32), labels, test_size=0.3, random_state=0
    )
    regimes = {
        "SB": {"batch_size": 32, "max_epochs": 2},
        "LB": {"batch_size": 250, "max_epochs": 4},
    }
    estimator = LBGapClassifier("F1", module__width=32, tol=None)
else:
    X, y = fetch_cifar10(return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[:10_000]
    X, y = X[rows], y[rows]
    X_test, y_test = fetch_cifar10(subset="test", return_X_y=True)
    regimes = {
        "SB": {"batch_size": 64, "max_epochs": 25},
        "LB": {"batch_size": 1000, "max_epochs": 60},
    }
    estimator = LBGapClassifier("C1", tol=None)


def record(found):
    """Write the result with its command and versions."""
    versions = {"sklgap": sklgap.__version__, "torch": torch.__version__}
    command = f"python examples/study_c1_cifar10.py {' '.join(sys.argv[1:])}"
    if arguments.output:
        content = {"command": command, "versions": versions, **found}
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")


def line(small, large):
    """Return loss and accuracy on the line from one solution to the other."""
    options = {
        "max_samples": min(arguments.sharpness_samples, len(X_test)),
        "random_state": 0,
    }
    found = {}
    for part, data in {"train": (X, y), "test": (X_test, y_test)}.items():
        curve = loss_along_line(small, large, *data, **options)
        found[f"line_{part}"] = {
            name: getattr(curve, name).tolist()
            for name in ("alphas", "loss", "accuracy")
        }
        found[f"line_{part}"]["n_samples"] = curve.n_samples
    return found


# %%
# The saved weights, measured again.
if arguments.measure_again:
    empty = clone(estimator).set_params(max_epochs=1, random_state=0)
    empty.fit(X[:2000], y[:2000])  # every class, so that the net has all outputs
    nets = {}
    for path in sorted(arguments.weights.glob("*.pt")):
        net = copy.deepcopy(empty.module_)
        net.load_state_dict(torch.load(path, weights_only=True))
        nets[path.stem] = net, torch.nn.CrossEntropyLoss()

    def measured(name):
        """Return the sharpness of one net, for both epsilons and both spaces."""
        label, trial = name.split("_")
        rows = []
        for dim in (None, 100):
            for one in sharpness(
                nets[name],
                X,
                y,
                epsilon=(1e-3, 5e-4),
                subspace_dim=dim,
                max_samples=arguments.sharpness_samples,
                random_state=int(trial),
            ):
                print(name, one, flush=True)
                row = {
                    "regime": label,
                    "trial": int(trial),
                    "epsilon": one.epsilon,
                    "subspace_dim": dim,
                    "sharpness": one.value,
                    "f0": one.f0,
                    "n_evaluations": one.n_evaluations,
                }
                rows.append(row)
        return rows

    found = Parallel(n_jobs=arguments.jobs)(delayed(measured)(name) for name in nets)
    rows = list(itertools.chain.from_iterable(found))
    record({"sharpness": rows, **line(nets["SB_0"], nets["LB_0"])})
    raise SystemExit

# %%
# Each batch-norm policy gives a table. With ``--memory``, the first policy trains the
# fits, and the other one loads them.
found = {}
for policy in ("batch", "population"):
    measured = arguments.sharpness_samples and policy == "batch"
    report = compare_regimes(
        estimator,
        X,
        y,
        X_test,
        y_test,
        regimes=regimes,
        n_trials=arguments.trials,
        epsilon=(1e-3, 5e-4) if measured else [],
        subspace_dims=(None, 100) if measured else (None,),
        max_samples=arguments.sharpness_samples or None,
        batch_norm=policy,
        random_state=0,
        memory=arguments.memory,
    )
    print(report, end="\n\n")
    found[policy] = json.loads(report.to_json())
    if arguments.weights:
        arguments.weights.mkdir(parents=True, exist_ok=True)
        for label in report.labels:
            for trial, model in enumerate(report.estimators_[label]):
                torch.save(
                    model.module_.state_dict(),
                    arguments.weights / f"{label}_{trial}.pt",
                )

# %%
# The loss on the line from the SB solution to the LB solution of the first trial.
if arguments.sharpness_samples:
    found |= line(*(report.estimators_[label][0] for label in ("SB", "LB")))

# %%
# The running averages at the end of a training, which continues without recomputing.
found["continued"] = []
for label, more in {"SB": 1, "LB": 4}.items():
    for trial, model in enumerate(report.estimators_[label]):
        model.set_params(warm_start=True, recompute_batch_norm=False, max_epochs=more)
        model.set_params(memory=None).fit(X, y)
        row = {"regime": label, "trial": trial, "n_updates": model.n_updates_}
        for policy in ("batch", "running"):
            judged = check_objective(model, X_test, y_test, batch_norm=policy)
            row[f"test_accuracy_{policy}"] = judged.evaluate().accuracy
        print(row)
        found["continued"].append(row)
record(found)
