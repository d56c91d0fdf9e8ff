"""
Augmentation and conservative training
======================================

Do data augmentation and conservative training close the gap, or do they help both regimes alike?

Tables 6 and 7 of Keskar et al. (2017): test accuracy and sharpness of small (SB) and large batches (LB) when both
train on augmented images, and of LB with the proximal steps of conservative training. In the paper augmentation lifts
LB near SB with augmentation, conservative training brings LB nearer to plain SB, and the minima of LB stay sharp.
Conservative training takes three steps on every batch: the last column makes them without the penalty, so that what
the steps give can be told from what the penalty gives.

Here C1 on CIFAR-10, in hours on a GPU; or F1 on MNIST, whose digits are neither flipped nor moved by more than a tenth.
``--quick`` does it with the digits that ship with scikit-learn: not the paper's setting. All remedies with their
controls are in ``study_remedies.py``.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import Augmentation, LBGapClassifier, compare_regimes
from sklgap.datasets import fetch_cifar10, fetch_mnist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--net", choices=["F1", "C1", "C2"], default="C1", help="F1 on MNIST, C1 or C2 on CIFAR-10 (C1)")
parser.add_argument("--samples", type=int, help="train on so many images only; default: all")
parser.add_argument("--epochs", type=int, help="default: 100; 12 with --quick")
parser.add_argument("--trials", type=int, help="default: 5; 2 with --quick")
parser.add_argument("--jobs", type=int, default=1, help="fits at once (1)")
parser.add_argument("--memory", help="folder that keeps finished fits")
parser.add_argument("--output", type=Path, help="file to save the figure to; the numbers go beside it, as JSON")
arguments = parser.parse_args()

# The paper's: flips, rotations up to 10 degrees, translations up to a fifth of the side.
augmentation = Augmentation()
if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    net, setting, epochs, n_trials = "F1", {"input_shape": (1, 8, 8), "module__width": 64}, 12, 2
else:
    net, fetch = arguments.net, fetch_mnist if arguments.net == "F1" else fetch_cifar10
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    setting, epochs, n_trials = {}, 100, 5
if net == "F1":
    augmentation = Augmentation(flip=False, degrees=10, translate=0.1)
n_images, epochs, n_trials = len(X), arguments.epochs or epochs, arguments.trials or n_trials
if arguments.samples is not None:
    rows = np.random.RandomState(0).permutation(n_images)[: arguments.samples]
    X, y = X[rows], y[rows]

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
    LBGapClassifier(net, max_epochs=epochs, tol=None, **setting),
    X,
    y,
    X_test,
    y_test,
    regimes=regimes,
    n_trials=n_trials,
    max_samples=300 if arguments.quick else 10_000,
    random_state=0,
    n_jobs=arguments.jobs,
    memory=arguments.memory,
)
print(report)
augmented = report.by_trial("SB augmented", "test_accuracy") - report.by_trial("LB augmented", "test_accuracy")
print(f"\nregime gap with both augmented: {100 * augmented.mean():+.2f} points")

# %%
# Every trial: accuracy on the left, sharpness on the right.
display = report.plot()
stamp = ""
if arguments.quick:
    stamp = "scikit-learn's digits, 64 units a layer: not the paper's setting"
elif len(X) < n_images or epochs < 100:
    stamp = f"{len(X):,} of {n_images:,} images, {epochs} epochs: not the paper's setting"
if stamp:
    print(f"\n{stamp}")
    display.figure_.supxlabel(stamp, fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
    report.to_json(arguments.output.with_suffix(".json"))
plt.show()
