"""
The critical batch size
=======================

Beyond which batch size does a larger batch save few updates? And does one training with
small batches predict that batch size?

McCandlish et al. (2018): a training needs S updates and E = B S samples to reach a
training loss, and the two trade off as (S / S_min - 1) (E / E_min - 1) = 1. The curve
turns at the critical batch size, B_crit = E_min / S_min.

* Left: B_crit as measured, by training with several batch sizes, each at the best of
  several learning rates.
* Middle: B_crit as predicted, from the gradient noise scale along trainings with one
  small batch size. The prediction is its average up to the target loss. The noise scale
  grows as the loss falls, so no single value of it is "the" critical batch size.
* Right: where the noise comes from. The error of a mini-batch gradient falls only with
  the square root of the batch size.

On MNIST, with 128 units in each layer of F1 and a target loss of 0.2, the measured
value is 654 samples (95 % interval 483 to 886) and the predicted one is 1,960. That is
three times as much; McCandlish et al. promise an order of magnitude.

The theory is about plain gradient steps, so this example uses SGD; ``--adam`` uses
ADAM. The page runs it with ``--quick``, on the digits that ship with scikit-learn: that
is not the paper's setting.
"""

# %%
# The data, the batch sizes, and the learning rates that each of them tries. All batches
# are full: under batch norm, a last batch of a few samples would throw the weights.
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, critical_batch_size
from sklgap.experiments import steps_to_loss
from sklgap.inspection import gradient_standard_error

X, y = load_digits(return_X_y=True)
X, y = X[:1792] / 16, y[:1792]
width, target_loss, max_epochs = 32, 0.3, 60
batch_sizes = [16, 32, 64, 128, 256, 448, 1792]
optimizer, learning_rates, n_trials = torch.optim.SGD, [0.1, 0.3, 1], 2
title = "F1 with 32 units on scikit-learn's digits"
run = {"n_jobs": 1, "memory": None}  # fits at once, and a folder that saves them

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    adam={"action": "store_true", "help": "ADAM instead of SGD"},
    trials={"type": int, "default": 2, "help": "starting points (2)"},
    jobs={"type": int, "default": 1, "help": "fits at once (1)"},
    memory={"help": "folder that saves finished fits"},
)
if not arguments.quick:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    width, target_loss, max_epochs = 128, 0.2, 10
    batch_sizes = [64, 128, 256, 512, 1024, 2048, 8192]
    title = "F1 with 128 units on MNIST"
if arguments.adam:
    optimizer, learning_rates = torch.optim.Adam, [1e-3, 4e-3, 16e-3]
    title += ", ADAM"
n_trials = arguments.trials
run = {"n_jobs": arguments.jobs, "memory": arguments.memory}
# sphinx_gallery_end_ignore

model = LBGapClassifier(
    "F1", module__width=width, optimizer=optimizer, max_epochs=max_epochs
)

# %%
# Measured: one training for each batch size, learning rate and starting point.
measured = steps_to_loss(
    model,
    X,
    y,
    batch_sizes=batch_sizes,
    target_loss=target_loss,
    learning_rates=learning_rates,
    n_trials=n_trials,
    random_state=0,
    **run,
)
print(measured)

# %%
# Predicted: trainings with one small batch size, at the learning rate that suits it
# best.
small = batch_sizes[1]
predicted = critical_batch_size(
    model.set_params(batch_size=small, lr=measured.learning_rates[1]),
    X,
    y,
    target_loss=target_loss,
    n_trials=3,
    random_state=0,
    **run,
)
print(predicted)
found = predicted.critical_batch_size
ratio = found / measured.tradeoff.critical_batch_size.value
print(f"predicted / measured: {ratio:.2f}")

# %%
# The error of mini-batch gradients after one epoch of that training.
errors = gradient_standard_error(
    model.set_params(max_epochs=1, tol=None, random_state=0).fit(X, y),
    X,
    y,
    batch_sizes=[16, 64, 256, 1024],
    max_samples=10_000,
    random_state=0,
)
print(errors)
interval = (predicted.low, predicted.high)

# %%
# A point on the left is one training. The fitted curve turns where the dotted lines
# meet: "twice the updates for half the batch", and "no batch takes fewer updates".
figure, (left, middle, right) = plt.subplots(
    1, 3, figsize=(12.5, 4.4), layout="constrained"
)
steps_shown = measured.plot(ax=left)
left.axvline(found, color="#00838f", linestyle="--")
left.axvspan(
    interval[0], min(interval[1], left.get_xlim()[1]), color="#00838f", alpha=0.12
)
left.text(found, left.get_ylim()[0], " predicted", color="#00838f", va="bottom")

noise_shown = predicted.plot(ax=middle)
middle.set_xlabel(f"updates with batches of {small}")

right.errorbar(
    errors.batch_sizes,
    errors.measured,
    2 * errors.measured_standard_error,
    fmt="o",
    color="#00838f",
    label="measured, ± 2 standard errors",
)
right.plot(
    errors.batch_sizes,
    errors.predicted,
    color="0.3",
    label="sqrt(tr(Sigma) (1/B - 1/n))",
)
right.axhline(
    errors.gradient_norm, color="0.5", linestyle=":", label="length of the gradient"
)
right.set(xscale="log", yscale="log", xlabel="batch size (samples)")
right.set_ylabel("error of the gradient (norm)")
right.set_xticks(errors.batch_sizes, [f"{size:,}" for size in errors.batch_sizes])
right.legend(
    loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize="small"
)
right.tick_params(which="minor", labelleft=False, labelbottom=False)
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(
    figure,
    arguments,
    measured,
    measured=steps_shown,
    predicted=noise_shown,
    errors=errors,
    found=found,
    interval=interval,
    small=small,
    title=title,
)
# sphinx_gallery_end_ignore
plt.show()
