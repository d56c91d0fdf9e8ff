"""
Error curves, and what train longer does to them
================================================

Does the error of large batches level off above that of small ones, or has it not come down yet?

Figures 1 and 3 of Hoffer et al. (2017): validation error against the epoch for growing batches, and for the large batch
with the remedies of the paper. Larger batches stop at larger errors after the same epochs. Regime adaptation gives them
the updates of the small batch, with the drops of the learning rate at the same updates, and the error comes down to
that of the small batch. Here ResNet-44 on CIFAR-10, momentum SGD, batches of 128 to 2,048 rows; ``--net F1`` takes F1
on MNIST, which a CPU can do.

``--quick`` does it with the digits that ship with scikit-learn: not the paper's setting.
"""

# %%
# The data, and the sizes of the experiment.
import argparse

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import GradientNormClipping

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.datasets import fetch_cifar10, fetch_mnist
from sklgap.inspection import recorded

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--net", choices=["F1", "ResNet44"], default="ResNet44", help="F1: on MNIST; ResNet44: on CIFAR-10")
parser.add_argument("--epochs", type=int, help="of the small batch; default: 100; 12 with --quick")
parser.add_argument("--memory", help="folder that keeps finished fits")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    net, epochs, sizes, setting = "F1", 12, [16, 64, 256], {"module__width": 64}
else:
    net, fetch = arguments.net, fetch_mnist if arguments.net == "F1" else fetch_cifar10
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    epochs, sizes, setting = 100, [128, 512, 2048], {}
epochs, small, large = arguments.epochs or epochs, sizes[0], sizes[-1]

# %%
# One training for every batch size, and two more of the largest. Test data stand for the paper's validation data.
adapted = {"batch_size": large, "lr_scaling": "sqrt", "ghost_batch_size": small}
regimes = {
    **{f"batch {size:,}": {"batch_size": size} for size in sizes},
    f"batch {large:,}, scaled rate, ghost": adapted,
    f"batch {large:,}, scaled rate, ghost, longer": {**adapted, "regime_adaptation": True},
}
curves = {}
for label, parameters in regimes.items():
    model = LBGapClassifier(
        net,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.05,
        lr_milestones=[0.5 * epochs, 0.75 * epochs],
        max_epochs=epochs,
        tol=None,
        base_batch_size=small,
        random_state=0,
        memory=arguments.memory,
        callbacks=[
            ("clipping", GradientNormClipping(1.0)),
            ("recorder", TrainingRecorder({"test": (X_test, y_test)}, batch_norm="population", max_samples=10_000)),
        ],
        **setting,
        **parameters,
    ).fit(X, y)
    curves[label] = recorded(model)
    print(f"{label}: {model.n_updates_:,} updates, error {100 * (1 - curves[label]['test_accuracy'][-1]):.2f} %")

# %%
# Against the epoch, where "longer" runs off to the right, and against the update, where it ends with the small batch.
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(10, 4.2), layout="constrained")
for ax, against, name in zip(axes, ("epoch", "n_updates"), ("epoch", "update"), strict=True):
    for label, curve in curves.items():
        done = curve["epoch"] > 0
        error = 100 * (1 - curve["test_accuracy"][done])
        ax.plot(curve[against][done], error, "--" if "scaled" in label else "-", label=label)
    ax.set(xscale="log", yscale="log", xlabel=name)
    ax.grid(axis="y", alpha=0.3)
axes[0].set_ylabel("test error (%), batch norm: population")
axes[0].legend(frameon=False, fontsize="small")
name = "digits" if arguments.quick else "MNIST" if net == "F1" else "CIFAR-10"
figure.suptitle(f"{net} on {name}", fontsize="medium")
if arguments.quick:
    stamp = "scikit-learn's digits, 64 units a layer: not the paper's setting"
    print(f"\n{stamp}")
    figure.supxlabel(stamp, fontsize="x-small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
