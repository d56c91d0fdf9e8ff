r"""Mixup: training on straight lines between samples. Zhang et al. (2018).

.. math:: \tilde x = \lambda x_i + (1 - \lambda) x_j, \quad
    \lambda \, \ell(z, y_i) + (1 - \lambda) \, \ell(z, y_j), \quad \lambda \sim \mathrm{Beta}(\alpha, \alpha)
"""

import numpy as np
import torch
from torch import nn

from sklgap._checks import check_nonnegative
from sklgap._typing import Batch, Mix
from sklgap.objective._parameters import has_fractions
from sklgap.objective._row_loss import per_sample
from sklgap.remedies._base import Remedy, seed_from


class Mixup(Remedy):
    r"""Train on weighted means of two samples, whose labels count with the same weights.

    Parameters
    ----------
    alpha : float, default=0.2
        Both parameters of the beta distribution of the share :math:`\lambda`, at least 0. Larger values give more equal
        shares. 0 is plain training. Zhang et al. use 1 on CIFAR-10, and 0.1 to 0.4 on ImageNet.

    Notes
    -----
    A random permutation of the batch gives every sample a partner, and every sample draws its own share. (The listing
    in the paper draws one share for a batch.) The sample itself gets the larger of the two shares. This does not change
    the distribution of the batches, and ``train_accuracy`` then counts the label with the larger share. The loss in the
    history is that of the mixed samples and labels.

    Inputs must have means. Numbers that stand for names, such as the word numbers of an embedding, have no means, and
    `LBGapClassifier` cannot recognise them.

    Each label counts by the sample weight and the class weight of its sample. The inputs are mixed without
    weights, so a sample of weight 0 is left out of the labels only. Mixup needs floating-point inputs, and a criterion
    that is a torch loss module with a ``reduction``. Cost: negligible.

    References
    ----------
    Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, Section 2.

    Examples
    --------
    >>> from sklgap import LBGapClassifier, Mixup
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[Mixup(alpha=0.2)])
    """

    at_most_once = True

    def __init__(self, alpha: float = 0.2) -> None:
        self.alpha = alpha

    def check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_nonnegative("alpha", self.alpha)

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise a TypeError for a loss that cannot be split into the losses of the samples."""
        per_sample(criterion)

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch with mixed samples."""
        n_rows = len(batch.X)
        if not self.alpha or n_rows < 2:
            return batch
        if not has_fractions(batch.X):
            raise TypeError(
                f"Mixup needs floating-point inputs, which have means; got {batch.X.dtype}; mix the output of an "
                "embedding, or leave Mixup out."
            )
        drawn = np.random.default_rng(seed_from(rng)).beta(self.alpha, self.alpha, n_rows)
        share = torch.from_numpy(np.maximum(drawn, 1 - drawn)).to(batch.X)
        other = torch.randperm(n_rows, generator=rng).to(batch.X.device)
        by_row = share.view(-1, *(1,) * (batch.X.ndim - 1))
        X = by_row * batch.X + (1 - by_row) * batch.X[other]
        weight = torch.ones_like(share) if batch.weight is None else batch.weight
        mix = Mix(batch.y[other], (1 - share) * weight[other])
        return batch._replace(X=X, weight=share * weight, mix=mix)
