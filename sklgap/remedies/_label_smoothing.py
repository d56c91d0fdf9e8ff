r"""Label smoothing: Szegedy et al. (2016), Section 7.

.. math:: (1 - \alpha) \, \ell(z, y) - \frac{\alpha}{C} \sum_{c=1}^C \log p_c(z)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from sklgap._checks import check_fraction
from sklgap._typing import Aux, Batch, Buffers, LossFn, Params
from sklgap.remedies._base import Remedy


class LabelSmoothing(Remedy):
    r"""Train on labels that are right with probability :math:`1 - \alpha` and uniform otherwise.

    Parameters
    ----------
    smoothing : float, default=0.1
        :math:`\alpha` in [0, 1] (0.1 in Szegedy et al.). 0 is plain training.

    Notes
    -----
    The gradient is that of ``criterion__label_smoothing`` of `LBGapClassifier`. But the loss in the history and later
    measurements of the model use the labels without smoothing, so you can compare trainings with and without it. The
    criterion must be ``CrossEntropyLoss`` without ``label_smoothing`` and without ``weight``. Use ``class_weight`` of
    the estimator instead of ``weight``. Cost: negligible.

    References
    ----------
    Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016, Section 7.

    Examples
    --------
    >>> from sklgap import LabelSmoothing, LBGapClassifier
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[LabelSmoothing(0.1)])
    """

    at_most_once = True
    compiles = True

    def __init__(self, smoothing: float = 0.1) -> None:
        self.smoothing = smoothing

    def check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_fraction("smoothing", self.smoothing)

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise a TypeError or ValueError for any criterion but plain cross entropy."""
        if type(criterion) is not nn.CrossEntropyLoss:
            raise TypeError(f"LabelSmoothing needs the criterion CrossEntropyLoss; got {type(criterion).__name__}.")
        if criterion.label_smoothing:
            raise ValueError(
                "LabelSmoothing needs a criterion without label_smoothing, because it would smooth the labels twice; "
                f"got label_smoothing={criterion.label_smoothing}."
            )
        if criterion.weight is not None:
            raise ValueError(
                "LabelSmoothing needs a criterion without weight, which would also weight the uniform part; got a "
                "weight; give class_weight to the estimator, or label_smoothing to the criterion."
            )

    def transform_loss(self, loss_fn: LossFn, state: Any) -> LossFn:
        """Return the loss mixed with the cross entropy of uniform labels."""
        if not self.smoothing:
            return loss_fn

        def smoothed(params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
            loss, aux = loss_fn(params, buffers, batch)
            uniform = -log_softmax(aux.y_pred, dim=1).mean(dim=1)
            if batch.factor is not None:
                uniform = batch.factor * uniform
            return torch.lerp(loss, aux.average(uniform).to(loss), self.smoothing), aux

        return smoothed
