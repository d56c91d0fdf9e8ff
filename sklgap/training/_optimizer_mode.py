"""Optimisers with a training mode: schedule-free ones, which update and evaluate at different weights.

Defazio et al., The Road Less Scheduled (2024), compute gradients at an interpolation between the fast weights and their
average. ``optimizer.eval()`` sets the weights to the average, and ``optimizer.train()`` sets them to the interpolation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def has_modes(optimizer: Any) -> bool:
    """Return whether the optimiser has a training mode and an evaluation mode."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


@contextmanager
def updating(net: Any) -> Iterator[None]:
    """Set the optimiser of a net to training mode within this context, and always to evaluation mode after it."""
    if not has_modes(net.optimizer_):
        yield
        return
    net.optimizer_.train()
    net.updating_ = True
    try:
        yield
    finally:
        net.updating_ = False
        net.optimizer_.eval()


@contextmanager
def evaluating(net: Any) -> Iterator[None]:
    """Set the optimiser to evaluation mode within this context, without effect on the training."""
    if not getattr(net, "updating_", False):
        yield
        return
    weights = [p.detach().clone() for p in net.module_.parameters()]
    net.optimizer_.eval()
    try:
        yield
    finally:
        net.optimizer_.train()
        with torch.no_grad():
            for parameter, weight in zip(net.module_.parameters(), weights, strict=True):
                parameter.copy_(weight)  # the change of mode and back rounds the weights
