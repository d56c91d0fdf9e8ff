"""The weights during a training: at its start and at the ends of epochs, to start other trainings from them."""

from typing import Any, Self

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn


class WeightsKeeper(Callback):
    """Save weights and buffers at the start and at the ends of epochs.

    Parameters
    ----------
    every : int
        Number of epochs from one saved set to the next.

    Attributes
    ----------
    weights_ : dict of int to dict of ndarrays
        The saved sets by number of epochs, each by name as in ``state_dict``.
    """

    reads_batches = False

    def __init__(self, every: int) -> None:
        self.every = every

    def initialize(self) -> Self:
        """Drop the weights of an earlier fit."""
        self.weights_: dict[int, dict[str, np.ndarray]] = {}
        return self

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Save a copy of the initial weights."""
        if not len(net.history):
            self.on_epoch_end(net)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Save a copy every ``every`` epochs."""
        epoch = len(net.history)
        if epoch % self.every == 0:
            state = net.module_.state_dict()
            self.weights_[epoch] = {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


class KeptWeights:
    """An ``init`` for a module: the weights and buffers that `WeightsKeeper` saved after some epoch.

    They are arrays, which are hashed and pickled by their values.
    """

    def __init__(self, weights: dict[str, np.ndarray], epoch: int) -> None:
        self.weights = weights
        self.epoch = epoch

    def __call__(self, module: nn.Module) -> None:
        module.load_state_dict({name: torch.tensor(value) for name, value in self.weights.items()})

    def __repr__(self) -> str:
        return f"KeptWeights(epoch={self.epoch})"
