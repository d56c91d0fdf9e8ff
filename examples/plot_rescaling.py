"""
Sharpness of the same function with other weights
=================================================

Does a sharp minimum mean a bad model? Not by Metric 2.1 alone: rescaling the layers of
a ReLU net changes that metric at will.

Multiply the weights of one layer by a factor and divide those of the next layer by it,
and a ReLU net remains the same function, with the same accuracy (Dinh et al., 2017).
Metric 2.1 of Keskar et al. moves by orders of magnitude, and a rescaled small-batch
(SB) solution becomes sharper than a rescaled large-batch (LB) one. The adaptive
sharpness, whose box scales with the weights, does not move. It need not order solutions
as Metric 2.1 does: read both beside the losses, which the script prints.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes F1 on MNIST.
"""

# %%
# The data, and the epochs of each regime.
import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, check_objective, sharpness
from sklgap.inspection import adaptive_sharpness, rescale_layers

X, y = load_digits(return_X_y=True)
X = X / 16
model = LBGapClassifier("F1", module__width=64, tol=None, random_state=0)
epochs, n_samples = {"SB": 15, "LB": 60}, 2000
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    samples={"type": int, "default": 2000, "help": "samples to measure on (2000)"},
    memory={"help": "folder that saves finished fits"},
)
n_samples = arguments.samples
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    model = LBGapClassifier("F1", tol=None, random_state=0, verbose=1)
    epochs, title = {"SB": 25, "LB": 60}, f"F1 on MNIST, {n_samples:,} samples"
model.set_params(memory=arguments.memory)
# sphinx_gallery_end_ignore

# %%
# Powers of two do not round: the rescaled nets return the same numbers, bit for bit.
factors = [1 / 16, 1 / 4, 1, 4, 16]
found = {"Metric 2.1": {}, "adaptive sharpness": {}}
for name, n_epochs in epochs.items():
    trained = clone(model).set_params(batch_regime=name, max_epochs=n_epochs).fit(X, y)
    for values in found.values():
        values[name] = []
    for factor in factors:
        objective = check_objective(
            rescale_layers(trained, factor), X, y, max_samples=n_samples, random_state=0
        )
        metric = sharpness(objective, random_state=0)
        adaptive = adaptive_sharpness(objective, random_state=0)
        found["Metric 2.1"][name].append(metric.value)
        found["adaptive sharpness"][name].append(adaptive.value)
        print(
            f"{name}, factor {factor:g}: loss {metric.f0:.6e}, "
            f"Metric 2.1 {metric.value:.4g} %, "
            f"adaptive sharpness {adaptive.value:.4g} %"
        )

# %%
# Both metrics at epsilon = 1e-3, on the same logarithmic scale.
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), sharey=True, layout="constrained")
looks = {"SB": ("o-", "#1b6ca8"), "LB": ("s--", "#b3261e")}
for ax, (metric, values) in zip(axes, found.items(), strict=True):
    for name, (look, colour) in looks.items():
        ax.plot(factors, values[name], look, color=colour, label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("factor of the rescaling (the function is the same)")
    ax.set_title(metric)
    ax.grid(alpha=0.3)
axes[0].set_ylabel("sharpness (%)")
handles, labels = axes[0].get_legend_handles_labels()
figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, found=found, factors=factors, title=title)
# sphinx_gallery_end_ignore
plt.show()
