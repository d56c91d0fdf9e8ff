"""The fixed data of an `Objective`, checked, on the device and in chunks."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sklgap._checks import naming_data
from sklgap._typing import Batch
from sklgap.objective._nested import map_tensors, n_rows
from sklgap.objective._tensors import as_tensor

Rows = Tensor | np.ndarray | list[int]
# Number of samples that are evaluated at once by default, as in the released code of Keskar et al.
CHUNK_SIZE = 5000
# Number of samples on which modules and losses are tried before any measurement.
N_TRIED = 32


class Data(Protocol):
    """The interface of the data of an `Objective`.

    Attributes
    ----------
    n_samples : int
        Total number of samples.
    sizes : list of int
        Number of samples in each chunk.
    weighted : bool
        Whether samples have weights.
    counted : bool
        Whether the batches show their number of samples.
    """

    n_samples: int
    sizes: list[int]
    weighted: bool
    counted: bool

    def __iter__(self) -> Iterator[Batch]:
        """Yield the chunks, the same ones every time."""

    def take(self, rows: Rows) -> Batch:
        """Return the samples at these positions of the given data; raise a ValueError for anything else."""

    def few(self) -> Batch:
        """Return a few samples, of different classes if there are any, to try modules and losses on."""

    def targets(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the targets and the sample weights of every chunk."""

    def in_order(self, values: Tensor) -> Tensor:
        """Return values that are in the order of the chunks in the order of the given data."""


class ArrayData:
    """X and y in ceil(n_samples / chunk_size) chunks whose sizes differ by at most one sample.

    A fixed permutation draws the chunks. A single chunk has the order of the samples.

    Parameters
    ----------
    data : tuple (X, y)
        X is an array, a tensor, a tuple or dict of these, or a sparse matrix. y is an array or a tensor.
    chunk_size : int
        Largest number of samples in a chunk.
    dtype : torch.dtype
        Type to which floating-point inputs are cast.
    device : torch.device
        Device to which dense data are moved once. The chunks of a sparse matrix become dense when they are needed.
    weight : array-like of shape (n_samples,), optional
        How often each sample counts.
    parts : sequence of sequences of int, optional
        The samples of each chunk, if a loader decides that.
    passes : {"many", "few"}, default="many"
        ``"many"`` stores the samples in the order of the chunks, so that each chunk is a view. Several chunks need a
        copy of the data. ``"few"`` gathers the samples of a chunk in every pass, without such a copy.
    """

    def __init__(
        self,
        data: tuple[Any, Any],
        chunk_size: int,
        dtype: torch.dtype,
        device: torch.device,
        weight: Any = None,
        parts: Sequence[Sequence[int]] | None = None,
        *,
        passes: Literal["many", "few"] = "many",
    ) -> None:
        self._dtype, self._device, self.counted = dtype, device, True
        X, y = _check_data(data, dtype, device)
        self.n_samples = len(y)
        self.weighted = weight is not None
        weight = None if weight is None else check_weight(weight, self.n_samples).to(device)
        order: Tensor | None = None
        if parts is not None:
            order = torch.as_tensor([i for part in parts for i in part])
            sizes = [len(part) for part in parts]
            self.n_samples = len(order)
            if torch.equal(order, torch.arange(len(y))):
                order = None
        else:
            n_chunks = -(-self.n_samples // chunk_size)
            sizes = [len(part) for part in np.array_split(np.empty(self.n_samples), n_chunks)]
            if n_chunks > 1:
                order = torch.from_numpy(np.random.RandomState(0).permutation(self.n_samples))
        self.sizes = sizes
        self._whole = Batch(X, y, weight)
        self._order: Tensor | None = None  # order of the samples in the chunks, if they are stored in another order
        self._places: Tensor | None = None  # where each given sample is stored
        if order is not None and passes == "few":
            self._order = order.to(device)
        elif order is not None:
            self._whole = rows_of(self._whole, order)
            self._places = order.argsort().to(device) if parts is None else None
        bounds = np.cumsum([0, *sizes])
        slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
        self._rows = slices if self._order is None else [self._order[part] for part in slices]
        held = not sparse.issparse(X) and self._order is None
        self._chunks = [rows_of(self._whole, part) for part in slices] if held else None

    def __iter__(self) -> Iterator[Batch]:
        if self._chunks is not None:
            return iter(self._chunks)
        return (self._dense(rows_of(self._whole, part)) for part in self._rows)

    def take(self, rows: Rows) -> Batch:
        """Return the samples at these positions of the given data; raise a ValueError for anything else."""
        index = check_rows(rows, self.n_samples, self._device)
        index = index if self._places is None else self._places[index]
        return self._dense(rows_of(self._whole, index))

    def few(self) -> Batch:
        """Return samples spread evenly over the data, or over the classes if y holds class numbers."""
        y = self._whole.y if self._order is None else self._whole.y[self._order]
        order = torch.arange(len(y), device=y.device) if y.ndim != 1 else y.argsort(stable=True)
        places = torch.linspace(0, len(y) - 1, min(N_TRIED, len(y)), device="cpu").round().long().to(y.device)
        rows = order[places]
        return self._dense(rows_of(self._whole, rows if self._order is None else self._order[rows]))

    def targets(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the targets and the sample weights of every chunk."""
        for part in self._rows:
            yield self._whole.y[part], None if self._whole.weight is None else self._whole.weight[part]

    def in_order(self, values: Tensor) -> Tensor:
        """Return values that are in the order of the chunks in the order of the given data."""
        places = self._places if self._order is None else self._order.argsort()
        return values if places is None else values[places]

    def _dense(self, batch: Batch) -> Batch:
        X: Any = batch.X
        if not sparse.issparse(X):
            return batch
        return batch._replace(X=torch.from_numpy(X.toarray()).to(self._device, self._dtype))


def check_rows(rows: Rows, n_samples: int, device: torch.device | None = None) -> Tensor:
    """Return positions of samples as int64; raise a ValueError unless they are integers from 0 to ``n_samples`` - 1."""
    index = torch.as_tensor(rows, device=device)
    whole = index.ndim == 1 and len(index) > 0 and not (index.is_floating_point() or index.dtype == torch.bool)
    if not whole or index.min() < 0 or index.max() >= n_samples:
        raise ValueError(f"rows must be a sequence of integers from 0 to {n_samples - 1}; got {rows!r}.")
    return index.long()


def rows_of(batch: Batch, index: Tensor | slice) -> Batch:
    """Return some samples of a batch. Samples of a sparse matrix form a sparse matrix."""
    if sparse.issparse(batch.X):
        X = batch.X[index if isinstance(index, slice) else index.cpu().numpy()]
    else:
        X = map_tensors(lambda t: t[index], batch.X)
    return Batch(X, batch.y[index], None if batch.weight is None else batch.weight[index])


def _check_data(data: tuple[Any, Any], dtype: torch.dtype, device: torch.device) -> tuple[Any, Tensor]:
    X, y = data
    with naming_data("X", "y"):
        y = on_device(as_tensor(y), dtype, device, target=True)
        if sparse.issparse(X):
            X = X.tocsr()
            if not np.isfinite(X.data).all():
                raise ValueError("X must hold only finite numbers; the sparse matrix holds NaN or infinity.")
            length = X.shape[0]
        else:
            X = on_device(tensors(X), dtype, device)
            length = len(X) if isinstance(X, Tensor) else n_rows(X)
        n_targets = len(y)
    if length != n_targets:
        raise ValueError(f"X and y must have the same number of samples; got {length} and {n_targets}.")
    if length == 0:
        raise ValueError("X must have at least one sample; got 0 samples.")
    return X, y


def tensors(X: Any) -> Any:
    """Return X as a tensor, or as a tuple or dict of tensors if X is a tuple or dict of arrays."""
    if isinstance(X, Mapping):
        return {key: tensors(value) for key, value in X.items()}
    if isinstance(X, tuple):
        return tuple(tensors(value) for value in X)
    return as_tensor(X)


def on_device(data: Any, dtype: torch.dtype, device: torch.device, *, target: bool = False) -> Any:
    """Return the tensors on the device. Real inputs get the type ``dtype``, and integer targets the type int64.

    Tensors that were made in ``torch.inference_mode`` are copied, because a gradient cannot pass by them.
    """

    def moved(tensor: Tensor) -> Tensor:
        if tensor.is_inference():
            tensor = tensor.clone()
        if target:
            return (tensor if torch.is_floating_point(tensor) else tensor.long()).to(device)
        return tensor.to(device, dtype if torch.is_floating_point(tensor) else None)

    return map_tensors(moved, data)


def check_weight(weight: Any, n_samples: int) -> Tensor:
    """Return sample weights in float64; raise a ValueError unless there is one nonnegative number per sample."""
    try:
        weight = as_tensor(weight).double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"sample_weight must hold one finite number for each sample; torch reports: {error}"
        ) from error
    if weight.shape != (n_samples,) or not bool((weight >= 0).all()) or not bool(torch.isfinite(weight).all()):
        shape = f"an array of shape {tuple(weight.shape)}"
        raise ValueError(
            f"sample_weight must hold one finite number of at least 0 for each of the {n_samples} samples; "
            f"got {shape if weight.shape != (n_samples,) else 'a negative number, NaN or infinity'}."
        )
    if not bool(weight.any()):
        raise ValueError("sample_weight must have at least one weight above 0; got only zeros.")
    return weight
