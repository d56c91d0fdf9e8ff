"""
The edge of stability, for small and large batches
==================================================

Gradient descent with learning rate lr is unstable where the largest eigenvalue of the
Hessian is above 2 / lr. Do large batches train there?

Cohen et al. (2021) train on all samples at once. The largest eigenvalue grows until it
reaches that threshold, and stays there. The loss goes on falling, but not at every
update. For Adam the quantity is the largest eigenvalue of the preconditioned Hessian,
and the threshold is (2 + 2 beta1) / ((1 - beta1) lr) (Cohen et al. 2022). The noise of
small batches holds training below the threshold.

The page runs the example with ``--quick``, which takes few samples and updates. Without
it, MNIST-1D takes minutes, and ``--dataset mnist`` takes longer.
"""

# %%
# The data, and a dense net with tanh and without batch norm, as in the papers. The loss
# that is trained is then the loss that is measured.
import matplotlib.pyplot as plt
from torch import nn
from torch.optim import SGD, Adam

from sklgap import LBGapClassifier, stability_trajectory
from sklgap.datasets import make_mnist1d

n_samples, n_updates, every = 200, 200, 20
X, y = make_mnist1d(n_samples=n_samples, random_state=0)
optimizers = {"SGD": (SGD, 0.5), "Adam": (Adam, 0.01)}
title = "Dense net with two layers of 100 units on MNIST-1D"

# sphinx_gallery_start_ignore
from _options import options, save

from sklgap.datasets import fetch_mnist

arguments = options(
    __doc__,
    dataset={"choices": ["mnist1d", "mnist"], "default": "mnist1d", "help": "the data"},
    samples={"type": int, "help": "training samples (1000; 200 with --quick)"},
    updates={"type": int, "help": "updates of each training (1000; 200 with --quick)"},
)
if not arguments.quick:
    n_samples = n_updates = 1000
n_samples = arguments.samples or n_samples
n_updates = arguments.updates or n_updates
every = max(1, n_updates // (10 if arguments.quick else 35))
X, y = make_mnist1d(n_samples=n_samples, random_state=0)
if arguments.dataset == "mnist":
    X, y = (part[:n_samples] for part in fetch_mnist(return_X_y=True, flat=True))
    optimizers["SGD"] = (SGD, 0.4)
    title = title.replace("MNIST-1D", "MNIST")
# sphinx_gallery_end_ignore


class Dense(nn.Module):
    """Two hidden layers of 100 units with tanh."""

    def __init__(self, n_in=X.shape[1], width=100, n_out=10):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_in, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, n_out),
        )

    def forward(self, X):
        """Return one score per class."""
        return self.layers(X)


# %%
# Batches of 32 samples (SB) against all samples at once (LB): the same number of
# updates and the same learning rate. Eigenvalues are measured on all training samples,
# so those of LB are the curvature of the loss that LB descends.
regimes = {
    "SB": {"batch_size": 32, "max_epochs": max(1, round(n_updates * 32 / n_samples))},
    "LB": {"batch_size": -1, "max_epochs": n_updates},
}
found = {}
for name, (optimizer, lr) in optimizers.items():
    found[name] = stability_trajectory(
        LBGapClassifier(Dense, init="torch", optimizer=optimizer, lr=lr, tol=None),
        X,
        y,
        regimes=regimes,
        every=n_updates,
        at_updates=[1, 2, 4, 7, *range(every, n_updates, every)],
        max_samples=None,
        random_state=0,
        verbose=0,
    )
    print(f"{name}, lr {lr:g}\n\n{found[name]}\n")
names = {name: f"{name}, lr {lr:g}" for name, (_, lr) in optimizers.items()}

# %%
# The dotted line is the threshold. Above it the optimiser is unstable on a quadratic
# loss. Adam begins far above its threshold, with a preconditioner of very few
# gradients.
figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
shown = {}
for ax, (name, trajectory) in zip(axes, found.items(), strict=True):
    shown[name] = trajectory.plot(ax=ax)
    ax.set_title(names[name])
figure.suptitle(title)
# sphinx_gallery_start_ignore
save(figure, arguments, found=shown, names=names, title=title)
if arguments.output and not arguments.draw:
    import json

    path = arguments.output.with_suffix(".json")
    record = json.loads(path.read_text(encoding="utf-8"))
    record |= {name: json.loads(one.to_json()) for name, one in found.items()}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
# sphinx_gallery_end_ignore
plt.show()
