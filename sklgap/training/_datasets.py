"""skorch's data sets as tensors."""

from typing import Any

import numpy as np
import torch
from skorch.dataset import Dataset
from torch import Tensor
from torch.utils.data import Subset

from sklgap.objective._tensors import as_tensor


def tensors_of(dataset: Any) -> tuple[Tensor, Tensor] | None:
    """Return X and y of a plain skorch dataset, or of a subset of one, as tensors; None for anything else."""
    if isinstance(dataset, Subset):
        whole = tensors_of(dataset.dataset)
        if whole is None:
            return None
        index = torch.as_tensor(np.asarray(dataset.indices))
        return whole[0][index], whole[1][index]
    if type(dataset) is not Dataset:
        return None
    y = np.zeros(len(dataset), dtype=np.int64) if dataset.y is None else dataset.y  # as skorch's, when it predicts
    if not all(isinstance(part, np.ndarray | Tensor) for part in (dataset.X, y)):
        return None
    return as_tensor(dataset.X), as_tensor(y)
