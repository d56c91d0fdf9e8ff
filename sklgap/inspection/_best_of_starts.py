"""The solver ``"auto"`` of Metric 2.1: climb from several starts, continue with the best one, try to leave its vertex.

Over the box f has many local maxima and plateaus. On trained nets one start ends at 70 to 85 % of what another start
finds with as many gradients, so starts of different kinds share the budget. The vertex that the gradient points to is
best where f is nearly linear. Annealing is best on quadratics. With limited losses, annealing also crosses plateaus,
where the samples that are already wrong hide the others. Random vertices find other basins.

In few dimensions gradients are cheap. There more starts climb, the search flips single coordinates and pairs, and
L-BFGS-B looks for a maximum inside the box.
"""

import contextlib
import math

import torch
from torch import Tensor

from sklgap.inspection._ascent import VertexAscent, annealed_vertex, flip_coordinates, flip_weakest
from sklgap.inspection._maximizers import (
    AnyObjective,
    BudgetSpent,
    Maximum,
    Points,
    quasi_newton,
    random_vertex,
)

FEW_DIMENSIONS = 20

# The total number of gradients that max_iter=None stands for.
BUDGET = 64
BUDGET_IN_FEW = 600
# What n_restarts=None stands for in few dimensions. In many dimensions it means as many random vertices as fit the
# budget.
RESTARTS_IN_FEW = 10
# Gradients that a search in many dimensions may spend beyond BUDGET while the maximum rises.
EXTENSION = 24

# Steps from one start.
_LEAST_STEPS, _MOST_STEPS = 6, 12
_MOST_ANNEALED = 30
_SHARE_OF_STARTS = 0.75  # of the budget; the rest goes to the best start
_ANNEALED_IN_FEW, _STEPS_IN_FEW, _INSIDE_STEPS = 20, 8, 60
# A search has converged if its last steps raised f by less than this share of the whole rise.
_SETTLED = 0.01
# Starts count as equally high within this share of the rise.
_EQUAL = 1e-3
# The maximum seems to lie inside the box if more than this share of the slopes point inwards. At the best vertices of
# trained nets the share is 1 to 4 %, and flips gain more there. On indefinite quadratics it is 8 to 12 %.
_INWARD = 0.06
# The search flips these shares of the coordinates in turn.
_FLIPPED = (0.4, 0.2, 0.1, 0.05)


def best_of_starts(
    objective: AnyObjective,
    bounds: Tensor,
    f0: float,
    gradient: Tensor,
    *,
    max_iter: int | None = None,
    n_restarts: int | None = None,
    generator: torch.Generator,
) -> Maximum:
    """Return the best point that several starts lead to.

    Parameters
    ----------
    objective : Objective
        Maximised around its ``theta0``.
    bounds : Tensor of shape (n_params,)
        Half-widths of the box.
    f0 : float
        f at the centre of the box.
    gradient : Tensor of shape (n_params,)
        Gradient of f at the centre.
    max_iter : int, optional
        Total number of gradients.
    n_restarts : int, optional
        Number of random vertices to start from. All starts use at most three quarters of the budget. None means as many
        vertices as fit.
    generator : torch.Generator
        Draws the random vertices.
    """
    few = is_few(bounds)
    given = max_iter is not None
    budget = (BUDGET_IN_FEW if few else BUDGET) if max_iter is None else max_iter
    restarts = RESTARTS_IN_FEW if few and n_restarts is None else n_restarts
    points = Points(objective, bounds, budget + (0 if given or few else EXTENSION))
    search = _SearchInFew if few else _Search
    return search(points, f0, gradient, restarts, budget, generator).run()


def is_few(bounds: Tensor) -> bool:
    """Say whether so few coordinates can move that the search flips them one by one."""
    return int((bounds > 0).sum()) <= FEW_DIMENSIONS


def usual_gradients(dim: int | None) -> tuple[int, int]:
    """Return the least and the most gradients of a usual search in ``dim`` dimensions (None for the full space).

    The gradient at the centre is among them.
    """
    if dim is not None and dim <= FEW_DIMENSIONS:
        return 2 * _ANNEALED_IN_FEW, 1 + BUDGET_IN_FEW
    return 3 * BUDGET // 8, 1 + BUDGET + EXTENSION


class _Search:
    """A search whose starts share the budget and which continues from the best start."""

    def __init__(
        self,
        points: Points,
        f0: float,
        gradient: Tensor,
        n_restarts: int | None,
        budget: int,
        generator: torch.Generator,
    ) -> None:
        self.points, self.f0, self.gradient = points, f0, gradient
        self.n_restarts, self.budget, self.generator = n_restarts, budget, generator
        self.ascents: list[VertexAscent] = []
        self.spread = math.nan
        self.gain = math.inf  # what the last steps gained, as a share of the rise

    def run(self) -> Maximum:
        """Search until the budget is spent or nothing rises."""
        with contextlib.suppress(BudgetSpent):
            self.search()
        if math.isnan(self.spread):  # the budget was spent before the starts were compared
            self.compare()
        points = self.points
        rise = points.f_max - self.f0
        if points.flat and not bool(self.gradient.any()):
            return points.maximum("flat: the gradient is zero at every point tried", False)
        if not rise > 0:
            return points.maximum(f"the loss rises at none of {points.n_evaluations} points", False, self.spread)
        converged = self.gain < _SETTLED
        status = f"{points.n_evaluations} gradients from {len(self.ascents)} start{'s' * (len(self.ascents) > 1)}"
        if not math.isnan(self.spread):
            status += f"; the best two starts end {100 * self.spread:.2g} % apart"
        status += "; converged" if converged else "; not converged, so a larger max_iter may find more"
        return points.maximum(status, converged, self.spread)

    def first_vertex(self) -> Tensor:
        """Return the vertex that the gradient points to, or a random vertex if the gradient is zero."""
        vertex = self.points.bounds * self.gradient.sign()
        return vertex if bool(vertex.any()) else self.random_vertex()

    def random_vertex(self) -> Tensor:
        return random_vertex(self.points.bounds, self.generator)

    def start(self, vertex: Tensor, n_steps: int) -> VertexAscent:
        ascent = VertexAscent(self.points, vertex)
        self.ascents.append(ascent)
        ascent.climb(n_steps)
        return ascent

    def compare(self) -> VertexAscent:
        """Return the best ascent, and store in ``spread`` how much lower the second best is."""
        ranked = sorted(self.ascents, key=lambda ascent: -ascent.f_max)
        rise = ranked[0].f_max - self.f0
        if len(ranked) > 1 and rise > 0:
            self.spread = min(1.0, (ranked[0].f_max - ranked[1].f_max) / rise)
        return ranked[0]

    def look_inside(self, start: Tensor, max_iter: int) -> None:
        """Run L-BFGS-B from an offset. SciPy's tolerances are absolute, so f is scaled to meet them late."""
        self.gain = math.inf  # unless L-BFGS-B meets its tolerance
        slopes = [self.gradient, *(ascent.slope for ascent in self.ascents)]
        largest = max(float(slope.abs().max()) for slope in slopes)
        if largest > 0:
            _, _, converged = quasi_newton(self.points, start, max_iter, 1 / largest)
            self.gain = 0.0 if converged else math.inf

    def search(self) -> None:
        points, budget = self.points, self.budget
        length = min(max(_LEAST_STEPS, budget // 10), _MOST_STEPS)
        self.start(self.first_vertex(), length)
        if not points.f_max > self.f0:
            # The vertices are lower than the centre, from which L-BFGS-B rises unless the gradient is zero.
            self.look_inside(torch.zeros_like(points.bounds), budget // 3)
        n_annealed = min(budget // 3, _MOST_ANNEALED)
        if n_annealed >= _LEAST_STEPS:
            self.start(annealed_vertex(points, n_annealed, self.generator, saturation=1 + self.f0), length // 2)
        drawn = 0
        while points.n_evaluations + length <= _SHARE_OF_STARTS * budget and drawn != self.n_restarts:
            if self._agree():
                break
            self.start(self.random_vertex(), length)
            drawn += 1
        self._go_on(self.compare(), length + 2)

    def _agree(self) -> bool:
        """Say whether the best three starts are equally high, so that more starts would find nothing else."""
        best, *others = sorted((ascent.f_max for ascent in self.ascents), reverse=True)[:3]
        return len(others) == 2 and best - others[1] <= _EQUAL * (best - self.f0)

    def _go_on(self, best: VertexAscent, length: int) -> None:
        """Continue an ascent. Then leave its vertex by flips of many or few coordinates until no flip helps."""
        points = self.points
        best.climb(length)
        if self._is_inside(best):
            highest = points.argmax if points.f_max > self.f0 else torch.zeros_like(points.bounds)
            self.look_inside(highest, self.budget)
            return
        shares = list(_FLIPPED)
        # Flips follow also where the starts agree: they can agree on the same low vertex.
        while shares and (points.n_evaluations < self.budget or self.gain >= _SETTLED):
            before = best.f_max
            flip_weakest(best, shares[0], length)
            self.gain = (best.f_max - before) / (best.f_max - self.f0)
            shares = list(_FLIPPED) if best.f_max > before else shares[1:]

    def _is_inside(self, best: VertexAscent) -> bool:
        """Say whether the maximum seems to lie inside the box: no vertex is higher, or many slopes point inwards."""
        if not best.f_max > self.f0:
            return True
        inward = (best.argmax * best.slope < 0)[self.points.bounds > 0]
        return bool(inward.float().mean() > _INWARD)


class _SearchInFew(_Search):
    """A search in few dimensions: climb to the end from every start, and flip coordinates one by one and in pairs."""

    def search(self) -> None:
        points, generator = self.points, self.generator
        assert self.n_restarts is not None
        n_steps = _STEPS_IN_FEW
        self.start(self.first_vertex(), n_steps)
        self.start(annealed_vertex(points, _ANNEALED_IN_FEW, generator), n_steps)
        vertex = annealed_vertex(points, _ANNEALED_IN_FEW, generator, without=self.gradient)
        for start in (vertex, -vertex):
            self.start(start, n_steps)
        for _ in range(self.n_restarts):
            if points.n_evaluations + n_steps > _SHARE_OF_STARTS * self.budget:
                break
            self.start(self.random_vertex(), n_steps)
        self.look_inside(torch.zeros_like(points.bounds), _INSIDE_STEPS)
        self.gain = math.inf  # flips may still find more
        self.compare()
        flipped: list[Tensor] = []
        for ascent in sorted(self.ascents, key=lambda ascent: -ascent.f_max):
            if not any(torch.equal(ascent.argmax, other) for other in flipped):
                flipped.append(ascent.argmax)
                flip_coordinates(ascent, 1)
        best = self.compare()
        while flip_coordinates(best, 2):
            flip_coordinates(best, 1)
        self.look_inside(points.argmax, self.budget)
