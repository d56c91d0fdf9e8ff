"""
The edge of stability, for small and large batches
==================================================

Gradient descent with the rate lr is unstable where the largest eigenvalue of the Hessian is above 2 / lr. Do large
batches train there?

Cohen et al. (2021) find that training on all samples at once sharpens until the largest eigenvalue is at that
threshold, and stays there. The loss goes on falling, but not at every step. For Adam it is the largest eigenvalue of
the preconditioned Hessian, and the threshold is (2 + 2 beta1) / ((1 - beta1) lr) (Cohen et al. 2022). The noise of
small batches holds training below it.

``--quick`` does it with few samples and updates. Without it, MNIST-1D takes minutes, and ``--dataset mnist`` some more.
"""

# %%
# The data, and the sizes of the experiment. A dense net with tanh and without batch norm, as in the papers: the loss
# that is trained is then the one that is measured.
import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from torch import nn
from torch.optim import SGD, Adam

from sklgap import LBGapClassifier, stability_trajectory
from sklgap.datasets import fetch_mnist, make_mnist1d

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few samples and updates")
parser.add_argument("--dataset", choices=["mnist1d", "mnist"], default="mnist1d")
parser.add_argument("--samples", type=int, help="default: 1,000; 200 with --quick")
parser.add_argument("--updates", type=int, help="of every training; default: 1,000; 200 with --quick")
parser.add_argument("--record", help="JSON file to save both results to")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

n_samples = arguments.samples or (200 if arguments.quick else 1000)
n_updates = arguments.updates or (200 if arguments.quick else 1000)
if arguments.dataset == "mnist":
    X, y = (part[:n_samples] for part in fetch_mnist(return_X_y=True, flat=True))
else:
    X, y = make_mnist1d(n_samples=n_samples, random_state=0)


class Dense(nn.Module):
    """Two hidden layers of 100 units with tanh."""

    def __init__(self, n_in=X.shape[1], width=100, n_out=10):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_in, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, n_out)
        )

    def forward(self, X):
        """Return one score per class."""
        return self.layers(X)


# %%
# Batches of 32 samples (SB) against all samples at once (LB): equal numbers of updates, equal rates. Eigenvalues are
# measured on all training samples, so that those of LB are the curvature of the loss that it descends.
BATCH = 32
small_epochs = max(1, round(n_updates * BATCH / n_samples))
regimes = {
    "SB": {"batch_size": BATCH, "max_epochs": small_epochs},
    "LB": {"batch_size": -1, "max_epochs": n_updates},
}
# Some 40 records of each; 15 with --quick.
every = max(1, n_updates // (10 if arguments.quick else 35))
rates = {"SGD": (SGD, 0.4 if arguments.dataset == "mnist" else 0.5), "Adam": (Adam, 0.01)}
found = {}
for name, (optimizer, lr) in rates.items():
    model = LBGapClassifier(Dense, init="torch", optimizer=optimizer, lr=lr, tol=None)
    found[name] = stability_trajectory(
        model,
        X,
        y,
        regimes=regimes,
        every=n_updates,
        at_updates=[1, 2, 4, 7, *range(every, n_updates, every)],
        max_samples=None,
        random_state=0,
        verbose=0 if arguments.quick else 1,
    )
    print(f"{name}, lr {lr:g}\n\n{found[name]}\n")
if arguments.record:
    records = {name: json.loads(trajectory.to_json()) for name, trajectory in found.items()}
    Path(arguments.record).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")

# %%
# The dashed line is the threshold: above it the optimiser is unstable on a quadratic loss. Adam begins far above its
# own, with a preconditioner of very few gradients.
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for ax, (name, trajectory) in zip(axes, found.items(), strict=True):
    trajectory.plot(ax=ax)
    ax.set_title(f"{name}, lr {rates[name][1]:g}")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
