"""The values that a saved file may hold: plain values and tensors."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch


class NotPlain(TypeError):
    """Raised for a value that only a pickle could hold."""


def plain(value: Any) -> Any:
    """Return the value in the form that `Memory.write` accepts: arrays as tensors, NumPy numbers as Python numbers.

    Raises
    ------
    NotPlain
        For anything but numbers, strings, None, tensors, numeric arrays, and containers of them.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"__array__": torch.from_numpy(np.array(value))}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if type(value) in (dict, OrderedDict):
        return {plain(key): plain(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(plain(item) for item in value)
    raise NotPlain(type(value).__name__)


def unplain(value: Any) -> Any:
    """Return the value that `plain` received, with an OrderedDict as a dict."""
    if isinstance(value, dict):
        if value.keys() == {"__array__"}:
            return value["__array__"].numpy()
        return {key: unplain(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(unplain(item) for item in value)
    return value
