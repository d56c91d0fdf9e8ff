"""Loaders that slice tensors, without per-sample ``__getitem__`` and without worker processes.

They have the interface of a ``DataLoader`` (``__iter__``, ``__len__``, ``batch_size``), and yield the batches of
`plan_epoch`. They differ in the place and the form of the data.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor

from sklgap.regimes import n_batches
from sklgap.training._batches import plan_epoch
from sklgap.training._datasets import batch_of

BatchSizeOfEpoch = Callable[[int], int]
# For an X of up to this many bytes, the samples of an epoch are gathered at once, and the batches are views, which is
# less work per batch.
GATHERED_AT_ONCE = 2**24


class ResidentLoader:
    """Yield batches of tensors that stay on the device that trains the net (on the CPU for a net on the CPU).

    Parameters
    ----------
    X, y : Tensor
        All samples.
    batch_size_of_epoch : callable
        Function from the epoch, counted from 0, to the batch size.
    seed : int
        Seed of the order of the samples, together with the epoch.
    device : torch.device
        Device of the batches.
    max_batches : int, optional
        Total number of batches over all epochs. The epoch that reaches it ends early.
    weight : Tensor, optional
        Weight of each sample. With it batches are ``WeightedRows``, otherwise pairs (X, y).
    """

    keeps_data_on_host = False

    def __init__(
        self,
        X: Any,
        y: Tensor,
        batch_size_of_epoch: BatchSizeOfEpoch,
        *,
        seed: int,
        device: torch.device,
        max_batches: int | None = None,
        weight: Tensor | None = None,
    ) -> None:
        home = torch.device("cpu") if self.keeps_data_on_host else device
        self.X = X if issparse(X) else X.to(home)
        self.y = y.to(home)
        self.weight = None if weight is None else weight.to(home)
        self.device = device
        self.seed = seed
        self.max_batches = max_batches
        self._batch_size_of_epoch = batch_size_of_epoch
        self._batches_before = 0
        self._epoch = 0
        self._size: int | None = None  # set when an epoch first asks for it

    def set_epoch(self, epoch: int, batches_before: int = 0) -> None:
        """Set the epoch of the next iteration, and the number of batches before it."""
        self._epoch = epoch
        self._batches_before = batches_before
        self._size = None

    @property
    def batch_size(self) -> int:
        """Batch size of the current epoch."""
        if self._size is None:
            self._size = self._batch_size_of_epoch(self._epoch)
        return self._size

    def __len__(self) -> int:
        whole = n_batches(len(self.y), self.batch_size)
        return whole if self.max_batches is None else min(whole, max(0, self.max_batches - self._batches_before))

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        permutation, slices = plan_epoch(len(self.y), self.batch_size, self.seed, self._epoch)
        order = torch.from_numpy(permutation)
        yield from self._batches(order, slices[: len(self)])

    def sample(self, n_batches: int, batch_size: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield disjoint batches of samples drawn by ``seed``, independent of those of the epochs, for measurements."""
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self.y)))
        yield from self._batches(order, [slice(i * batch_size, (i + 1) * batch_size) for i in range(n_batches)])

    def _batches(self, order: Tensor, slices: list[slice]) -> Iterator[tuple[Tensor, ...]]:
        order = order.to(self.device)
        parts = [part for part in (self.X, self.y, self.weight) if part is not None]
        if self.X.numel() * self.X.element_size() <= GATHERED_AT_ONCE:
            parts = [part.index_select(0, order) for part in parts]
            for rows in slices:
                yield batch_of(*(part[rows] for part in parts))
            return
        for rows in slices:
            index = order[rows]
            yield batch_of(*(part.index_select(0, index) for part in parts))


class HostLoader(ResidentLoader):
    """Yield the same batches from data in host memory, for data that do not fit on the device.

    The loader gathers the next batch in pinned memory and copies it while the device works on the current one.

    Parameters
    ----------
    X, y : Tensor
        All samples.
    batch_size_of_epoch : callable
        Function from the epoch, counted from 0, to the batch size.
    seed : int
        Seed of the order of the samples, together with the epoch.
    device : torch.device
        Device of the batches.
    max_batches : int, optional
        Total number of batches over all epochs. The epoch that reaches it ends early.
    weight : Tensor, optional
        Weight of each sample. With it batches are ``WeightedRows``, otherwise pairs (X, y).
    """

    keeps_data_on_host = True

    def _batches(self, order: Tensor, slices: list[slice]) -> Iterator[tuple[Tensor, ...]]:
        upcoming = None
        for rows in slices:
            current, upcoming = upcoming, self._gather(order[rows])
            if current is not None:
                yield current
        if upcoming is not None:
            yield upcoming

    def _gather(self, index: Tensor) -> tuple[Tensor, ...]:
        parts = [part.index_select(0, index) for part in (self.X, self.y, self.weight) if part is not None]
        if self.device.type == "cuda":
            parts = [part.pin_memory() for part in parts]
        return batch_of(*(part.to(self.device, non_blocking=True) for part in parts))


class SparseLoader(HostLoader):
    """Yield the same batches from a SciPy CSR matrix, of which only the samples of a batch are converted to dense."""

    def _gather(self, index: Tensor) -> tuple[Tensor, ...]:
        beside = [part.index_select(0, index) for part in (self.y, self.weight) if part is not None]
        return batch_of(*(part.to(self.device) for part in (dense(self.X[index.numpy()]), *beside)))


class SequentialLoader:
    """Yield all samples in order, in batches, for validation and for predictions of the net."""

    def __init__(self, X: Any, y: Tensor, batch_size: int, device: torch.device, weight: Tensor | None = None) -> None:
        self.X, self.y, self.weight, self.batch_size, self.device = X, y, weight, batch_size, device

    def __len__(self) -> int:
        return -(-len(self.y) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for start in range(0, len(self.y), self.batch_size):
            rows = slice(start, start + self.batch_size)
            beside = [part[rows] for part in (self.y, self.weight) if part is not None]
            yield batch_of(*(part.to(self.device) for part in (dense(self.X[rows]), *beside)))


def dense(X: Any) -> Tensor:
    """Return samples of a sparse matrix as a tensor, and a tensor unchanged."""
    return torch.from_numpy(X.toarray()) if issparse(X) else X


def make_loader(
    X: Any,
    y: Tensor,
    batch_size_of_epoch: BatchSizeOfEpoch,
    *,
    seed: int,
    device: torch.device,
    max_batches: int | None,
    weight: Tensor | None = None,
) -> ResidentLoader:
    """Return the resident loader if the data fit into a third of the device's free memory, otherwise the host loader.

    A SciPy CSR matrix gets the sparse loader.
    """
    fits = True
    if device.type == "cuda" and not issparse(X) and X.device.type != "cuda":
        fits = X.numel() * X.element_size() < torch.cuda.mem_get_info(device)[0] / 3
    loader = SparseLoader if issparse(X) else ResidentLoader if fits else HostLoader
    return loader(X, y, batch_size_of_epoch, seed=seed, device=device, max_batches=max_batches, weight=weight)
