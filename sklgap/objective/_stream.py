"""Data that are loaded chunk by chunk from a ``Dataset`` or a ``DataLoader``."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from sklgap._checks import shown
from sklgap._random import random_states, undisturbed
from sklgap._typing import Batch
from sklgap.objective._data import N_TRIED, ArrayData, Data, Rows, check_rows, on_device
from sklgap.objective._nested import equal, map_tensors, n_rows, tensors_in

# Maps (inputs, target) as they are loaded to what the module and the loss take.
Prepare = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Prepared:
    """A Dataset or DataLoader, and a function that prepares its batches, such as an estimator's encoding of labels."""

    source: Any
    prepare: Prepare


def is_stream(data: Any) -> bool:
    """Say whether the data are loaded batch by batch, and are not arrays."""
    return isinstance(data, Dataset | DataLoader | Prepared)


def stream_data(
    data: Any,
    chunk_size: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    num_workers: int = 0,
    whole: bool = False,
    rows_meet: bool = False,
) -> Data:
    """Return the chunks of a Dataset or a DataLoader.

    Parameters
    ----------
    data : Dataset, DataLoader or Prepared
        The data. A fixed permutation cuts a Dataset into chunks. The batches of a DataLoader are the chunks.
    chunk_size : int
        Number of samples in a chunk of a Dataset.
    dtype, device : torch.dtype, torch.device
        Type of real inputs, and device of all tensors.
    num_workers : int, default=0
        Number of processes that load a Dataset. A DataLoader has its own number.
    whole : bool, default=False
        Whether the loss takes whole batches of any form.
    rows_meet : bool, default=False
        Whether the loss of a sample depends on the other samples of its batch, as with batch statistics.
    """
    prepare = None
    if isinstance(data, Prepared):
        data, prepare = data.source, data.prepare
    if isinstance(data, DataLoader):
        plan = _plan_of(data, rows_meet)
    else:
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise TypeError("data must be a Dataset with a length and an index, or a DataLoader over such a Dataset.")
        n = len(data)
        if not n:
            raise ValueError("data must have at least one sample; the Dataset is empty.")
        n_chunks = -(-n // chunk_size)
        order = np.random.RandomState(0).permutation(n) if n_chunks > 1 else np.arange(n)
        parts = [part.tolist() for part in np.array_split(order, n_chunks)]
        plan = _Plan(data, parts, default_collate, num_workers)
    arrays = None if prepare or whole else _arrays(plan)
    if arrays is not None:
        return ArrayData(arrays, chunk_size, dtype, device, parts=None if plan.order is None else plan.parts)
    return StreamData(plan, dtype, device, prepare, whole)


# The first batch is loaded this often, each time with other random numbers, to test whether it is always the same. The
# second number is for a Dataset that draws random numbers, so that a rare augmentation shows itself.
N_LOADED_AGAIN, _N_IF_RANDOM = 4, 64
_END = object()


class _Plan(NamedTuple):
    """The plan of loading: the samples of every batch, or None if only the loader knows them."""

    dataset: Any
    parts: list[list[int]] | None
    collate: Callable[[list[Any]], Any] | None
    num_workers: int = 0
    loader: DataLoader[Any] | None = None
    options: Mapping[str, Any] = {}
    order: list[int] | None = None

    def sizes(self) -> list[int] | None:
        """Return the number of samples of every batch; None if only the dataset or the loader knows it."""
        return None if self.parts is None or self.collate is None else [len(part) for part in self.parts]

    def position(self, row: int) -> int:
        """Return the position of a sample in the dataset, which follows the order of the loader if there is one."""
        return row if self.order is None else self.order[row]


def _plan_of(loader: DataLoader[Any], rows_meet: bool) -> _Plan:
    """Return the fixed batches of a loader; raise a ValueError if they change, because the loss then changes too."""
    if isinstance(loader.dataset, IterableDataset) or type(loader).__iter__ is not DataLoader.__iter__:
        return _Plan(loader.dataset, None, None, loader=loader)
    options = {"worker_init_fn": loader.worker_init_fn, "multiprocessing_context": loader.multiprocessing_context}
    batches: Any = loader.batch_sampler
    whole = batches is None  # the dataset makes the batches
    with undisturbed(), _at_rest(loader):
        drawn = [
            [[i] for i in loader.sampler] if whole else [list(part) for part in batches] for _ in range(N_LOADED_AGAIN)
        ]
    if any(parts != drawn[0] for parts in drawn):
        seen = [sorted(i for part in parts for i in part) for parts in drawn]
        if any(samples != seen[0] for samples in seen):
            raise ValueError(
                "data must be the same samples in every pass; this DataLoader draws other samples each time "
                "(drop_last with shuffle, or sampling with replacement); use a DataLoader with shuffle=False, or pass "
                "its dataset."
            )
        if rows_meet and not whole:
            raise ValueError(
                "data must be in the same batches in every pass, because batch statistics depend on the batches; this "
                "DataLoader shuffles; use shuffle=False, or pass its dataset, which is cut into fixed chunks."
            )
    if not drawn[0]:
        raise ValueError("data must have at least one batch; the DataLoader is empty.")
    if whole:
        options["collate_fn"] = loader.collate_fn
    collate = None if whole else loader.collate_fn
    order = [i for part in drawn[0] for i in part]
    return _Plan(loader.dataset, drawn[0], collate, loader.num_workers, options=options, order=order)


@contextlib.contextmanager
def _at_rest(loader: DataLoader[Any]) -> Iterator[None]:
    """Restore the generators of a loader after the block."""
    holders = [loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
    found = [getattr(holder, "generator", None) for holder in holders]
    states = [(g, g.get_state()) for g in found if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _arrays(plan: _Plan) -> tuple[Any, Tensor] | None:
    """Return (X, y) if the samples are rows of tensors, whose slices a loader would stack; None otherwise."""
    if type(plan.dataset) is not TensorDataset or plan.collate is not default_collate or plan.parts is None:
        return None
    return plan.dataset.tensors if len(plan.dataset.tensors) == 2 else None


class StreamData:
    """Chunks that are loaded when they are needed, with one chunk in memory at a time.

    One pass over the data counts the samples. The first batch is loaded several times, and a difference raises a
    ValueError.
    """

    def __init__(
        self, plan: _Plan, dtype: torch.dtype, device: torch.device, prepare: Prepare | None, whole: bool
    ) -> None:
        self._plan, self._dtype, self._device, self._prepare, self._whole = plan, dtype, device, prepare, whole
        self.weighted = False
        self.counted = True
        first = next(self._read(seed=0), None)
        if first is None:
            raise ValueError("data must have at least one batch; the loader is empty.")
        for seed in range(1, _N_IF_RANDOM if self._draws() else N_LOADED_AGAIN):
            again = next(self._read(seed), None)
            if again is None or not equal(first, again):
                raise ValueError(
                    "data must be the same in every pass; the first batch has other numbers when it is loaded again. "
                    "Remove random augmentation and shuffling from the data, and use a loader that can be read twice."
                )
        sizes = self._plan.sizes()
        self._first = self._batch(first, sizes[0] if sizes else None)
        # Class numbers stay in memory. Larger targets, such as images of classes, are loaded again.
        self._targets: list[Tensor] | None = []
        self.sizes = []
        for batch in self._batches():
            self.sizes.append(len(batch.y))
            if batch.y.ndim > 1:
                self._targets = None
            elif self._targets is not None:
                self._targets.append(batch.y)
        self.n_samples = sum(self.sizes)

    def __iter__(self) -> Iterator[Batch]:
        sizes = []
        for batch in self._batches():
            sizes.append(len(batch.y))
            yield batch
        if sizes != self.sizes:
            raise ValueError(
                f"data must be the same in every pass; the first pass had batches of {self.sizes[:5]} samples, "
                f"and this pass has batches of {sizes[:5]} samples."
            )

    def targets(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the targets of every batch."""
        for y in self._targets if self._targets is not None else (batch.y for batch in self):
            yield y, None

    def in_order(self, values: Tensor) -> Tensor:
        """Return the values as they are, because such data have the order of their chunks."""
        return values

    def take(self, rows: Rows) -> Batch:
        """Return the samples at these positions of the Dataset, or in the order of the DataLoader."""
        if self._plan.parts is None or self._plan.collate is None:
            raise ValueError(
                "data must be a Dataset that gives single samples by their index, or a DataLoader over such a Dataset, "
                "because mini-batches are drawn from it."
            )
        index = check_rows(rows, self.n_samples)
        with undisturbed():
            samples = [self._plan.dataset[self._plan.position(i)] for i in index.tolist()]
            return self._batch(self._plan.collate(samples), len(samples))

    def few(self) -> Batch:
        """Return the first samples of the first batch, or the whole batch if the loss takes whole batches."""
        if self._whole:
            return self._first
        part = slice(0, N_TRIED)
        return Batch(map_tensors(lambda t: t[part], self._first.X), self._first.y[part])

    def _read(self, seed: int | None = None) -> Iterator[Any]:
        """Yield the loaded batches; restore the global random states after each, or set them by ``seed``."""
        with undisturbed(seed):
            loaded = self._load()
        while True:
            with undisturbed(seed):
                batch = next(loaded, _END)
            if batch is _END:
                return
            yield batch

    def _draws(self) -> bool:
        """Say whether loading the first batch draws random numbers from a global generator."""
        plan = self._plan
        if plan.parts is None:
            return False
        with undisturbed(seed=0):
            before = random_states()
            for i in plan.parts[0]:
                plan.dataset[i]
            return random_states() != before

    def _load(self) -> Iterator[Any]:
        plan = self._plan
        if plan.loader is not None:
            return iter(plan.loader)
        if plan.collate is None:
            return iter(DataLoader(plan.dataset, batch_size=None, sampler=[i for (i,) in plan.parts or ()],
                                   num_workers=plan.num_workers, **plan.options))  # fmt: skip
        return iter(
            DataLoader(
                plan.dataset,
                batch_sampler=plan.parts,
                collate_fn=plan.collate,
                num_workers=plan.num_workers,
                **plan.options,
            )
        )

    def _batches(self) -> Iterator[Batch]:
        sizes = self._plan.sizes() or itertools.repeat(None)
        return (self._batch(loaded, size) for loaded, size in zip(self._read(), sizes, strict=False))

    def _batch(self, loaded: Any, size: int | None) -> Batch:
        """Return a loaded batch, of ``size`` samples if that is known, as inputs and target on the device."""
        if self._whole:
            batch = on_device(loaded, self._dtype, self._device)
            length = _length(batch, size)
            self.counted = self.counted and length is not None
            return Batch(batch, torch.empty(length or 1, 0, device=self._device))
        X, y = self._prepare(*inputs_and_target(loaded)) if self._prepare else inputs_and_target(loaded)
        X = on_device(_as_tensors(X), self._dtype, self._device)
        try:
            y = on_device(torch.as_tensor(y), self._dtype, self._device, target=True)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"The target of a batch must be a single tensor; got a {type(y).__name__}. {_ANY_OTHER}"
            ) from error
        if not y.ndim:
            raise ValueError(
                "A batch must have one target for each sample; got a single number; set the batch_size of the loader."
            )
        if n_rows(X) != len(y):
            raise ValueError(f"A batch must have as many inputs as targets; got {n_rows(X)} and {len(y)}.")
        return Batch(X, y)


def _as_tensors(X: Any) -> Any:
    if isinstance(X, Mapping):
        return {key: _as_tensors(value) for key, value in X.items()}
    if isinstance(X, tuple | list):
        return tuple(_as_tensors(value) for value in X)
    return torch.as_tensor(X) if isinstance(X, np.ndarray) else X


def _length(batch: Any, size: int | None) -> int | None:
    """Return the number of samples of a batch of any form; None if its tensors do not show it."""
    lengths = {len(t) for t in tensors_in(batch) if t.ndim}
    if size in lengths or not lengths:
        return size
    return lengths.pop() if len(lengths) == 1 and size is None else None


def inputs_and_target(batch: Any) -> tuple[Any, Any]:
    """Return the two parts of a batch; raise a TypeError for any other batch."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping) and "labels" in batch:
        return {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]
    got = f"{len(batch)} parts" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
    if isinstance(batch, Mapping):
        got += f" with {shown(list(batch))}"
    raise TypeError(f"A batch must be (inputs, target), or a dict with 'labels'; got {got}. {_ANY_OTHER}")


# Advice for a batch of another form. The name of the first argument distinguishes such a function from a criterion.
_ANY_OTHER = (
    "For any other batch, pass a function loss(module, batch) in place of the criterion; its first argument must be "
    "named module or model."
)


def part_of(data: Any, rows: Sequence[int]) -> Any:
    """Return the samples at these positions of a Dataset; raise a ValueError for data without positions."""
    if isinstance(data, Prepared):
        return Prepared(part_of(data.source, rows), data.prepare)
    if isinstance(data, DataLoader | IterableDataset):
        raise ValueError(
            "max_samples must be None for a DataLoader, because it decides on its batches; pass its dataset instead."
        )
    return Subset(data, rows)


def length_of(data: Any) -> int:
    """Return the number of samples of a Dataset."""
    if isinstance(data, Prepared):
        data = data.source
    if isinstance(data, DataLoader):
        data = data.dataset
    return len(data)
