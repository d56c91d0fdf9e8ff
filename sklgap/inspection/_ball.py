"""The largest loss in an ellipsoid around the weights: the search behind the worst-case measures of flatness.

The ellipsoid is ``{theta0 + radii * u : |u| <= 1}``, with one radius for each parameter. In the coordinates u it is the
unit ball.

The search first maximises a quadratic model of f in u exactly, in a Krylov space of its Hessian that starts from the
gradient and from a random vector. If f is quadratic and has no more parameters than products, this is the solution.
Then the search evaluates f at the maximiser of the model, at its mirror image, at the leading eigenvector with both
signs, and at the gradient. From the best two of these points it climbs f by ``u <- g / |g|``, the power method on a
sphere (Journee et al., 2010). If that does not raise f, it takes shorter projected steps.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklgap._checks import check_integer, check_positive
from sklgap.inspection._flatness_record import product_cost
from sklgap.inspection._krylov import combination, dots, norm, orthonormalise, unit
from sklgap.objective import Objective

ValueAndGradient = Callable[[Tensor], tuple[float, Tensor]]

# The number of starts to climb from, among those that the model gives.
_N_CLIMBED = 2
# A climb ends when two steps in a row raise f by less than this share of its rise.
_SETTLED = 1e-3
# The shortest projected step, in units of the ball.
_SHORTEST = 1e-2
# A note reports rounding if the length of the step, in the precision of the weights, is off by more than this share.
_ROUNDED = 0.01


class BallMaximum(NamedTuple):
    """The point with the largest f that the search found.

    ``step`` is a step of the parameters. ``length`` is the length of the rounded step, in units of the ball.
    """

    f0: float
    f_max: float
    step: Tensor
    length: float
    n_gradients: float
    status: str
    notes: tuple[str, ...]


class Points:
    """Evaluates f in u and counts. Where f is not finite, its value is minus infinity, so nothing climbs there."""

    def __init__(self, value_and_gradient: ValueAndGradient) -> None:
        self.function = value_and_gradient
        self.n_gradients, self.n_not_finite = 0, 0

    def __call__(self, u: Tensor) -> "Point":
        value, gradient = self.function(u)
        self.n_gradients += 1
        if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
            self.n_not_finite += 1
            return Point(u, -math.inf, torch.zeros_like(u))
        return Point(u, value, gradient)


class Point(NamedTuple):
    u: Tensor
    value: float
    gradient: Tensor


def check_ball(rho: float, max_iter: int, n_products: int) -> None:
    """Raise a ValueError for an argument outside its allowed values."""
    check_positive("rho", rho)
    check_integer("max_iter", max_iter)
    check_integer("n_products", n_products, least=0)


def maximize_in_ball(
    objective: Objective, radii: Tensor, *, max_iter: int, n_products: int, generator: torch.Generator
) -> BallMaximum:
    """Return the largest f found in the ellipsoid, which is a lower bound of the true maximum.

    Parameters
    ----------
    objective : Objective
        The function to maximise around its ``theta0``, where it must be finite.
    radii : Tensor of shape (n_params,)
        Half axes of the ellipsoid. A parameter with radius 0 does not move.
    max_iter : int
        Number of gradients that each climb may spend.
    n_products : int
        Number of Hessian-vector products for the quadratic model.
    generator : torch.Generator
        Draws the random vector, on the CPU.
    """

    def scaled(u: Tensor) -> tuple[float, Tensor]:
        value, gradient = objective.gradient(objective.theta0 + radii * u)
        return value, radii * gradient

    points = Points(scaled)
    centre = points(torch.zeros_like(radii))
    if not math.isfinite(centre.value):
        raise ValueError("The loss and its gradient must be finite at the measured point; they are not.")
    random = torch.randn(len(radii), generator=generator).to(radii) * (radii > 0)
    directions, products, why = _starts(objective, radii, centre.gradient, random, n_products)
    starts = sorted((points(u) for u in directions), key=lambda point: -point.value)
    ends = [climb(points, start, centre.value, max_iter) for start in starts[:_N_CLIMBED]]
    best = max([centre, *ends], key=lambda point: point.value)

    step = radii * best.u
    length = _length(objective.theta0, step, radii)
    rises = [max(0.0, end.value - centre.value) for end in ends]
    apart = 0.0 if max(rises) == 0 else 1 - min(rises) / max(rises)
    status = (
        f"a lower bound, the best of {len(starts)} starts{why}; the climbs from {len(ends)} of them end "
        f"{100 * apart:.1f} % apart; the step has {100 * length:.3g} % of the largest allowed length"
    )
    return BallMaximum(
        f0=centre.value,
        f_max=best.value,
        step=step,
        length=length,
        n_gradients=points.n_gradients + product_cost(objective) * products,
        status=status,
        notes=tuple(_notes(centre, best, points, length)),
    )


def climb(points: Callable[[Tensor], Point], start: Point, f0: float, max_iter: int) -> Point:
    """Return the highest point that ``u <- g / |g|`` and projected gradient steps reach."""
    best, size, quiet = start, math.inf, 0
    for _ in range(max_iter):
        direction = unit(best.gradient)
        if not direction.any():
            break
        following = direction if size == math.inf else _projected(best.u + size * direction)
        if norm(following - best.u) < _SETTLED * norm(best.u):
            break
        point = points(following)
        if point.value > best.value:
            quiet = quiet + 1 if point.value - best.value <= _SETTLED * (point.value - f0) else 0
            best = point
            if quiet == 2:
                break
        else:
            size = 1.0 if size == math.inf else size / 2
            if size < _SHORTEST:
                break
    return best


def _projected(u: Tensor) -> Tensor:
    return u / max(1.0, norm(u))


def _starts(
    objective: Objective, radii: Tensor, gradient: Tensor, random: Tensor, n_products: int
) -> tuple[list[Tensor], int, str]:
    """Return the points to start from, the number of products, and a remark if there is no quadratic model."""
    steepest = unit(gradient if gradient.any() else random)
    plain = [steepest, -steepest]
    if n_products == 0:
        return plain, 0, " (without products with the Hessian)"
    try:
        product = objective.hessian_operator()
        basis, small = _krylov(lambda u: radii * product(radii * u), [gradient, random], n_products)
    except (ValueError, RuntimeError) as error:  # a module without second derivatives still has gradients
        return plain, 0, f" (without products with the Hessian: {' '.join(str(error).split())})"
    if not len(basis) or not np.isfinite(small).all():
        return plain, len(basis), " (the Hessian is not finite)" if len(basis) else ""
    found = [*maximize_quadratic(dots(basis, gradient), small), np.linalg.eigh(small)[1][:, -1]]
    model = [_projected(combination(sign * z, basis)) for z in found for sign in (1.0, -1.0)]
    return [*model, plain[0]], len(basis), ""


def _krylov(product: Callable[[Tensor], Tensor], seeds: list[Tensor], n_products: int) -> tuple[Tensor, np.ndarray]:
    """Return an orthonormal basis of a block Krylov space, one vector in each row, and the operator in this basis."""
    queue = list(seeds)
    n = min(n_products, int((seeds[-1] != 0).sum()))
    basis = torch.empty((n, len(seeds[0])), dtype=seeds[0].dtype, device=seeds[0].device)
    small = np.zeros((n, n))
    size = 0
    while size < n and queue:
        v = queue.pop(0)
        if not bool(torch.isfinite(v).all()):
            continue
        q = orthonormalise(unit(v), basis[:size])
        if not q.any():
            continue
        basis[size] = q
        image = product(q)
        small[size, : size + 1] = small[: size + 1, size] = dots(basis[: size + 1], image)
        queue.append(image)
        size += 1
    return basis[:size], small[:size, :size]


def maximize_quadratic(gradient: np.ndarray, hessian: np.ndarray) -> list[np.ndarray]:
    """Return the maximisers of ``g'z + z'Hz / 2`` in the unit ball: one maximiser, or two in the hard case.

    A maximiser satisfies ``(mu - H) z = g`` with ``mu >= max(0, largest eigenvalue)`` (More and Sorensen, 1983).
    """
    values, vectors = np.linalg.eigh(hessian)
    g = vectors.T @ gradient
    scale = max(float(np.abs(values).max()), float(np.linalg.norm(g)))
    if scale == 0:
        return [np.zeros_like(gradient)]
    least = max(0.0, float(values[-1]))

    def solution(mu: float) -> np.ndarray:
        return g / np.maximum(mu - values, 1e-15 * scale)

    low, high = least, least + float(np.linalg.norm(g))
    # If g has no part along the leading eigenvector, no mu gives a point of the sphere, and that vector fills the rest.
    without = np.where(values >= least - 1e-12 * scale, 0.0, solution(least))
    hard = float(np.linalg.norm(g[values >= least - 1e-12 * scale])) <= 1e-12 * scale
    inside = float(np.linalg.norm(without))
    if hard and inside < 1:
        if values[-1] < 0:
            return [vectors @ without]
        rest = np.zeros_like(g)
        rest[-1] = math.sqrt(1 - inside**2)
        return [vectors @ (without + rest), vectors @ (without - rest)]
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(solution(middle)) > 1 else (low, middle)
    z = solution(high)
    if values[-1] >= 0:  # on the sphere: mu is too coarse for a small part along the leading eigenvector
        z[-1] = math.copysign(math.sqrt(max(0.0, 1 - float(z[:-1] @ z[:-1]))), g[-1])
    return [vectors @ z]


def _length(centre: Tensor, step: Tensor, radii: Tensor) -> float:
    """Return the length of the step in units of the ball, after the weights are rounded."""
    moves = radii > 0
    rounded = ((centre + step) - centre)[moves].cpu().double() / radii[moves].cpu().double()
    return float(rounded.norm())


def _notes(centre: Point, best: Point, points: Points, length: float) -> list[str]:
    found = []
    if not centre.gradient.any():
        found.append(
            "The gradient is exactly zero at the measured point. The net is saturated or dead, or this is an exact "
            "minimum."
        )
    if best.value <= centre.value:
        found.append("The loss did not rise at any point tried, so a value of 0 says little.")
    if points.n_not_finite:
        found.append(
            f"The loss is not finite at {points.n_not_finite} of {points.n_gradients} points, and these are left out."
        )
    expected = norm(best.u)
    if length > 1 + _ROUNDED or (expected > 0 and abs(length / expected - 1) > _ROUNDED):
        found.append(
            f"After rounding to the precision of the weights, the step has {100 * length:.3g} % of the largest allowed "
            "length. Measure with dtype=torch.float64."
        )
    return found
