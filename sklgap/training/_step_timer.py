"""A callback that measures how long a training step takes, and ends the training once it knows."""

import time
from typing import Any, Self

import torch
from skorch.callbacks import Callback

# Measured are at least so many batches, where the epoch has them, and then more until so many seconds or batches.
LEAST_BATCHES, SECONDS, MOST_BATCHES = 3, 0.3, 30


class StepTimer(Callback):
    """Times the batches of the first epoch, and raises the KeyboardInterrupt that ends a fit before it has evaluated.

    Attributes
    ----------
    stopped_ : bool
        Whether the KeyboardInterrupt is this one's, not Ctrl-C.
    seconds_ : float
        Of a batch: a mean without the first one, which warms up, where there are more.
    updates_per_batch_ : int
        Optimiser steps on each batch.
    n_samples_ : int
        Rows trained on.
    n_threads_ : int
        Threads that the steps computed with.
    net_ : TrainingNet
        The net in training.
    """

    reads_batches = False

    def __init__(self) -> None:
        self.stopped_ = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: the copy that a fit makes of its callbacks is the one that measures."""
        return self

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.times_ = [_now()]

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        if not training:
            return
        self.times_.append(_now())
        done, whole = len(self.times_) - 1, net.progress_[2]
        settled = done >= LEAST_BATCHES and self.times_[-1] - self.times_[0] > SECONDS
        if not (settled or done in (MOST_BATCHES, whole)):
            return
        first = 1 if done > 1 else 0
        self.seconds_ = (self.times_[-1] - self.times_[first]) / (done - first)
        self.updates_per_batch_ = net.n_updates_ // done
        self.n_samples_ = net.n_samples_
        self.n_threads_ = torch.get_num_threads()
        self.net_ = net
        self.stopped_ = True
        raise KeyboardInterrupt


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
