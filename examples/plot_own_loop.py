"""
Which batch size for a training loop of my own?
===============================================

A plain PyTorch loop, three lines to see which batch size is *useful*, and one function to see which is *safe*.

Left: one training, measured as it goes by `sklgap.monitor.BatchSizeMonitor`. The band is the noise scale, or "knee",
with its 95 % interval. A batch far below it trains in nearly half the updates when it is doubled. A batch far above it
only uses more samples. The dashed line is the batch size in use.

Right: the same loop with several batch sizes, each from the same starting points. The largest size that is shown to
lose less than the margin is marked.

The two answer different questions. The knee is about speed, and the curve is about accuracy: take the smaller one. The
guide page :doc:`/guide/own_loop` goes through it step by step.

The data are MNIST-1D, which is generated. ``--quick`` takes fewer trials and a smaller net, in seconds.
"""

# %%
# The loop. Nothing in it is ours but the data, and the two lines about a monitor.
import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from sklgap import batch_size_curve, largest_safe_batch_size
from sklgap.datasets import make_mnist1d
from sklgap.experiments import batch_size_limits
from sklgap.monitor import BatchSizeMonitor

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="fewer samples, trials and units")
parser.add_argument("--trials", type=int, help="starting points (default: 10; 5 with --quick)")
parser.add_argument("--margin", type=float, default=0.04, help="accuracy that may be lost (default: 0.04)")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

n_samples, width, epochs, n_trials = (2000, 100, 15, 5) if arguments.quick else (4000, 200, 20, 10)
n_trials = arguments.trials or n_trials
in_use, sizes = 64, [64, 128, 256, 512, 1024]
X, y = map(torch.from_numpy, make_mnist1d(n_samples, random_state=0))
X_valid, y_valid = map(torch.from_numpy, make_mnist1d(4000, random_state=1))
loss = nn.CrossEntropyLoss()


def train(batch_size, learning_rate, random_state, watch=None):
    """Train once; ``watch`` sees a monitor at every update."""
    torch.manual_seed(random_state)
    net = nn.Sequential(nn.Linear(40, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    if watch is not None:
        monitor = BatchSizeMonitor(net, loss, geometry="adam", optimizer=optimizer, every=2, window=60)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(batch_size):
            if watch is not None:
                monitor.step((X[rows], y[rows]))
                watch(monitor)
            optimizer.zero_grad()
            loss(net(X[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return {"correct": net(X_valid).argmax(dim=1) == y_valid}


# %%
# One training, and what its monitor says along the way: every 20 updates, once its window is full.
updates, knees, monitors = [], [], []


def watch(monitor):
    """Note the knee and its interval."""
    monitors.append(monitor)
    if len(monitors) % 20 == 0 and monitor.n_measurements >= monitor.window:
        state = monitor.state()
        updates.append(len(monitors))
        knees.append([state["noise_scale"], state["noise_scale_low"], state["noise_scale_high"]])


train(in_use, 0.004, random_state=0, watch=watch)
print(monitors[-1].verdict())

# %%
# The same loop with several batch sizes. The learning rate grows with the square root of the batch size.
curve = batch_size_curve(train, batch_sizes=sizes, lr="sqrt", learning_rate=0.004, n_trials=n_trials, random_state=0)
print(curve)

# %%
# The decision: the smaller one of what is safe and what is useful.
safe = largest_safe_batch_size(curve, margin=arguments.margin)
print(batch_size_limits(safe, useful=monitors[-1]))

# %%
# An interval without an upper end reaches to the top of the figure: the gradient cannot be told from its noise there.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
knee, low, high = np.array(knees).T
top = 4 * n_samples
left.fill_between(updates, np.maximum(low, 1), np.minimum(high, top), alpha=0.2, linewidth=0, label="95 % interval")
left.plot(updates, np.minimum(knee, top), label="knee (noise scale)")
left.axhline(in_use, color="0.3", linestyle="--", label=f"batch size in use: {in_use}")
left.axhline(int(safe), color="tab:green", linestyle=":", label=f"shown to be safe: {int(safe)}")
left.set(yscale="log", ylim=(in_use / 8, top), xlabel="updates", ylabel="samples")
left.set_yticks([16, 64, 256, 1024, 4096], ["16", "64", "256", "1,024", "4,096"])
left.tick_params(which="minor", left=False, labelleft=False)
left.legend(frameon=False, fontsize="small", loc="lower right")
safe.plot(ax=right)
for ax, title in ((left, "useful: for speed"), (right, "safe: for accuracy")):
    ax.set_title(title, pad=24)  # above the legend of the curve
figure.supxlabel(f"MNIST-1D, {n_samples:,} training samples, {n_trials} trials", fontsize="x-small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
