"""
Three critical batch sizes of one training loop
===============================================

A plain PyTorch loop of 30 lines trains on MNIST. Which batch size should it have? The
script gives three answers:

* `BatchSizeMonitor` estimates the knee from the gradients while the loop runs. From the
  knee it predicts the critical batch size of the updates to a training loss.
* `steps_to_loss` counts the updates that six batch sizes take to that loss, each at the
  best of several learning rates (McCandlish et al. 2018).
* `branched_critical_batch_size` finds the largest batch that loses nothing when
  training continues from a checkpoint of the loop (Merrill et al. 2025).

The first two answers describe a batch size that needs twice the samples. The third
describes one that needs no more samples. The theory assumes plain gradient steps, so
the loop uses SGD without momentum. ``--adam`` uses ADAM instead, and the monitor then
measures the noise in ADAM's geometry.

The data are 24,576 images of MNIST at 14 x 14 pixels. The script takes some minutes on
one core. ``--quick`` uses the digits of scikit-learn and takes seconds.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from _options import save_figure, saved_estimate
from sklearn.datasets import load_digits
from torch import nn

from sklgap import LBGapClassifier, branched_critical_batch_size
from sklgap.datasets import fetch_mnist
from sklgap.experiments import (
    BranchedCriticalBatchSizeDisplay,
    steps_to_loss,
)
from sklgap.monitor import BatchSizeMonitor

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--quick", action="store_true", help="use digits instead of MNIST")
parser.add_argument("--adam", action="store_true", help="use ADAM instead of SGD")
parser.add_argument(
    "--trials",
    type=int,
    default=2,
    help="trials of the measured updates (default: 2)",
)
parser.add_argument("--memory", help="folder to save trainings to and load them from")
parser.add_argument("--output", help="file to write the record to, as JSON")
parser.add_argument(
    "--figure", type=Path, help="PNG file to save the figure of the branches to"
)
parser.add_argument(
    "--draw",
    type=Path,
    help="draw --figure again from this record, and train nothing",
)
arguments = parser.parse_args()
if arguments.draw and not arguments.figure:
    parser.error("--draw needs --figure, the file to draw to")
if arguments.draw:
    record = json.loads(arguments.draw.read_text())["branched"]
    by_checkpoint = [
        {str(at["checkpoint"]): saved_estimate(at[name]) for at in record["points"]}
        for name in ("branched", "noise_scale")
    ]
    sizes = record["batch_sizes"]
    display = BranchedCriticalBatchSizeDisplay(
        *by_checkpoint, own=sizes[0], largest=sizes[-1], unit=record["settings"]["unit"]
    )
    save_figure(display.plot().figure_, arguments.figure)
    raise SystemExit

if arguments.quick:
    X, y = load_digits(return_X_y=True)
    X, n_train, width = X / 16, 1280, 16
    batch, n_epochs, checkpoints, target_loss, window = 16, 4, [1, 4], 0.5, 20
    measured_sizes, branch_sizes, max_epochs = (
        [16, 32, 64, 128, 320, 1280],
        [32, 128, 640],
        60,
    )
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X = (
        X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
    )  # 14 x 14 pixels, for a fourth of the cost
    n_train, width = 24_576, 64
    batch, n_epochs, checkpoints, target_loss, window = 32, 10, [1, 3, 10], 0.15, 192
    measured_sizes, branch_sizes, max_epochs = (
        [32, 128, 512, 1024, 2048, 8192],
        [64, 128, 256, 512, 1024, 2048],
        160,
    )
rate, rates = 0.1, [0.4, 0.8, 1.6]
if arguments.adam:
    rate, rates = (0.01 if arguments.quick else 0.001), [0.001, 0.003, 0.01]
every = 2
order = np.random.RandomState(0).permutation(len(X))
X, y = (
    torch.tensor(X[order], dtype=torch.float32),
    torch.tensor(y[order], dtype=torch.long),
)
X_valid, y_valid = X[n_train : n_train + 10_000], y[n_train : n_train + 10_000]
X, y = X[:n_train], y[:n_train]


class Net(nn.Sequential):
    """One hidden layer."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(X.shape[1], width), nn.ReLU(), nn.Linear(width, 10))


# %%
# The training loop. With ``monitor`` it also measures the noise of the gradients. The
# weights are the same with and without the monitor, bit for bit.
loss_of = nn.CrossEntropyLoss()


def make(learning_rate: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a net and its optimiser."""
    net = Net()
    kind = torch.optim.Adam if arguments.adam else torch.optim.SGD
    return net, kind(net.parameters(), lr=learning_rate)


def train(net, optimizer, batch_size, n_samples, seed, monitor=None, each=None):
    """Train on ``n_samples`` samples in the order of the seed."""
    generator, n_seen = torch.Generator().manual_seed(seed), 0
    while n_seen < n_samples:
        for rows in torch.randperm(n_train, generator=generator).split(batch_size):
            optimizer.zero_grad()
            loss_of(net(X[rows]), y[rows]).backward()
            if monitor is not None:
                monitor.step((X[rows], y[rows]))
            optimizer.step()
            n_seen += len(rows)
            if each is not None:
                each()
            if n_seen >= n_samples:
                break


@torch.no_grad()
def held_out_loss(net):
    """Return the loss on the held-out samples."""
    return float(loss_of(net(X_valid), y_valid))


# %%
# One run with the monitor, which measures every second update over a window of half an
# epoch. The script reads the state whenever the whole window is new. A checkpoint
# is the state of net and optimiser. Its noise comes from the window before it.
torch.manual_seed(0)
net, optimizer = make(rate)
monitor = BatchSizeMonitor(
    net,
    loss_of,
    every=every,
    window=window,
    geometry="adam" if arguments.adam else "euclidean",
    optimizer=optimizer if arguments.adam else None,
)
along: list[dict] = []
n_updates = 0


def read_monitor() -> None:
    """Save the monitor's state and the training loss when the window is new."""
    global n_updates
    n_updates += 1
    if n_updates % (window * every) == 0:
        with torch.no_grad():
            loss = float(loss_of(net(X[:2000]), y[:2000]))
        along.append({"n_updates": n_updates, "train_loss": loss, **monitor.state()})


states, noise = {}, {}
for epoch in range(1, n_epochs + 1):
    train(net, optimizer, batch, n_train, epoch, monitor, read_monitor)
    if epoch in checkpoints:
        states[epoch] = copy.deepcopy(
            {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
        )
        noise[epoch] = monitor.state()
        loss = held_out_loss(net)
        print(f"after {epoch} epochs, held-out loss {loss:.3f}: {monitor.verdict()}")

# %%
# The prediction of the knee. A step on B samples does the work of 1 / (1 + knee / B)
# steps without noise (McCandlish et al., equation (D.1)). The critical batch size up to
# the target loss is the average knee over these steps.
until = next((i for i, at in enumerate(along) if at["train_loss"] <= target_loss), None)
if until is None:
    raise SystemExit(
        f"The run must reach a training loss of {target_loss:g}; "
        f"its last loss is {along[-1]['train_loss']:.3g}."
    )
trace, square = (
    np.array([at[name] for at in along[: until + 1]])
    for name in ("trace", "squared_gradient_norm")
)
without_noise = batch * square / (batch * square + trace)
of_samples = batch * trace / (batch * square + trace)
predicted = float(of_samples.sum() / without_noise.sum())
print(
    f"critical batch size up to a training loss of {target_loss:g}, "
    f"predicted by the monitor: {predicted:,.0f}"
)

# %%
# The updates that six batch sizes take to the same loss.
estimator = LBGapClassifier(
    Net,
    optimizer=type(optimizer),
    init="torch",
    lr=rate,
    batch_size=batch,
    max_epochs=max_epochs,
    tol=0.01,  # rates that are too large end on a plateau above the target
    n_iter_no_change=5,
)
steps = steps_to_loss(
    estimator,
    X.numpy(),
    y.numpy(),
    batch_sizes=measured_sizes,
    target_loss=target_loss,
    learning_rates=rates,
    n_trials=arguments.trials,
    random_state=0,
    memory=arguments.memory,
)
print(steps)
measured = steps.tradeoff.critical_batch_size
print(f"predicted / measured: {predicted / measured.value:.2f}")


# %%
# The branches from the checkpoints of the loop.
def train_from(state, batch_size, learning_rate, n_samples, random_state):
    """Continue from a checkpoint and return the held-out loss."""
    net, optimizer = make(learning_rate)
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    for group in optimizer.param_groups:  # the saved state has the rate of the run
        group["lr"] = learning_rate
    train(net, optimizer, batch_size, n_samples, random_state)
    return held_out_loss(net)


branched = branched_critical_batch_size(
    train_from,
    checkpoints=states,
    batch_size=batch,
    learning_rate=rate,
    n_samples=n_train,
    batch_sizes=branch_sizes,
    lr_scaling="sqrt" if arguments.adam else "linear",
    noise_scales=noise,
    random_state=0,
)
print(branched)

# %%
# The prediction beside the measurement, and the record of all three answers.
record = {
    "optimizer": "ADAM" if arguments.adam else "SGD",
    "batch_size": batch,
    "learning_rate": rate,
    "target_loss": target_loss,
    "predicted": predicted,
    "measured": measured.to_dict(),
    "predicted_by_measured": predicted / measured.value,
    "monitor": along,
    "steps_to_loss": json.loads(steps.to_json()),
    "branched": json.loads(branched.to_json()),
}
print(
    f"critical batch size up to a training loss of {target_loss:g}: "
    f"predicted {predicted:,.0f}, measured {measured.text(',.0f')}"
)
if arguments.output:
    finite = [
        {name: value if np.isfinite(value) else None for name, value in at.items()}
        for at in along
    ]
    Path(arguments.output).write_text(
        json.dumps({**record, "monitor": finite}, indent=1) + "\n"
    )
if arguments.figure:
    save_figure(branched.plot().figure_, arguments.figure)
