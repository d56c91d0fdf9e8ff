"""Functions of a parameter vector as problems (module, criterion, X, y), and their maxima over a box."""

from itertools import product

import numpy as np
import torch
from torch import nn


class Landscape(nn.Module):
    """A module whose output for every row is a function of its one parameter."""

    def __init__(self, function, start):
        super().__init__()
        self.function = function
        self.theta = nn.Parameter(torch.as_tensor(start, dtype=torch.float64).clone())

    def forward(self, X):
        return self.function(self.theta).expand(len(X), 1)


def mean_output(y_pred, y):
    return y_pred.mean()


def landscape(function, start):
    return Landscape(function, start), mean_output, torch.zeros(3, 1), torch.zeros(3, 1)


def vector(n, seed, low=-1.0, high=1.0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, n))


def linear(n=6, seed=0):
    """Return a problem, and its maximum over a box of given half-widths: the vertex of the coefficients' signs."""
    start, slope = vector(n, seed, -2, 2), vector(n, seed + 1)
    problem = landscape(lambda theta: 20 + slope @ theta, start)
    return problem, start, lambda bounds: float(20 + slope @ start + slope.abs() @ bounds)


def separable_convex(n=6, seed=0):
    """The box is symmetric: in every coordinate the farther end from the minimum is the maximum."""
    start, centre, curvature = vector(n, seed, -2, 2), vector(n, seed + 1), vector(n, seed + 2, 0.5, 3)
    problem = landscape(lambda theta: curvature @ (theta - centre) ** 2 / 2, start)
    return problem, start, lambda bounds: float(curvature @ ((start - centre).abs() + bounds) ** 2 / 2)


def concave(n=6, seed=0):
    """The maximum, 1, lies at a third of the way from the centre to the bounds of the box of epsilon 0.1."""
    start, curvature = vector(n, seed, -2, 2), vector(n, seed + 1, 0.5, 3)
    centre = start + 0.1 / 3 * (start.abs() + 1) * vector(n, seed + 2).sign()
    return landscape(lambda theta: 1 - curvature @ (theta - centre) ** 2 / 2, start), start, lambda bounds: 1.0


def indefinite(n=6, seed=0):
    """Convex in the first half of the coordinates (maximum at the bounds), concave in the rest (inside)."""
    _, one, one_maximum = separable_convex(n, seed)
    _, other, other_maximum = concave(n, seed)
    f, g = separable_convex(n, seed)[0][0].function, concave(n, seed)[0][0].function
    problem = landscape(lambda theta: f(theta[:n]) + g(theta[n:]), torch.cat([one, other]))
    return problem, torch.cat([one, other]), lambda bounds: one_maximum(bounds[:n]) + other_maximum(bounds[n:])


def coupled_convex(n=8, seed=0, at_minimum=True):
    """A convex quadratic with a full matrix: its maximum is at one of the 2 ** n vertices, found by trying all."""
    root = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = root @ root.T
    start = vector(n, seed, -2, 2)
    centre = start if at_minimum else start + 0.1 * vector(n, seed + 1)

    def function(theta):
        return (theta - centre) @ matrix @ (theta - centre) / 2

    def maximum(bounds):
        return max(
            float(function(start + torch.tensor(signs, dtype=torch.float64) * bounds))
            for signs in product((-1, 1), repeat=n)
        )

    return landscape(function, start), start, maximum


def dominoes(n=60):
    """Neighbours that agree add to f, and so does a positive one: from all but the first negative, one falls a step.

    Returns a problem, the half-widths of a box, the start in it, and the maximum: all positive.
    """
    field = torch.full((n,), 0.5, dtype=torch.float64)
    field[0] = 2.0
    problem = landscape(lambda theta: theta[1:] @ theta[:-1] + field @ theta, torch.zeros(n, dtype=torch.float64))
    bounds = torch.ones(n, dtype=torch.float64)
    start = -bounds
    start[0] = 1.0
    return problem, bounds, start, float(n - 1 + field.sum())


def avalanche(n=400, threshold_spread=0.6, field=0.1):
    """Coordinates that turn positive together, slowly: one turns once the mean of all exceeds its own threshold.

    The mean-field random-field Ising model beside its avalanche: from all negative, vertex steps cross a plateau.
    Returns a problem and the half-widths of a box.
    """
    thresholds = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n) * threshold_spread - field
    problem = landscape(lambda theta: n * theta.mean() ** 2 / 2 - thresholds @ theta, torch.zeros_like(thresholds))
    return problem, torch.ones_like(thresholds)


def box(theta, epsilon):
    """Half-widths of the full box, as in the definition."""
    return epsilon * (torch.as_tensor(theta).abs() + 1)
