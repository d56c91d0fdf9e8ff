"""
Learning curves of small and large batches
==========================================

Does the large batch lose on test data because it trains worse, or although it trains as well?

Figure 2 of Keskar et al. (2017): accuracy on training and test data against the epoch, batches of 256 rows (SB) against
10 % of the data (LB), F1 on MNIST. In the paper both fit the training data, and the small batch is better on the test
data at every epoch, however long the training. F1's gap is small, 0.2 points, about as much as SB's curve moves from
epoch to epoch: one training each shows the curves, `compare_regimes` over several trials shows the gap.

``--quick`` does it with the digits that ship with scikit-learn, in seconds: not the paper's setting.
"""

# %%
# The data, and the sizes of the experiment.
import argparse

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.datasets import fetch_mnist
from sklgap.inspection import LearningCurvesDisplay, recorded

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--epochs", type=int, help="default: 20; 15 with --quick")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    epochs, setting = arguments.epochs or 15, {"module__width": 64}
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    epochs, setting = arguments.epochs or 20, {}

# %%
# A recorder evaluates both sets at the end of every epoch, in evaluation mode and with batch statistics (the policy of
# the paper), on at most 10,000 rows each. The training is bit for bit what it would be without it.
models = {}
for regime in ("SB", "LB"):
    recorder = TrainingRecorder({"train": (X, y), "test": (X_test, y_test)}, max_samples=10_000)
    model = LBGapClassifier(
        "F1",
        batch_regime=regime,
        max_epochs=epochs,
        tol=None,
        random_state=0,
        verbose=1,
        callbacks=[("recorder", recorder)],
        **setting,
    )
    models[regime] = model.fit(X, y)
    last = {name: values[-1] for name, values in recorded(model).items()}
    print(
        f"{regime}: after epoch {last['epoch']:.0f}, accuracy {100 * last['train_accuracy']:.2f} % on training data, "
        f"{100 * last['test_accuracy']:.2f} % on test data; distance from the start {last['weight_distance']:.1f}"
    )

# %%
# Training data solid, test data dashed, as in the paper. What separates the dashed lines at the right is the gap.
display = LearningCurvesDisplay.from_estimators(models)
display.ax_.set_ylim(80 if arguments.quick else 95, 100.3)
display.ax_.set_title("F1 on digits" if arguments.quick else "F1 on MNIST")
if arguments.quick:
    display.figure_.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
plt.show()
