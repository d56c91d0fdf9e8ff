"""The floating-point type in which a module computes."""

import torch
from torch import Tensor, nn


def floating_dtype(module: nn.Module) -> torch.dtype:
    """Return the real type of the first floating-point or complex parameter of a module; float32 without one."""
    for parameter in module.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            return parameter.dtype.to_real()
    return torch.float32


def check_precision(module: nn.Module) -> torch.dtype:
    """Return the type in which the module computes; raise a ValueError for mixed types and for less than float32."""
    dtype = floating_dtype(module)
    for name, parameter in module.named_parameters():
        if (parameter.is_floating_point() or parameter.is_complex()) and parameter.dtype.to_real() != dtype:
            raise ValueError(
                f"net must have all its parameters in one precision; got {dtype}, and {parameter.dtype} for {name!r}; "
                "pass net.float() or net.double()."
            )
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"net must have parameters in float32 or float64; got {dtype}, in which the updates of the "
            "usual learning rates are rounded away; pass net.float()."
        )
    return dtype


def in_dtype(X: Tensor, dtype: torch.dtype) -> Tensor:
    """Return floating-point samples in the type in which the module computes; return anything else unchanged."""
    return X.to(dtype) if isinstance(X, Tensor) and X.is_floating_point() else X
