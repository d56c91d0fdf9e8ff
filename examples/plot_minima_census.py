"""
A census of minima
==================

How sharp are the minima that small and large batches find, does the initialisation matter, and do sharper ones test
worse?

Keskar et al. (2017, Section 5) ask which initialisations suit large batches, and how dense sharp minima are. This
script trains F1 from many seeds with two initialisations and two batch sizes (SB: 256 images, LB: 10 % of the data) to
one training loss, and measures every minimum found. Sharpness follows the training loss, so that only minima of about
equal loss can be compared. What training does not find it does not count.

``--quick`` does it with the digits that ship with scikit-learn, in under a minute: not the paper's setting.
"""

# %%
# The data, and the sizes of the experiment.
import argparse

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, minima_census
from sklgap.datasets import fetch_mnist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--full", action="store_true", help="all 60,000 training images")
parser.add_argument("--trials", type=int, help="minima for each regime and initialisation; default: 20; 3 with --quick")
parser.add_argument("--target-loss", type=float, help="training loss to stop at; default: 1e-2; 5e-2 with --quick")
parser.add_argument("--jobs", type=int, default=1, help="trainings at once (default: 1)")
parser.add_argument("--json", help="file to save the figures to")
parser.add_argument("--output", help="file to save the plot to")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    setting, trials, target_loss = {"module__width": 64}, 3, 5e-2
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    if not arguments.full:
        X, y = X[:10_000], y[:10_000]
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    setting, trials, target_loss = {}, 20, 1e-2

# %%
# Two regimes times two initialisations times the trials, which are seeds.
census = minima_census(
    LBGapClassifier("F1", max_epochs=100, **setting),
    X,
    y,
    X_test,
    y_test,
    n_trials=arguments.trials or trials,
    target_loss=arguments.target_loss or target_loss,
    max_samples=300 if arguments.quick else 2000,
    random_state=0,
    n_jobs=arguments.jobs,
)
if arguments.quick:
    print("scikit-learn's digits, 64 units a layer: not the paper's setting")
print(census)
if arguments.json:
    census.to_json(arguments.json)

# %%
# A dot is a minimum. Read the clouds one by one: between them the training loss may differ too.
display = census.plot()
display.ax_.set_title("F1 on digits" if arguments.quick else f"F1 on MNIST, {len(X):,} images")
if arguments.quick:
    display.figure_.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
plt.show()
