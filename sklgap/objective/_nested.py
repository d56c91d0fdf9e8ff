"""Inputs that are a tensor, or tuples and dicts of tensors for modules with several inputs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[[Tensor], Any], data: Any) -> Any:
    """Apply the function to every tensor. Lists become tuples, mappings become dicts, and the rest does not change.

    A named tuple stays a named tuple.
    """
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, Mapping):
        return {key: map_tensors(function, value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(map_tensors(function, value) for value in data))
    if isinstance(data, tuple | list):
        return tuple(map_tensors(function, value) for value in data)
    return data


def tensors_in(data: Any) -> Iterator[Tensor]:
    """Yield every tensor."""
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from tensors_in(value)
    elif isinstance(data, tuple | list):
        for value in data:
            yield from tensors_in(value)


def equal(first: Any, second: Any) -> bool:
    """Say whether two such inputs hold the same numbers in the same shapes."""
    ours, theirs = list(tensors_in(first)), list(tensors_in(second))
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        for a, b in zip(ours, theirs, strict=True)
    )


def n_rows(data: Any) -> int:
    """Return the common length of the tensors; raise a ValueError if there is no tensor, or if the lengths differ."""
    lengths = {len(t) for t in tensors_in(data) if t.ndim}
    if len(lengths) != 1:
        got = "no tensor" if not lengths else f"tensors of the lengths {', '.join(map(str, sorted(lengths)))}"
        raise ValueError(f"X must hold tensors with one row per sample; got {got}.")
    return lengths.pop()
