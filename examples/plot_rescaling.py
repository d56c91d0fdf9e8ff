"""
Sharpness of the same function with other weights
=================================================

Does a sharp minimum mean a bad model? Not by Metric 2.1 alone: rescaling the layers of a ReLU net changes it at will.

Multiplying the weights of a layer by a factor and dividing those of the next one by it leaves a ReLU net the same
function, with the same accuracy (Dinh et al., 2017). Metric 2.1 of Keskar et al. moves by orders of magnitude under it,
and a rescaled small-batch (SB) solution becomes sharper than a rescaled large-batch (LB) one. The adaptive sharpness,
whose box scales with the weights, stands still. It need not order solutions as Metric 2.1 does: read both beside the
losses, which are printed.

F1 on MNIST; ``--quick`` does it with the digits that ship with scikit-learn, in seconds: not the paper's setting.
"""

# %%
# The data, and the epochs of each regime.
import argparse
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, check_objective, sharpness
from sklgap.datasets import fetch_mnist
from sklgap.inspection import adaptive_sharpness, rescale_layers

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--samples", type=int, default=2000, help="rows to measure on (default: 2,000)")
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

models = joblib.load(arguments.cache) if arguments.cache and arguments.cache.exists() else {}
for name, n_epochs in epochs.items():
    if name not in models:
        model = LBGapClassifier(
            "F1", batch_regime=name, max_epochs=n_epochs, tol=None, random_state=0, verbose=1, **setting
        )
        models[name] = model.fit(X, y)
if arguments.cache:
    joblib.dump(models, arguments.cache)

# %%
# Powers of two do not round: the rescaled nets return the same numbers, bit for bit.
factors = [1 / 16, 1 / 4, 1, 4, 16]
found = {name: {"Metric 2.1": [], "adaptive": []} for name in epochs}
for name in epochs:
    for factor in factors:
        objective = check_objective(
            rescale_layers(models[name], factor), X, y, max_samples=arguments.samples, random_state=0
        )
        one, other = sharpness(objective, random_state=0), adaptive_sharpness(objective, random_state=0)
        found[name]["Metric 2.1"].append(one.value)
        found[name]["adaptive"].append(other.value)
        print(
            f"{name}, factor {factor:g}: loss {one.f0:.6e}, Metric 2.1 {one.value:.4g} %, "
            f"adaptive sharpness {other.value:.4g} %"
        )

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
for ax, metric in zip(axes, ("Metric 2.1", "adaptive"), strict=True):
    for name, values in found.items():
        ax.plot(factors, values[metric], "o-", label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("factor of the rescaling (the function is the same)")
axes[0].set_title("Metric 2.1")
axes[1].set_title("adaptive sharpness")
axes[0].set_ylabel("sharpness at epsilon = 1e-3 (%)")
axes[0].legend()
if arguments.quick:
    figure.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
