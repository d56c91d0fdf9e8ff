r"""Adversarial training by the fast gradient sign: Goodfellow et al. (2015); tried by Keskar et al. (2017), Appendix.

.. math:: (1 - w) f_B(x) + w f_B(x; X + \epsilon \, \mathrm{sign} \nabla_X f_B)
"""

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from sklgap._checks import check_fraction, check_nonnegative
from sklgap._typing import Aux, Batch, Buffers, LossFn, Params
from sklgap.remedies._base import Remedy


class Adversarial(Remedy):
    """Train on a mix of the loss on clean rows and the loss on rows moved so as to raise it.

    Parameters
    ----------
    epsilon : float, default=0.1
        How far each input moves, in the units of X *as the net sees it*, at least 0. Behind a ``StandardScaler`` those
        are standard deviations of each feature; for images in [0, 1] they are shares of the range (Goodfellow et al.
        take 0.25 on MNIST; 0.1 on CIFAR-10, preprocessed). 0: plain training.
    weight : float, default=0.5
        Share of the adversarial loss (one half: Goodfellow et al., Section 6), in [0, 1]. 0: plain training.
    clip : tuple (low, high), default=None
        Range that moved inputs are clipped to: (0, 1) for images. None, the default, does not clip, since behind a
        scaler the range is no longer that of the data.

    Notes
    -----
    The moved rows are constants: no gradient flows through the attack. Each row is moved so as to raise its own loss,
    also where `SampleNoise` gives it a negative weight. Batch norm sees the moved rows as a batch of their own, and its
    running statistics are those of the clean rows; dropout draws anew for them. Cost: two forward and three backward
    passes, one of them with respect to X alone: about 2.3 plain steps.

    References
    ----------
    Goodfellow et al., Explaining and Harnessing Adversarial Examples, ICLR 2015, Sections 4 and 6.

    Examples
    --------
    >>> from sklgap import Adversarial, LBGapClassifier
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[Adversarial(epsilon=0.05, clip=(0, 1))])
    """

    at_most_once = True
    compiles = True

    def __init__(self, epsilon: float = 0.1, weight: float = 0.5, clip: tuple[float, float] | None = None) -> None:
        self.epsilon = epsilon
        self.weight = weight
        self.clip = clip

    def check(self) -> None:
        """Raise a ValueError for a parameter outside its allowed values."""
        check_nonnegative("epsilon", self.epsilon)
        check_fraction("weight", self.weight)
        if self.clip is not None and not _is_range(self.clip):
            raise ValueError(f"clip must be None or a pair (low, high) of numbers with low < high; got {self.clip!r}.")

    def transform_loss(self, loss_fn: LossFn, state: Any) -> LossFn:
        """Mix in the loss on the moved rows."""
        if not self.epsilon or not self.weight:
            return loss_fn

        def mixed(params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
            X = batch.X.detach().requires_grad_()
            loss, aux = loss_fn(params, buffers, batch._replace(X=X))
            # Another dict than the module's own parameters: its buffers stay those of the clean rows.
            moved = batch._replace(X=self._attack(loss, X, batch.factor))
            adversarial, _ = loss_fn(dict(params), aux.buffers, moved)
            return (1 - self.weight) * loss + self.weight * adversarial, aux

        return mixed

    def _attack(self, loss: Tensor, X: Tensor, factor: Tensor | None) -> Tensor:
        """Return the rows moved; the graph of ``loss`` is needed again, for the gradient of the mix."""
        (slope,) = torch.autograd.grad(loss, X, retain_graph=True)
        uphill = slope.sign()
        if factor is not None:  # a negative factor has turned the row's slope around
            uphill *= factor.sign().view(-1, *(1,) * (X.ndim - 1))
        moved = X.detach() + self.epsilon * uphill
        return moved if self.clip is None else moved.clamp(*self.clip)


def _is_range(clip: Any) -> bool:
    try:
        low, high = clip
    except (TypeError, ValueError):
        return False
    return all(isinstance(v, numbers.Real) and not math.isnan(v) for v in (low, high)) and low < high
