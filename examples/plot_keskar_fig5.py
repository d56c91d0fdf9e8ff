"""
Large batches after small ones
==============================

How many small-batch epochs does it take to leave the region of sharp minima?

Figure 5 of Keskar et al. (2017): a small-batch training (SB) keeps its weights after every k-th epoch, and from each of
them a large-batch training (LB) starts, with nothing but the weights. Left: test accuracy of SB, and of the LB that
starts from it; 0 epochs is LB from scratch. Right: how sharp those LB solutions are. In the paper a few epochs do
not help; after some more the accuracy of LB rises and its sharpness drops. The paper makes 100 epochs of either; this
script does F1 on MNIST with fewer small-batch epochs, on the first 10,000 images unless ``--full`` is given.

``--quick`` does it with the digits that ship with scikit-learn, in under a minute: not the paper's setting, and not its
result.
"""

# %%
# The data, and the sizes of the experiment.
import argparse

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, warm_start_curve
from sklgap.datasets import fetch_mnist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--full", action="store_true", help="all 60,000 training images")
parser.add_argument("--small-epochs", type=int, help="default: 40; 8 with --quick")
parser.add_argument("--every", type=int, help="default: 4; 2 with --quick")
parser.add_argument("--trials", type=int, help="starting points; default: 5; 3 with --quick")
parser.add_argument("--jobs", type=int, default=1, help="trainings at once (default: 1)")
parser.add_argument("--json", help="file to save the figures to")
parser.add_argument("--output", help="file to save the plot to")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    setting, epochs, small_epochs, every, trials = {"module__width": 64}, 20, 8, 2, 3
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    if not arguments.full:
        X, y = X[:10_000], y[:10_000]
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    setting, epochs, small_epochs, every, trials = {}, 100, 40, 4, 5

# %%
# One small-batch training for each trial, and a large-batch training from each of its weights.
curve = warm_start_curve(
    LBGapClassifier("F1", max_epochs=epochs, tol=None, **setting),
    X,
    y,
    X_test,
    y_test,
    max_small_epochs=arguments.small_epochs or small_epochs,
    every=arguments.every or every,
    n_trials=arguments.trials or trials,
    max_samples=500 if arguments.quick else 2000,
    random_state=0,
    n_jobs=arguments.jobs,
)
if arguments.quick:
    print("scikit-learn's digits, 64 units a layer: not the paper's setting")
print(curve)
if arguments.json:
    curve.to_json(arguments.json)

# %%
# Dots are trials, lines their means.
display = curve.plot()
display.figure_.suptitle("F1 on digits" if arguments.quick else f"F1 on MNIST, {len(X):,} images")
if arguments.quick:
    display.figure_.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
plt.show()
