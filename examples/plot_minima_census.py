"""
A census of minima
==================

How sharp are the minima that small and large batches find? Does the initialisation
matter, and do sharper minima test worse?

Keskar et al. (2017, Section 5) ask which initialisations suit large batches, and how
dense sharp minima are. This example trains F1 from many seeds with two initialisations
and two batch sizes (SB: 256 samples, LB: 10 % of the training data) to one training
loss, and measures every minimum that it finds. Sharpness follows the training loss, so
only minima of about equal loss can be compared. The census counts only what training
finds.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes 10,000 samples of MNIST, or
all 60,000 with ``--full``.
"""

# %%
# The data, and the sizes of the experiment.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, minima_census

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
model = LBGapClassifier("F1", max_epochs=100, module__width=64)
n_trials, target_loss, max_samples = 3, 5e-2, 300
run = {"n_jobs": 1, "memory": None}  # fits at once, and a folder that saves them
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    full={"action": "store_true", "help": "all 60,000 training samples"},
    trials={"type": int, "help": "minima of each group (20; 3 with --quick)"},
    target_loss={"type": float, "help": "training loss (1e-2; 5e-2 with --quick)"},
    jobs={"type": int, "default": 1, "help": "fits at once (1)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    if not arguments.full:
        X, y = X[:10_000], y[:10_000]
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    model = LBGapClassifier("F1", max_epochs=100)
    n_trials, target_loss, max_samples = 20, 1e-2, 2000
    title = f"F1 on MNIST, {len(X):,} training samples"
n_trials = arguments.trials or n_trials
target_loss = arguments.target_loss or target_loss
run = {"n_jobs": arguments.jobs, "memory": arguments.memory}
# sphinx_gallery_end_ignore

# %%
# Two regimes times two initialisations times the trials, which are seeds.
census = minima_census(
    model,
    X,
    y,
    X_test,
    y_test,
    n_trials=n_trials,
    target_loss=target_loss,
    max_samples=max_samples,
    random_state=0,
    **run,
)
print(census)

# %%
# A point is a minimum. Read the groups one by one: between them the training loss may
# differ too.
figure, ax = plt.subplots(figsize=(7, 4.8), layout="constrained")
display = census.plot(ax=ax)
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, census, census=display, title=title)
# sphinx_gallery_end_ignore
plt.show()
