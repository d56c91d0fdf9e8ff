"""Algebra on dicts of named tensors: a few operations for optimisation, and conversion to the flat form and back."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from sklgap._checks import shown
from sklgap._typing import Params
from sklgap.objective._shared_memory import check_memory

Patterns = str | Sequence[str]


def trainable_parameters(module: nn.Module, patterns: Patterns | None = None, *, owner: str = "module") -> Params:
    """Return the module's own parameters that require a gradient. Frozen parameters count as constants.

    Parameters
    ----------
    module : nn.Module
        The module, whose parameters are returned in the order of ``named_parameters()``.
    patterns : str or sequence of str, optional
        Patterns of parameter names, in the style of file names (``"encoder.*"``). Parameters that match no pattern
        count as constants.
    owner : str, default="module"
        Name of the module in the error about parameters that share memory; see `check_memory`.
    """
    params = _matching({name: p for name, p in module.named_parameters() if p.requires_grad}, patterns)
    check_memory(module, params, owner)
    return params


def _matching(params: Params, patterns: Patterns | None) -> Params:
    """Return the parameters whose names match a pattern, or all of them."""
    if patterns is None:
        return params
    asked = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(asked, Sequence) or not asked or not all(isinstance(pattern, str) for pattern in asked):
        raise ValueError(
            "parameters must be None, a pattern of parameter names such as 'encoder.*', or a list of patterns; "
            f"got {shown(patterns)}."
        )
    for pattern in asked:
        if not any(fnmatchcase(name, pattern) for name in params):
            names = list(params)
            some = ", ".join(map(repr, names[:_N_NAMED])) + (", ..." if len(names) > _N_NAMED else "")
            is_layer = any(name.startswith(f"{pattern}.") for name in names)
            advice = f" Write '{pattern}.*' for all parameters of this layer." if is_layer else ""
            raise ValueError(
                f"parameters must match trainable parameters; {pattern!r} does not match any of {some}.{advice}"
            )
    return {name: p for name, p in params.items() if any(fnmatchcase(name, pattern) for pattern in asked)}


# The number of parameters that an error lists by name.
_N_NAMED = 8


def real(tensor: Tensor) -> Tensor:
    """Return a complex tensor as real and imaginary parts along a last axis of two; return any other as it is."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def flatten(params: Params) -> Tensor:
    """Concatenate all tensors into one real vector ``theta`` of shape (n_params,); complex numbers give two entries."""
    return torch.cat([real(p).reshape(-1) for p in params.values()])


def unflatten(theta: Tensor, like: Params) -> Params:
    """Cut ``theta`` into views with the names and shapes of ``like`` (differentiable)."""
    pieces = theta.split([p.numel() * (1 + p.is_complex()) for p in like.values()])
    return {
        name: torch.view_as_complex(piece.view(*p.shape, 2)) if p.is_complex() else piece.view(p.shape)
        for (name, p), piece in zip(like.items(), pieces, strict=True)
    }


def leaves_of(theta: Tensor, like: Params) -> Params:
    """Cut ``theta`` like `unflatten`, into tensors that share its memory and require gradients themselves."""
    return {name: p.detach().requires_grad_() for name, p in unflatten(theta, like).items()}


def has_fractions(tensor: Tensor) -> bool:
    """Say whether the tensor holds floating-point or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()


def copy_of(params: Params) -> Params:
    """Return detached copies."""
    return {name: p.detach().clone() for name, p in params.items()}


def squared_distance(params: Params, other: Params) -> Tensor:
    """Return the squared Euclidean distance, summed over all tensors, as a 0-d tensor (without a host sync).

    Integer tensors, which cannot be trained, are left out.
    """
    # This is one fused pass each way, in a third of the time of the same sum written out.
    return _sum(mse_loss(real(p), real(other[name]), reduction="sum") for name, p in params.items() if has_fractions(p))


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
