"""From arrays to tensors."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Bytes; NumPy's and torch's allocators give at least these.
_ALIGNMENT = 16


def as_tensor(data: Any) -> Tensor:
    """Return a tensor that shares memory with the array where it can; it must only be read.

    A ValueError for anything but numbers, such as labels that are strings.

    Memory that starts between two words of the vector units, as slices and what Dask has sent to a worker may, is
    copied: sums there would round otherwise than in the same numbers elsewhere.

    torch warns of arrays that are not writable, such as those joblib maps into its workers; nothing here writes.
    """
    if isinstance(data, Tensor):
        return _aligned(data.detach())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        try:
            return _aligned(torch.as_tensor(np.asarray(data)))
        except TypeError as error:
            raise ValueError(f"X and y must be numbers (labels as class numbers); {error}") from error


def _aligned(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT else tensor
