"""The vocabulary of the package on one page.

Everything below the estimator speaks of parameters as a dict of named tensors in the order of
``module.named_parameters()``; the flat form of such a dict is called ``theta``, of shape ``(n_params,)``.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Params = dict[str, Tensor]
Buffers = dict[str, Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]


class Batch(NamedTuple):
    """Rows that are evaluated together: X of shape (n, *features), y of shape (n,), optional weights (n,)."""

    X: Tensor
    y: Tensor
    weight: Tensor | None = None


class Aux(NamedTuple):
    """What a loss evaluation tells beside its value; all of it at the point where no remedy has moved the weights.

    ``loss`` is the clean mean loss, before any penalty; ``y_pred`` the outputs of shape (n, n_classes);
    ``buffers`` the batch-norm statistics after the evaluation.
    """

    loss: Tensor
    y_pred: Tensor
    buffers: Buffers


LossFn = Callable[[Params, Buffers, Batch], tuple[Tensor, Aux]]
GradFn = Callable[[Params, Buffers, Batch], tuple[Params, Aux]]
