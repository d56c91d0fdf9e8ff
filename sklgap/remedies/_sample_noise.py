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
    """Multiply the gradient of every row of a batch by noise of mean one: the same as weighting the rows' losses.

    Parameters
    ----------
    sigma : float, default=None
        Standard deviation of the factors, at least 0; 0: plain training. None: sqrt(B / b - 1) for a batch of B rows
        and a small batch of b (0 where B is at most b), with which the mean of B rows' gradients g has the covariance
        E[g g'] / b - E[g] E[g]' / B: as of a small batch, (E[g g'] - E[g] E[g]') / b, where E[g] is small.
    base_batch_size : int, default=None
        b, for ``sigma=None``. None: what ``"SB"`` is for the data, or the ``base_batch_size`` of the
        estimator where that is set (256 outside of an estimator).

    Notes
    -----
    The loss in the history is that without the noise. ``lr_scaling="sqrt"`` keeps the covariance of the updates too, by
    other means: it is one or the other. Needs a criterion that is a torch loss module with a ``reduction``; class
    weights and sample weights keep their meaning. Cost: none to speak of.

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
        """Raise a ValueError for a parameter outside its allowed values."""
        check_nonnegative("sigma", self.sigma, or_none=True)
        check_integer("base_batch_size", self.base_batch_size, or_none=True)

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise a TypeError for a loss whose mean over the rows cannot be undone."""
        per_sample(criterion)

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch with its rows weighted."""
        n_rows = len(batch.X)
        sigma = self.sigma
        if sigma is None:
            sigma = math.sqrt(max(0.0, n_rows / (self.base_batch_size or SMALL_BATCH) - 1))
        if not sigma:
            return batch
        factors = 1 + sigma * normal_like(batch.X.new_empty(n_rows), rng)
        return batch._replace(factor=factors if batch.factor is None else factors * batch.factor)
