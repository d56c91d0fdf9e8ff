"""Steps of one size for all weights, or relative to each weight: what the measures of flatness mean by ``adaptive``."""

import torch
from torch import Tensor

# Foret et al. (2021), and for steps relative to the weights Kwon et al. (2021), on CIFAR-10.
RHO, ADAPTIVE_RHO = 0.05, 0.5


def radius(rho: float | None, adaptive: bool) -> float:
    """Return the radius that None stands for, or the one given."""
    return (ADAPTIVE_RHO if adaptive else RHO) if rho is None else rho


def scale_of(theta: Tensor, adaptive: bool) -> Tensor:
    """Return the diagonal of T; ValueError where it is zero everywhere."""
    if not adaptive:
        return torch.ones_like(theta)
    if not bool(theta.any()):
        raise ValueError("The weights must not all be zero with adaptive=True: no step is possible.")
    return theta.abs()


def named(name: str, adaptive: bool, normalize_logits: bool) -> str:
    """Return the name of a measure with its variants."""
    return f"{'adaptive ' if adaptive else ''}{name}{', normalized logits' if normalize_logits else ''}"
