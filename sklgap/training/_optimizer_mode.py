"""Optimisers with a training mode: schedule-free ones, whose updates are made at other weights than one evaluates.

Defazio et al., The Road Less Scheduled (2024): gradients are taken at an interpolation between the fast weights and
their average; ``optimizer.eval()`` puts the average in place, ``optimizer.train()`` the interpolation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def has_modes(optimizer: Any) -> bool:
    """Say whether the optimiser has a training mode and an evaluation mode."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


@contextmanager
def updating(optimizer: Any) -> Iterator[None]:
    """Within it the optimiser is in training mode, afterwards in evaluation mode, however it ends."""
    if not has_modes(optimizer):
        yield
        return
    optimizer.train()
    try:
        yield
    finally:
        optimizer.eval()
