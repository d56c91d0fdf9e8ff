"""A callback that measures the time of a training step, and then ends the training."""

import time
from typing import Any, Self

import torch
from skorch.callbacks import Callback

# The timer measures at least LEAST_BATCHES batches, if the epoch has as many, and ends after SECONDS seconds or
# MOST_BATCHES batches.
LEAST_BATCHES, SECONDS, MOST_BATCHES = 3, 0.3, 30


class StepTimer(Callback):
    """Time the batches of the first epoch, then raise the KeyboardInterrupt that ends a fit before its evaluation.

    Attributes
    ----------
    stopped_ : bool
        Whether this callback raised the KeyboardInterrupt, and not Ctrl-C.
    seconds_ : float
        Seconds per batch. It is a mean without the first batch, which warms up, if there are several.
    updates_per_batch_ : int
        Number of optimiser steps on each batch.
    n_samples_ : int
        Number of training samples.
    n_threads_ : int
        Number of threads that computed the steps.
    net_ : TrainingNet
        The net in training.
    """

    reads_batches = False

    def __init__(self) -> None:
        self.stopped_ = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the callback itself, so that the copy that a fit makes of its callbacks is the one that measures."""
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
