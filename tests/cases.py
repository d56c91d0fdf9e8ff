"""Small problems, as dicts of thunks: each call builds a fresh (module, criterion, X, y) in float64."""

from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

N_ROWS = 23
# 23 rows: one chunk, or four chunks of 6, 6, 6 and 5 rows.
ONE_CHUNK, FOUR_CHUNKS = 100, 7
N_CLASSES = 3

# Sums of some thousand float64 terms of order one, in another order.
DOUBLE = {"rtol": 1e-10, "atol": 1e-12}
# The same in float32; second derivatives through batch norm lose three more digits.
SINGLE = {"rtol": 1e-3, "atol": 3e-5}
# Central differences with step 1e-5 in float64: truncation 1e-10 times third derivatives, rounding 1e-16 / 1e-5.
DIFFERENCES = {"rtol": 1e-6, "atol": 1e-8}
BIT_FOR_BIT = {"rtol": 0.0, "atol": 0.0}


@contextmanager
def no_global_random_numbers():
    """Fail if torch's or NumPy's global generator is used inside."""

    def state():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before = state()
    yield
    assert state() == before


class TiedNet(nn.Module):
    """The same layer twice: its parameters count once."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.head = nn.Linear(4, N_CLASSES)

    def forward(self, X):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(X)))))


def seeded_module(build, seed=0):
    """Build a module in float64 whose batch-norm buffers and weights are not those of the first hour."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build().double()
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                for tensor, low in ((layer.running_mean, -1.0), (layer.running_var, 0.5)):
                    if tensor is not None:
                        tensor.uniform_(low, low + 1.5)
                if layer.weight is not None:
                    nn.init.uniform_(layer.weight, 0.5, 1.5)
                    nn.init.uniform_(layer.bias, -0.5, 0.5)
    return module


def vectors(n_rows=N_ROWS, n_features=4, seed=0):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.normal(size=(n_rows, n_features)))
    # Sorted by class: a chunk of consecutive rows would hold one class.
    return X, torch.from_numpy(np.sort(rng.integers(N_CLASSES, size=n_rows)))


def images(n_rows=N_ROWS, shape=(2, 5, 4), seed=0):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.normal(size=(n_rows, *shape)))
    return X, torch.from_numpy(np.sort(rng.integers(N_CLASSES, size=n_rows)))


def _tanh():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, N_CLASSES))


def _relu():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, N_CLASSES))


def _conv():
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3))


def _batch_norm():
    layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.BatchNorm1d(4, affine=False)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(4, N_CLASSES))


def _conv_batch_norm():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(18, N_CLASSES))


def _input_batch_norm():
    layers = [nn.BatchNorm1d(4), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(5, N_CLASSES))


def _problem(build, data):
    return lambda: (seeded_module(build), nn.CrossEntropyLoss(), *data())


PLAIN = {
    "tanh": _problem(_tanh, vectors),
    "relu": _problem(_relu, vectors),
    "conv": _problem(_conv, images),
    "tied": _problem(TiedNet, vectors),
}
WITH_BATCH_NORM = {
    "batch_norm": _problem(_batch_norm, vectors),
    "conv_batch_norm": _problem(_conv_batch_norm, images),
    "input_batch_norm": _problem(_input_batch_norm, vectors),
}
PROBLEMS = PLAIN | WITH_BATCH_NORM
POLICIES = ("batch", "population", "running")
# Without batch norm the policies are one: such a problem takes one of them, in turn.
PROBLEMS_AND_POLICIES = [(name, POLICIES[i % 3]) for i, name in enumerate(PLAIN)]
PROBLEMS_AND_POLICIES += [(name, policy) for name in WITH_BATCH_NORM for policy in POLICIES]
