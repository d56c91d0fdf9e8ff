"""
A net that fits random labels
=============================

Can the net that generalises also learn its training data by heart? And is the minimum
that it then finds a sharp one?

Zhang et al. (2017) show that nets which do well on test data fit random labels just as
perfectly, only later. So their capacity does not keep them from doing so with true
labels. This example trains the same F1, with the same batch size and learning rate, on
true labels, on labels half of which are random, and on labels that are all random. Test
labels are always the true ones, so chance is 10 %.

The right panel shows the sharpness (Keskar et al. 2017, Metric 2.1) of the three
minima, each measured on the labels that its net was trained on. Sharpness is a fact
about the training loss; the question is whether it says anything about the test error
here. Read it beside the loss, with which it falls. There is one training of each: a
look, not a test.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the papers' setting. Without it the script takes a part of MNIST. All of
MNIST with random labels takes hours on a CPU.
"""

# %%
# The data, and the number of epochs.
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, TrainingRecorder, sharpness
from sklgap.datasets import randomize_labels
from sklgap.inspection import LearningCurvesDisplay, recorded

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
X, y = X[:800], y[:800]
model = LBGapClassifier("F1", module__width=128, batch_size=40, max_epochs=80)
title = "F1 with 128 units on 800 of scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    samples={"type": int, "default": 10_000, "help": "training samples (10000)"},
    epochs={"type": int, "help": "of each training (60; 80 with --quick)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X, y = X[: arguments.samples], y[: arguments.samples]
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    model = LBGapClassifier("F1", max_epochs=60)
    title = f"F1 on {len(y):,} samples of MNIST"
model.set_params(max_epochs=arguments.epochs or model.max_epochs)
model.set_params(memory=arguments.memory)
# sphinx_gallery_end_ignore

# %%
# Three trainings from the same weights.
curves, sharp = {}, {}
labels = {"true labels": 0.0, "half random": 0.5, "random labels": 1.0}
for name, fraction in labels.items():
    y_train = randomize_labels(y, fraction, random_state=0)
    recorder = TrainingRecorder({"train": (X, y_train), "test": (X_test, y_test)})
    trained = clone(model).set_params(
        tol=None, random_state=0, callbacks=[("recorder", recorder)]
    )
    trained.fit(X, y_train)
    curves[name] = recorded(trained)
    sharp[name] = sharpness(trained, X, y_train, max_samples=2000, random_state=0).value
    last = {key: values[-1] for key, values in curves[name].items()}
    print(
        f"{name}: {100 * last['train_accuracy']:.1f} % on its training labels "
        f"(loss {last['train_loss']:.1e}), {100 * last['test_accuracy']:.1f} % on test "
        f"data; sharpness {sharp[name]:.3g} %, "
        f"distance from the start {last['weight_distance']:.1f}"
    )

# %%
# Thin lines are training data, thick lines with markers are test data. Random labels
# take longer to fit, and end as well fitted. The dotted line is chance.
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.8), layout="constrained", width_ratios=[1.6, 1]
)
display = LearningCurvesDisplay(curves, batch_norm="batch").plot(left)
left.axhline(10, color="0.5", linewidth=0.9, linestyle=":")
left.set_ylim(0, 102)
for i, value in enumerate(sharp.values()):
    line = display.lines_[2 * i + 1]
    right.plot(i, value, line.get_marker(), color=line.get_color(), markersize=9)
right.set_xticks(range(len(sharp)), list(sharp))
right.set(yscale="log", xlim=(-0.5, 2.5), ylabel="sharpness (%), epsilon 1e-3")
right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
right.yaxis.set_major_formatter("{x:g}")
right.minorticks_off()
right.grid(axis="y", alpha=0.3)
right.set_title("the minima found", fontsize="medium")
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, curves=curves, sharp=sharp, title=title)
# sphinx_gallery_end_ignore
plt.show()
