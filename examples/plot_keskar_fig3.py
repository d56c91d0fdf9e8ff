"""
The loss between a small-batch and a large-batch solution
=========================================================

Is the large-batch solution in a narrower valley than the small-batch one?

Figure 3 of Keskar et al. (2017): loss and accuracy on training and test data at alpha x_LB + (1 - alpha) x_SB for 25
alphas on [-1, 2], F1 on MNIST, and the same along the curve sin(alpha pi / 2) x_LB + cos(alpha pi / 2) x_SB. Where the
loss rises faster around alpha = 1 than around alpha = 0, the large-batch solution is the sharper one.

``--quick`` does it with the digits that ship with scikit-learn, in seconds: not the paper's setting.
"""

# %%
# The data, and the epochs of each regime.
import argparse
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier
from sklgap.datasets import fetch_mnist
from sklgap.inspection import ParametricPlotDisplay

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--samples", type=int, default=10_000, help="rows of each set to evaluate on (default: 10,000)")
parser.add_argument("--cache", type=Path, help="file of your own that keeps the trained models between runs")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
    epochs, setting = {"SB": 15, "LB": 60}, {"module__width": 64}
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    epochs, setting = {"SB": 25, "LB": 60}, {}

# %%
# Both regimes start from the same weights, and have fitted the training data after so many epochs.
models = joblib.load(arguments.cache) if arguments.cache and arguments.cache.exists() else {}
for regime, n_epochs in epochs.items():
    if regime not in models:
        model = LBGapClassifier(
            "F1", batch_regime=regime, max_epochs=n_epochs, tol=None, random_state=0, verbose=1, **setting
        )
        models[regime] = model.fit(X, y)
if arguments.cache:
    joblib.dump(models, arguments.cache)

# %%
# Both paths. Batch norm uses batch statistics at every point, as in the paper's code: the buffers of one solution mean
# nothing at another.
figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
for ax, path in zip(axes, ("line", "arc"), strict=True):
    display = ParametricPlotDisplay.from_estimators(
        models["SB"],
        models["LB"],
        X,
        y,
        X_test,
        y_test,
        path=path,
        ax=ax,
        max_samples=arguments.samples,
        random_state=0,
        verbose=1,
    )
    print(f"training data: {display.train}")
    print(f"test data: {display.test}")
if arguments.quick:
    figure.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
