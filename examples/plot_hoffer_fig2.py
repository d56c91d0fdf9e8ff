"""
Ultra-slow diffusion of the weights
===================================

How fast do the weights leave their starting point? Does the batch size change the pace,
or only the number of steps?

Figure 2 of Hoffer et al. (2017) shows the distance from the initial weights against the
logarithm of the number of updates, for several batch sizes at one constant learning
rate. A straight line is "ultra-slow diffusion", ||w_t - w_0|| = a + b log t. After
equal numbers of updates the smaller batch is farther away, as in the paper. The script
prints for each line whether log t or a small power of t describes it better: for F1 on
MNIST it is about the fourth root.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes MNIST and batch sizes of 64
to 6,000.
"""

# %%
# The data, and the epochs of each batch size: some hundred updates of the largest
# batch, and some thousand of the smallest. All batches are full: under batch norm, a
# last batch of a few samples would throw the weights.
import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.inspection import WeightDistanceDisplay, fit_diffusion, recorded

X, y = load_digits(return_X_y=True)
X, y = X[:1792] / 16, y[:1792]
epochs, setting = {16: 10, 64: 20, 256: 40, 896: 80}, {"module__width": 64}
lr, momentum, first = 0.1, 0.0, 10
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    lr={"type": float, "default": 0.1, "help": "learning rate (0.1)"},
    momentum={"type": float, "default": 0.0, "help": "momentum of SGD (0)"},
    first={"type": int, "default": 10, "help": "first update of the fit (10)"},
    memory={"help": "folder that saves finished fits"},
)
lr, momentum, first = arguments.lr, arguments.momentum, arguments.first
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    epochs, setting = {64: 3, 256: 6, 1024: 12, 6000: 30}, {"verbose": 1}
    title = "F1 on MNIST"
setting["memory"] = arguments.memory
# sphinx_gallery_end_ignore

# %%
# Plain SGD at one learning rate for every batch size, so that only the batch size
# differs. All start from the same weights. The recorder writes at 1, 2, 3, 4, 6, 8, 11,
# 16, ... updates. (The paper trains with momentum 0.9, whose start bends the first tens
# of updates.)
models = {}
for batch_size, n_epochs in epochs.items():
    model = LBGapClassifier(
        "F1",
        batch_size=batch_size,
        max_epochs=n_epochs,
        tol=None,
        optimizer=torch.optim.SGD,
        lr=lr,
        optimizer__momentum=momentum,
        random_state=0,
        callbacks=[("recorder", TrainingRecorder(every=None, at_updates="log"))],
        **setting,
    )
    models[f"batch size {batch_size:,}"] = model.fit(X, y)

# %%
# Each line with its fit, from the tenth update on. One run of each batch size gives no
# interval for its slope: `fit_diffusion` takes the distances of several seeds, and then
# reports how the slope varies over them.
curves, fits = {}, {}
for name, model in models.items():
    columns = recorded(model)
    curves[name] = (columns["n_updates"], columns["weight_distance"])
    fits[name] = fit_diffusion(*curves[name], window=(first, math.inf))
    print(f"{name}: {fits[name]}")

# %%
# Distance against updates, on a logarithmic scale of updates.
figure, ax = plt.subplots(figsize=(7, 4.6), layout="constrained")
WeightDistanceDisplay(curves, fits).plot(ax)
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, curves=curves, fits=fits, title=title)
# sphinx_gallery_end_ignore
plt.show()
