"""
The critical batch size
=======================

Beyond which batch size do larger batches save few updates, and can it be told from one training with small batches?

McCandlish et al. (2018): the updates S and examples E = B S to a training loss trade off as
(S / S_min - 1) (E / E_min - 1) = 1, which turns at B_crit = E_min / S_min. Left: measured, by training with several
batch sizes, each at the best of several learning rates. Middle: predicted, from the gradient noise scale along
trainings with one small batch; its average up to the loss is the prediction. It grows as the loss falls, so that no
single value of it is "the" critical batch size. Right: where the noise comes from. The error of a mini-batch gradient
falls only with the square root of the batch size.

On MNIST, F1 with 128 units a layer, to a loss of 0.2: measured 620 samples (95 % interval 460 to 840), predicted 1,980:
three times as much, where McCandlish et al. promise an order of magnitude.

The theory is one of plain gradient steps, and so this is SGD; ``--adam`` does it with ADAM. ``--quick`` does it with
the digits that ship with scikit-learn, in a minute: not the paper's setting.
"""

# %%
# The data, the batch sizes, and the learning rates that each of them tries.
import argparse

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, critical_batch_size
from sklgap.datasets import fetch_mnist
from sklgap.experiments import steps_to_loss
from sklgap.inspection import gradient_standard_error

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--adam", action="store_true", help="ADAM instead of SGD")
parser.add_argument("--trials", type=int, default=2, help="starting points (default: 2)")
parser.add_argument("--jobs", type=int, default=1, help="trainings at once (default: 1)")
parser.add_argument("--memory", help="folder that trainings are saved in, and loaded from")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    X, y = load_digits(return_X_y=True)
    X, y = X[:1792] / 16, y[:1792]  # whole batches only: one of a few rows, under batch norm, would throw the weights
    width, target_loss, max_epochs, batch_sizes = 32, 0.3, 60, [16, 32, 64, 128, 256, 448, 1792]
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    width, target_loss, max_epochs, batch_sizes = 128, 0.2, 10, [64, 128, 256, 512, 1024, 2048, 8192]
optimizer, rates = (torch.optim.Adam, [1e-3, 4e-3, 16e-3]) if arguments.adam else (torch.optim.SGD, [0.1, 0.3, 1])
estimator = LBGapClassifier("F1", module__width=width, optimizer=optimizer, max_epochs=max_epochs)

# %%
# Measured: one training for each batch size, learning rate and starting point.
measured = steps_to_loss(
    estimator,
    X,
    y,
    batch_sizes=batch_sizes,
    target_loss=target_loss,
    learning_rates=rates,
    n_trials=arguments.trials,
    random_state=0,
    n_jobs=arguments.jobs,
    memory=arguments.memory,
)
print(measured)

# %%
# Predicted: trainings with one small batch, at the learning rate found best for it.
small = 1
predicted = critical_batch_size(
    estimator.set_params(batch_size=batch_sizes[small], lr=measured.learning_rates[small]),
    X,
    y,
    target_loss=target_loss,
    n_trials=3,
    random_state=0,
    n_jobs=arguments.jobs,
    memory=arguments.memory,
)
print(predicted)
ratio = predicted.critical_batch_size / measured.tradeoff.critical_batch_size.value
print(f"predicted / measured: {ratio:.2f}")

# %%
# The error of mini-batch gradients after one epoch of that training.
model = estimator.set_params(max_epochs=1, tol=None, random_state=0).fit(X, y)
sizes = [16, 64, 256, 1024]
errors = gradient_standard_error(model, X, y, batch_sizes=sizes, max_samples=10_000, random_state=0, verbose=1)
print(errors)

# %%
# Points are single trainings. The fit turns where the dotted lines, "twice the updates for half the batch" and "no
# batch takes fewer updates", meet: at the critical batch size.
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
measured.plot(ax=left)
left.axvline(predicted.critical_batch_size, color="tab:red", linewidth=0.9, label="critical batch size, predicted")
left.axvspan(predicted.low, min(predicted.high, left.get_xlim()[1]), color="tab:red", alpha=0.12, linewidth=0)
left.legend(framealpha=1, edgecolor="none", fontsize="small")

predicted.plot(ax=middle)
middle.set(xlabel=f"updates with batches of {batch_sizes[small]}")

spread = 2 * errors.measured_standard_error
right.errorbar(
    errors.batch_sizes, errors.measured, spread, fmt="o", markersize=5, label="measured, ± 2 standard errors"
)
right.plot(errors.batch_sizes, errors.predicted, label="sqrt(tr(Sigma) (1/B - 1/n))")
right.axhline(errors.gradient_norm, color="0.4", linestyle=":", label="length of the gradient itself")
right.set(xscale="log", yscale="log", xlabel="batch size", ylabel="error of the gradient")
right.set_xticks(errors.batch_sizes, [f"{size:,}" for size in errors.batch_sizes])
right.legend(frameon=False, fontsize="small")
right.tick_params(which="minor", labelleft=False, labelbottom=False)
if arguments.quick:
    figure.supxlabel("scikit-learn's digits, F1 with 32 units a layer: not the paper's setting", fontsize="x-small")
else:
    figure.supxlabel(f"MNIST, F1 with {width} units a layer", fontsize="x-small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
