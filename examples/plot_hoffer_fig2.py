"""
Ultra-slow diffusion of the weights
===================================

How fast do the weights leave their starting point, and does the batch size change the pace or only the number of steps?

Figure 2 of Hoffer et al. (2017): the distance from the initial weights against the logarithm of the number of updates,
for batches of 64 to 6,000 rows at one constant learning rate, F1 on MNIST. A straight line is "ultra-slow diffusion",
||w_t - w_0|| = a + b log t. At equal numbers of updates the smaller batch is the farther away, as in the paper. Whether
log t or a small power of t describes a line better is printed for each: on F1 and MNIST it is about the fourth root.

``--quick`` does it with the digits that ship with scikit-learn, in seconds: not the paper's setting.
"""

# %%
# The data, and the epochs of each batch size: some hundred updates of the largest, some thousand of the smallest.
import argparse
import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.datasets import fetch_mnist
from sklgap.inspection import WeightDistanceDisplay

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--lr", type=float, default=0.1, help="learning rate (default: 0.1)")
parser.add_argument("--momentum", type=float, default=0.0, help="momentum of SGD (default: 0)")
parser.add_argument("--first", type=int, default=10, help="first update of the fit (default: 10)")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    X, y = load_digits(return_X_y=True)
    X, y = X[:1792] / 16, y[:1792]  # whole batches only: one of a few rows, under batch norm, would throw the weights
    epochs, setting = {16: 10, 64: 20, 256: 40, 896: 80}, {"module__width": 64}
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    epochs, setting = {64: 3, 256: 6, 1024: 12, 6000: 30}, {}

# %%
# Plain SGD at a constant rate, the same for every batch size: nothing is scaled, so that only the batch size differs.
# (The paper trains with momentum 0.9, whose start-up bends the first tens of updates: see ``--momentum``.) All start
# from the same weights. The recorder writes at 1, 2, 3, 4, 6, 8, 11, 16, ... updates.
models = {}
for batch_size, n_epochs in epochs.items():
    model = LBGapClassifier(
        "F1",
        batch_size=batch_size,
        max_epochs=n_epochs,
        tol=None,
        optimizer=torch.optim.SGD,
        lr=arguments.lr,
        optimizer__momentum=arguments.momentum,
        random_state=0,
        verbose=1,
        callbacks=[("recorder", TrainingRecorder(every=None, at_updates="log"))],
        **setting,
    )
    models[f"{batch_size:,}"] = model.fit(X, y)

# %%
# Each line with its fit, from the tenth update on. One run of each batch size has no interval of its slope:
# `fit_diffusion` takes the distances of several seeds, and then says how the slope varies over them.
display = WeightDistanceDisplay.from_estimators(models, window=(arguments.first, math.inf))
for batch_size, fit in display.fits.items():
    print(f"batch size {batch_size}: {fit}")
display.ax_.get_legend().set_title("batch size")
display.ax_.set_title("F1 on digits" if arguments.quick else "F1 on MNIST")
if arguments.quick:
    display.figure_.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
plt.show()
