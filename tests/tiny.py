"""Small data, small nets and a small classifier for the tests of the estimator and of the net that trains."""

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from sklgap import LBGapClassifier
from sklgap.nets import C1, F1


def blobs(n=60, n_features=4, n_classes=3, seed=0):
    """Gaussian clouds three standard deviations apart, float32, classes in turn."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    centres = 3 * rng.standard_normal((n_classes, n_features))
    return (centres[y] + rng.standard_normal((n, n_features))).astype(np.float32), y


def images(n=40, channels=1, side=8, n_classes=2, seed=0):
    """Noise images, brighter on the left or on the right half by class, of shape (n, channels, side, side)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.standard_normal((n, channels, side, side)).astype(np.float32)
    X[..., : side // 2] += 2.0 * y[:, None, None, None]
    return X, y


class TinyF1(F1):
    """F1 with two layers of 16 units: sizes still come from the data."""

    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes, n_layers=2, width=16)


def interrupting_at(step):
    """Return a TinyF1 that raises KeyboardInterrupt, as Ctrl-C does, in that training step, counted over all fits."""

    class Interrupting(TinyF1):
        n_steps = 0

        def forward(self, X):
            if self.training:
                Interrupting.n_steps += 1
                if Interrupting.n_steps == step:
                    raise KeyboardInterrupt
            return super().forward(X)

    return Interrupting


class TinyC1(C1):
    """C1 with few filters: sizes still come from the data."""

    def __init__(self, input_shape, n_classes):
        super().__init__(input_shape, n_classes, n_filters=4, hidden=(12,), dropout=0.2)


class Mlp(nn.Module):
    """A user's module without batch norm."""

    def __init__(self, n_in=4, n_out=3, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_in, width), nn.Tanh(), nn.Linear(width, n_out))

    def forward(self, X):
        return self.layers(X)


class Probabilities(Mlp):
    """A user's module that returns probabilities, for NLLLoss as skorch takes it."""

    def forward(self, X):
        return self.layers(X).softmax(dim=1)


def make_mlp(n_in=4, n_out=3):
    """Build an Mlp: a factory instead of a class."""
    return Mlp(n_in, n_out)


class Switching(Callback):
    """Freezes or thaws the first weights after some epochs."""

    def __init__(self, thaw):
        self.thaw = thaw

    def on_epoch_begin(self, net, **kwargs):
        epoch = len(net.history)
        next(net.module_.parameters()).requires_grad_(self.thaw if epoch > 3 else not self.thaw)


def small(**params):
    """Return F1 with two layers of 8 units, two epochs, a seed; or what ``params`` say instead."""
    defaults = {"max_epochs": 2, "tol": None, "random_state": 0, "lr": 0.01}
    if "net" not in params:
        defaults |= {"module__width": 8, "module__n_layers": 2}
    return LBGapClassifier(**{**defaults, **params})


def weights(model):
    """Return the weights and buffers of a fitted model."""
    return {name: value.clone() for name, value in model.module_.state_dict().items()}


def same_weights(first, second):
    """Say whether two fitted models have equal weights and buffers, bit for bit."""
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
