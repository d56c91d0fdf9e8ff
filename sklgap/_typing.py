"""The vocabulary of the package on one page.

Everything below the estimator speaks of parameters as a dict of named tensors in the order of
``module.named_parameters()``; the flat form of such a dict is called ``theta``, of shape ``(n_params,)``.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Params = dict[str, Tensor]
Buffers = dict[str, Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]


class Batch(NamedTuple):
    """Samples that are evaluated together.

    ``X`` holds the inputs of n samples: a tensor of shape (n, *features), a tuple of tensors for ``module(*X)``, or a
    dict of tensors for ``module(**X)``. ``y`` has shape (n, ...).

    ``weight`` of shape (n,) says how often each sample counts: a weight of 2 is a sample given twice. ``factor`` of
    shape (n,) multiplies the losses of the samples and leaves what they count for as it is: multiplicative noise.
    ``extra`` holds further tensors of n samples by name: what a remedy has drawn for them.
    """

    X: Tensor
    y: Tensor
    weight: Tensor | None = None
    factor: Tensor | None = None
    extra: dict[str, Tensor] | None = None

    def rows(self, part: slice) -> "Batch":
        """Return some of the samples."""
        weight, factor = (None if t is None else t[part] for t in (self.weight, self.factor))
        extra = None if self.extra is None else {name: tensor[part] for name, tensor in self.extra.items()}
        return Batch(self.X[part], self.y[part], weight, factor, extra)

    def with_extra(self, name: str, tensor: Tensor) -> "Batch":
        """Return the batch with one more tensor of n samples."""
        return self._replace(extra={**(self.extra or {}), name: tensor})


class Aux(NamedTuple):
    """What a loss evaluation reports beside its value, all of it at the point where no remedy has moved the weights.

    ``loss`` is the clean mean loss, before any penalty; ``y_pred`` the outputs of shape (n, n_classes), part of the
    graph until the loss has been differentiated; ``buffers`` the batch-norm statistics after the evaluation.
    ``weights`` of shape (n,) is what each sample counts for in the mean, by its class and its own weight; None where
    all count alike.
    """

    loss: Tensor
    y_pred: Tensor
    buffers: Buffers
    weights: Tensor | None = None

    @property
    def mass(self) -> float | Tensor:
        """What the samples count for together: by this, the means of several parts are averaged."""
        return float(len(self.y_pred)) if self.weights is None else self.weights.sum()

    def average(self, rows: Tensor) -> Tensor:
        """Return the mean of a quantity of the samples, of shape (n,), in which they count as they do in the loss."""
        if self.weights is None:
            return rows.mean()
        return (self.weights * rows).sum() / self.weights.sum().clamp_min(torch.finfo(self.weights.dtype).tiny)


LossFn = Callable[[Params, Buffers, Batch], tuple[Tensor, Aux]]
GradFn = Callable[[Params, Buffers, Batch], tuple[Params, Aux]]
