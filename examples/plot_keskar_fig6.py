"""
Sharpness along training
========================

At which loss do small and large batches part? Does the large batch start out sharp, or
does it become so?

Figure 6 of Keskar et al. (2017) shows sharpness (Metric 2.1) against the training loss
while a small batch (SB) and a large batch (LB) are trained. Both are alike while the
loss is large. From a loss of about 0.1 on, the sharpness of the large batch grows and
that of the small batch falls.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is neither the paper's setting nor its result. Without it the script takes F1 on
MNIST.
"""

# %%
# The data, and the epochs of each regime. LB gets more of them, to reach losses as
# small as those of SB.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, sharpness_trajectory

X, y = load_digits(return_X_y=True)
X = X / 16
model = LBGapClassifier("F1", module__width=64, tol=None)
epsilon, n_trials, run = 1e-3, 1, {"memory": None}
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    epsilon={"type": float, "default": 1e-3, "help": "of Metric 2.1 (1e-3; also 5e-4)"},
    trials={"type": int, "default": 1, "help": "starting points (1)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    model, title = LBGapClassifier("F1", tol=None), "F1 on MNIST"
epsilon, n_trials = arguments.epsilon, arguments.trials
run = {"memory": arguments.memory}
# sphinx_gallery_end_ignore

# %%
# Loss and sharpness are measured on the same 1,000 training samples, with batch
# statistics, at logarithmically spaced updates and at every fifth epoch. Compare
# sharpness at equal losses only, as the table does.
found = sharpness_trajectory(
    model,
    X,
    y,
    regimes={
        "SB": {"batch_regime": "SB", "max_epochs": 12},
        "LB": {"batch_regime": "LB", "max_epochs": 30},
    },
    n_trials=n_trials,
    epsilon=epsilon,
    random_state=0,
    **run,
)
print(found)

# %%
# Training goes from right to left. With several trials, thin lines are the trials and
# thick lines are their means.
figure, ax = plt.subplots(figsize=(7, 4.6), layout="constrained")
display = found.plot(ax=ax)
figure.suptitle(f"{title}, epsilon = {epsilon:g}")
# sphinx_gallery_start_ignore
save(figure, arguments, found, found=display, epsilon=epsilon, title=title)
# sphinx_gallery_end_ignore
plt.show()
