r"""Entropy-SGD: Chaudhari et al. (2017); both papers name it as a way to wide valleys.

.. math:: -\log \int \exp\left(-f(x') - \tfrac{\gamma}{2} \|x - x'\|^2\right) dx'

is minimised instead of f. Its gradient is :math:`\gamma (x - \langle x' \rangle)`.
"""

import torch
from torch import Tensor

from sklgap._checks import check_fraction, check_integer, check_nonnegative, check_positive
from sklgap._typing import Aux, Batch, Buffers, GradFn, Params
from sklgap.remedies._base import Remedy, normal_like, seed_from


class EntropySGD(Remedy):
    """Step towards the mean of a short Langevin walk around the weights instead of down the gradient.

    Parameters
    ----------
    n_steps : int, default=20
        Number of Langevin steps per batch, L in the paper (20). 0 is plain training.
    gamma : float, default=0.03
        Strength of the pull back to the weights, above 0. A smaller value looks for a wider valley. The authors' code
        uses 0.03 on CIFAR-10. On MNIST it lets gamma grow from 1e-4 by a factor of 1.001 per update ("scoping"), which
        is not implemented here.
    step_size : float, default=0.1
        Step size of the walk, eta' in the paper (0.1), above 0.
    noise : float, default=1e-4
        Noise of the walk, epsilon in the paper (1e-4), at least 0.
    averaging : float, default=0.75
        Weight of the newest point in the running mean of the walk, alpha in the paper (0.75), in (0, 1]. The authors'
        code uses the weight 0.25 for the newest point.

    Notes
    -----
    A walk starts from x' = mean = x. With the gradient g(x') of the batch at x', and standard normal e, each step is::

        x' <- x' - step_size (g(x') - gamma (x - x')) + sqrt(step_size) noise e
        mean <- (1 - averaging) mean + averaging x'

    The optimiser receives the gradient gamma (x - mean). One step with ``averaging=1`` and ``noise=0`` gives gamma
    step_size g(x). This gradient is small: with an optimiser that depends on the scale of the gradient, use a learning
    rate of the order of 1 / gamma. (The authors' code passes x - mean instead.) All steps of a walk use the same batch.
    The paper draws a new batch for each step, which is not possible in a step on one batch. Batch-norm statistics, loss
    and predictions are those of the unmoved weights. Dropout draws new masks at every step. Cost: ``n_steps`` gradients
    per batch and, with noise, one normal number per weight for each of them.

    References
    ----------
    Chaudhari et al., Entropy-SGD: Biasing Gradient Descent Into Wide Valleys, ICLR 2017, Algorithm 1 and Section 4.

    Examples
    --------
    >>> from sklgap import EntropySGD, LBGapClassifier
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[EntropySGD(n_steps=5)])
    """

    at_most_once = True

    def __init__(
        self,
        n_steps: int = 20,
        gamma: float = 0.03,
        step_size: float = 0.1,
        noise: float = 1e-4,
        averaging: float = 0.75,
    ) -> None:
        self.n_steps = n_steps
        self.gamma = gamma
        self.step_size = step_size
        self.noise = noise
        self.averaging = averaging

    def check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_integer("n_steps", self.n_steps, least=0)
        check_positive("gamma", self.gamma)
        check_positive("step_size", self.step_size)
        check_nonnegative("noise", self.noise)
        check_fraction("averaging", self.averaging, above=0)

    def begin_batch(self, params: Params, rng: torch.Generator) -> int:
        """Draw the seed of the walk."""
        return seed_from(rng) if self.n_steps else 0

    def transform_grad(self, grad_fn: GradFn, state: int) -> GradFn:
        """Return the direction from the mean of the walk to the weights."""
        if not self.n_steps:
            return grad_fn

        def towards_the_mean(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
            rng = torch.Generator().manual_seed(state)
            gradients, aux = grad_fn(params, buffers, batch)
            start = {name: params[name].detach() for name in gradients}
            point = mean = start
            for step in range(self.n_steps):
                if step:
                    here = {name: point.get(name, p.detach()).requires_grad_() for name, p in params.items()}
                    gradients, _ = grad_fn(here, aux.buffers, batch)
                with torch.no_grad():
                    # A layer that the net skips at random may have no gradient at a later step.
                    point = {name: self._walk(p, start[name], gradients.get(name), rng) for name, p in point.items()}
                    mean = {name: torch.lerp(m, point[name], self.averaging) for name, m in mean.items()}
            return {name: self.gamma * (x - mean[name]) for name, x in start.items()}, aux

        return towards_the_mean

    def _walk(self, point: Tensor, start: Tensor, gradient: Tensor | None, rng: torch.Generator) -> Tensor:
        """Return the next point of the Langevin walk."""
        point = torch.lerp(point, start, self.step_size * self.gamma)
        if gradient is not None:
            point.sub_(gradient, alpha=self.step_size)
        if self.noise:
            point.add_(normal_like(point, rng), alpha=self.step_size**0.5 * self.noise)
        return point
