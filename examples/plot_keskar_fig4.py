"""
Test accuracy and sharpness against batch size
==============================================

How large may a batch be before accuracy drops, and do its minima get sharper as it does?

Figure 4 of Keskar et al. (2017): test accuracy falls and sharpness rises with the batch size, past a threshold (about
500 rows for C1 on CIFAR-10, 15,000 for F2 on TIMIT). Here F1 on MNIST, or C1 or C2 on CIFAR-10: batches from 256 rows,
doubled up to 20 % of the data, five paired trials of 100 epochs with ADAM at its default rate, as in the paper. Part of
the training data is held out: the largest batch that costs less than half a point is chosen on it, and then confirmed
by trials with other seeds on the test data.

At a constant rate the weights of small batches move to the end, and their accuracy with them: ``--average`` averages
them, and the trials scatter less. At full size it takes hours: ``--samples 10000`` takes a part of the images, and with
``--memory`` it goes on from the last finished fit. ``--quick`` does it with the digits that ship with scikit-learn: not
the paper's setting.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, WeightAveraging, batch_size_curve, largest_safe_batch_size
from sklgap.datasets import fetch_cifar10, fetch_mnist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--net", choices=["F1", "C1", "C2"], default="F1", help="F1 on MNIST, C1 or C2 on CIFAR-10 (F1)")
parser.add_argument("--samples", type=int, help="train on so many images only; default: all")
parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: 256, doubled up to 20 %% of the rows")
parser.add_argument("--epochs", type=int, help="default: 100; 10 with --quick")
parser.add_argument("--trials", type=int, help="default: 5; 4 with --quick")
parser.add_argument("--rows", type=int, help="rows that sharpness is measured on; default: 5000; 300 with --quick")
parser.add_argument("--margin", type=float, help="accuracy that a batch may cost; default: 0.005; 0.02 with --quick")
parser.add_argument("--average", action="store_true", help="average the weights of the last quarter of the epochs")
parser.add_argument("--jobs", type=int, default=1, help="fits at once (1)")
parser.add_argument("--memory", help="folder of saved work")
parser.add_argument("--output", type=Path, help="file to save the figure to; curve and answer go beside it, as JSON")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    name, epochs, n_trials, setting = "digits", 10, 4, {"module__width": 32}
else:
    name, fetch = ("MNIST", fetch_mnist) if arguments.net == "F1" else ("CIFAR-10", fetch_cifar10)
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    epochs, n_trials, setting = 100, 5, {}
n_images, epochs, n_trials = len(X), arguments.epochs or epochs, arguments.trials or n_trials
if arguments.samples is not None:
    rows = np.random.RandomState(0).permutation(len(X))[: arguments.samples]
    X, y = X[rows], y[rows]

# %%
# Trial i starts all sizes from the same weights. ``lr="sqrt"`` and ``budget="updates"`` would ask the question of
# Hoffer et al. (2017) instead: is it the batch, or the missing updates?
if arguments.average:
    setting["callbacks"] = [("average", WeightAveraging())]
estimator = LBGapClassifier(arguments.net, max_epochs=epochs, tol=None, **setting)
rows = arguments.rows or (300 if arguments.quick else 5000)
held_out = 0.25 if arguments.quick else 0.1  # a margin needs a hold-out of 5 / margin samples
options = {"validation_fraction": held_out, "max_samples": rows, "n_trials": n_trials}
options |= {"n_jobs": arguments.jobs, "memory": arguments.memory}
curve = batch_size_curve(estimator, X, y, X_test, y_test, batch_sizes=arguments.batch_sizes, random_state=0, **options)
print(curve, end="\n\n")

# %%
# The choice is made on validation data. What it costs on test data is looked at with other seeds, once.
margin = arguments.margin or (0.02 if arguments.quick else 0.005)
safe = largest_safe_batch_size(curve, margin=margin)
if int(safe) != curve.reference:
    sizes = [curve.reference, int(safe)]
    second = batch_size_curve(estimator, X, y, X_test, y_test, batch_sizes=sizes, epsilon=[], random_state=1, **options)
    safe = largest_safe_batch_size(curve, margin=margin, confirm=second)
print(safe)

# %%
# Accuracy on the left, sharpness on the right, as in the paper.
display = curve.plot(safe=safe)
title = f"{arguments.net} on {name}, {len(X):,} images, {n_trials} trials of {epochs} epochs"
title += ", weights averaged" if arguments.average else ""
display.figure_.suptitle(title, fontsize="medium")
stamp = ""
if arguments.quick:
    stamp = "scikit-learn's digits, 32 units a layer: not the paper's setting"
elif len(X) < n_images or epochs < 100:
    stamp = f"{len(X):,} of {n_images:,} images, {epochs} epochs: not the paper's setting"
if stamp:
    print(f"\n{stamp}")
    display.figure_.supxlabel(stamp, fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
    curve.to_json(arguments.output.with_suffix(".json"))
    safe.to_json(arguments.output.with_suffix(".safe.json"))
plt.show()
