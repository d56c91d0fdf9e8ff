"""Squared norms of gradients of any layout, data type and device."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sklgap.objective._parameters import real

# In a large float32 vector, blocks of ``_BLOCK`` squares are summed in float32, and these sums are added in float64.
_BLOCK, _LARGE = 256, 65536
# Stands for the weights of a parameter for which Adam has no v yet.
NO_V = torch.empty(0)


def wide(p: Tensor) -> torch.dtype:
    """Return the widest real data type that the device of a tensor supports."""
    return torch.float32 if p.device.type == "mps" else torch.float64


def dense(gradient: Tensor, p: Tensor) -> Tensor:
    """Return the gradient of a parameter as a dense real tensor, in float32 at least."""
    gradient = real(gradient.to_dense() if gradient.layout != torch.strided else gradient)
    # No conversion to float64 here: the following sums use float64 and need no copy for that.
    return gradient if gradient.dtype in (torch.float32, torch.float64) else gradient.to(wide(p))


def squared_norms(vectors: Iterable[Tensor], weights: Sequence[Tensor | None]) -> np.ndarray:
    """Return the weighted squared norm of every vector as an array, with one wait for the device."""
    return as_array([squared_norm(v, w) for v, w in zip(vectors, weights, strict=True)])


def squared_norm(vector: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weighted squared norm in float64. With `NO_V` it is infinite, or 0 for a zero vector."""
    vector = real(vector.to_dense() if vector.layout != torch.strided else vector)
    if weight is NO_V:
        return torch.where(vector.any(), math.inf, 0.0).to(wide(vector))
    if weight is not None:
        return (vector.to(weight.dtype).square() * weight).sum()
    if vector.dtype != torch.float32 or vector.device.type != "cpu" or vector.numel() < _LARGE:
        return torch.linalg.vector_norm(vector, dtype=wide(vector)).square()
    # On a CPU this is several times as fast as float64 throughout. The rounding error is about 1e-8 of the result.
    flat = vector.reshape(-1)
    whole = flat.numel() // _BLOCK * _BLOCK
    blocks = torch.linalg.vector_norm(flat[:whole].view(-1, _BLOCK), dim=1)
    return blocks.double().square().sum() + flat[whole:].double().square().sum()


def as_array(found: Sequence[Tensor]) -> np.ndarray:
    """Return 0-dimensional tensors as an array, with one wait for the device."""
    return torch.stack([number.to(found[0].device) for number in found]).cpu().double().numpy()
