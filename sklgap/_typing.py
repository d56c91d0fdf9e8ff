"""The types of the package on one page.

Everything below the estimator holds parameters as a dict of named tensors in the order of
``module.named_parameters()``. The flat form of such a dict is called ``theta`` and has the shape ``(n_params,)``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Params = dict[str, Tensor]
Buffers = dict[str, Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]

# -- what a user passes ----------------------------------------------------------------------------------------------


class SupportsArray(Protocol):
    """Samples in rows: an array, a tensor, a table or a column of one."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


class SparseMatrix(Protocol):
    """A sparse matrix or array of SciPy, whatever its format."""

    def tocsr(self) -> Any:
        """Convert to compressed rows."""


ArrayLike = SupportsArray | Sequence[Any]
# The inputs of a module: an array, a sparse matrix, several arrays for ``module(*X)`` or ``module(**X)``, or a stream
# of inputs and targets.
Inputs = ArrayLike | SparseMatrix | Mapping[str, ArrayLike] | Dataset[Any] | DataLoader[Any]


class Estimator(Protocol):
    """A classifier of this package, a skorch net, a pipeline or a search. Its fitted parts show which one it is."""

    def fit(self, X: Any, y: Any, /) -> Any:
        """Train."""


class Classifier(Estimator, Protocol):
    """An estimator that predicts."""

    def predict(self, X: Any) -> Any:
        """Return the classes."""


# -- the choices -----------------------------------------------------------------------------------------------------
# The checks read the allowed values from here with ``typing.get_args``.

BatchNormPolicy = Literal["batch", "population", "running"]
Solver = Literal["auto", "lbfgsb", "lbfgsb-scaled", "power"]
SubspaceKind = Literal["gaussian", "orthonormal"]
DirectionKind = Literal["filter", "gaussian"]
PathKind = Literal["line", "arc"]
Quantity = Literal["loss", "accuracy"]
SurfaceKind = Literal["contour", "surface"]
EigenvalueEnd = Literal["largest", "smallest", "both"]
TraceMethod = Literal["hutch++", "hutchinson"]
NoiseMethod = Literal["auto", "per_sample", "batches"]
LRScaling = Literal["sqrt", "linear", "sde"]
Precision = Literal["float32", "tf32", "bfloat16"]
DataSubset = Literal["train", "test", "all"]
LabelKind = Literal["fine", "coarse"]
MissingUtterances = Literal["error", "skip"]


class Mix(NamedTuple):
    """A second target of n samples: ``y`` of shape (n, ...), and its ``weight`` of shape (n,) in the loss."""

    y: Tensor
    weight: Tensor


class Batch(NamedTuple):
    """Samples that are evaluated together.

    ``X`` holds the inputs of n samples: a tensor of shape (n, *features), a tuple of tensors for ``module(*X)``, or a
    dict of tensors for ``module(**X)``. ``y`` has shape (n, ...).

    ``weight`` of shape (n,) says how often each sample counts, so a weight of 2 is a sample given twice. ``factor`` of
    shape (n,) multiplies the losses of the samples, as multiplicative noise does, and does not change how often they
    count. ``extra`` holds further tensors of n samples by name, such as what a remedy has drawn for them. ``mix`` gives
    every sample a second target; it needs ``weight``, which then says how much y counts. ``number`` is the number of
    the batch in the training, counted from 0.
    """

    X: Tensor
    y: Tensor
    weight: Tensor | None = None
    factor: Tensor | None = None
    extra: dict[str, Tensor] | None = None
    mix: Mix | None = None
    number: int = 0

    def rows(self, part: slice) -> "Batch":
        """Return some of the samples."""
        return self.map(lambda tensor: tensor[part])

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with a function applied to every tensor of n samples."""
        weight, factor = (None if t is None else function(t) for t in (self.weight, self.factor))
        extra = None if self.extra is None else {name: function(tensor) for name, tensor in self.extra.items()}
        mix = None if self.mix is None else Mix(function(self.mix.y), function(self.mix.weight))
        return Batch(function(self.X), function(self.y), weight, factor, extra, mix, self.number)

    def with_extra(self, name: str, tensor: Tensor) -> "Batch":
        """Return the batch with one more tensor of n samples."""
        return self._replace(extra={**(self.extra or {}), name: tensor})


class Aux(NamedTuple):
    """What a loss evaluation reports besides its value, at the point where no remedy has moved the weights.

    ``loss`` is the clean mean loss, before any penalty. ``y_pred`` holds the outputs of shape (n, n_classes), which are
    part of the graph until the loss has been differentiated. ``buffers`` holds the batch-norm statistics after the
    evaluation. ``weights`` of shape (n,) is the weight of each sample in the mean, from its class and its own weight.
    It is None if all samples have equal weights.
    """

    loss: Tensor
    y_pred: Tensor
    buffers: Buffers
    weights: Tensor | None = None

    @property
    def mass(self) -> float | Tensor:
        """The total weight of the samples, which weights the means of several parts."""
        return float(len(self.y_pred)) if self.weights is None else self.weights.sum()

    def average(self, rows: Tensor) -> Tensor:
        """Return the mean of a quantity of the samples, of shape (n,), with the weights that they have in the loss."""
        if self.weights is None:
            return rows.mean()
        return (self.weights * rows).sum() / self.weights.sum().clamp_min(torch.finfo(self.weights.dtype).tiny)


LossFn = Callable[[Params, Buffers, Batch], tuple[Tensor, Aux]]
GradFn = Callable[[Params, Buffers, Batch], tuple[Params, Aux]]
