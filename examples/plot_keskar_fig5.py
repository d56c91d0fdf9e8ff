"""
Large batches after small ones
==============================

How many small-batch epochs does it take to leave the region of sharp minima?

In Figure 5 of Keskar et al. (2017) a small-batch training (SB) saves its weights after
every k-th epoch. From each of these weights a large-batch training (LB) starts, with
nothing else. The left panel shows the test accuracy of SB, and of the LB that starts
from it; 0 epochs is LB from scratch. The right panel shows how sharp those LB solutions
are. In the paper a few epochs do not help; after some more, the accuracy of LB rises
and its sharpness drops.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is neither the paper's setting nor its result. The paper makes 100 epochs of either
regime and starts from every one. Without ``--quick`` the script takes F1 on MNIST, or
C1 or C2 on CIFAR-10, and starts from every fourth of 40 small-batch epochs. That takes
hours: ``--samples 10000`` takes a part of the images, and with ``--memory`` the script
goes on from the last finished fit.
"""

# %%
# The data, and the sizes of the experiment.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, warm_start_curve

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
model = LBGapClassifier("F1", module__width=64, max_epochs=10, tol=None)
small_epochs = {"small": "SB", "max_small_epochs": 8, "every": 2}
options = {"n_trials": 3, "max_samples": 300}
run = {"n_jobs": 1, "memory": None}  # fits at once, and a folder that saves them
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
import _options
import numpy as np

from sklgap.datasets import fetch_cifar10, fetch_mnist

arguments = _options.options(
    __doc__,
    net={
        "choices": ["F1", "C1", "C2"],
        "default": "F1",
        "help": "F1 on MNIST, C1 or C2 on CIFAR-10 (F1)",
    },
    samples={"type": int, "help": "training samples; default: all"},
    small={"type": int, "help": "small batch size (256; less below 10,240 samples)"},
    small_epochs={"type": int, "help": "of the small batch (40; 8 with --quick)"},
    every={"type": int, "help": "epochs between two starts (4; 2 with --quick)"},
    epochs={"type": int, "help": "of the large batch (100; 10 with --quick)"},
    trials={"type": int, "help": "starting points (5; 3 with --quick)"},
    rows={"type": int, "help": "samples for sharpness (2000; 300 with --quick)"},
    jobs={"type": int, "default": 1, "help": "fits at once (1)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    fetch = fetch_mnist if arguments.net == "F1" else fetch_cifar10
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    model = LBGapClassifier(arguments.net, max_epochs=100, tol=None)
    small_epochs |= {"max_small_epochs": 40, "every": 4}
    options = {"n_trials": 5, "max_samples": 2000}
if arguments.samples is not None:
    chosen = np.random.RandomState(0).permutation(len(X))[: arguments.samples]
    X, y = X[chosen], y[chosen]
model.set_params(max_epochs=arguments.epochs or model.max_epochs)
small_epochs = {
    "small": arguments.small or "SB",
    "max_small_epochs": arguments.small_epochs or small_epochs["max_small_epochs"],
    "every": arguments.every or small_epochs["every"],
}
options["n_trials"] = arguments.trials or options["n_trials"]
options["max_samples"] = arguments.rows or options["max_samples"]
if not arguments.quick:
    name = "MNIST" if arguments.net == "F1" else "CIFAR-10"
    title = (
        f"{arguments.net} on {name}: {len(X):,} samples, {options['n_trials']} trials, "
        f"{model.max_epochs} epochs of LB"
    )
run = {"n_jobs": arguments.jobs, "memory": arguments.memory}
# sphinx_gallery_end_ignore

# %%
# One small-batch training for each trial, and a large-batch training from each of its
# saved weights.
curve = warm_start_curve(
    model, X, y, X_test, y_test, random_state=0, **small_epochs, **options, **run
)
print(curve)

# %%
# Dots are trials, and lines are their means. The printed gain and cost have intervals
# for new seeds and new test samples.
figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained")
display = curve.plot(axes=axes)
figure.suptitle(title)
# sphinx_gallery_start_ignore
_options.save(figure, arguments, curve, curve=display, title=title)
# sphinx_gallery_end_ignore
plt.show()
