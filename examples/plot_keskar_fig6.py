"""
Sharpness along training
========================

At which loss do small and large batches part: does the large batch start out sharp, or become so?

Figure 6 of Keskar et al. (2017): sharpness (Metric 2.1) against the training loss while SB and LB are trained, F1 on
MNIST. Both are alike while the loss is large; from a loss of about 0.1 on the large batch's sharpness grows and the
small batch's falls.

``--quick`` does it with the digits that ship with scikit-learn, in seconds: not the paper's setting, and not its
result.
"""

# %%
# The data, and the sizes of the experiment. LB gets more epochs, to reach losses as small as SB's.
import argparse

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, sharpness_trajectory
from sklgap.datasets import fetch_mnist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--epsilon", type=float, default=1e-3, help="size of the box (the paper: 1e-3 and 5e-4)")
parser.add_argument("--trials", type=int, default=1, help="starting points (default: 1)")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    X, y = load_digits(return_X_y=True)
    X, epochs, setting = X / 16, {"SB": 12, "LB": 30}, {"module__width": 64}
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    epochs, setting = {"SB": 12, "LB": 30}, {}

# %%
# Loss and sharpness are measured on the same 1,000 training images, with batch statistics, at logarithmically spaced
# updates and at every fifth epoch. Compare sharpness at equal losses only, as the table does.
found = sharpness_trajectory(
    LBGapClassifier("F1", tol=None, **setting),
    X,
    y,
    regimes={regime: {"batch_regime": regime, "max_epochs": epochs[regime]} for regime in ("SB", "LB")},
    n_trials=arguments.trials,
    epsilon=arguments.epsilon,
    random_state=0,
)
if arguments.quick:
    print("scikit-learn's digits, 64 units a layer: not the paper's setting")
print(found)

# %%
# Training goes from right to left. With several trials: thin lines, and their means.
display = found.plot()
display.ax_.set_title(f"F1 on {'digits' if arguments.quick else 'MNIST'}, epsilon = {arguments.epsilon:g}")
if arguments.quick:
    display.figure_.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
plt.show()
