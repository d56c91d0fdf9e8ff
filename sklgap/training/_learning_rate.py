"""The learning rate of a step, beside whatever a scheduler makes of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def multiplied_lr(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """Multiply the learning rates within it: whatever a scheduler makes of them stays its own."""
    groups = optimizer.param_groups
    rates = [group["lr"] for group in groups]
    for group, lr in zip(groups, rates, strict=True):
        group["lr"] = lr * factor
    try:
        yield
    finally:
        for group, lr in zip(groups, rates, strict=True):
            group["lr"] = lr
