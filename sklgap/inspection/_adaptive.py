"""The parameter ``adaptive`` of the measures of flatness: steps of one size, or steps relative to each weight."""

import torch
from torch import Tensor

# The radius of Foret et al. (2021), and for steps relative to the weights that of Kwon et al. (2021), on CIFAR-10.
RHO, ADAPTIVE_RHO = 0.05, 0.5


def radius(rho: float | None, adaptive: bool) -> float:
    """Return the given radius, or the default one if it is None."""
    return (ADAPTIVE_RHO if adaptive else RHO) if rho is None else rho


def scale_of(theta: Tensor, adaptive: bool) -> Tensor:
    """Return the diagonal of T; raise a ValueError if it is zero everywhere."""
    if not adaptive:
        return torch.ones_like(theta)
    if not bool(theta.any()):
        raise ValueError("The weights must not all be zero with adaptive=True, because no step would be possible.")
    return theta.abs()


def named(name: str, adaptive: bool, normalize_logits: bool) -> str:
    """Return the name of a measure with its variants."""
    return f"{'adaptive ' if adaptive else ''}{name}{', normalized logits' if normalize_logits else ''}"
