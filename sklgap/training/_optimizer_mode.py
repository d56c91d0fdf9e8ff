"""Optimisers with a training mode: schedule-free ones, whose updates are made at other weights than one evaluates.

Defazio et al., The Road Less Scheduled (2024): gradients are taken at an interpolation between the fast weights and
their average; ``optimizer.eval()`` puts the average in place, ``optimizer.train()`` the interpolation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def has_modes(optimizer: Any) -> bool:
    """Say whether the optimiser has a training mode and an evaluation mode."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


@contextmanager
def updating(net: Any) -> Iterator[None]:
    """Within it the optimiser of a net is in training mode, afterwards in evaluation mode, however it ends."""
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
    """Within it the optimiser is in evaluation mode, also between two updates; the training does not notice."""
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
                parameter.copy_(weight)  # going there and back rounds
