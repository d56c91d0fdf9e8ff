"""How the solver ``"auto"`` of Metric 2.1 climbs over a box.

A convex function has its maximum at a vertex of the box, so every step goes to a vertex. `VertexAscent` is the usual
way. `annealed_vertex` finds a vertex to start from. `flip_coordinates` and `flip_weakest` leave a vertex that no
gradient leads away from.
"""

import contextlib

import torch
from torch import Tensor

from sklgap.inspection._maximizers import Points

# These numbers are ours, from trials on enumerated quadratics and trained nets: see docs/results.
_MOMENTUM = 0.5
# The annealing: from nearly linear positions to nearly signs.
_FIRST_SLOPE, _LAST_SLOPE = 0.3, 10.0
_INERTIA = 0.3
_SMALL = 0.02


class VertexAscent:
    r"""Go from vertex to vertex along the gradient, with momentum; it can be continued.

    .. math:: m_k = \frac{1}{2} m_{k-1} + \nabla f(x + y_k), \quad y_{k+1} = b \, \mathrm{sign}(m_k)

    Without momentum it is the generalised power method. That rises in every step where f is convex. Where f is not, it
    may circle between two vertices.

    Parameters
    ----------
    points : Points
        Where f is evaluated.
    start : Tensor of shape (n_params,)
        The first offset.

    Attributes
    ----------
    f_max, argmax, slope
        The best vertex of this ascent: f, the offset, and the gradient there.
    ended : bool
        Whether its gradients point to the vertex where it is.
    """

    def __init__(self, points: Points, start: Tensor) -> None:
        self.points = points
        self.f_max = -torch.inf
        self.argmax = self.offset = start
        self.slope = torch.zeros_like(start)
        self.momentum: Tensor | None = None
        self.ended = False

    def climb(self, max_iter: int) -> None:
        """Make up to ``max_iter`` steps of one gradient each; fewer where the ascent ends."""
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
        """Let the best vertex be that of another ascent where that is higher."""
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
    r"""Return the vertex that positions inside the box harden to: mean-field annealing.

    .. math:: y_{k+1} = 0.3 \, y_k + 0.7 \, b \tanh(\beta_k b g_k / \mathrm{rms}(b g_k))

    with :math:`g_k` the gradient at :math:`y_k` and :math:`\beta_k` rising from 0.3 to 10. At first this is power
    iteration, which finds the leading eigenvector of the Hessian in the scale of the box. At last it is vertex
    ascent. In between the coordinates settle on a sign one after the other, those with the largest forces first.

    Parameters
    ----------
    points : Points
        Where f is evaluated.
    n_steps : int
        Gradients.
    generator : torch.Generator
        Draws the first position, near the centre.
    saturation : float, optional
        Follow the mean of l / (1 + l / saturation), with l the loss of a sample, where the losses of samples are
        known. The mean loss of a classifier rises without bound in the samples that are wrong already. They dominate
        its gradient, and an ascent ends on a plateau. Limited losses let the other samples count too.
    without : Tensor, default=0.0
        Subtracted from every gradient. With the gradient of the centre the vertex follows the curvature alone: the
        opposite vertex is then as good a start.
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
    """Move ``n_flipped`` coordinates at once to their opposite bounds as long as that raises f; say whether any did.

    All choices of coordinates are tried, in the order of what the linear model of f loses by them, the least first.
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
    """Flip a share of the coordinates of the best vertex, those that f depends on least, and climb from there."""
    # What is at the centre has no opposite: a bound of zero, or a slope of zero where the vertex was found.
    gain = torch.where(ascent.argmax != 0, ascent.argmax * ascent.slope, torch.inf)
    n_flipped = max(1, round(share * int((ascent.argmax != 0).sum())))
    weakest = gain <= gain.kthvalue(n_flipped).values
    trial = VertexAscent(ascent.points, torch.where(weakest, -ascent.argmax, ascent.argmax))
    trial.climb(n_steps)
    ascent.take(trial)
