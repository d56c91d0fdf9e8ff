"""
Augmentation and conservative training
======================================

Do data augmentation and conservative training close the gap, or do they help both
regimes alike?

Tables 6 and 7 of Keskar et al. (2017) show test accuracy and sharpness of small batches
(SB) and large batches (LB) when both train on augmented images, and of LB with the
proximal steps of conservative training. In the paper augmentation lifts LB near SB with
augmentation, conservative training brings LB nearer to plain SB, and the minima of LB
stay sharp. Conservative training takes three steps on every batch. The last column
makes these steps without the penalty, so that the effect of the steps can be separated
from the effect of the penalty.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes C1 on CIFAR-10, in hours on
a GPU, or F1 on MNIST, whose digits are neither flipped nor moved by more than a tenth.
The script ``study_remedies.py`` compares all remedies with their controls.
"""

# %%
# The data, and the augmentation. The paper flips images, rotates them by up to 10
# degrees and moves them by up to a fifth of their side.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import Augmentation, LBGapClassifier, compare_regimes

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
net = {"input_shape": (1, 8, 8), "module__width": 64}
model = LBGapClassifier("F1", max_epochs=12, tol=None, **net)
augmentation = Augmentation(flip=False, degrees=10, translate=0.1)
n_trials, max_samples = 2, 300
run = {"n_jobs": 1, "memory": None}  # fits at once, and a folder that saves them
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
import numpy as np
from _options import options, save

from sklgap.datasets import fetch_cifar10, fetch_mnist

arguments = options(
    __doc__,
    net={
        "choices": ["F1", "C1", "C2"],
        "default": "C1",
        "help": "F1 on MNIST, C1 or C2 on CIFAR-10 (C1)",
    },
    samples={"type": int, "help": "training samples; default: all"},
    epochs={"type": int, "help": "of each training (100; 12 with --quick)"},
    trials={"type": int, "help": "trainings of each column (5; 2 with --quick)"},
    jobs={"type": int, "default": 1, "help": "fits at once (1)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    fetch = fetch_mnist if arguments.net == "F1" else fetch_cifar10
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    model = LBGapClassifier(arguments.net, max_epochs=100, tol=None)
    n_trials, max_samples = 5, 10_000
    if arguments.net != "F1":
        augmentation = Augmentation()
if arguments.samples is not None:
    chosen = np.random.RandomState(0).permutation(len(X))[: arguments.samples]
    X, y = X[chosen], y[chosen]
model.set_params(max_epochs=arguments.epochs or model.max_epochs)
n_trials = arguments.trials or n_trials
if not arguments.quick:
    name = "MNIST" if arguments.net == "F1" else "CIFAR-10"
    title = f"{arguments.net} on {name}: {len(X):,} samples, {model.max_epochs} epochs"
run = {"n_jobs": arguments.jobs, "memory": arguments.memory}
# sphinx_gallery_end_ignore

# %%
# Trial i starts all of them from the same weights.
regimes = {
    "SB": {"batch_regime": "SB"},
    "LB": {"batch_regime": "LB"},
    "SB augmented": {"batch_regime": "SB", "augmentation": augmentation},
    "LB augmented": {"batch_regime": "LB", "augmentation": augmentation},
    "LB conservative": {"batch_regime": "LB", "proximal_lambda": 1e-3},
    "LB three steps": {"batch_regime": "LB", "proximal_lambda": 0.0},
}
report = compare_regimes(
    model,
    X,
    y,
    X_test,
    y_test,
    regimes=regimes,
    n_trials=n_trials,
    max_samples=max_samples,
    random_state=0,
    **run,
)
print(report)
small, large = (
    report.by_trial(f"{regime} augmented", "test_accuracy") for regime in ("SB", "LB")
)
gap = 100 * (small - large).mean()
print(f"\nregime gap with both augmented: {gap:+.2f} points")

# %%
# Every trial: accuracy on the left, sharpness on the right.
display = report.plot()
display.figure_.suptitle(title)
# sphinx_gallery_start_ignore
save(display.figure_, arguments, report, report=display, title=title)
# sphinx_gallery_end_ignore
plt.show()
