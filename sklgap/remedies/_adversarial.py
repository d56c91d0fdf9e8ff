r"""Adversarial training by the fast gradient sign: Goodfellow et al. (2015); tried by Keskar et al. (2017), Appendix.

.. math:: (1 - w) f_B(x) + w f_B(x; X + \epsilon \, \mathrm{sign} \nabla_X f_B)
"""

import math
import numbers
from typing import Any

from torch import Tensor

from sklgap._checks import check_fraction, check_nonnegative
from sklgap._typing import Aux, Batch, Buffers, LossFn, Params
from sklgap.objective._autodiff import gradients_of
from sklgap.remedies._base import Remedy


class Adversarial(Remedy):
    """Train on a mix of the loss on clean samples and the loss on samples that are moved to raise it.

    Parameters
    ----------
    epsilon : float, default=0.1
        How far each input moves, in the units of X *as the net receives it*, at least 0. After a ``StandardScaler`` the
        units are standard deviations of each feature. For images in [0, 1] they are shares of the range (Goodfellow et
        al. use 0.25 on MNIST, and 0.1 on preprocessed CIFAR-10). 0 is plain training.
    weight : float, default=0.5
        Share of the adversarial loss, in [0, 1] (one half in Goodfellow et al., Section 6). 0 is plain training.
    clip : tuple (low, high), default=None
        Range to which moved inputs are clipped, such as (0, 1) for images. None does not clip, because after a scaler
        the range is no longer that of the data.

    Notes
    -----
    The moved samples are constants: no gradient flows through the attack. Each sample is moved to raise its own loss,
    even if `SampleNoise` gives it a negative weight. Batch norm treats the moved samples as a separate batch, and its
    running statistics are those of the clean samples. Dropout draws new masks for the moved samples. Cost: two forward
    and three backward passes, one of them with respect to X alone, which is about 2.3 plain steps.

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
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_nonnegative("epsilon", self.epsilon)
        check_fraction("weight", self.weight)
        if self.clip is not None and not _is_range(self.clip):
            raise ValueError(f"clip must be None or a pair (low, high) of numbers with low < high; got {self.clip!r}.")

    def transform_loss(self, loss_fn: LossFn, state: Any) -> LossFn:
        """Return the mix with the loss on the moved samples."""
        if not self.epsilon or not self.weight:
            return loss_fn

        def mixed(params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
            X = batch.X.detach().requires_grad_()
            loss, aux = loss_fn(params, buffers, batch._replace(X=X))
            # This dict is not the module's own, so the buffers of the module remain those of the clean samples.
            moved = batch._replace(X=self._attack(loss, X, batch.factor))
            adversarial, _ = loss_fn(dict(params), aux.buffers, moved)
            return (1 - self.weight) * loss + self.weight * adversarial, aux

        return mixed

    def _attack(self, loss: Tensor, X: Tensor, factor: Tensor | None) -> Tensor:
        """Return the moved samples. The graph of ``loss`` is retained for the gradient of the mix."""
        (slope,) = gradients_of(loss, [X], retain_graph=True)
        uphill = slope.sign()
        if factor is not None:  # a negative factor reverses the slope of the sample
            uphill *= factor.sign().view(-1, *(1,) * (X.ndim - 1))
        moved = X.detach() + self.epsilon * uphill
        return moved if self.clip is None else moved.clamp(*self.clip)


def _is_range(clip: Any) -> bool:
    try:
        low, high = clip
    except (TypeError, ValueError):
        return False
    return all(isinstance(v, numbers.Real) and not math.isnan(v) for v in (low, high)) and low < high
