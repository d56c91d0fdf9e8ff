"""
When is the large batch the faster one?
=======================================

A large batch makes fewer updates and sees more rows. On how many processors, used how well, does it save time?

Keskar et al. (2017), Appendix C: I updates with batches of B rows on P processors of parallel efficiency e(P) take a
time proportional to I B / (P e(P)), so that LB wins where I_LB B_LB / (I_SB B_SB) < e_LB(P) / e_SB(P). The updates are
those to one test accuracy, of real trainings: what Hoffer et al. (2017) call the computational gap.

Left: the efficiency that each batch size needs, whatever it depends on. Right: the speed-up if an update costs a fixed
time beside its rows, here what it costs on this machine; the communication of many machines would come on top
(``--overhead``). That is an assumption, and not in the paper.

``--quick`` does it with the digits that ship with scikit-learn, in seconds: not the paper's setting.
"""

# %%
# The data, the accuracy to reach, and the batch sizes with epochs enough for it.
import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, TrainingRecorder, time_to_accuracy
from sklgap.datasets import fetch_mnist
from sklgap.experiments import parallel_model

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--target", type=float, help="test accuracy (default: 0.975; 0.94 with --quick)")
parser.add_argument("--trials", type=int, default=3, help="trainings of each batch size (default: 3)")
parser.add_argument("--overhead", type=float, help="time of an update beside its rows, in rows (default: measured)")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    target, setting = arguments.target or 0.94, {"module__width": 64}
    epochs = {16: 8, 64: 16, 256: 30, 1257: 75}
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    target, setting = arguments.target or 0.975, {}
    epochs = {256: 8, 1000: 12, 6000: 25}

# %%
# Trainings with a recorder of the test accuracy; trial i of every batch size starts from the same weights.
models: dict[str, list[LBGapClassifier]] = {}
for size in epochs:
    for trial in range(arguments.trials):
        recorder = TrainingRecorder({"test": (X_test, y_test)})
        model = LBGapClassifier(
            "F1",
            batch_size=size,
            max_epochs=epochs[size],
            tol=None,
            random_state=trial,
            callbacks=[("recorder", recorder)],
            **setting,
        )
        models.setdefault(f"{size:,} rows", []).append(model.fit(X, y))
found = time_to_accuracy(models, target)
print(found, "\n")

# %%
# What an update costs here: a time for itself, and one for each row. Medians over epochs.
sizes = list(epochs)
seconds = []
for trained in models.values():
    per_epoch = trained[0].history_[0, "n_updates"]
    seconds.append(np.median([row["dur"] for model in trained for row in model.history_]) / per_epoch)
per_row, itself = np.polyfit(sizes, seconds, 1, w=1 / np.array(seconds))
overhead = max(0.0, itself / per_row) if arguments.overhead is None else arguments.overhead
print(f"an update costs as much as {overhead:.0f} rows beside its own\n")

# %%
# The model, with the updates to the target averaged over the trials.
model = parallel_model(sizes, [found.values(label, "n_updates") for label in models])
print(model)
display = model.plot(efficiency=overhead)
display.ax_[0].set_title(f"needed, to {100 * target:g} % on test data")
display.ax_[1].set_title(f"an update costs {overhead:.0f} rows beside its own")
setting = "F1 on scikit-learn's digits, 64 units a layer: not the paper's setting" if arguments.quick else "F1 on MNIST"
display.figure_.supxlabel(f"{setting}; efficiency on the right assumed", fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
plt.show()
