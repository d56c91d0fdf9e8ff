"""
A net that fits random labels
=============================

Can the net that generalises also learn its training data by heart, and is the minimum it finds then a sharp one?

Zhang et al. (2017): nets that do well on test data fit labels drawn at random just as perfectly, only later, so that
what keeps them from doing so with true labels is not their capacity. The same F1, small batch and learning rate on true
labels, on labels half of which are random, and on labels that are all random; test labels are the true ones, so that
chance is 10 %. Then the sharpness (Keskar et al. 2017, Metric 2.1) of the three minima, on the labels each was trained
on: sharpness is a fact about the training loss, and the question is whether it says anything about the test error here.
Read it beside the loss, with which it falls. One training each: a look, not a test.

``--quick`` does it with the digits that ship with scikit-learn, in a minute: not the papers' setting.
"""

# %%
# The data. With random labels all of MNIST takes hours on a CPU, and a part of it minutes.
import argparse

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, TrainingRecorder, sharpness
from sklgap.datasets import fetch_mnist, randomize_labels
from sklgap.inspection import LearningCurvesDisplay, recorded

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the papers' setting")
parser.add_argument("--samples", type=int, default=10_000, help="training rows of MNIST (default: 10,000)")
parser.add_argument("--epochs", type=int, help="default: 60; 80 with --quick")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    X, y = X[:800], y[:800]
    epochs, setting = arguments.epochs or 80, {"module__width": 128, "batch_size": 40}
else:
    X, y = (part[: arguments.samples] for part in fetch_mnist(return_X_y=True, flat=True))
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    epochs, setting = arguments.epochs or 60, {}

# %%
# Three trainings from the same weights.
models, measured = {}, {}
for name, fraction in (("true labels", 0.0), ("half random", 0.5), ("random labels", 1.0)):
    y_train = randomize_labels(y, fraction, random_state=0)
    recorder = TrainingRecorder({"train": (X, y_train), "test": (X_test, y_test)})
    model = LBGapClassifier(
        "F1", max_epochs=epochs, tol=None, random_state=0, callbacks=[("recorder", recorder)], **setting
    )
    models[name] = model.fit(X, y_train)
    measured[name] = sharpness(model, X, y_train, max_samples=2000, random_state=0)
    last = {key: values[-1] for key, values in recorded(model).items()}
    print(
        f"{name}: {100 * last['train_accuracy']:.1f} % on its training labels (loss {last['train_loss']:.1e}), "
        f"{100 * last['test_accuracy']:.1f} % on test data; sharpness {measured[name].value:.3g} %, distance from the "
        f"start {last['weight_distance']:.1f}"
    )

# %%
# Training data solid, test data dashed. Random labels take longer, and end as well fitted; the test data know them not.
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained", width_ratios=[1.6, 1])
LearningCurvesDisplay.from_estimators(models, ax=left)
left.axhline(10, color="0.6", linewidth=0.9, linestyle=":")
left.set_ylim(0, 102)
left.legend(loc="center", bbox_to_anchor=(0.5, 0.3), ncols=3, frameon=False, fontsize="small")
left.set_title(f"F1 on {len(y):,} {'digits' if arguments.quick else 'images of MNIST'}")
names = list(measured)
for i, name in enumerate(names):
    right.plot(i, measured[name].value, "o", color=f"C{i}", markersize=9)
right.set_xticks(range(len(names)), names)
right.set(yscale="log", xlim=(-0.5, 2.5), ylabel="sharpness (%), epsilon 1e-3")
right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
right.yaxis.set_major_formatter("{x:g}")
right.minorticks_off()
right.grid(axis="y", alpha=0.3)
right.set_title("the minima found")
if arguments.quick:
    figure.supxlabel("scikit-learn's digits, 128 units a layer: not the papers' setting", fontsize="x-small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
