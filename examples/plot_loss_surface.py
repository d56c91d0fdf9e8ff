"""
The loss around small-batch and large-batch solutions
=====================================================

How does the loss look in two dimensions: around each solution, and on the plane that both share with their start?

Above, the training loss in two random filter-normalised directions (Li et al., 2018) around a small-batch (SB) and a
large-batch (LB) solution of F1 on MNIST, at equal levels. Below, the plane through the weights that both started from
(0, 0), SB (1, 0) and LB (0, 1). Random directions show averages of thousands of dimensions: they can miss the sharp
ones, which Metric 2.1 looks for (``sklgap.inspection.sharpness``).

``--quick`` does it with the digits that ship with scikit-learn, in seconds: not the paper's setting.
"""

# %%
# The data, and the epochs of each regime.
import argparse
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier
from sklgap.datasets import fetch_mnist
from sklgap.inspection import LossSurfaceDisplay, loss_on_plane

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--samples", type=int, default=2000, help="rows to evaluate on (default: 2,000)")
parser.add_argument("--cache", type=Path, help="file of your own that keeps the trained models between runs")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    X, y = load_digits(return_X_y=True)
    X = X / 16
    epochs, setting = {"SB": 15, "LB": 60}, {"module__width": 64}
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    epochs, setting = {"SB": 25, "LB": 60}, {}

# %%
# One seed: both regimes start from the same weights. A learning rate of next to nothing leaves a third net there.
regimes = {name: {"batch_regime": name, "max_epochs": n} for name, n in epochs.items()}
regimes["start"] = {"batch_regime": "LB", "max_epochs": 1, "lr": 1e-12}
models = joblib.load(arguments.cache) if arguments.cache and arguments.cache.exists() else {}
for name, parameters in regimes.items():
    if name not in models:
        models[name] = LBGapClassifier("F1", tol=None, random_state=0, verbose=1, **parameters, **setting).fit(X, y)
if arguments.cache:
    joblib.dump(models, arguments.cache)

# %%
# Each surface is 441 passes over the rows; the three are drawn from the same rows.
options = {"max_samples": arguments.samples, "random_state": 0, "verbose": 1}
around = {name: loss_on_plane(models[name], X, y, **options) for name in ("SB", "LB")}
plane = loss_on_plane(models["start"], X, y, towards=(models["SB"], models["LB"]), **options)
for name, surface in (around | {"plane": plane}).items():
    print(f"{name}: {surface}")
print(
    f"distance from the start: SB {plane.norms[0]:.1f}, LB {plane.norms[1]:.1f}; "
    f"cosine between the two ways: {plane.cosine:.2f}"
)

# %%
figure = plt.figure(figsize=(11, 9.5), layout="constrained")
for i, (name, surface) in enumerate(around.items()):
    ax = figure.add_subplot(2, 2, i + 1)
    levels = [step * 10.0**exponent for exponent in range(-5, 2) for step in (1, 3)]
    LossSurfaceDisplay(surface, names=[name]).plot(ax, levels=levels)
display = LossSurfaceDisplay(plane, names=["start", "SB", "LB"])
display.plot(figure.add_subplot(2, 2, 3))
display.plot(figure.add_subplot(2, 2, 4, projection="3d"), kind="surface")
if arguments.quick:
    figure.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
