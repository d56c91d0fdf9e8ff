"""The fixed data of an `Objective`: checked, on the device, in chunks."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklgap._checks import naming_data, shown
from sklgap._typing import Batch
from sklgap.objective._tensors import as_tensor

Rows = Tensor | np.ndarray | list[int]


class Data:
    """X and y in ceil(n_samples / chunk_size) chunks whose sizes differ by at most one row.

    The chunks are drawn by a fixed permutation; one chunk keeps the order of the rows.

    Attributes
    ----------
    chunks : list of Batch
        Views of one tensor each of X and y.
    shares : list of float
        The share of the rows in each chunk.
    n_samples : int
        Rows in all.
    """

    def __init__(self, data: tuple[Any, Any], chunk_size: int, dtype: torch.dtype, device: torch.device) -> None:
        X, y = _check_data(data, dtype, device)
        self.n_samples = len(X)
        n_chunks = -(-self.n_samples // chunk_size)
        self._places: Tensor | None = None  # where each row went
        if n_chunks > 1:
            permutation = torch.from_numpy(np.random.RandomState(0).permutation(self.n_samples))
            X, y = X[permutation.to(X.device)], y[permutation.to(y.device)]
            self._places = permutation.argsort().to(X.device)
        self._whole = Batch(X, y)
        parts = zip(X.tensor_split(n_chunks), y.tensor_split(n_chunks), strict=True)
        self.chunks = [Batch(*part) for part in parts]
        self.shares = [len(chunk.X) / self.n_samples for chunk in self.chunks]

    def take(self, rows: Rows) -> Batch:
        """Return the rows at these positions of the data as they were given; ValueError for anything else."""
        index = torch.as_tensor(rows, device=self._whole.X.device)
        whole = index.ndim == 1 and len(index) > 0 and not (index.is_floating_point() or index.dtype == torch.bool)
        if not whole or index.min() < 0 or index.max() >= self.n_samples:
            raise ValueError(f"rows must be a sequence of integers from 0 to {self.n_samples - 1}; got {rows!r}.")
        index = index.long() if self._places is None else self._places[index.long()]
        return Batch(self._whole.X[index], self._whole.y[index])


def _check_data(data: tuple[Any, Any], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"data must be a pair (X, y); got {shown(data)}.")
    with naming_data("X", "y"):
        X, y = (as_tensor(part) for part in data)
        len(X), len(y)
    if torch.is_floating_point(X):
        X = X.to(dtype)
    if not torch.is_floating_point(y):
        y = y.long()
    if len(X) != len(y):
        raise ValueError(f"X and y must have the same number of rows; got {len(X)} and {len(y)}.")
    if len(X) == 0:
        raise ValueError("X must have at least one row; got none.")
    return X.to(device), y.to(device)
