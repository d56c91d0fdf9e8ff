"""From arrays to tensors."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(data: Any) -> Tensor:
    """Return a tensor that shares memory with the array where it can; it must only be read.

    A ValueError for anything but numbers, such as labels that are strings.

    torch warns of arrays that are not writable, such as those joblib maps into its workers; nothing here writes.
    """
    if isinstance(data, Tensor):
        return data.detach()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        try:
            return torch.as_tensor(np.asarray(data))
        except TypeError as error:
            raise ValueError(f"X and y must be numbers (labels as class numbers); {error}") from error
