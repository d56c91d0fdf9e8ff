r"""Stability training: Zheng et al. (2016); tried by Keskar et al. (2017), Appendix.

.. math:: f_B(x) - w \cdot \frac{1}{n} \sum_i \sum_c p_c(x_i) \log p_c(x_i + \nu_i), \quad \nu_i \sim N(0, \sigma^2 I)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softmax

from sklgap._checks import check_nonnegative
from sklgap._typing import Aux, Batch, Buffers, LossFn, Params
from sklgap.remedies._base import Remedy, normal_like

EXTRA = "stability_noise"


class Stability(Remedy):
    """Train the net to give the same class probabilities on noisy copies of the samples.

    Parameters
    ----------
    noise : float, default=0.04
        Standard deviation of the noise, in the units of X *as the net receives it*, at least 0. After a
        ``StandardScaler`` the units are standard deviations of each feature. For images in [0, 1] they are shares of
        the range. 0 is not plain training, because the term is then the entropy of the probabilities.
    weight : float, default=0.01
        Weight of the stability term, at least 0. The term is the cross entropy between the probabilities of a sample
        and those of its noisy copy. 0 is plain training.

    Notes
    -----
    Both defaults are values to start from, and not those of the paper, so tune them. The gradient flows through both
    probabilities. Outputs must be logits, which the nets of the papers return. ``NLLLoss``, whose nets return
    probabilities, is refused. Batch norm treats the noisy samples as a separate batch, and its running statistics are
    those of the clean samples. Dropout draws new masks for the noisy samples. Samples count in the stability term as
    they do in the loss, by class weights and sample weights. Cost: about two plain steps.

    References
    ----------
    Zheng et al., Improving the Robustness of Deep Neural Networks via Stability Training, CVPR 2016, Section 3.

    Examples
    --------
    >>> from sklgap import LBGapClassifier, Stability
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[Stability(noise=0.1, weight=0.1)])
    """

    at_most_once = True
    compiles = True

    def __init__(self, noise: float = 0.04, weight: float = 0.01) -> None:
        self.noise = noise
        self.weight = weight

    def check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_nonnegative("noise", self.noise)
        check_nonnegative("weight", self.weight)

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise a ValueError for a loss of probabilities."""
        if isinstance(criterion, nn.NLLLoss):
            raise ValueError("Stability needs a net that returns logits; the criterion NLLLoss takes probabilities.")

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch with random noise for every sample."""
        return batch.with_extra(EXTRA, self.noise * normal_like(batch.X, rng)) if self.weight else batch

    def transform_loss(self, loss_fn: LossFn, state: Any) -> LossFn:
        """Return the loss plus the stability term."""
        if not self.weight:
            return loss_fn

        def stable(params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
            loss, aux = loss_fn(params, buffers, batch)
            assert batch.extra is not None
            noisy = batch._replace(X=batch.X + batch.extra[EXTRA])
            # This dict is not the module's own, so the buffers of the module remain those of the clean samples.
            _, other = loss_fn(dict(params), aux.buffers, noisy)
            rows = (softmax(aux.y_pred, dim=1) * log_softmax(other.y_pred, dim=1)).sum(dim=1)
            return loss - self.weight * aux.average(rows), aux

        return stable
