"""
Three critical batch sizes of one training loop
===============================================

A plain PyTorch loop of 30 lines on MNIST, and three answers to "which batch size?":

* the knee that `BatchSizeMonitor` reads off the gradients while the loop runs, and what it predicts for the updates to
  a training loss;
* the updates that trainings with six batch sizes really take to that loss, each at the best of several learning rates
  (`steps_to_loss`, McCandlish et al. 2018);
* the largest batch that loses nothing from a checkpoint of the loop on (`branched_critical_batch_size`, Merrill et al.
  2025).

The first two are about a batch that takes twice the samples. The third is about one that takes no more. The theory is
one of plain gradient steps, so this is SGD without momentum; ``--adam`` does it with ADAM, whose noise the monitor
measures in ADAM's geometry.

MNIST is 24,576 of its images at 14 x 14 pixels. It takes some minutes on one core. ``--quick`` does it with the digits
that ship with scikit-learn, in seconds.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklgap import LBGapClassifier, branched_critical_batch_size
from sklgap.datasets import fetch_mnist
from sklgap.experiments import steps_to_loss
from sklgap.monitor import BatchSizeMonitor

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--quick", action="store_true", help="digits, not MNIST")
parser.add_argument("--adam", action="store_true", help="ADAM instead of SGD")
parser.add_argument(
    "--trials",
    type=int,
    default=2,
    help="starting points of the measured steps (default: 2)",
)
parser.add_argument(
    "--memory", help="folder that trainings are saved in, and loaded from"
)
parser.add_argument("--output", help="file to write the record to, as JSON")
parser.add_argument("--figure", help="file to save the figure of the branches to")
arguments = parser.parse_args()

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
    )  # 14 x 14 pixels: a fourth of the cost
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
# The loop. With ``monitor`` it also measures the noise of the gradients, and is bit for bit the same loop.
loss_of = nn.CrossEntropyLoss()


def make(learning_rate: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a net and its optimiser."""
    net = Net()
    kind = torch.optim.Adam if arguments.adam else torch.optim.SGD
    return net, kind(net.parameters(), lr=learning_rate)


def train(net, optimizer, batch_size, n_samples, seed, monitor=None, each=None):
    """Train on so many samples in an order that the seed decides."""
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
    """Return the loss on the samples held out."""
    return float(loss_of(net(X_valid), y_valid))


# %%
# One run with the monitor. It measures every second update, and its window is half an epoch: the state is read
# when all of it is new. A checkpoint is the state of net and optimiser; its noise is that of the window before.
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
    """Note the state of the monitor, and the training loss, whenever its window is new."""
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
        print(
            f"after {epoch} epochs, held-out loss {held_out_loss(net):.3f}: {monitor.verdict()}"
        )

# %%
# What the knee predicts: a step on B samples does the work of 1 / (1 + knee / B) steps without noise (McCandlish et
# al., equation (D.1)). The critical batch size up to the target loss is the knee, averaged over these steps.
until = next((i for i, at in enumerate(along) if at["train_loss"] <= target_loss), None)
if until is None:
    raise SystemExit(
        f"The run has not reached a training loss of {target_loss:g}: it ends at {along[-1]['train_loss']:.3g}."
    )
trace, square = (
    np.array([at[name] for at in along[: until + 1]])
    for name in ("trace", "squared_gradient_norm")
)
without_noise = batch * square / (batch * square + trace)
of_samples = batch * trace / (batch * square + trace)
predicted = float(of_samples.sum() / without_noise.sum())
print(
    f"predicted by the monitor, up to a training loss of {target_loss:g}: {predicted:,.0f}"
)

# %%
# The updates that six batch sizes take to that loss.
estimator = LBGapClassifier(
    Net,
    optimizer=type(optimizer),
    init="torch",
    lr=rate,
    batch_size=batch,
    max_epochs=max_epochs,
    tol=0.01,  # a rate that is too large for its batch ends on a plateau above the target
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
# The branches, from the loop's own checkpoints.
def train_from(state, batch_size, learning_rate, n_samples, random_state):
    """Go on from a checkpoint, and return the held-out loss."""
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
# The three, side by side.
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
    f"up to a training loss of {target_loss:g}: predicted {predicted:,.0f}, measured {measured.text(',.0f')}"
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
    branched.plot().figure_.savefig(arguments.figure, dpi=150)
