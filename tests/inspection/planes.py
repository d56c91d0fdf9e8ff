"""Solutions that a plane goes through."""

from functools import cache

import torch
from torch import nn

from sklgap.objective import Objective
from tests.cases import PROBLEMS
from tests.landscapes import landscape, separable_convex, vector
from tests.tiny import blobs, small

GRID = {"alphas": [-1.0, 0.0, 0.5, 1.0], "betas": [0.0, 1.0, 2.0]}


@cache
def three_models():
    """Three fitted models and their data."""
    X, y = blobs(60)
    settings = ({"batch_regime": 10}, {"batch_regime": 60}, {"batch_regime": 10, "random_state": 1})
    return *(small(**kwargs).fit(X, y) for kwargs in settings), X, y


def objective_of_model(model, X, y, **kwargs):
    return Objective(model.module_, nn.CrossEntropyLoss(), (X, torch.from_numpy(y)), **kwargs)


def objective_of(name, **kwargs):
    module, criterion, X, y = PROBLEMS[name]()
    return Objective(module, criterion, (X, y), **kwargs)


def three_solutions(seed=0, n=6):
    """A quadratic, and three solutions on it as pairs, data and parameters."""
    (module, criterion, X, y), *_ = separable_convex(n, seed)
    thetas = [vector(n, 10 * seed + i, -2, 2) for i in range(3)]
    return module.function, [(landscape(module.function, theta)[0], criterion) for theta in thetas], (X, y), thetas
