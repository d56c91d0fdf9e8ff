"""
Error curves, and what train longer does to them
================================================

Does the error of large batches level off above that of small ones, or does it need more
updates to come down?

Figures 1 and 3 of Hoffer et al. (2017) show the validation error against the epoch for
growing batch sizes, and for the large batch with the remedies of the paper. After the
same epochs, larger batches stop at larger errors. Regime adaptation gives them the
updates of the small batch and moves the drops of the learning rate to the same updates.
The error then comes down to that of the small batch.

The page runs the example with ``--quick``, on the digits that ship with scikit-learn:
that is not the paper's setting. Without it the script trains ResNet-44 on CIFAR-10 by
momentum SGD, with batch sizes of 128 to 2,048. ``--net F1`` takes F1 on MNIST, which a
CPU can do.
"""

# %%
# The data, the batch sizes, and the epochs of the small batch.
import matplotlib.pyplot as plt
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import GradientNormClipping

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.inspection import recorded

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
model = LBGapClassifier("F1", module__width=64)
epochs, sizes = 12, [16, 64, 256]
title = "F1 with 64 units on scikit-learn's digits"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_cifar10, fetch_mnist

arguments = options(
    __doc__,
    net={
        "choices": ["F1", "ResNet44"],
        "default": "ResNet44",
        "help": "F1 on MNIST, or ResNet44 on CIFAR-10 (ResNet44)",
    },
    epochs={"type": int, "help": "of the small batch (100; 12 with --quick)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    fetch = fetch_mnist if arguments.net == "F1" else fetch_cifar10
    X, y = fetch(return_X_y=True)
    X_test, y_test = fetch(subset="test", return_X_y=True)
    model, epochs, sizes = LBGapClassifier(arguments.net), 100, [128, 512, 2048]
    name = "MNIST" if arguments.net == "F1" else "CIFAR-10"
    title = f"{arguments.net} on {name}"
epochs = arguments.epochs or epochs
model.set_params(memory=arguments.memory)
# sphinx_gallery_end_ignore

# %%
# One training for every batch size, and two more of the largest. Test data stand for
# the validation data of the paper.
small, large = sizes[0], sizes[-1]
remedies = {"batch_size": large, "lr_scaling": "sqrt", "ghost_batch_size": small}
regimes = {
    **{f"batch {size:,}": {"batch_size": size} for size in sizes},
    f"batch {large:,}, scaled rate, ghost": remedies,
    f"batch {large:,}, scaled rate, ghost, longer": {
        **remedies,
        "regime_adaptation": True,
    },
}
test = {"test": (X_test, y_test)}
recorder = TrainingRecorder(test, batch_norm="population", max_samples=10_000)
model.set_params(
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    lr=0.05,
    lr_milestones=[0.5 * epochs, 0.75 * epochs],
    max_epochs=epochs,
    tol=None,
    base_batch_size=small,
    random_state=0,
    callbacks=[("clipping", GradientNormClipping(1.0)), ("recorder", recorder)],
)
curves = {}
for label, parameters in regimes.items():
    trained = clone(model).set_params(**parameters).fit(X, y)
    curves[label] = recorded(trained)
    error = 100 * (1 - curves[label]["test_accuracy"][-1])
    print(f"{label}: {trained.n_updates_:,} updates, error {error:.2f} %")

# %%
# Against the epoch, "longer" runs off to the right. Against the update, it ends with
# the small batch.
looks = ["o-", "^-", "s-", "s--", "s:"]
colours = ["#222222", "#3f51b5", "#b3261e", "#b3261e", "#b3261e"]
figure, axes = plt.subplots(
    1, 2, sharey=True, figsize=(10.5, 4.8), layout="constrained"
)
for ax, against, name in zip(
    axes, ("epoch", "n_updates"), ("epochs", "updates"), strict=True
):
    for (label, curve), look, colour in zip(
        curves.items(), looks, colours, strict=True
    ):
        done = curve["epoch"] > 0
        error = 100 * (1 - curve["test_accuracy"][done])
        x = curve[against][done]
        ax.plot(x, error, look, color=colour, markersize=3, label=label)
    ax.set(xscale="log", yscale="log", xlabel=name)
    ax.grid(axis="y", alpha=0.3)
axes[0].set_ylabel("test error (%), batch norm: population")
handles, labels = axes[0].get_legend_handles_labels()
figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, curves=curves, title=title)
# sphinx_gallery_end_ignore
plt.show()
