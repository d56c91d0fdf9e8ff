"""
Large batches after small ones
==============================

How many small-batch epochs does it take to leave the region of sharp minima?

Figure 5 of Keskar et al. (2017): a small-batch training (SB) saves its weights after every k-th epoch, and from each of
them a large-batch training (LB) starts, with nothing but the weights. Left: test accuracy of SB, and of the LB that
starts from it; 0 epochs is LB from scratch. Right: how sharp those LB solutions are. In the paper a few epochs do
not help; after some more the accuracy of LB rises and its sharpness drops. The paper makes 100 epochs of either, and
starts from every one; here F1 on MNIST, or C1 or C2 on CIFAR-10, from every fourth of 40 small-batch epochs.

At full size it takes hours: ``--samples 10000`` takes a part of the images, and with ``--memory`` it goes on from the
last finished fit. ``--quick`` does it with the digits that ship with scikit-learn, in under a minute: not the paper's
setting, and not its result.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, warm_start_curve
from sklgap.datasets import fetch_cifar10, fetch_mnist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--net", choices=["F1", "C1", "C2"], default="F1", help="F1 on MNIST, C1 or C2 on CIFAR-10 (F1)")
parser.add_argument("--samples", type=int, help="train on so many images only; default: all")
parser.add_argument("--small", type=int, help="images in a small batch; default: 256, less below 10,240 images")
parser.add_argument("--small-epochs", type=int, help="default: 40; 8 with --quick")
parser.add_argument("--every", type=int, help="default: 4; 2 with --quick")
parser.add_argument("--epochs", type=int, help="of the large batch; default: 100; 10 with --quick")
parser.add_argument("--trials", type=int, help="starting points; default: 5; 3 with --quick")
parser.add_argument("--rows", type=int, help="images that sharpness is measured on; default: 2000; 300 with --quick")
parser.add_argument("--jobs", type=int, default=1, help="trainings at once (1)")
parser.add_argument("--memory", help="folder of saved fits")
parser.add_argument("--output", type=Path, help="file to save the figure to; the numbers go beside it, as JSON")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    name, setting, epochs, small_epochs, every, trials = "digits", {"module__width": 64}, 10, 8, 2, 3
else:
    name, fetch = ("MNIST", fetch_mnist) if arguments.net == "F1" else ("CIFAR-10", fetch_cifar10)
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    setting, epochs, small_epochs, every, trials = {}, 100, 40, 4, 5
n_images, epochs, trials = len(X), arguments.epochs or epochs, arguments.trials or trials
if arguments.samples is not None:
    rows = np.random.RandomState(0).permutation(n_images)[: arguments.samples]
    X, y = X[rows], y[rows]

# %%
# One small-batch training for each trial, and a large-batch training from each of its weights.
curve = warm_start_curve(
    LBGapClassifier(arguments.net, max_epochs=epochs, tol=None, **setting),
    X,
    y,
    X_test,
    y_test,
    small=arguments.small or "SB",
    max_small_epochs=arguments.small_epochs or small_epochs,
    every=arguments.every or every,
    n_trials=trials,
    max_samples=arguments.rows or (300 if arguments.quick else 2000),
    random_state=0,
    n_jobs=arguments.jobs,
    memory=arguments.memory,
)
print(curve)

# %%
# Dots are trials, lines their means. A gain and a cost have intervals for new seeds and new test images.
display = curve.plot()
display.figure_.suptitle(f"{arguments.net} on {name}, {len(X):,} images, {trials} trials", fontsize="medium")
stamp = ""
if arguments.quick:
    stamp = "scikit-learn's digits, 64 units a layer: not the paper's setting"
elif len(X) < n_images or epochs < 100:
    stamp = f"{len(X):,} of {n_images:,} images, {epochs} epochs of the large batch: not the paper's setting"
if stamp:
    print(f"\n{stamp}")
    display.figure_.supxlabel(stamp, fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
    curve.to_json(arguments.output.with_suffix(".json"))
plt.show()
