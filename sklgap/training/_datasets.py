"""Conversion of skorch's data sets to tensors. Sparse samples stay sparse."""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from skorch.dataset import Dataset, unpack_data
from torch import Tensor
from torch.utils.data import Subset

from sklgap.objective._tensors import as_tensor

# All samples: a tensor, or a SciPy CSR matrix, which is converted to dense tensors batch by batch.
Rows = Any


class WeightedRows(NamedTuple):
    """A sample, or a batch of samples, with its weight. The weight of a batch has shape (n,)."""

    X: Any
    y: Any
    weight: Any


class WeightedDataset(Dataset):
    """A skorch dataset of samples and class numbers, with a tensor of sample weights."""

    def __init__(self, X: Any, y: Any, weight: Tensor) -> None:
        super().__init__(X, y)
        self.weight = weight

    def __getitem__(self, i: Any) -> WeightedRows:
        X, y = super().__getitem__(i)
        return WeightedRows(X, y, self.weight[i])


def batch_of(*parts: Tensor) -> tuple[Tensor, ...]:
    """Return the pair (X, y), or `WeightedRows` if there are weights."""
    return WeightedRows._make(parts) if len(parts) == 3 else parts


def unpacked(batch: Any) -> tuple[Any, Any, Any]:
    """Return inputs, class numbers and weights of a batch; the weights are None without weights."""
    return batch if isinstance(batch, WeightedRows) else (*unpack_data(batch), None)


def pair_of(batch: Any) -> Any:
    """Return a batch without its weights, in the form that skorch and its callbacks take."""
    return batch[:2] if isinstance(batch, WeightedRows) else batch


def tensors_of(dataset: Any) -> tuple[Any, ...] | None:
    """Return X, y and the weights, if any, of a skorch dataset or of a subset of one; None for anything else.

    All are tensors, except that a sparse X remains a CSR matrix.
    """
    if isinstance(dataset, Subset):
        whole = tensors_of(dataset.dataset)
        if whole is None:
            return None
        index = np.asarray(dataset.indices)
        return tuple(part[index if issparse(part) else torch.as_tensor(index)] for part in whole)
    if type(dataset) is WeightedDataset:
        plain = tensors_of(Dataset(dataset.X, dataset.y))
        return None if plain is None else (*plain, dataset.weight)
    if type(dataset) is not Dataset:
        return None
    y = np.zeros(len(dataset), dtype=np.int64) if dataset.y is None else dataset.y  # as in skorch when it predicts
    if not isinstance(y, np.ndarray | Tensor):
        return None
    if issparse(dataset.X):
        return dataset.X.tocsr(), as_tensor(y)
    return (as_tensor(dataset.X), as_tensor(y)) if isinstance(dataset.X, np.ndarray | Tensor) else None
