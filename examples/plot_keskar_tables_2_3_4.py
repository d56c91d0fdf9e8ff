"""
Accuracy and sharpness of small and large batches
=================================================

Does a large batch end at a sharper minimum, and does it cost accuracy?

Tables 2, 3 and 4 of Keskar et al. (2017): training and test accuracy, sharpness in the full space and in random
subspaces of 100 dimensions, at two box sizes, small batches of 256 rows (SB) against 10 % of the data (LB), five paired
trials. Here F1 on MNIST, or C1 on CIFAR-10 with ``--net C1``.

At full size it takes an hour or more on a CPU for F1, and a GPU for C1; with ``--memory`` it goes on from the last
finished fit. ``--quick`` does it with the digits that ship with scikit-learn: not the paper's setting.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, compare_regimes
from sklgap.datasets import fetch_cifar10, fetch_mnist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--net", choices=["F1", "C1"], default="F1")
parser.add_argument("--trials", type=int, help="default: 5; 2 with --quick")
parser.add_argument("--jobs", type=int, default=1, help="fits at once (1)")
parser.add_argument("--memory", help="folder that keeps finished fits")
parser.add_argument("--output", type=Path, help="file to save the figure to; the numbers go beside it, as JSON")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    estimator = LBGapClassifier("F1", module__width=64, max_epochs=60)
elif arguments.net == "F1":
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    estimator = LBGapClassifier("F1")
else:
    X, y = fetch_cifar10(return_X_y=True)
    X_test, y_test = fetch_cifar10(subset="test", return_X_y=True)
    estimator = LBGapClassifier("C1")

# %%
# Trial i starts both from the same weights, and measures both in the same random subspace. The stopping rule is the
# paper's: until the loss ceases to improve.
report = compare_regimes(
    estimator,
    X,
    y,
    X_test,
    y_test,
    n_trials=arguments.trials or (2 if arguments.quick else 5),
    subspace_dims=(None, 100),
    max_samples=300 if arguments.quick else 10_000,
    random_state=0,
    n_jobs=arguments.jobs,
    memory=arguments.memory,
)
print(report)

# %%
# Every trial: accuracy on the left, sharpness on the right.
display = report.plot()
if arguments.quick:
    stamp = "scikit-learn's digits, 64 units a layer: not the paper's setting"
    print(f"\n{stamp}")
    display.figure_.supxlabel(stamp, fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
    report.to_json(arguments.output.with_suffix(".json"))
plt.show()
