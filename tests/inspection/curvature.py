"""Dense Hessians of the small problems, and quadratic forms of known curvatures in coordinates of no meaning."""

from functools import cache

import numpy as np
import torch

from sklgap.objective import Objective
from tests.cases import ONE_CHUNK, PROBLEMS, WITH_BATCH_NORM
from tests.landscapes import landscape, vector
from tests.references import dense_hessian, flat, loss_of_flat


def exact_hessian(name, policy="batch", chunk_size=ONE_CHUNK):
    # Without batch norm the mean over all rows is the same whatever policy and chunks.
    return _exact_hessian(name, *((policy, chunk_size) if name in WITH_BATCH_NORM else ("batch", ONE_CHUNK)))


@cache
def _exact_hessian(name, policy, chunk_size):
    problem = PROBLEMS[name]()
    return dense_hessian(loss_of_flat(*problem, policy, chunk_size), flat(problem[0]))


def rotation(n):
    return torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).normal(size=(n, n))))[0]


def quadratic_form(curvatures):
    """Return (module, criterion), X, y."""
    curvatures = torch.as_tensor(curvatures, dtype=torch.float64)
    axes = rotation(len(curvatures))
    module, criterion, X, y = landscape(lambda theta: curvatures @ (axes @ theta) ** 2 / 2, vector(len(curvatures), 1))
    return (module, criterion), X, y


class Quadratic(Objective):
    """The same as an Objective whose products are those of its matrix: for tests that need many thousands."""

    def __init__(self, curvatures, axes=None):
        pair, X, y = quadratic_form(curvatures)
        super().__init__(*pair, (X, y))
        axes = rotation(len(curvatures)) if axes is None else axes
        self.matrix = axes.T @ torch.diag(torch.as_tensor(curvatures, dtype=torch.float64)) @ axes

    def hessian_operator(self, theta=None):
        return lambda v: self.matrix @ v
