"""Solvers of Metric 2.1, which maximise a function over a box around a point.

Every value that they find is a lower bound of the true maximum, so a larger value is a better one.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from sklgap.objective import Objective, RestrictedObjective

AnyObjective = Objective | RestrictedObjective

FIXED_POINT = "fixed point"
STOPPED_AT_START = "stopped at its start"


class Maximum(NamedTuple):
    """The best point found.

    Attributes
    ----------
    f_max : float
        The value of f there.
    argmax : Tensor of shape (n_params,)
        The offset from ``theta0`` of the objective, inside the box.
    n_evaluations : int
        Number of gradients that the search cost.
    status : str
        How the search ended, in words.
    converged : bool
        Whether the search met its own criterion.
    spread : float
        The gap between the best two starts, as a share of the rise of the best one. NaN if there was only one start.
    n_not_finite : int
        Number of points tried at which f was not finite.
    flat : bool
        Whether the gradient was zero at every point tried.
    """

    f_max: float
    argmax: Tensor
    n_evaluations: int
    status: str
    converged: bool
    spread: float = float("nan")
    n_not_finite: int = 0
    flat: bool = False


class BudgetSpent(Exception):
    """A search has spent all its gradients."""


class Points:
    """Evaluates f and its gradient at offsets from ``theta0``, and stores the best offset.

    A value that is not finite is never the best. Entries of a gradient that are not finite become zero.

    Parameters
    ----------
    objective : Objective
        Maximised around its ``theta0``.
    bounds : Tensor of shape (n_params,)
        Half-widths of the box.
    budget : int, optional
        Number of gradients after which the next one raises `BudgetSpent`.
    """

    def __init__(self, objective: AnyObjective, bounds: Tensor, budget: int | None = None) -> None:
        self.objective = objective
        self.bounds = bounds
        self.budget = budget
        self.f_max = -np.inf
        self.argmax = torch.zeros_like(bounds)
        self.n_evaluations = self.n_not_finite = 0
        self.flat = True  # all gradients so far are zero
        self._theta = torch.empty_like(bounds)  # reused, since new memory for every point takes as long as its use

    def evaluate(self, offset: Tensor) -> tuple[float, Tensor]:
        """Return f and its gradient at the offset."""
        value, slope = self.slope(offset)
        self.keep(offset, value)
        return (value if np.isfinite(value) else -np.inf), slope

    def slope(self, offset: Tensor) -> tuple[float, Tensor]:
        """Return value and gradient of the objective's current loss, and leave the best offset alone."""
        if self.budget is not None and self.n_evaluations >= self.budget:
            raise BudgetSpent
        self.n_evaluations += 1
        value, slope = self.objective.gradient(torch.add(self.objective.theta0, offset, out=self._theta))
        if not np.isfinite(float(slope.sum())):
            slope.nan_to_num_(0.0, 0.0, 0.0)
        self.flat = self.flat and not bool(slope.any())
        return value, slope

    def keep(self, offset: Tensor, value: float) -> None:
        """Store the offset as the best one if its value is the largest."""
        if not np.isfinite(value):
            self.n_not_finite += 1
        elif value > self.f_max:
            self.f_max, self.argmax = value, offset

    def maximum(self, status: str, converged: bool, spread: float = float("nan")) -> Maximum:
        """Return the result of the search."""
        if not np.isfinite(self.f_max):
            status, converged = "the loss is not finite at any point tried", False
        return Maximum(
            self.f_max, self.argmax, self.n_evaluations, status, converged, spread, self.n_not_finite, self.flat
        )


def vertex_ascent(objective: AnyObjective, bounds: Tensor, start: Tensor, max_iter: int) -> Maximum:
    """Go to the vertex that the gradient points to while that raises f: the power method of Journee et al. (2010).

    For a convex f every step raises f.
    """
    points = Points(objective, bounds)
    value, slope = points.evaluate(start)
    best, offset = value, start
    for _ in range(max_iter - 1):
        if not slope.any():
            zero = (
                "stopped at a gradient of zero"
                if points.n_evaluations > 1
                else f"{STOPPED_AT_START}: the gradient is zero there"
            )
            return points.maximum(zero, False)
        vertex = slope.sign().mul_(bounds)
        if torch.equal(vertex, offset):
            return points.maximum(FIXED_POINT, True)
        value, slope = points.evaluate(vertex)
        if not value > best:
            return points.maximum("the last vertex step did not increase f", False)
        best, offset = value, vertex
    return points.maximum(f"stopped after {points.n_evaluations} gradients", False)


def lbfgsb(objective: AnyObjective, bounds: Tensor, max_iter: int, scale: float = 1.0) -> Maximum:
    """Run SciPy's L-BFGS-B from the zero offset with its default tolerances: our reading of the paper's procedure.

    Parameters
    ----------
    objective : Objective
        Maximised around its ``theta0``.
    bounds : Tensor of shape (n_params,)
        Half-widths of the box.
    max_iter : int
        Number of iterations. Each takes one gradient or a few.
    scale : float, default=1.0
        Factor on the objective. SciPy's tolerance on the projected gradient is absolute, so a flat function that is not
        scaled meets the tolerance at the start.
    """
    points = Points(objective, bounds)
    status, n_iterations, converged = quasi_newton(points, torch.zeros_like(bounds), max_iter, scale)
    if n_iterations == 0:
        status = f"{STOPPED_AT_START}: {status}"
    return points.maximum(status, converged and n_iterations > 0)


def quasi_newton(points: Points, start: Tensor, max_iter: int, scale: float = 1.0) -> tuple[str, int, bool]:
    """Run SciPy's L-BFGS-B from an offset. Return its message, its iterations, and whether it met its tolerance."""
    bounds = points.bounds

    def negative(offset: np.ndarray) -> tuple[float, np.ndarray]:
        point = _clip(torch.as_tensor(offset, dtype=bounds.dtype, device=bounds.device), bounds)
        value, slope = points.slope(point)
        points.keep(point, value)
        return -scale * value, -scale * slope.cpu().double().numpy()

    half_widths = bounds.cpu().double().numpy()
    box = np.stack([-half_widths, half_widths], axis=1)
    first = start.cpu().double().numpy()
    result = minimize(negative, first, jac=True, method="L-BFGS-B", bounds=box, options={"maxiter": max_iter})
    return str(result.message), int(result.nit), result.status == 0


def random_vertex(bounds: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random vertex of the box. All vertices have the same probability."""
    signs = torch.randint(0, 2, bounds.shape, generator=generator) * 2 - 1
    return bounds * signs.to(bounds)


def _clip(offset: Tensor, bounds: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(offset, -bounds), bounds)
