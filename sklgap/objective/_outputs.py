"""The one tensor that a loss takes, from whatever a module returns."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def logits_of(outputs: Any) -> Tensor:
    """Return the tensor from which predictions are made; raise a TypeError if there is no such tensor.

    Parameters
    ----------
    outputs : object
        The outputs of the module: a tensor, a mapping with ``"logits"``, an object with ``.logits``, or a tuple or
        list, whose first element counts, as in skorch.
    """
    if isinstance(outputs, Tensor):
        return outputs
    found: Any = None
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif hasattr(outputs, "logits"):  # before tuples, because named tuples may have their logits anywhere
        found = outputs.logits
    elif isinstance(outputs, tuple | list) and outputs:
        found = outputs[0]
    if isinstance(found, Tensor):
        return found
    raise TypeError(
        "The module must return a tensor, a tuple whose first element is a tensor, or a dict or an object with logits; "
        f"got {_described(outputs)}."
    )


def _described(outputs: Any) -> str:
    if isinstance(outputs, Mapping):
        return f"a {type(outputs).__name__} with {', '.join(map(repr, outputs)) or 'no entries'}"
    if isinstance(outputs, tuple | list) and outputs:
        return f"a {type(outputs).__name__} that starts with a {type(outputs[0]).__name__}"
    return f"a {type(outputs).__name__}"
