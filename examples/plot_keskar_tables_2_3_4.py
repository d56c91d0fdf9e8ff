"""
Accuracy and sharpness of small and large batches
=================================================

Does a large batch end at a sharper minimum, and does that cost accuracy?

Tables 2, 3 and 4 of Keskar et al. (2017) compare small batches of 256 samples (SB) with
large batches of 10 % of the training data (LB) in five paired trials: training and test
accuracy, and sharpness at two epsilons, in the full space and in random subspaces of
100 dimensions.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script takes F1 on MNIST, or C1 on
CIFAR-10 with ``--net C1``. F1 takes an hour or more on a CPU, and C1 needs a GPU; with
``--memory`` the script goes on from the last finished fit.
"""

# %%
# The data, and the number of trials.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, compare_regimes

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
model = LBGapClassifier("F1", module__width=64, max_epochs=60)
n_trials, max_samples = 2, 300
run = {"n_jobs": 1, "memory": None}  # fits at once, and a folder that saves them
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_cifar10, fetch_mnist

arguments = options(
    __doc__,
    net={"choices": ["F1", "C1"], "default": "F1", "help": "F1 on MNIST, or C1 (F1)"},
    trials={"type": int, "help": "trainings of each regime (5; 2 with --quick)"},
    jobs={"type": int, "default": 1, "help": "fits at once (1)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    fetch = fetch_mnist if arguments.net == "F1" else fetch_cifar10
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    model, n_trials, max_samples = LBGapClassifier(arguments.net), 5, 10_000
    title = f"{arguments.net} on {'MNIST' if arguments.net == 'F1' else 'CIFAR-10'}"
n_trials = arguments.trials or n_trials
run = {"n_jobs": arguments.jobs, "memory": arguments.memory}
# sphinx_gallery_end_ignore

# %%
# Trial i starts both regimes from the same weights, and measures both in the same
# random subspace. Training stops by the paper's rule: when the loss ceases to improve.
report = compare_regimes(
    model,
    X,
    y,
    X_test,
    y_test,
    n_trials=n_trials,
    subspace_dims=(None, 100),
    max_samples=max_samples,
    random_state=0,
    **run,
)
print(report)

# %%
# Every trial: accuracy on the left, sharpness on the right.
display = report.plot()
display.figure_.suptitle(title)
# sphinx_gallery_start_ignore
save(display.figure_, arguments, report, report=display, title=title)
# sphinx_gallery_end_ignore
plt.show()
