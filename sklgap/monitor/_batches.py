"""Cutting batches of any form into parts, and checks for modules whose gradients cannot be seen as a whole."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklgap._checks import shown
from sklgap.objective._copy import lazy_parameters
from sklgap.objective._nested import tensors_in


def check_in_reach(module: nn.Module, optimizer: Any = None) -> None:
    """Raise a ValueError if parameters have no values yet, or if they or their optimiser states are sharded."""
    if lazy_parameters(module):
        raise ValueError("module must know the shapes of its parameters; call it once on a batch first.")
    if any(p.device.type == "meta" for p in module.parameters()):
        raise ValueError("module must hold its parameters; they are on the device 'meta'; load them first.")
    kinds = [type(part).__name__ for part in module.modules()]
    sharded = any(kind in ("FullyShardedDataParallel", "DeepSpeedEngine") for kind in kinds)
    sharded = sharded or any(type(p).__name__ == "DTensor" or hasattr(p, "ds_id") for p in module.parameters())
    if sharded or type(optimizer).__name__ == "ZeroRedundancyOptimizer":
        raise ValueError(
            "module must not be sharded (FSDP, ZeRO), because a process then has only a part of every gradient; "
            "measure a training with DistributedDataParallel or in one process."
        )
    if "DataParallel" in kinds:
        raise ValueError("module must not be a DataParallel, which splits batches; pass its .module.")


def number_of_rows(batch: Any) -> int:
    """Return the number of samples of a batch; raise a ValueError if its tensors do not determine it."""
    tensors = list(tensors_in(batch))
    other = next((t.layout for t in tensors if t.layout != torch.strided or t.is_nested), None)
    if other is not None:
        raise TypeError(f"batch must hold dense tensors, to be cut into parts; got one of {other}; use to_dense().")
    lengths = {len(t) for t in tensors if t.ndim}
    if len(lengths) != 1:
        got = f"lengths {sorted(lengths)}" if lengths else f"no tensors in {shown(type(batch).__name__)}"
        raise ValueError(f"batch must hold tensors with one row per sample, to be cut into parts; got {got}.")
    return lengths.pop()


def parts_of(batch: Any, n: int, parts: int | Sequence[int]) -> Iterator[Any]:
    """Yield consecutive parts of a batch of n samples: ``parts`` nearly equal ones, or parts of the given sizes."""
    if isinstance(parts, int):
        bounds = np.linspace(0, n, parts + 1).round().astype(int).tolist()
    else:
        bounds = np.cumsum([0, *parts]).tolist()
    for start, stop in itertools.pairwise(bounds):
        yield _rows(batch, slice(start, stop), n)


def _rows(data: Any, rows: slice, n: int) -> Any:
    if isinstance(data, Tensor | np.ndarray):
        return data[rows] if data.ndim else data
    if isinstance(data, Mapping):
        return {key: _rows(value, rows, n) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(_rows(value, rows, n) for value in data))
    if isinstance(data, tuple | list):
        if len(data) == n and not any(True for _ in tensors_in(data)):
            return data[rows]  # a text or a number for every sample
        return type(data)(_rows(value, rows, n) for value in data)
    if data is None or isinstance(data, str | int | float):
        return data
    raise TypeError(f"batch must hold tensors, tuples and dicts of them, to be cut into parts; got {shown(data)}.")
