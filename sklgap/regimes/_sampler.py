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
# A state and the sampler that loads it must share these values. With different values the batches would differ.
_SHARED = ("n_samples", "random_state", "shuffle", "drop_last", "world_size")


class BatchSizeSampler(BatchSampler):
    """Sample batches for a ``DataLoader`` with a batch size that follows a schedule.

    Use it as ``DataLoader(dataset, batch_sampler=sampler)``, and call ``set_epoch`` before every epoch.

    Parameters
    ----------
    dataset : Dataset or int
        The training samples, or their number.
    schedule : str, int, float, BatchRegime, dict or callable
        ``"SB"``, ``"LB"``, an integer, a fraction of the samples, or a `BatchRegime`. Or a dict ``{epoch: batch size}``
        that begins at epoch 0; each batch size holds from its epoch on. Or a function of the epoch, for example one
        that reads a `BatchSizeMonitor`. ``set_epoch`` calls the function once. With several processes it must return
        the same batch size in all of them. An adaptive regime is refused, because it reads the history of
        `LBGapClassifier`.
    shuffle : bool, default=True
        Whether to draw the order of the samples for every epoch. The order depends on ``random_state`` and the epoch.
    random_state : int, default=0
        Seed of the order. It must be the same in all processes. The global random generators are neither read nor
        changed.
    drop_last : bool, default=False
        Whether to leave out a last batch that is smaller than the others. Otherwise, if the last batch would have fewer
        than 8 samples (fewer than 2 for batch sizes below 16), its samples join the batch before it, because batch
        statistics of a few samples spoil a training.
    rank, world_size : int or None, default=None
        Number of this process, and number of processes. Every process yields its equal share of every batch, and batch
        sizes count the samples of all processes. None takes both from ``torch.distributed``, or means one process. A
        batch size must be a multiple of ``world_size``, because the mean of the means of unequal shares is not the
        overall mean. For the same reason up to ``world_size - 1`` samples of the last batch are left out.
    lr, base_batch_size, lr_scaling : float, int, {"sqrt", "linear"}
        Settings of `rate_for`. The learning rate ``lr`` was found at ``base_batch_size`` (None means the batch size of
        epoch 0). ``lr_scaling`` is ``"linear"`` for SGD and ``"sqrt"`` for Adam.

    Attributes
    ----------
    epoch : int
        Epoch of the next pass, counted from 0.
    batch_size : int
        Batch size of this epoch, over all processes.

    Notes
    -----
    In one process the batches are those of `LBGapClassifier` with the same seed.

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

    In a training loop, pass the sampler to a loader, and save its state in the checkpoint:

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
        # the attribute that libraries look for in a BatchSampler
        self.sampler = SequentialSampler(range(self.n_samples))
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
        # A pass changes nothing before its first batch, because a loader with workers makes an iterator that it never
        # uses.
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
            if self._latest is own:  # an older pass that continues does not count in the state
                self._done += 1
            yield batch[self.rank * share : (self.rank + 1) * share].tolist()
        self._passes += 1

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass and its batch size. A position that was loaded for this epoch remains."""
        check_integer("epoch", epoch, 0)
        if epoch != self.epoch:
            self.batch_size = self._checked_size(int(epoch))
            self.epoch, self._start, self._done = int(epoch), 0, 0
        self._epoch_was_set = True

    def rate_for(self, batch_size: int) -> float:
        """Return the learning rate for a batch size: the base rate times B / B_base, or times its square root."""
        check_integer("batch_size", batch_size)
        if self.lr is None:
            raise ValueError(
                "lr must be given to BatchSizeSampler, with the batch size at which it was found; got None."
            )
        if self.lr_scaling is None:
            raise ValueError("lr_scaling must be 'sqrt' (for Adam) or 'linear' (for SGD) for a rate; got None.")
        return self.lr * lr_factor(self.lr_scaling, int(batch_size), self.base_batch_size)

    def state_dict(self, batches_done: int | None = None) -> dict[str, Any]:
        """Return the position of the sampler as plain numbers.

        Parameters
        ----------
        batches_done : int, default=None
            Number of batches of this epoch that the loop has trained on. None means the number that the sampler has
            yielded, which is right for a loader that does not read ahead (``num_workers=0``).
        """
        if batches_done is None and self._reads_ahead:
            raise ValueError(
                "batches_done must be given as the number of batches of this epoch that you have trained on, because "
                "a DataLoader with num_workers above 0 reads ahead."
            )
        check_integer("batches_done", batches_done, 0, or_none=True)
        done = (self._start or self._done) if batches_done is None else int(batches_done)
        if done > len(self):
            raise ValueError(f"batches_done must be at most the {len(self)} batches of the epoch; got {done}.")
        shared = {name: getattr(self, name) for name in _SHARED}
        return {"epoch": self.epoch, "batch_size": self.batch_size, "batches_done": done, **shared}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved position: the next pass yields the rest of its epoch."""
        names = {"epoch", "batch_size", "batches_done", *_SHARED}
        if not isinstance(state, Mapping) or set(state) != names:
            raise ValueError(f"state must be a result of state_dict; got {shown(state)}.")
        for name in _SHARED:
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"state must come from a sampler with the same {name}, because the batches would differ "
                    f"otherwise; got {shown(state[name])}, and this sampler has {getattr(self, name)!r}."
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
        # The saved batch size holds for this epoch, because a schedule that reads a monitor may give a different one
        # now.
        self.epoch, self.batch_size = int(state["epoch"]), int(state["batch_size"])
        self._start = self._done = int(state["batches_done"])

    def _slices(self, size: int | None = None) -> list[slice]:
        """Return the batches of all processes as slices of the order, by default at the batch size of this epoch."""
        size = self.batch_size if size is None else size
        slices = split_rows(self.n_samples, size)
        if self.drop_last:
            slices = [slice(i * size, (i + 1) * size) for i in range(self.n_samples // size)]
        return [part for part in slices if part.stop - part.start >= self.world_size]

    def _checked_size(self, epoch: int) -> int:
        try:
            size = self._size_of(epoch)
        except Exception as error:  # the user's function may raise any exception
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
                "BatchSizeSampler repeats epoch 0 with the same order and batch size. Call set_epoch before every "
                "epoch.",
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
    """Return milestones at which the batch grows instead of a learning rate that falls (Smith et al., 2018).

    If the rate would be multiplied by ``decay``, the batch size is divided by ``decay`` for SGD, whose noise follows lr
    / B. For Adam, whose noise follows lr / sqrt(B), it is divided by the square of ``decay``.

    Parameters
    ----------
    batch_size : int
        Batch size before the first milestone.
    milestones : sequence of int
        Increasing epochs above 0 at which the learning rate would fall.
    decay : float, default=0.1
        Factor by which the learning rate would be multiplied, in (0, 1].
    lr_scaling : {"linear", "sqrt"}, default="linear"
        ``"linear"`` for SGD, ``"sqrt"`` for Adam.
    largest : int, default=None
        Largest batch size. After the batch has reached it, lower the learning rate instead. None sets no limit.

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
            raise ValueError(f"largest must be given if batch_size grows above 2**31 samples; got {shown(largest)}.")
        sizes[int(epoch)] = round(size)
    return sizes


def _is_read_ahead() -> bool:
    """Return whether a loader with worker processes asks, which reads ahead of the loop; also through a wrapper."""
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
    """Return rank and world size, from ``torch.distributed`` if both are None."""
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
            "schedule must not be an adaptive regime, which reads the history of an LBGapClassifier; got "
            f"{shown(schedule)}; use a function of the epoch."
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
