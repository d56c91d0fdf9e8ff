"""
The Hessian spectra of a small-batch and a large-batch solution
===============================================================

Is the large-batch solution the one with the larger curvatures?

Keskar et al. (2017) describe sharp minima by many large eigenvalues of the Hessian. The
figure shows the density of all eigenvalues on a logarithmic scale, as Ghorbani et al.
(2019) estimate it, at a small-batch (SB) and a large-batch (LB) solution of F1. Marks
show the ten largest eigenvalues. The script prints the training loss, the trace, and
the Ritz values in a random subspace beside them.

Read the losses first. The curvature of the cross-entropy falls with the loss itself. On
MNIST the LB solution has fitted its training data much more closely (training loss 7e-5
against 9e-3). Its largest eigenvalue is the smaller one, 0.08 against 0.60. Its Metric
2.1, the rise of the loss within a box, is 503 % against 14 %. How much the loss bends
at a point and how far it rises around that point are different questions.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting.
"""

# %%
# The data, and the epochs of each regime.
import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, check_objective, sharpness
from sklgap.inspection import SpectrumDisplay, hessian_trace, ritz_values

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
# Both regimes start from the same weights.
objectives = {}
for name, n_epochs in epochs.items():
    trained = clone(model).set_params(batch_regime=name, max_epochs=n_epochs).fit(X, y)
    objectives[name] = check_objective(
        trained, X, y, max_samples=n_samples, random_state=0
    )

# %%
# Two start vectors are enough: in so many dimensions the bulk looks the same from each.
display = SpectrumDisplay.from_estimators(
    objectives, k=10, n_vectors=2, n_steps=80, random_state=0
)
plt.close(display.figure_)  # drawn below
losses = {}
for name, objective in objectives.items():
    losses[name] = float(objective.value())
    print(f"\n{name}: {sharpness(objective, random_state=0)}")
    print(f"    {display.eigenvalues[name]}")
    print(f"    {hessian_trace(objective, random_state=0)}")
    ritz = ritz_values(objective, subspace_dim=20, random_state=0).values
    print(
        f"    Ritz values in 20 random dimensions: {ritz.min():.2g} to {ritz.max():.2g}"
    )

# %%
# The density of all eigenvalues, with the ten largest ones as marks.
figure, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
display.plot(ax)
for name, loss in losses.items():
    display.lines_[name].set_label(f"{name} (training loss {loss:.1e})")
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, display=display, losses=losses, title=title)
# sphinx_gallery_end_ignore
plt.show()
