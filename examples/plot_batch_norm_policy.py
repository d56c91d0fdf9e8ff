"""
Judged by which batch-norm statistics?
======================================

Does the size of the gap depend on how the networks are judged?

A network with batch norm is usually judged by running averages of the statistics of its
batches. These averages lag behind weights that still move, as they do under ADAM at a
constant learning rate. How much that matters differs from net to net.

This example judges every trained network on test data in two ways: by its running
averages as the training left them, and by the statistics of the whole training set,
which ``fit`` computes at its end. Each line of the figure is one trial, from the small
batch (SB) to the large batch (LB).

The page runs the example with ``--quick``, on the digits that ship with scikit-learn.
Without it the script takes C1 on CIFAR-10, or F1 on MNIST with ``--net F1``.
"""

# %%
# The data, the two batch sizes, and the epochs of each.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, TrainingRecorder, compare_regimes
from sklgap.inspection import recorded

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
model = LBGapClassifier("F1", module__width=64)
sizes, epochs, n_trials = (16, 130), (8, 20), 3
title = "F1 with 64 units on scikit-learn's digits"
run = {"n_jobs": 1, "memory": None}  # fits at once, and a folder that saves them

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_cifar10, fetch_mnist

arguments = options(
    __doc__,
    net={"choices": ["F1", "C1"], "default": "C1", "help": "F1 on MNIST, or C1 (C1)"},
    samples={"type": int, "default": 10_000, "help": "training samples (10000)"},
    small={"type": int, "help": "small batch size (64; 16 with --quick)"},
    large={"type": int, "help": "large batch size (1000; 130 with --quick)"},
    epochs={
        "type": int,
        "nargs": 2,
        "help": "of the small and the large batch (25 60)",
    },
    trials={"type": int, "default": 3, "help": "trainings of each batch size (3)"},
    jobs={"type": int, "default": 1, "help": "fits at once (1)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    fetch = fetch_mnist if arguments.net == "F1" else fetch_cifar10
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    chosen = np.random.RandomState(0).permutation(len(X))[: arguments.samples]
    X, y = X[chosen], y[chosen]
    model, sizes, epochs = LBGapClassifier(arguments.net), (64, 1000), (25, 60)
    name = "MNIST" if arguments.net == "F1" else "CIFAR-10"
    title = f"{arguments.net} on {name}, {len(X):,} training samples"
sizes = (arguments.small or sizes[0], arguments.large or sizes[1])
epochs, n_trials = tuple(arguments.epochs or epochs), arguments.trials
run = {"n_jobs": arguments.jobs, "memory": arguments.memory}
# sphinx_gallery_end_ignore

# %%
# A recorder judges the network when its last epoch ends, by the running averages. The
# report judges it after ``fit`` has computed the statistics of the training set:
# ``batch_norm="running"`` takes the saved statistics, which are those by then.
recorder = TrainingRecorder(
    {"test": (X_test, y_test)}, every=max(epochs), batch_norm="running"
)
report = compare_regimes(
    model.set_params(tol=None, callbacks=[("recorder", recorder)]),
    X,
    y,
    X_test,
    y_test,
    regimes={
        "SB": {"batch_size": sizes[0], "max_epochs": epochs[0]},
        "LB": {"batch_size": sizes[1], "max_epochs": epochs[1]},
    },
    n_trials=n_trials,
    epsilon=[],
    batch_norm="running",
    random_state=0,
    **run,
)
trained = [report.estimators_[r["regime"]][r["trial"]] for r in report.records]
records = [
    {
        "regime": record["regime"],
        "running": float(recorded(one)["test_accuracy"][-1]),
        "population": record["test_accuracy"],
    }
    for record, one in zip(report.records, trained, strict=True)
]

# %%
# Test accuracy in percent, and the mean gap of the trials with its standard deviation.
judged = {"running": "running averages", "population": "statistics of the training set"}
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(7.5, 4), layout="constrained")
for ax, (policy, words) in zip(axes, judged.items(), strict=True):
    small, large = (
        100 * np.array([r[policy] for r in records if r["regime"] == regime])
        for regime in ("SB", "LB")
    )
    gaps = small - large
    spread = f" ± {gaps.std(ddof=1):.2f}" if len(gaps) > 1 else ""
    print(
        f"by {words}: SB {small.mean():.2f} %, LB {large.mean():.2f} %, "
        f"gap {gaps.mean():+.2f}{spread} points"
    )
    ax.plot([0, 1], [small, large], color="0.7", zorder=1)
    ax.plot(np.zeros(len(small)), small, "o", color="#1b6ca8")
    ax.plot(np.ones(len(large)), large, "s", color="#b3261e")
    ax.set_xticks([0, 1], [f"SB, batch {sizes[0]:,}", f"LB, batch {sizes[1]:,}"])
    ax.set_xlim(-0.4, 1.4)
    ax.set_title(
        f"by {words}\ngap {gaps.mean():+.1f}{spread} points", fontsize="medium"
    )
    ax.grid(axis="y", alpha=0.3)
axes[0].set_ylabel("test accuracy (%)")
figure.suptitle(title)
# sphinx_gallery_start_ignore
record = {"records": records, "sizes": sizes, "report": None}
save(figure, arguments, report, title=title, **record)
# sphinx_gallery_end_ignore
plt.show()
