"""Steps over the vertices of a box, for the solver ``"auto"`` of Metric 2.1.

A convex function has its maximum at a vertex of the box, so every step goes to a vertex. `VertexAscent` is the usual
way to climb. `annealed_vertex` finds a vertex to start from. `flip_coordinates` and `flip_weakest` leave a vertex from
which no gradient leads away.
"""

import contextlib

import torch
from torch import Tensor

from sklgap.inspection._maximizers import Points

# These numbers come from our trials on enumerated quadratics and on trained nets; see docs/results.
_MOMENTUM = 0.5
# The annealing begins with nearly linear positions and ends with nearly pure signs.
_FIRST_SLOPE, _LAST_SLOPE = 0.3, 10.0
_INERTIA = 0.3
_SMALL = 0.02


class VertexAscent:
    r"""Go from vertex to vertex along the gradient, with momentum. An ascent can be continued.

    .. math:: m_k = \frac{1}{2} m_{k-1} + \nabla f(x + y_k), \quad y_{k+1} = b \, \mathrm{sign}(m_k)

    Without momentum this is the generalised power method. It raises f in every step if f is convex. If f is not convex,
    it may circle between two vertices.

    Parameters
    ----------
    points : Points
        The function f, evaluated at offsets from the centre.
    start : Tensor of shape (n_params,)
        The first offset.

    Attributes
    ----------
    f_max, argmax, slope
        The value of f, the offset and the gradient at the best vertex of this ascent.
    ended : bool
        Whether the gradients point to the vertex that the ascent has reached.
    """

    def __init__(self, points: Points, start: Tensor) -> None:
        self.points = points
        self.f_max = -torch.inf
        self.argmax = self.offset = start
        self.slope = torch.zeros_like(start)
        self.momentum: Tensor | None = None
        self.ended = False

    def climb(self, max_iter: int) -> None:
        """Make up to ``max_iter`` steps of one gradient each. Stop earlier if the ascent ends."""
        for _ in range(max_iter):
            if self.ended:
                return
            value, slope = self.points.evaluate(self.offset)
            if value > self.f_max:
                self.f_max, self.argmax, self.slope = value, self.offset, slope
            self.momentum = slope if self.momentum is None else torch.add(slope, self.momentum, alpha=_MOMENTUM)
            following = self.momentum.sign().mul_(self.points.bounds)
            self.ended = torch.equal(following, self.offset)
            self.offset = following

    def take(self, other: "VertexAscent") -> None:
        """Take over the best vertex of another ascent if it is higher."""
        if other.f_max > self.f_max:
            self.f_max, self.argmax, self.slope = other.f_max, other.argmax, other.slope


def annealed_vertex(
    points: Points,
    n_steps: int,
    generator: torch.Generator,
    *,
    saturation: float | None = None,
    without: Tensor | float = 0.0,
) -> Tensor:
    r"""Return the vertex that mean-field annealing of positions inside the box ends at.

    .. math:: y_{k+1} = 0.3 \, y_k + 0.7 \, b \tanh(\beta_k b g_k / \mathrm{rms}(b g_k))

    Here :math:`g_k` is the gradient at :math:`y_k`, and :math:`\beta_k` rises from 0.3 to 10. At first this is power
    iteration, which finds the leading eigenvector of the Hessian in the scale of the box. In the end it is vertex
    ascent. In between, the coordinates settle on a sign one after the other, and those with the largest forces settle
    first.

    Parameters
    ----------
    points : Points
        The function f, evaluated at offsets from the centre.
    n_steps : int
        Number of gradients.
    generator : torch.Generator
        Draws the first position, which lies near the centre.
    saturation : float, optional
        If the losses of samples are known, follow the mean of l / (1 + l / saturation), where l is the loss of a
        sample. The mean loss of a classifier rises without bound in the samples that are already wrong. They dominate
        its gradient, and an ascent then ends on a plateau. With limited losses the other samples count too.
    without : Tensor, default=0.0
        Vector subtracted from every gradient. With the gradient at the centre, the vertex follows the curvature alone,
        and the opposite vertex is then an equally good start.
    """
    bounds = points.bounds
    noise = torch.randn(bounds.shape, generator=generator, dtype=torch.float64)
    soft = (_SMALL * noise).clamp_(-1, 1).to(bounds)
    loss = points.objective.loss
    limited = None if saturation is None or loss.terms is None else loss.saturating(saturation)
    with contextlib.nullcontext() if limited is None else points.objective.using_loss(limited):
        evaluate = points.evaluate if limited is None else points.slope  # the values of limited losses are not f
        for k in range(n_steps):
            force = (evaluate(soft * bounds)[1] - without).mul_(bounds)
            scale = force.square().mean().sqrt()
            if scale < torch.finfo(force.dtype).tiny ** 0.5:  # squares underflow
                largest = force.abs().max()
                if not largest > 0:
                    break
                scale = force.div_(largest).square().mean().sqrt()
            slope = _FIRST_SLOPE * (_LAST_SLOPE / _FIRST_SLOPE) ** (k / max(n_steps - 1, 1))
            soft.mul_(_INERTIA).add_(force.mul_(slope / scale).tanh_(), alpha=1 - _INERTIA)
    return soft.sign().mul_(bounds)


def flip_coordinates(ascent: VertexAscent, n_flipped: int) -> bool:
    """Flip ``n_flipped`` coordinates at once to their opposite bounds while that raises f; say whether f rose.

    All choices of coordinates are tried. The choice by which the linear model of f loses least comes first.
    """
    bounds = ascent.points.bounds
    choices = torch.combinations(bounds.nonzero().flatten(), n_flipped)
    first = ascent.f_max
    while len(choices):
        before = ascent.f_max
        loss = (ascent.argmax * ascent.slope)[choices].sum(1)
        for chosen in choices[loss.argsort()]:
            flipped = ascent.argmax.clone()
            flipped[chosen] = torch.where(flipped[chosen] > 0, -bounds[chosen], bounds[chosen])
            trial = VertexAscent(ascent.points, flipped)
            trial.climb(1)
            ascent.take(trial)
        if ascent.f_max <= before:
            break
    return ascent.f_max > first


def flip_weakest(ascent: VertexAscent, share: float, n_steps: int) -> None:
    """Flip a share of the coordinates of the best vertex, those on which f depends least, and climb from there."""
    # A coordinate at the centre has no opposite. Its bound is zero, or its slope was zero where the vertex was found.
    gain = torch.where(ascent.argmax != 0, ascent.argmax * ascent.slope, torch.inf)
    n_flipped = max(1, round(share * int((ascent.argmax != 0).sum())))
    weakest = gain <= gain.kthvalue(n_flipped).values
    trial = VertexAscent(ascent.points, torch.where(weakest, -ascent.argmax, ascent.argmax))
    trial.climb(n_steps)
    ascent.take(trial)
