"""skorch's data sets as tensors, and sparse rows as sparse rows."""

from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from skorch.dataset import Dataset
from torch import Tensor
from torch.utils.data import Subset

from sklgap.objective._tensors import as_tensor

# All rows: a tensor, or a SciPy CSR matrix, which is made dense by batch.
Rows = Any


def tensors_of(dataset: Any) -> tuple[Rows, Tensor] | None:
    """Return X and y of a plain skorch dataset, or of a subset of one, as tensors; None for anything else.

    A sparse X stays a CSR matrix.
    """
    if isinstance(dataset, Subset):
        whole = tensors_of(dataset.dataset)
        if whole is None:
            return None
        index = np.asarray(dataset.indices)
        return whole[0][index if issparse(whole[0]) else torch.as_tensor(index)], whole[1][torch.as_tensor(index)]
    if type(dataset) is not Dataset:
        return None
    y = np.zeros(len(dataset), dtype=np.int64) if dataset.y is None else dataset.y  # as skorch's, when it predicts
    if not isinstance(y, np.ndarray | Tensor):
        return None
    if issparse(dataset.X):
        return dataset.X.tocsr(), as_tensor(y)
    return (as_tensor(dataset.X), as_tensor(y)) if isinstance(dataset.X, np.ndarray | Tensor) else None
