"""In which floating-point type a module computes."""

import torch
from torch import Tensor, nn


def floating_dtype(module: nn.Module) -> torch.dtype:
    """Return the real type of the module's first floating-point or complex parameter; float32 without one."""
    for parameter in module.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            return parameter.dtype.to_real()
    return torch.float32


def check_precision(module: nn.Module) -> torch.dtype:
    """Return the type the module computes in; ValueError for several, and for less than single precision."""
    dtype = floating_dtype(module)
    for name, parameter in module.named_parameters():
        if (parameter.is_floating_point() or parameter.is_complex()) and parameter.dtype.to_real() != dtype:
            raise ValueError(
                f"net must have all its parameters in one precision; got {dtype}, and {parameter.dtype} for {name!r}: "
                "pass net.float() or net.double()."
            )
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"net must have parameters in float32 or float64; got {dtype}: in lower precision the updates of the "
            "usual learning rates are rounded away; pass net.float()."
        )
    return dtype


def in_dtype(X: Tensor, dtype: torch.dtype) -> Tensor:
    """Return floating-point rows in the type the module computes in, anything else as it is."""
    return X.to(dtype) if isinstance(X, Tensor) and X.is_floating_point() else X
