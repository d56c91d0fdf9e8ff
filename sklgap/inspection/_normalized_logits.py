r"""The loss of normalised logits, which does not depend on the scale of the logits.

A net that fits its data can lower its cross entropy just by making its logits larger, and that changes the flatness of
its loss. Andriushchenko et al. (2023, Section 3) therefore measure the loss of

.. math:: \tilde z = \frac{z - \bar z}{\sqrt{\frac{1}{K} \sum_k (z_k - \bar z)^2}}

Here z are the logits of a sample, K is the number of classes, and :math:`\bar z` is the mean of the logits. They take
this definition from Tsuzuku et al. (2020). The cross entropy does not change when :math:`\bar z` is subtracted.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sklgap.inspection._points import full_space_objective
from sklgap.objective import Objective
from sklgap.objective._check import Measurable


@contextlib.contextmanager
def measured_objective(
    estimator: Measurable, X: Any, y: Any, *, normalize_logits: bool = False, **kwargs: Any
) -> Iterator[Objective]:
    """Yield the objective of an estimator in the full space, if asked with the loss of normalised logits."""
    objective = full_space_objective(estimator, X, y, "estimator", **kwargs)
    if not normalize_logits:
        yield objective
        return
    if not is_cross_entropy(objective):
        raise ValueError(
            "normalize_logits must be False unless the criterion is torch.nn.CrossEntropyLoss, which takes logits."
        )
    with objective.using_loss(objective.loss.of_outputs(normalized)):
        yield objective


def is_cross_entropy(objective: Objective) -> bool:
    """Say whether the loss is the plain cross entropy of logits. A subclass may divide the logits by a temperature."""
    criterion = objective.loss.criterion
    return type(criterion) is nn.CrossEntropyLoss or criterion is nn.functional.cross_entropy


def normalized(logits: Any) -> Tensor:
    """Return logits with mean 0 and variance 1 over the classes; NaN for a sample whose logits are all equal.

    Two normalised logits are 1 and -1 at almost all weights. Their loss has no slope, so it is refused.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"normalize_logits needs a module that returns logits as a tensor; got {type(logits).__name__}."
        )
    if logits.shape[1] < 3:
        raise ValueError(
            f"normalize_logits must be False for fewer than 3 classes, because two normalised logits are always 1 and "
            f"-1; got logits of {logits.shape[1]}."
        )
    wide = logits.float() if logits.device.type == "mps" else logits.double()  # Apple's devices lack float64
    centred = wide - wide.mean(dim=1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(dim=1, keepdim=True))
