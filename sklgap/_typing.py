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
    """Rows that are evaluated together: X of shape (n, *features), y of shape (n,), optional weights (n,).

    ``extra`` holds further tensors of n rows by name: what a remedy has drawn for them.
    """

    X: Tensor
    y: Tensor
    weight: Tensor | None = None
    extra: dict[str, Tensor] | None = None

    def rows(self, part: slice) -> "Batch":
        """Return some of the rows."""
        weight = None if self.weight is None else self.weight[part]
        extra = None if self.extra is None else {name: tensor[part] for name, tensor in self.extra.items()}
        return Batch(self.X[part], self.y[part], weight, extra)

    def with_extra(self, name: str, tensor: Tensor) -> "Batch":
        """Return the batch with one more tensor of n rows."""
        return self._replace(extra={**(self.extra or {}), name: tensor})


class Aux(NamedTuple):
    """What a loss evaluation tells beside its value; all of it at the point where no remedy has moved the weights.

    ``loss`` is the clean mean loss, before any penalty; ``y_pred`` the outputs of shape (n, n_classes), part of the
    graph until the loss has been differentiated; ``buffers`` the batch-norm statistics after the evaluation.
    """

    loss: Tensor
    y_pred: Tensor
    buffers: Buffers


LossFn = Callable[[Params, Buffers, Batch], tuple[Tensor, Aux]]
GradFn = Callable[[Params, Buffers, Batch], tuple[Params, Aux]]
