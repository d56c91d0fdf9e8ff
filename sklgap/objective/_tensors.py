"""Conversion of arrays to tensors."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Alignment in bytes, which the allocators of NumPy and torch give at least.
_ALIGNMENT = 16


def as_tensor(data: Any) -> Tensor:
    """Return a tensor that shares memory with the array if possible, so it must only be read.

    Anything but numbers, such as labels that are strings, raises a ValueError.

    Memory that starts between two words of the vector units is copied, because sums there would round differently from
    the same numbers elsewhere. Slices, and arrays that Dask has sent to a worker, may start there.

    torch warns about arrays that are not writable, such as those that joblib maps into its workers. Nothing here
    writes.
    """
    if isinstance(data, Tensor):
        return _aligned(data.detach())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        try:
            return _aligned(torch.as_tensor(np.asarray(data)))
        except TypeError as error:
            raise ValueError(f"X and y must be numbers (labels as class numbers); torch reports: {error}") from error


def _aligned(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT else tensor
