"""A batch sampler for any ``DataLoader`` whose batch size follows a schedule."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch.distributed
from torch.utils.data import BatchSampler, SequentialSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from sklgap._checks import check_flag, check_integer, check_positive, is_integer, is_number, shown
from sklgap._typing import LRScaling
from sklgap.regimes._adaptation import split_rows
from sklgap.regimes._base import BatchRegime, check_batch_size
from sklgap.regimes._check import check_batch_regime
from sklgap.regimes._lr_scaling import check_rate_rule, lr_factor

Schedule = str | int | float | BatchRegime | Mapping[int, int] | Callable[[int], int]
# What a state must share with the sampler that loads it: with other values the batches would be others.
_SHARED = ("n_samples", "random_state", "shuffle", "drop_last", "world_size")


class BatchSizeSampler(BatchSampler):
    """Batches of a ``DataLoader`` whose size follows a schedule.

    Use it as ``DataLoader(dataset, batch_sampler=sampler)`` and call ``set_epoch`` before every epoch.

    Parameters
    ----------
    dataset : Dataset or int
        The training samples, or their number.
    schedule : str, int, float, BatchRegime, dict or callable
        ``"SB"``, ``"LB"``, an integer, a fraction of the samples, or a `BatchRegime`; a dict ``{epoch: batch size}``,
        whose sizes hold from their epoch on and which begins at epoch 0; or a function of the epoch, for example one
        that reads a `BatchSizeMonitor`. A function is asked once, by ``set_epoch``. With several processes it must
        return the same size in all of them. An adaptive regime is refused: it reads the history of our estimator.
    shuffle : bool, default=True
        Whether the order of the samples is drawn for every epoch. ``random_state`` and the epoch decide the order.
    random_state : int, default=0
        The same in all processes. The global generators are neither read nor changed.
    drop_last : bool, default=False
        Leave out a last batch that is smaller than the others. Otherwise a rest of fewer than 8 samples joins the batch
        before it (fewer than 2, where batches have fewer than 16), because batch statistics of a few samples spoil a
        training.
    rank, world_size : int or None, default=None
        Every process of ``world_size`` yields its equal share of every batch, and batch sizes count the samples of all
        processes. None: from ``torch.distributed``, or one process. A size must be a multiple of ``world_size``, since
        the mean of the means of unequal shares is not the mean. Of the last batch up to ``world_size - 1`` samples are
        left out for the same reason.
    lr, base_batch_size, lr_scaling : float, int, {"sqrt", "linear"}
        For `rate_for`: the learning rate ``lr`` was found at ``base_batch_size`` (None: the size in epoch 0), and
        ``lr_scaling`` is ``"linear"`` for SGD and ``"sqrt"`` for Adam.

    Attributes
    ----------
    epoch : int
        The epoch that the next pass is, counted from 0.
    batch_size : int
        Samples of a batch of all processes in this epoch.

    Notes
    -----
    The batches of one process are those of `LBGapClassifier` with the same seed.

    Examples
    --------
    >>> from sklgap.regimes import BatchSizeSampler
    >>> sampler = BatchSizeSampler(100, {0: 10, 2: 50}, lr=0.1, lr_scaling="linear")
    >>> for epoch in range(3):
    ...     sampler.set_epoch(epoch)
    ...     print(len(sampler), sampler.batch_size, sampler.rate_for(sampler.batch_size))
    10 10 0.1
    10 10 0.1
    2 50 0.5

    In a loop the sampler goes into a loader, and its state into the checkpoint:

    >>> import torch
    >>> from torch.utils.data import DataLoader
    >>> loader = DataLoader(torch.arange(100), batch_sampler=sampler)
    >>> batches = iter(loader)
    >>> _ = next(batches)
    >>> state = sampler.state_dict(batches_done=1)
    >>> sampler.load_state_dict(state)
    >>> len(list(loader))
    1
    """

    batch_size: int

    def __init__(
        self,
        dataset: Sized | int,
        schedule: Schedule,
        *,
        shuffle: bool = True,
        random_state: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        lr: float | None = None,
        base_batch_size: int | None = None,
        lr_scaling: LRScaling | None = None,
    ) -> None:
        self.n_samples = _number_of_samples(dataset)
        check_flag("shuffle", shuffle)
        check_flag("drop_last", drop_last)
        check_integer("random_state", random_state, 0)
        self.rank, self.world_size = _processes(rank, world_size)
        if lr is not None:
            check_positive("lr", lr)
        check_integer("base_batch_size", base_batch_size, or_none=True)
        self.shuffle, self.drop_last, self.random_state = bool(shuffle), bool(drop_last), int(random_state)
        self.lr, self.lr_scaling = lr, check_rate_rule(lr_scaling)
        self._size_of = _size_of_epoch(schedule, self.n_samples)
        self.sampler = SequentialSampler(range(self.n_samples))  # what libraries look for in a BatchSampler
        self.epoch, self._start, self._done = 0, 0, 0
        self._reads_ahead, self._epoch_was_set, self._passes = False, False, 0
        self._latest: object = None
        self.batch_size = self._checked_size(0)
        self.base_batch_size = self.batch_size if base_batch_size is None else int(base_batch_size)

    def __len__(self) -> int:
        return len(self._slices())

    def __iter__(self) -> Iterator[list[int]]:
        return self._batches()

    def _batches(self) -> Iterator[list[int]]:
        # All that a pass changes waits for its first batch: a loader with workers makes an iterator that it never uses.
        self._reads_ahead = _is_read_ahead()
        self._warn_of_one_epoch()
        start, self._start, self._done = self._start, 0, self._start
        self._latest = own = object()
        order = np.arange(self.n_samples)
        if self.shuffle:
            order = np.random.default_rng([self.random_state, self.epoch]).permutation(self.n_samples)
        for part in self._slices()[start:]:
            batch = order[part]
            share = len(batch) // self.world_size
            if self._latest is own:  # an older pass that goes on does not count in the state
                self._done += 1
            yield batch[self.rank * share : (self.rank + 1) * share].tolist()
        self._passes += 1

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next pass is; the batch size follows. A position that was loaded for it stays."""
        check_integer("epoch", epoch, 0)
        if epoch != self.epoch:
            self.batch_size = self._checked_size(int(epoch))
            self.epoch, self._start, self._done = int(epoch), 0, 0
        self._epoch_was_set = True

    def rate_for(self, batch_size: int) -> float:
        """Return the learning rate that goes with a batch size: the base rate times B / B_base, or its square root."""
        check_integer("batch_size", batch_size)
        if self.lr is None:
            raise ValueError("lr must be given to BatchSizeSampler, with the batch size it was found at; got None.")
        if self.lr_scaling is None:
            raise ValueError("lr_scaling must be 'sqrt' (for Adam) or 'linear' (for SGD) for a rate; got None.")
        return self.lr * lr_factor(self.lr_scaling, int(batch_size), self.base_batch_size)

    def state_dict(self, batches_done: int | None = None) -> dict[str, Any]:
        """Return where the sampler stands, as plain numbers.

        Parameters
        ----------
        batches_done : int, default=None
            Batches of this epoch that the loop has trained on. None: those that the sampler has yielded, which is right
            for a loader that does not read ahead (``num_workers=0``).
        """
        if batches_done is None and self._reads_ahead:
            raise ValueError(
                "batches_done must be given, the batches of this epoch that you have trained on: a DataLoader with "
                "num_workers above 0 reads ahead."
            )
        check_integer("batches_done", batches_done, 0, or_none=True)
        done = (self._start or self._done) if batches_done is None else int(batches_done)
        if done > len(self):
            raise ValueError(f"batches_done must be at most the {len(self)} batches of the epoch; got {done}.")
        shared = {name: getattr(self, name) for name in _SHARED}
        return {"epoch": self.epoch, "batch_size": self.batch_size, "batches_done": done, **shared}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a sampler stood: the next pass has the rest of its epoch."""
        names = {"epoch", "batch_size", "batches_done", *_SHARED}
        if not isinstance(state, Mapping) or set(state) != names:
            raise ValueError(f"state must be what state_dict returned; got {shown(state)}.")
        for name in _SHARED:
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"state must be of a sampler with the same {name}, or the batches would be others; "
                    f"got {shown(state[name])}, and this sampler has {getattr(self, name)!r}."
                )
        check_integer("state['epoch']", state["epoch"], 0)
        check_integer("state['batches_done']", state["batches_done"], 0)
        self._check_size(state["batch_size"], int(state["epoch"]))
        n_batches = len(self._slices(int(state["batch_size"])))
        if state["batches_done"] > n_batches:
            raise ValueError(
                f"state['batches_done'] must be at most the {n_batches} batches of its epoch; got "
                f"{state['batches_done']}."
            )
        # The saved size holds for this epoch: a schedule that reads a monitor may give another one now.
        self.epoch, self.batch_size = int(state["epoch"]), int(state["batch_size"])
        self._start = self._done = int(state["batches_done"])

    def _slices(self, size: int | None = None) -> list[slice]:
        """Return the batches of all processes as slices of the order, of this size or of that of this epoch."""
        size = self.batch_size if size is None else size
        slices = split_rows(self.n_samples, size)
        if self.drop_last:
            slices = [slice(i * size, (i + 1) * size) for i in range(self.n_samples // size)]
        return [part for part in slices if part.stop - part.start >= self.world_size]

    def _checked_size(self, epoch: int) -> int:
        try:
            size = self._size_of(epoch)
        except Exception as error:  # a function of the user may raise anything
            raise ValueError(f"schedule must give a batch size for epoch {epoch}, but it failed: {error}") from error
        self._check_size(size, epoch)
        return int(size)

    def _check_size(self, size: Any, epoch: int) -> None:
        if not is_integer(size, 1):
            raise ValueError(f"schedule must give an integer of at least 1 for epoch {epoch}; got {shown(size)}.")
        if int(size) > self.n_samples:
            raise ValueError(
                f"schedule must give at most the {self.n_samples} samples of the dataset for epoch {epoch}; got {size}."
            )
        if int(size) % self.world_size:
            raise ValueError(
                f"schedule must give multiples of world_size={self.world_size}, so that all processes have equal "
                f"shares; got {size} for epoch {epoch}."
            )

    def _warn_of_one_epoch(self) -> None:
        if self._passes == 1 and not self._epoch_was_set:
            warnings.warn(
                "BatchSizeSampler repeats epoch 0, its order and its batch size: call set_epoch before every epoch.",
                stacklevel=3,
            )


def growing_milestones(
    batch_size: int,
    milestones: Sequence[int],
    *,
    decay: float = 0.1,
    lr_scaling: LRScaling = "linear",
    largest: int | None = None,
) -> dict[int, int]:
    """Milestones that grow the batch where a learning rate would fall (Smith et al., 2018).

    Where the rate would be multiplied by ``decay``, the batch is divided by it for SGD, whose noise follows lr / B, and
    by its square for Adam, whose noise follows lr / sqrt(B).

    Parameters
    ----------
    batch_size : int
        Before the first milestone.
    milestones : sequence of int
        Epochs, increasing and above 0, at which the rate would fall.
    decay : float, default=0.1
        What the rate would be multiplied with, in (0, 1].
    lr_scaling : {"linear", "sqrt"}, default="linear"
        ``"linear"`` for SGD, ``"sqrt"`` for Adam.
    largest : int, default=None
        The batch is never larger: from there on lower the rate instead.

    Returns
    -------
    dict
        ``{epoch: batch size}``, a schedule for `BatchSizeSampler`.

    References
    ----------
    Smith et al., Don't Decay the Learning Rate, Increase the Batch Size, arXiv:1711.00489, Section 3.

    Examples
    --------
    >>> from sklgap.regimes import growing_milestones
    >>> growing_milestones(64, [30, 60], decay=0.5)
    {0: 64, 30: 128, 60: 256}
    >>> growing_milestones(64, [30, 60], decay=0.5, lr_scaling="sqrt")
    {0: 64, 30: 256, 60: 1024}
    """
    check_integer("batch_size", batch_size)
    check_integer("largest", largest, or_none=True)
    if check_rate_rule(lr_scaling) is None:
        raise ValueError("lr_scaling must be 'linear' (for SGD) or 'sqrt' (for Adam); got None.")
    if not is_number(decay) or not 1e-6 <= decay <= 1:
        raise ValueError(f"decay must be a number in [1e-6, 1]; got {shown(decay)}.")
    listed: list[Any] = list(milestones) if isinstance(milestones, list | tuple | range) else [None]
    if not all(is_integer(epoch, 1) for epoch in listed) or listed != sorted(set(listed)):
        raise ValueError(f"milestones must be increasing integers of at least 1; got {shown(milestones)}.")
    growth = 1 / decay if lr_scaling == "linear" else 1 / decay**2
    most = math.inf if largest is None else int(largest)
    sizes = {}
    for i, epoch in enumerate([0, *listed]):
        size = min(batch_size * growth**i if i * math.log(growth) < 60 else math.inf, most)
        if size > 2**31:
            raise ValueError(f"largest must be given where batch_size grows above 2**31 samples; got {shown(largest)}.")
        sizes[int(epoch)] = round(size)
    return sizes


def _is_read_ahead() -> bool:
    """Say whether a loader with worker processes asks, also through a wrapper: long before the loop has the batch."""
    frame = inspect.currentframe()
    while frame is not None:
        asking = frame.f_locals.get("self")
        if isinstance(asking, _BaseDataLoaderIter) and asking._num_workers:
            return True
        frame = frame.f_back
    return False


def _number_of_samples(dataset: Any) -> int:
    if is_integer(dataset, 1):
        return int(dataset)
    try:
        n_samples = len(dataset)
    except TypeError:
        n_samples = 0
    if isinstance(dataset, str | bytes | Mapping) or not n_samples:
        raise ValueError(f"dataset must be a Dataset with samples, or their number; got {shown(dataset)}.")
    return n_samples


def _processes(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size, from ``torch.distributed`` where neither is given."""
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank and world_size must be given together; got {shown(rank)} and {shown(world_size)}.")
    if rank is None or world_size is None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if running else (0, 1)
    check_integer("world_size", world_size)
    if not is_integer(rank, 0) or int(rank) >= world_size:
        raise ValueError(f"rank must be an integer from 0 to world_size - 1 = {world_size - 1}; got {shown(rank)}.")
    return int(rank), int(world_size)


def _size_of_epoch(schedule: Any, n_samples: int) -> Callable[[int], Any]:
    """Return the function from an epoch to its batch size."""
    if isinstance(schedule, Mapping):
        if not schedule or not all(is_integer(epoch, 0) for epoch in schedule) or 0 not in schedule:
            raise ValueError(
                f"schedule must be {{epoch: batch size}} with integer epochs that begin at 0; got {shown(schedule)}."
            )
        for epoch, size in schedule.items():
            if not is_integer(size, 1) or int(size) > n_samples:
                raise ValueError(
                    f"schedule must give an integer from 1 to the {n_samples} samples of the dataset; "
                    f"got {shown(size)} for epoch {epoch}."
                )
        sizes = {int(epoch): int(size) for epoch, size in schedule.items()}
        return lambda epoch: sizes[max(first for first in sizes if first <= epoch)]
    if callable(schedule) and not isinstance(schedule, BatchRegime | type):
        return schedule
    if isinstance(schedule, BatchRegime) and schedule.adaptive:
        raise ValueError(
            "schedule must not be an adaptive regime, which reads the history of an LBGapClassifier: use a function of "
            f"the epoch; got {shown(schedule)}."
        )
    if is_integer(schedule, 1) and int(schedule) > n_samples:
        raise ValueError(f"schedule must be at most the {n_samples} samples of the dataset; got {schedule}.")
    if is_number(schedule):
        check_batch_size(schedule, n_samples, "schedule")
    try:
        regime = check_batch_regime(schedule, n_samples)
    except ValueError as error:
        raise ValueError(
            "schedule must be 'SB', 'LB', an integer, a fraction, a BatchRegime, {epoch: batch size} or a function of "
            f"the epoch; got {shown(schedule)}."
        ) from error
    return lambda epoch: regime.batch_size(epoch, n_samples)
