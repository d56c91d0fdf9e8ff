"""The learning rate of a step, beside whatever a scheduler makes of it, and the moments of Adam at a larger batch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# k (1 - beta) is 1 up to rounding where k = 1 / (1 - beta).
_ROUNDING = 1e-9


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


@contextmanager
def scaled_moments(optimizer: torch.optim.Optimizer, k: float) -> Iterator[None]:
    """Within it Adam has the betas and the eps of a batch k times as large (Malladi et al. 2022)."""
    groups = optimizer.param_groups
    given = [(group["betas"], group["eps"]) for group in groups]
    for group, (betas, eps) in zip(groups, given, strict=True):
        group["betas"], group["eps"] = _moments(betas, eps, k)
    try:
        yield
    finally:
        for group, (betas, eps) in zip(groups, given, strict=True):
            group["betas"], group["eps"] = betas, eps


def check_moments(optimizer: torch.optim.Optimizer, batch_size: int, base_batch_size: int) -> None:
    """ValueError where the square root scaling rule of Adam does not hold."""
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise ValueError(
            f"optimizer must be Adam or AdamW with lr_scaling='sde'; got {type(optimizer).__name__}: use 'linear' for "
            "SGD, or 'sqrt'."
        )
    k = batch_size / base_batch_size
    for group in optimizer.param_groups:
        for i, beta in enumerate(group["betas"], start=1):
            if k * (1 - beta) > 1 + _ROUNDING:
                raise ValueError(
                    f"batch_size must be at most {math.floor((1 + _ROUNDING) * base_batch_size / (1 - beta)):,} with "
                    f"lr_scaling='sde', base_batch_size={base_batch_size} and beta{i}={beta:g}, for beta{i} would be "
                    f"below 0; got {batch_size}: use lr_scaling='sqrt', or a larger beta{i}."
                )


def _moments(betas: tuple[float, float], eps: float, k: float) -> tuple[tuple[float, float], float]:
    first, second = (max(0.0, 1 - k * (1 - float(beta))) for beta in betas)
    return (first, second), eps / math.sqrt(k)
