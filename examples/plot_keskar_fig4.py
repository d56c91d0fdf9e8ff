"""
Test accuracy and sharpness against batch size
==============================================

How large may a batch be before accuracy drops? And do its minima get sharper as it
does?

In Figure 4 of Keskar et al. (2017) test accuracy falls and sharpness rises with the
batch size beyond a threshold (about 500 samples for C1 on CIFAR-10, and 15,000 for F2
on TIMIT). The paper trains each batch size in five paired trials of 100 epochs with
ADAM at its default learning rate. This example holds part of the training data out. It
chooses the largest batch size that costs less than a margin on these validation data,
and then confirms the choice by trials with other seeds on the test data.

At a constant learning rate the weights of small batches keep moving until the last
update, and so does their accuracy. ``--average`` averages these weights, and the trials
then scatter less.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes F1 on MNIST, or C1 or C2 on
CIFAR-10, and batch sizes from 256, doubled up to 20 % of the training data. That takes
hours: ``--samples 10000`` takes a part of the images, and with ``--memory`` the script
goes on from the last finished fit.
"""

# %%
# The data, and the sizes of the experiment. A margin needs a hold-out of at least
# 5 / margin samples.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, batch_size_curve, largest_safe_batch_size

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
model = LBGapClassifier("F1", module__width=32, max_epochs=10, tol=None)
batch_sizes, margin = None, 0.02  # None: doubled up to 20 % of the training data
options = {"validation_fraction": 0.25, "max_samples": 300, "n_trials": 4}
run = {"n_jobs": 1, "memory": None}  # fits at once, and a folder that saves them
title = "F1 with 32 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
import _options
import numpy as np

from sklgap import WeightAveraging
from sklgap.datasets import fetch_cifar10, fetch_mnist

arguments = _options.options(
    __doc__,
    net={
        "choices": ["F1", "C1", "C2"],
        "default": "F1",
        "help": "F1 on MNIST, C1 or C2 on CIFAR-10 (F1)",
    },
    samples={"type": int, "help": "training samples; default: all"},
    batch_sizes={
        "type": int,
        "nargs": "+",
        "help": "default: 256, doubled up to 20 %%",
    },
    epochs={"type": int, "help": "of each training (100; 10 with --quick)"},
    trials={"type": int, "help": "trainings of each size (5; 4 with --quick)"},
    rows={"type": int, "help": "samples for sharpness (5000; 300 with --quick)"},
    margin={"type": float, "help": "acceptable loss (0.005; 0.02 with --quick)"},
    average={"action": "store_true", "help": "average the weights of the last quarter"},
    jobs={"type": int, "default": 1, "help": "fits at once (1)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    fetch = fetch_mnist if arguments.net == "F1" else fetch_cifar10
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    model = LBGapClassifier(arguments.net, max_epochs=100, tol=None)
    margin = 0.005
    options = {"validation_fraction": 0.1, "max_samples": 5000, "n_trials": 5}
if arguments.samples is not None:
    chosen = np.random.RandomState(0).permutation(len(X))[: arguments.samples]
    X, y = X[chosen], y[chosen]
model.set_params(max_epochs=arguments.epochs or model.max_epochs)
if arguments.average:
    model.set_params(callbacks=[("average", WeightAveraging())])
options["n_trials"] = arguments.trials or options["n_trials"]
options["max_samples"] = arguments.rows or options["max_samples"]
batch_sizes, margin = arguments.batch_sizes, arguments.margin or margin
if not arguments.quick:
    name = "MNIST" if arguments.net == "F1" else "CIFAR-10"
    averaged = ", weights averaged" if arguments.average else ""
    title = (
        f"{arguments.net} on {name}: {len(X):,} samples, {options['n_trials']} trials "
        f"of {model.max_epochs} epochs{averaged}"
    )
run = {"n_jobs": arguments.jobs, "memory": arguments.memory}
# sphinx_gallery_end_ignore

# %%
# Trial i starts all batch sizes from the same weights. ``lr="sqrt"`` and
# ``budget="updates"`` would ask the question of Hoffer et al. (2017) instead: does the
# batch cost accuracy, or do the missing updates?
data = (X, y, X_test, y_test)
curve = batch_size_curve(
    model, *data, batch_sizes=batch_sizes, random_state=0, **options, **run
)
print(curve, end="\n\n")

# %%
# The choice is made on validation data. Trials with other seeds then show, once, what
# it costs on test data.
safe = largest_safe_batch_size(curve, margin=margin)
if int(safe) != curve.reference:
    sizes = [curve.reference, int(safe)]
    second = batch_size_curve(
        model, *data, batch_sizes=sizes, epsilon=[], random_state=1, **options, **run
    )
    safe = largest_safe_batch_size(curve, margin=margin, confirm=second)
print(safe)

# %%
# Accuracy on the left axis, sharpness on the right one, as in the paper.
figure, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
display = safe.plot(ax=ax)
figure.suptitle(title)
# sphinx_gallery_start_ignore
_options.save(figure, arguments, curve, curve=None, safe=display, title=title)
if arguments.output and not arguments.draw:
    safe.to_json(arguments.output.with_suffix(".safe.json"))
# sphinx_gallery_end_ignore
plt.show()
