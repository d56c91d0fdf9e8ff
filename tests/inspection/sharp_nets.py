"""Objectives whose sharpness is measured, and the measurement without its warning."""

import warnings
from functools import cache

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklgap.inspection import sharpness
from sklgap.objective import Objective
from tests.cases import seeded_module, vectors
from tests.tiny import blobs


def objective_of(problem, **kwargs):
    module, criterion, X, y = problem
    return Objective(module, criterion, (X, y), **kwargs)


def quiet_sharpness(*args, **kwargs):
    """Sharpness without L-BFGS-B's warning that it did not move."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return sharpness(*args, **kwargs)


def random_net(seed, *, batch_norm, dtype, n_layers=1):
    layers = [nn.Linear(4, 5)]
    for _ in range(n_layers):
        layers += [nn.BatchNorm1d(5)] * batch_norm + [nn.ReLU(), nn.Linear(5, 5)]
    module = seeded_module(lambda: nn.Sequential(*layers, nn.Tanh(), nn.Linear(5, 3)), seed)
    X, y = vectors(17, seed=seed)
    return Objective(module, nn.CrossEntropyLoss(), (X, y), dtype=dtype)


@cache
def trained_net(seed):
    """A net with batch norm after 200 full-batch steps of Adam on separable classes: a small loss and gradient."""
    X, y = (torch.from_numpy(part) for part in blobs(60, seed=seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()]
        module = nn.Sequential(*layers, nn.Linear(8, 3)).double()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X.double()), y).backward()
        optimizer.step()
    return Objective(module, nn.CrossEntropyLoss(), (X, y))
