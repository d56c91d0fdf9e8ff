"""The learning rate of a step, independent of any scheduler, and the betas and eps of Adam."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sklgap.regimes._lr_scaling import largest_ratio, scaled_beta, scaled_eps


@contextmanager
def scaled_step(optimizer: torch.optim.Optimizer, lr_factor: float, moments_ratio: float = 1.0) -> Iterator[None]:
    """Scale the hyper-parameters of a step within this context, and restore those of the scheduler afterwards.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser. All its groups are scaled, and restored afterwards.
    lr_factor : float
        Factor of the learning rates.
    moments_ratio : float, default=1.0
        Ratio k of batch sizes. If it is not 1, Adam gets the betas and the eps of a k times larger batch (Malladi et
        al. 2022).
    """
    names = (*(("lr",) if lr_factor != 1 else ()), *(("betas", "eps") if moments_ratio != 1 else ()))
    given = [{name: group[name] for name in names} for group in optimizer.param_groups]
    scale_step(optimizer, lr_factor, moments_ratio)
    try:
        yield
    finally:
        for group, own in zip(optimizer.param_groups, given, strict=True):
            group.update(own)


def scale_step(optimizer: torch.optim.Optimizer, lr_factor: float, moments_ratio: float = 1.0) -> None:
    """Scale the hyper-parameters of all later steps; `scaled_step` explains the parameters."""
    for group in optimizer.param_groups:
        if lr_factor != 1:
            group["lr"] = group["lr"] * lr_factor
        if moments_ratio != 1:
            group["betas"] = tuple(scaled_beta(float(beta), moments_ratio) for beta in group["betas"])
            group["eps"] = scaled_eps(group["eps"], moments_ratio)


def check_moments(optimizer: torch.optim.Optimizer, batch_size: int, base_batch_size: int) -> None:
    """Raise a ValueError if the square root scaling rule of Adam does not hold."""
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise ValueError(
            f"optimizer must be Adam or AdamW with lr_scaling='sde'; got {type(optimizer).__name__}; use 'linear' for "
            "SGD, or 'sqrt'."
        )
    k = batch_size / base_batch_size
    for group in optimizer.param_groups:
        for i, beta in enumerate(group["betas"], start=1):
            if scaled_beta(float(beta), k) < 0:
                raise ValueError(
                    f"batch_size must be at most {math.floor(largest_ratio(beta) * base_batch_size):,} with "
                    f"lr_scaling='sde', base_batch_size={base_batch_size} and beta{i}={beta:g}, because beta{i} would "
                    f"be below 0; got {batch_size}; use lr_scaling='sqrt', or a larger beta{i}."
                )
