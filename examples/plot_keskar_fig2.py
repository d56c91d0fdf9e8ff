"""
Learning curves of small and large batches
==========================================

Does the large batch do worse on test data because it trains worse? No: it fits its
training data as well, and still tests lower.

Figure 2 of Keskar et al. (2017) shows accuracy on training and test data against the
epoch, for small batches of 256 samples (SB) and for large batches of 10 % of the
training data (LB). In the paper both fit the training data, and the small batch is
better on the test data at every epoch, however long the training is. The gap of F1 is
small, 0.2 points, about as much as the curve of SB moves from epoch to epoch. So one
training of each shows the curves; `compare_regimes` over several trials shows the gap.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes MNIST.
"""

# %%
# The data, and the number of epochs.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.inspection import LearningCurvesDisplay, recorded

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
epochs, setting, least = 15, {"module__width": 64}, 80
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    epochs={"type": int, "help": "of each training (20; 15 with --quick)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    epochs, setting, least, title = 20, {"verbose": 1}, 95, "F1 on MNIST"
epochs, setting["memory"] = arguments.epochs or epochs, arguments.memory
# sphinx_gallery_end_ignore

# %%
# A recorder evaluates both data sets at the end of every epoch, in evaluation mode and
# with batch statistics (the policy of the paper), on at most 10,000 samples each. The
# training is bit for bit what it would be without the recorder.
curves = {}
for regime in ("SB", "LB"):
    recorder = TrainingRecorder(
        {"train": (X, y), "test": (X_test, y_test)}, max_samples=10_000
    )
    model = LBGapClassifier(
        "F1",
        batch_regime=regime,
        max_epochs=epochs,
        tol=None,
        random_state=0,
        callbacks=[("recorder", recorder)],
        **setting,
    )
    curves[regime] = recorded(model.fit(X, y))
    last = {name: values[-1] for name, values in curves[regime].items()}
    print(
        f"{regime}: after epoch {last['epoch']:.0f}, accuracy "
        f"{100 * last['train_accuracy']:.2f} % on training data and "
        f"{100 * last['test_accuracy']:.2f} % on test data; "
        f"distance from the start {last['weight_distance']:.1f}"
    )

# %%
# Thin lines are training data, thick lines with markers are test data. The thick lines
# end at different heights: that is the gap.
figure, ax = plt.subplots(figsize=(7, 4.6), layout="constrained")
LearningCurvesDisplay(curves, batch_norm="batch").plot(ax)
ax.set_ylim(least, 100.3)
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, curves=curves, least=least, title=title)
# sphinx_gallery_end_ignore
plt.show()
