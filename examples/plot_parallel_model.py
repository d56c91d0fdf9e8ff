"""
When is the large batch the faster one?
=======================================

A large batch makes fewer updates and sees more samples. On how many processors, used
how well, does it save time?

Keskar et al. (2017), Appendix C: I updates with batches of B samples on P processors of
parallel efficiency e(P) take a time proportional to I B / (P e(P)). So LB wins where
I_LB B_LB / (I_SB B_SB) < e_LB(P) / e_SB(P). The updates are those that real trainings
take to one test accuracy; Hoffer et al. (2017) call this the computational gap.

Left: the efficiency that each batch size needs, whatever the efficiency depends on.
Right: the speed-up if an update costs a fixed time beside its samples. The script
measures that time on this machine, unless ``--overhead`` gives it; the communication of
many machines would come on top. That is an assumption, and it is not in the paper.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes F1 on MNIST.
"""

# %%
# The data, the accuracy to reach, and enough epochs of each batch size to reach it.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, TrainingRecorder, time_to_accuracy
from sklgap.experiments import parallel_model

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
model = LBGapClassifier("F1", module__width=64, tol=None)
target, epochs, n_trials, overhead = 0.94, {16: 8, 64: 16, 256: 30, 1257: 75}, 3, None
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    target={"type": float, "help": "test accuracy (0.975; 0.94 with --quick)"},
    trials={"type": int, "default": 3, "help": "trainings of each batch size (3)"},
    overhead={"type": float, "help": "of an update, in samples; default: measured"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    model, title = LBGapClassifier("F1", tol=None), "F1 on MNIST"
    target, epochs = 0.975, {256: 8, 1000: 12, 6000: 25}
target, n_trials = arguments.target or target, arguments.trials
overhead = arguments.overhead
model.set_params(memory=arguments.memory)
# sphinx_gallery_end_ignore

# %%
# Trainings with a recorder of the test accuracy. Trial i of every batch size starts
# from the same weights.
models: dict[str, list[LBGapClassifier]] = {}
for size, n_epochs in epochs.items():
    for trial in range(n_trials):
        recorder = TrainingRecorder({"test": (X_test, y_test)})
        trained = clone(model).set_params(
            batch_size=size,
            max_epochs=n_epochs,
            random_state=trial,
            callbacks=[("recorder", recorder)],
        )
        models.setdefault(f"batch size {size:,}", []).append(trained.fit(X, y))
found = time_to_accuracy(models, target)
print(found, "\n")

# %%
# What an update costs here: a time for itself, and one for each sample. Medians over
# epochs.
sizes = list(epochs)
seconds = []
for trained in models.values():
    per_epoch = trained[0].history_[0, "n_updates"]
    durations = [row["dur"] for model in trained for row in model.history_]
    seconds.append(np.median(durations) / per_epoch)
per_sample, itself = np.polyfit(sizes, seconds, 1, w=1 / np.array(seconds))
if overhead is None:
    overhead = max(0.0, itself / per_sample)
print(f"an update costs as much as {overhead:.0f} samples beside its own\n")

# %%
# The model, with the updates to the target averaged over the trials.
parallel = parallel_model(sizes, [found.values(label, "n_updates") for label in models])
print(parallel)
assumed = {"efficiency": overhead}

# %%
# Above its line on the left, a batch size wins. On the right, it wins above 1.
display = parallel.plot(**assumed)
display.ax_[0].set_title(f"needed for {100 * target:g} % on test data")
display.ax_[1].set_title(f"assumed: an update costs {overhead:.0f} samples more")
display.figure_.suptitle(title)
# sphinx_gallery_start_ignore
# A Display holds the speed-ups that follow from the efficiency.
saved = {"overhead": float(overhead), "target": target, "title": title, "assumed": {}}
save(display.figure_, arguments, parallel=display, **saved)
# sphinx_gallery_end_ignore
plt.show()
