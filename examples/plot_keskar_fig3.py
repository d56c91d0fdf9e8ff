"""
The loss between a small-batch and a large-batch solution
=========================================================

Is the large-batch solution in a narrower valley than the small-batch one?

Figure 3 of Keskar et al. (2017) shows loss and accuracy on training and test data along
the line alpha x_LB + (1 - alpha) x_SB between a small-batch solution x_SB and a
large-batch solution x_LB, for 25 values of alpha on [-1, 2]. The second panel follows
the curve sin(alpha pi / 2) x_LB + cos(alpha pi / 2) x_SB. Where the loss rises faster
around alpha = 1 than around alpha = 0, the large-batch solution is the sharper one.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes MNIST.
"""

# %%
# The data, and the epochs of each regime.
import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier
from sklgap.inspection import ParametricPlotDisplay, loss_along_arc, loss_along_line

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
model = LBGapClassifier("F1", module__width=64, tol=None, random_state=0)
epochs, n_samples = {"SB": 15, "LB": 60}, 10_000
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    samples={"type": int, "default": 10_000, "help": "of each data set (10000)"},
    memory={"help": "folder that saves finished fits"},
)
n_samples = arguments.samples
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    model = LBGapClassifier("F1", tol=None, random_state=0, verbose=1)
    epochs, title = {"SB": 25, "LB": 60}, f"F1 on MNIST, {n_samples:,} samples"
model.set_params(memory=arguments.memory)
# sphinx_gallery_end_ignore

# %%
# Both regimes start from the same weights, and have fitted the training data after so
# many epochs.
small, large = (
    clone(model).set_params(batch_regime=regime, max_epochs=n).fit(X, y)
    for regime, n in epochs.items()
)

# %%
# Both paths. Batch norm uses batch statistics at every point, as in the paper's code:
# the running averages of one solution mean nothing at another.
curves = {}
for path, along in (("line", loss_along_line), ("arc", loss_along_arc)):
    sample = {"max_samples": n_samples, "random_state": 0}
    train = along(small, large, X, y, **sample)
    test = along(small, large, X_test, y_test, **sample)
    curves[path] = (train, test)
    print(f"training data: {train}")
    print(f"test data: {test}")

# %%
# Loss on the left axis, accuracy on the right one; solid lines are training data and
# dashed lines are test data. The vertical lines are SB (alpha = 0) and LB (alpha = 1).
figure, axes = plt.subplots(1, 2, figsize=(11.5, 4.8), layout="constrained")
for ax, (path, (train, test)) in zip(axes, curves.items(), strict=True):
    ParametricPlotDisplay(train, test).plot(ax)
    ax.set_title(path)
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, curves=curves, title=title)
# sphinx_gallery_end_ignore
plt.show()
