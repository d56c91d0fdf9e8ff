"""
Judged by which batch-norm statistics?
======================================

Does the large batch lose, or does it win? With batch norm the same weights can do both.

A network with batch norm is usually judged by running averages of the statistics of its batches. They lag behind
weights that still move, as those of ADAM do at a constant rate. Whether that matters differs from net to net. Here
every trained network is judged on test data in two ways: by its running averages as the training left them, and by
the statistics of the whole training set, which ``fit`` computes at its end.

C1 on CIFAR-10, or F1 on MNIST. ``--quick`` does it with the digits that ship with scikit-learn.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, TrainingRecorder, compare_regimes
from sklgap.datasets import fetch_cifar10, fetch_mnist
from sklgap.inspection import recorded

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits instead of images")
parser.add_argument("--net", choices=["F1", "C1"], default="C1", help="F1 on MNIST, or C1 on CIFAR-10 (C1)")
parser.add_argument("--samples", type=int, default=10_000, help="train on so many images (10000)")
parser.add_argument("--small", type=int, help="rows of a small batch; default: 64; 16 with --quick")
parser.add_argument("--large", type=int, help="rows of a large batch; default: 1000; 130 with --quick")
parser.add_argument("--epochs", type=int, nargs=2, help="of the small and of the large batch; default: 25 60")
parser.add_argument("--trials", type=int, default=3)
parser.add_argument("--jobs", type=int, default=1, help="fits at once (1)")
parser.add_argument("--memory", help="folder that keeps finished fits")
parser.add_argument("--output", type=Path, help="file to save the figure to; the numbers go beside it, as JSON")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    net, name, setting, sizes, epochs = "F1", "digits", {"module__width": 64}, (16, 130), (8, 20)
else:
    net, setting, sizes, epochs = arguments.net, {}, (64, 1000), (25, 60)
    name, fetch = ("MNIST", fetch_mnist) if net == "F1" else ("CIFAR-10", fetch_cifar10)
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    rows = np.random.RandomState(0).permutation(len(X))[: arguments.samples]
    X, y = X[rows], y[rows]
sizes = (arguments.small or sizes[0], arguments.large or sizes[1])
epochs = tuple(arguments.epochs or epochs)

# %%
# The recorder judges the network when its last epoch ends, by the running averages; the report by the statistics that
# ``fit`` computes after that (``batch_norm="running"`` takes the buffers, which are those by then).
recorder = TrainingRecorder({"test": (X_test, y_test)}, every=max(epochs), batch_norm="running")
report = compare_regimes(
    LBGapClassifier(net, tol=None, callbacks=[("recorder", recorder)], **setting),
    X,
    y,
    X_test,
    y_test,
    regimes={
        regime: {"batch_size": size, "max_epochs": n}
        for regime, size, n in zip(("SB", "LB"), sizes, epochs, strict=True)
    },
    n_trials=arguments.trials,
    epsilon=[],
    batch_norm="running",
    random_state=0,
    n_jobs=arguments.jobs,
    memory=arguments.memory,
)
records = [
    {
        **{key: record[key] for key in ("regime", "trial", "seed", "batch_size", "train_loss", "n_updates")},
        "running": float(recorded(report.estimators_[record["regime"]][record["trial"]])["test_accuracy"][-1]),
        "population": record["test_accuracy"],
    }
    for record in report.records
]

# %%
# Test accuracy in percent: a line per trial, from the small batch to the large one.
judged = {"running": "by running averages", "population": "by statistics of the training set"}
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(7, 3.6), layout="constrained")
for ax, (policy, words) in zip(axes, judged.items(), strict=True):
    pairs = 100 * np.array([[r[policy] for r in records if r["regime"] == regime] for regime in ("SB", "LB")])
    gaps = pairs[0] - pairs[1]
    spread = f" ± {gaps.std(ddof=1):.2f}" if len(gaps) > 1 else ""
    print(f"{words}: SB {pairs[0].mean():.2f} %, LB {pairs[1].mean():.2f} %, gap {gaps.mean():+.2f}{spread} points")
    ax.plot([0, 1], pairs, "o-", color="C0", alpha=0.6)
    ax.set_xticks([0, 1], [f"batch {size:,}" for size in sizes])
    ax.set_xlim(-0.3, 1.3)
    ax.set_title(f"{words}\nSB - LB: {gaps.mean():+.1f} points", fontsize="medium")
    ax.grid(axis="y", alpha=0.3)
axes[0].set_ylabel("test accuracy (%)")
stamp = f"{net} on {name}, {len(X):,} images, {arguments.trials} trials of {epochs[0]} and {epochs[1]} epochs"
figure.supxlabel(stamp, fontsize="x-small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
    content = {"settings": report.settings, "records": records}
    arguments.output.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
plt.show()
