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
    """Ask the net for the same class probabilities on noisy copies of the rows.

    Parameters
    ----------
    noise : float, default=0.04
        Standard deviation of the noise, in the units of X *as the net sees it*, at least 0: behind a
        ``StandardScaler`` those are standard deviations of each feature, for images in [0, 1] shares of the range.
        0 is not plain training: the term is then the entropy of the probabilities.
    weight : float, default=0.01
        Weight of the stability term, the cross entropy between the probabilities of a row and those of its noisy
        copy; at least 0. 0: plain training.

    Notes
    -----
    Both defaults are a place to start from, not the paper's: tune them. The gradient flows through both probabilities.
    Outputs are taken for logits, as the nets of the papers return them; ``NLLLoss``, whose nets return probabilities,
    is refused. Batch norm sees the noisy rows as a batch of their own, and its running statistics are those of the
    clean rows; dropout draws anew for them. Samples count in the stability term as they do in the loss, by class
    weights and sample weights. Cost: about two plain steps.

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
        """Raise a ValueError for a parameter outside its allowed values."""
        check_nonnegative("noise", self.noise)
        check_nonnegative("weight", self.weight)

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise a ValueError for a loss of probabilities."""
        if isinstance(criterion, nn.NLLLoss):
            raise ValueError("Stability needs a net that returns logits; the criterion NLLLoss takes probabilities.")

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Draw the noise of every row."""
        return batch.with_extra(EXTRA, self.noise * normal_like(batch.X, rng)) if self.weight else batch

    def transform_loss(self, loss_fn: LossFn, state: Any) -> LossFn:
        """Add the stability term."""
        if not self.weight:
            return loss_fn

        def stable(params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
            loss, aux = loss_fn(params, buffers, batch)
            assert batch.extra is not None
            noisy = batch._replace(X=batch.X + batch.extra[EXTRA])
            # Another dict than the module's own parameters: its buffers stay those of the clean rows.
            _, other = loss_fn(dict(params), aux.buffers, noisy)
            rows = (softmax(aux.y_pred, dim=1) * log_softmax(other.y_pred, dim=1)).sum(dim=1)
            return loss - self.weight * aux.average(rows), aux

        return stable
