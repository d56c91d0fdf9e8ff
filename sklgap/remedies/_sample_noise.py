r"""Multiplicative gradient noise: Hoffer et al. (2017), Section 4.

.. math:: g = \frac{1}{B} \sum_{n=1}^B z_n \nabla \ell_n, \quad z_n \sim N(1, \sigma^2), \; \sigma^2 \propto B
"""

import math

import torch
from torch import nn

from sklgap._checks import check_integer, check_nonnegative
from sklgap._typing import Batch
from sklgap.objective._row_loss import per_sample
from sklgap.regimes._base import SMALL_BATCH
from sklgap.remedies._base import Remedy, normal_like


class SampleNoise(Remedy):
    """Multiply the gradient of every sample of a batch by noise of mean one, which is the same as weighting the losses.

    Parameters
    ----------
    sigma : float, default=None
        Standard deviation of the factors, at least 0. 0 is plain training. None means sqrt(B / b - 1) for a batch of B
        samples and a small batch of b samples, or 0 if B is at most b. The mean of the gradients g of B samples then
        has the covariance E[g g'] / b - E[g] E[g]' / B. If E[g] is small, this is the covariance of a small batch, (E[g
        g'] - E[g] E[g]') / b.
    base_batch_size : int, default=None
        The small batch b for ``sigma=None``. None means the small batch that ``"SB"`` stands for, or the
        ``base_batch_size`` of the estimator if that is set. Outside of an estimator it means 256.

    Notes
    -----
    The loss in the history is the loss without the noise. ``lr_scaling="sqrt"`` preserves the covariance of the
    updates, too, in another way, so use only one of the two. The criterion must be a torch loss module with a
    ``reduction``. Class weights and sample weights keep their meaning. Cost: negligible.

    References
    ----------
    Hoffer et al., Train longer, generalize better, NeurIPS 2017, Section 4.

    Examples
    --------
    >>> from sklgap import LBGapClassifier, SampleNoise
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[SampleNoise()])
    """

    at_most_once = True
    changes_factor = True

    def __init__(self, sigma: float | None = None, base_batch_size: int | None = None) -> None:
        self.sigma = sigma
        self.base_batch_size = base_batch_size

    def check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_nonnegative("sigma", self.sigma, or_none=True)
        check_integer("base_batch_size", self.base_batch_size, or_none=True)

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise a TypeError for a loss that cannot be split into the losses of the samples."""
        per_sample(criterion)

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch with a random factor for each sample."""
        n_rows = len(batch.X)
        sigma = self.sigma
        if sigma is None:
            sigma = math.sqrt(max(0.0, n_rows / (self.base_batch_size or SMALL_BATCH) - 1))
        if not sigma:
            return batch
        factors = 1 + sigma * normal_like(batch.X.new_empty(n_rows), rng)
        return batch._replace(factor=factors if batch.factor is None else factors * batch.factor)
