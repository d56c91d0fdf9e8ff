"""
The loss around small-batch and large-batch solutions
=====================================================

How does the loss look in two dimensions: around each solution, and on the plane that
both share with their start?

The upper panels show the training loss in two random filter-normalised directions (Li
et al., 2018) around a small-batch (SB) and a large-batch (LB) solution, at equal
levels. The lower panels show the plane through the weights that both started from, at
(0, 0), SB at (1, 0) and LB at (0, 1). Random directions show averages of thousands of
dimensions. They can miss the sharp ones, which Metric 2.1 looks for
(``sklgap.inspection.sharpness``).

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes F1 on MNIST.
"""

# %%
# The data, and the epochs of each regime.
import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier
from sklgap.inspection import LossSurfaceDisplay, loss_on_plane

X, y = load_digits(return_X_y=True)
X = X / 16
model = LBGapClassifier("F1", module__width=64, tol=None, random_state=0)
epochs, n_samples = {"SB": 15, "LB": 60}, 2000
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
import _options

from sklgap.datasets import fetch_mnist

arguments = _options.options(
    __doc__,
    samples={"type": int, "default": 2000, "help": "samples to evaluate on (2000)"},
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
# One seed: both regimes start from the same weights. A learning rate of next to nothing
# leaves a third net there.
regimes = {name: {"batch_regime": name, "max_epochs": n} for name, n in epochs.items()}
regimes["start"] = {"batch_regime": "LB", "max_epochs": 1, "lr": 1e-12}
models = {
    name: clone(model).set_params(**parameters).fit(X, y)
    for name, parameters in regimes.items()
}

# %%
# Each surface takes 441 passes over the same samples.
options = {"max_samples": n_samples, "random_state": 0}
around = {name: loss_on_plane(models[name], X, y, **options) for name in ("SB", "LB")}
plane = loss_on_plane(
    models["start"], X, y, towards=(models["SB"], models["LB"]), **options
)
for name, surface in (around | {"plane": plane}).items():
    print(f"{name}: {surface}")
print(
    f"distance from the start: SB {plane.norms[0]:.1f}, LB {plane.norms[1]:.1f}; "
    f"cosine between the two directions: {plane.cosine:.2f}"
)

# %%
# Above: around SB and around LB. Below: the plane through the start, SB and LB.
figure = plt.figure(figsize=(11, 9.5), layout="constrained")
levels = [step * 10.0**exponent for exponent in range(-5, 2) for step in (1, 3)]
for i, (name, surface) in enumerate(around.items()):
    ax = figure.add_subplot(2, 2, i + 1)
    LossSurfaceDisplay(surface, names=[name]).plot(ax, levels=levels)
display = LossSurfaceDisplay(plane, names=["start", "SB", "LB"])
display.plot(figure.add_subplot(2, 2, 3))
display.plot(figure.add_subplot(2, 2, 4, projection="3d"), kind="surface")
figure.suptitle(title)
# sphinx_gallery_start_ignore
_options.save(figure, arguments, around=around, plane=plane, title=title)
# sphinx_gallery_end_ignore
plt.show()
