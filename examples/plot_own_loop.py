"""
Which batch size for a training loop of my own?
===============================================

In a plain PyTorch loop, four lines show which batch size is *useful*, and one function
shows which is *safe*.

Left: one training, measured as it goes by `sklgap.monitor.BatchSizeMonitor`. The band
is the noise scale, or "knee", with its 95 % interval. Doubling a batch size far below
the knee nearly halves the updates that training takes. A batch size far above it only
uses more samples. The dashed line is the batch size in use.

Right: the same loop with several batch sizes, each from the same starting points. The
figure marks the largest batch size that is shown to lose less than the margin.

The two answer different questions. The knee is about speed and the curve is about
accuracy: take the smaller of the two. The guide page :doc:`/guide/own_loop` explains it
step by step.

The example generates its data, MNIST-1D. The page runs it with ``--quick``, which takes
fewer trials and a smaller net.
"""

# %%
# The loop. Only the data and the two lines about a monitor come from sklgap.
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from sklgap import batch_size_curve, largest_safe_batch_size
from sklgap.datasets import make_mnist1d
from sklgap.experiments import batch_size_limits
from sklgap.monitor import BatchSizeMonitor

n_samples, width, epochs, n_trials, margin = 2000, 100, 15, 5, 0.04

# sphinx_gallery_start_ignore
from _options import options, save

arguments = options(
    __doc__,
    trials={"type": int, "help": "starting points (10; 5 with --quick)"},
    margin={"type": float, "default": 0.04, "help": "accuracy that may be lost (0.04)"},
)
if not arguments.quick:
    n_samples, width, epochs, n_trials = 4000, 200, 20, 10
n_trials, margin = arguments.trials or n_trials, arguments.margin
# sphinx_gallery_end_ignore

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
        monitor = BatchSizeMonitor(
            net, loss, geometry="adam", optimizer=optimizer, every=2, window=60
        )
    for _ in range(epochs):
        for batch in torch.randperm(len(X)).split(batch_size):
            if watch is not None:
                monitor.step((X[batch], y[batch]))
                watch(monitor)
            optimizer.zero_grad()
            loss(net(X[batch]), y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        return {"correct": net(X_valid).argmax(dim=1) == y_valid}


# %%
# One training, and what its monitor reports along the way: every 20 updates, once its
# window is full.
updates, knees, monitors = [], [], []


def watch(monitor):
    """Note the knee and its interval."""
    monitors.append(monitor)
    if len(monitors) % 20 == 0 and monitor.n_measurements >= monitor.window:
        state = monitor.state()
        updates.append(len(monitors))
        knees.append(
            [state[f"noise_scale{end}"] for end in ("", "_low", "_high")],
        )


train(in_use, 0.004, random_state=0, watch=watch)
print(monitors[-1].verdict())

# %%
# The same loop with several batch sizes. The learning rate grows with the square root
# of the batch size.
curve = batch_size_curve(
    train,
    batch_sizes=sizes,
    lr="sqrt",
    learning_rate=0.004,
    n_trials=n_trials,
    random_state=0,
)
print(curve)

# %%
# The decision: the smaller one of what is safe and what is useful.
safe = largest_safe_batch_size(curve, margin=margin)
print(batch_size_limits(safe, useful=monitors[-1]))
safe_size = int(safe)

# %%
# An interval without an upper end reaches to the top of the figure: the gradient cannot
# be distinguished from its noise there.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
knee, low, high = np.array(knees).T
top, colour = 4 * n_samples, "#00838f"
band = {"color": colour, "alpha": 0.2, "linewidth": 0, "label": "95 % interval"}
left.fill_between(updates, np.maximum(low, 1), np.minimum(high, top), **band)
left.plot(updates, np.minimum(knee, top), color=colour, label="knee (noise scale)")
left.axhline(in_use, color="0.3", linestyle="--", label=f"in use: {in_use}")
left.axhline(safe_size, color="#2e7d32", linestyle=":", label=f"safe: {safe_size}")
left.set(yscale="log", ylim=(in_use / 8, top), xlabel="updates")
left.set_ylabel("batch size (samples)")
left.set_yticks([16, 64, 256, 1024, 4096], ["16", "64", "256", "1,024", "4,096"])
left.tick_params(which="minor", left=False, labelleft=False)
left.legend(
    loc="lower center",
    bbox_to_anchor=(0.5, 1),
    ncols=2,
    frameon=False,
    fontsize="small",
    title="useful: for speed",
)
display = safe.plot(ax=right)
right.set_title("safe: for accuracy", fontsize="medium")
figure.suptitle(f"A dense net with {width} units on MNIST-1D, {n_trials} trials")
# sphinx_gallery_start_ignore
save(
    figure,
    arguments,
    curve,
    curve=None,
    knees=knees,
    updates=updates,
    safe=display,
    safe_size=safe_size,
    in_use=in_use,
    width=width,
    n_samples=n_samples,
    n_trials=n_trials,
)
# sphinx_gallery_end_ignore
plt.show()
