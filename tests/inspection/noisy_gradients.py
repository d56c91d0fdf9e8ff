"""Gradients of single rows in closed form, and how estimates over repeats are judged."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.cases import PLAIN, WITH_BATCH_NORM

EXACT = 1e-10
# Means over independent repeats are compared at so many of their standard errors; the seeds are fixed.
N_SIGMA = 4
N_REPEATS = 64


def half_squared_error(y_pred, y):
    return (y_pred - y).square().mean() / 2


def regression(n=60, d=3, seed=0, at_minimum=False):
    """Return a linear regression as a problem, and its single-row gradients (x w - y) x."""
    rng = np.random.default_rng(seed)
    X, noise = rng.normal(size=(n, d)), rng.normal(size=n)
    y = X @ np.arange(1.0, d + 1) + noise
    X, y = X[np.argsort(y)], np.sort(y)  # sorted, as data may be
    w = np.linalg.lstsq(X, y, rcond=None)[0] if at_minimum else np.arange(1.0, d + 1) + 0.4
    net = nn.Linear(d, 1, bias=False).double()
    net.weight.data = torch.from_numpy(w)[None]
    problem = ((net, half_squared_error), torch.from_numpy(X), torch.from_numpy(y)[:, None])
    return problem, (X @ w - y)[:, None] * X


def moments(rows):
    """Return tr(Sigma) and the squared norm of the mean."""
    return rows.var(axis=0, ddof=1).sum(), (rows.mean(axis=0) ** 2).sum()


# Without batch norm the policies are one.
CASES = [(name, "batch") for name in PLAIN] + [(name, "running") for name in ("tanh", *WITH_BATCH_NORM)]


def repeats(n, measure):
    return [measure(seed) for seed in range(n)]


def assert_honest(values, errors):
    """The scatter of the repeats, known to 9 % itself, is the standard error stated (root mean square)."""
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values, ddof=1), rel=N_SIGMA * 0.09)


def gradients_of(objective, batches):
    return np.array([objective.batch_gradient(rows)[1].numpy() for rows in batches])
