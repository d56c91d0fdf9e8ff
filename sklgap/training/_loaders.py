"""Loaders that slice tensors: no per-sample ``__getitem__``, no worker processes.

They look like a ``DataLoader`` (``__iter__``, ``__len__``, ``batch_size``), and draw the batches of `plan_epoch`; they
differ in where the data live, and in what form.
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
# Bytes of X up to which the batches of an epoch are gathered together, and are then views: less work for each batch.
GATHERED_AT_ONCE = 2**24


class ResidentLoader:
    """Batches of tensors that live on the device the net trains on (or of CPU tensors for a net on the CPU).

    Parameters
    ----------
    X, y : Tensor
        All rows.
    batch_size_of_epoch : callable
        Epoch, counted from 0, to number of rows.
    seed : int
        Decides the order of the rows together with the epoch.
    device : torch.device
        Where batches are wanted.
    max_batches : int, optional
        Total number of batches over all epochs; the epoch in which it is reached ends early.
    weight : Tensor, optional
        How often each sample counts. Batches are then ``WeightedRows``, and pairs (X, y) without it.
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
        self._size: int | None = None  # known from the first question in an epoch on

    def set_epoch(self, epoch: int, batches_before: int = 0) -> None:
        """Say which epoch the next iteration is, and how many batches there were before it."""
        self._epoch = epoch
        self._batches_before = batches_before
        self._size = None

    @property
    def batch_size(self) -> int:
        """Rows of a batch in the current epoch."""
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
        """Yield disjoint batches of rows drawn by ``seed``, beside those of the epochs: to measure on."""
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
    """The same batches from data that stay in host memory, for data that do not fit on the device.

    The next batch is gathered into pinned memory and copied while the device works on the current one.
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
    """The same batches from a SciPy CSR matrix: the rows of a batch are made dense, never the whole."""

    def _gather(self, index: Tensor) -> tuple[Tensor, ...]:
        beside = [part.index_select(0, index) for part in (self.y, self.weight) if part is not None]
        return batch_of(*(part.to(self.device) for part in (dense(self.X[index.numpy()]), *beside)))


class SequentialLoader:
    """All rows in order, in batches: for validation and for the net's own predictions."""

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
    """Return rows of a sparse matrix as a tensor, a tensor as it is."""
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
    """Return the resident loader if the data fit into a third of the device's free memory, else the host loader.

    A SciPy CSR matrix gets the sparse loader.
    """
    fits = True
    if device.type == "cuda" and not issparse(X) and X.device.type != "cuda":
        fits = X.numel() * X.element_size() < torch.cuda.mem_get_info(device)[0] / 3
    loader = SparseLoader if issparse(X) else ResidentLoader if fits else HostLoader
    return loader(X, y, batch_size_of_epoch, seed=seed, device=device, max_batches=max_batches, weight=weight)
