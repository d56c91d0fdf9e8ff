"""Maximise a function over a box around its point: the solvers of Metric 2.1.

Every value found is a lower bound of the true maximum, so larger is better.
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
        f there.
    argmax : Tensor of shape (n_params,)
        The offset from the objective's ``theta0``, inside the box.
    n_evaluations : int
        Gradients that the search has cost.
    status : str
        How it ended, in words.
    converged : bool
        Whether it met its own criterion.
    spread : float
        How far apart the best two starts ended, as a share of the rise of the best one; NaN where one was made.
    n_not_finite : int
        Points tried at which f was not finite.
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
    """A search has made all the gradients that it may."""


class Points:
    """Evaluates f and its gradient at offsets from ``theta0``, and remembers the best one.

    A value that is not finite is never the best, and a gradient that is not finite becomes zero there.

    Parameters
    ----------
    objective : Objective
        Maximised around its ``theta0``.
    bounds : Tensor of shape (n_params,)
        Half-widths of the box.
    budget : int, optional
        Gradients after which the next one raises `BudgetSpent`.
    """

    def __init__(self, objective: AnyObjective, bounds: Tensor, budget: int | None = None) -> None:
        self.objective = objective
        self.bounds = bounds
        self.budget = budget
        self.f_max = -np.inf
        self.argmax = torch.zeros_like(bounds)
        self.n_evaluations = self.n_not_finite = 0
        self.flat = True  # no gradient so far was anything but zero
        self._theta = torch.empty_like(bounds)  # reused: new memory for every point would take as long as its use

    def evaluate(self, offset: Tensor) -> tuple[float, Tensor]:
        """Return f and its gradient at the offset."""
        value, slope = self.slope(offset)
        self.keep(offset, value)
        return (value if np.isfinite(value) else -np.inf), slope

    def slope(self, offset: Tensor) -> tuple[float, Tensor]:
        """Return the objective's value and gradient, whatever it is at present, without a look at the best."""
        if self.budget is not None and self.n_evaluations >= self.budget:
            raise BudgetSpent
        self.n_evaluations += 1
        value, slope = self.objective.gradient(torch.add(self.objective.theta0, offset, out=self._theta))
        if not np.isfinite(float(slope.sum())):
            slope.nan_to_num_(0.0, 0.0, 0.0)
        self.flat = self.flat and not bool(slope.any())
        return value, slope

    def keep(self, offset: Tensor, value: float) -> None:
        """Let the offset be the best if its value is."""
        if not np.isfinite(value):
            self.n_not_finite += 1
        elif value > self.f_max:
            self.f_max, self.argmax = value, offset

    def maximum(self, status: str, converged: bool, spread: float = float("nan")) -> Maximum:
        """Return what was found."""
        if not np.isfinite(self.f_max):
            status, converged = "f was not finite at any point tried", False
        return Maximum(
            self.f_max, self.argmax, self.n_evaluations, status, converged, spread, self.n_not_finite, self.flat
        )


def vertex_ascent(objective: AnyObjective, bounds: Tensor, start: Tensor, max_iter: int) -> Maximum:
    """Go to the vertex the gradient points to, as long as that raises f: the power method of Journee et al. (2010).

    Monotone for convex f.
    """
    points = Points(objective, bounds)
    value, slope = points.evaluate(start)
    best, offset = value, start
    for _ in range(max_iter - 1):
        if not slope.any():
            zero = "zero gradient" if points.n_evaluations > 1 else f"{STOPPED_AT_START}: the gradient is zero there"
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
    """SciPy's L-BFGS-B from the zero offset with its default tolerances: our reading of the paper's procedure.

    Parameters
    ----------
    objective : Objective
        Maximised around its ``theta0``.
    bounds : Tensor of shape (n_params,)
        Half-widths of the box.
    max_iter : int
        Iterations; each takes one gradient or a few.
    scale : float, default=1.0
        Factor on the objective. SciPy's tolerance on the projected gradient is absolute: a flat function unscaled
        satisfies it at the start.
    """
    points = Points(objective, bounds)
    status, n_iterations, converged = quasi_newton(points, torch.zeros_like(bounds), max_iter, scale)
    if n_iterations == 0:
        status = f"{STOPPED_AT_START}: {status}"
    return points.maximum(status, converged and n_iterations > 0)


def quasi_newton(points: Points, start: Tensor, max_iter: int, scale: float = 1.0) -> tuple[str, int, bool]:
    """Run SciPy's L-BFGS-B from an offset; return its message, its iterations, and whether its tolerance was met."""
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
    """Return a vertex of the box, each with the same probability."""
    signs = torch.randint(0, 2, bounds.shape, generator=generator) * 2 - 1
    return bounds * signs.to(bounds)


def _clip(offset: Tensor, bounds: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(offset, -bounds), bounds)
