"""Private copies of modules: the only place that copies a user's objects, so that the originals never change."""

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

T = TypeVar("T")

# The complex type with the precision of each real type.
_COMPLEX = {torch.float16: torch.complex32, torch.float32: torch.complex64, torch.float64: torch.complex128}


class _DetachedCopies(TorchFunctionMode):
    """In its context, ``copy.deepcopy`` of a tensor that is part of a graph returns a copy without the graph.

    torch refuses to copy such tensors. Modules hold them when they store an activation for a plot, and always with the
    old weight norm, the old spectral norm and pruning.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and args[0].requires_grad and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def deepcopy(thing: T) -> T:
    """Return a deep copy of a module or of an object with modules, even if they hold tensors with a graph."""
    with _DetachedCopies():
        return _copied_module(thing, {}) if isinstance(thing, nn.Module) else copy.deepcopy(thing)


def _copied_module(module: Any, memo: dict[int, Any]) -> Any:
    """Return the same copy as ``copy.deepcopy`` in half the time.

    A module mostly holds numbers and empty dicts of hooks, and ``copy.deepcopy`` spends long on each of them.
    """
    if id(module) in memo:
        return memo[id(module)]
    if not _is_copied_by_its_dict(module.__class__):
        return copy.deepcopy(module, memo)
    copied: Any = object.__new__(type(module))
    memo[id(module)] = copied
    held = copied.__dict__
    for name, value in module.__getstate__().items():
        if name == "_modules" and type(value) is dict:
            # Store the dict first, because a part may hold the module again.
            parts = held[name] = memo[id(value)] = {}
            for key, part in value.items():
                parts[key] = None if part is None else _copied_module(part, memo)
        elif type(value) in _IMMUTABLE:
            held[name] = value
        elif type(value) in _CONTAINERS and not value and id(value) not in memo:
            held[name] = memo[id(value)] = type(value)()
        else:
            held[name] = copy.deepcopy(value, memo)
    return copied


_IMMUTABLE = (bool, int, float, str, type(None))
_CONTAINERS = (dict, OrderedDict, set, list)
# These methods decide how ``copy.deepcopy`` copies an object. `nn.Module` copies its ``__dict__``, except for compiled
# code.
_COPYING = ("__reduce_ex__", "__reduce__", "__getstate__", "__new__")


@functools.cache
def _is_copied_by_its_dict(kind: Any) -> bool:
    if getattr(kind, "__deepcopy__", None) is not None:
        return False
    # The method of `nn.Module` only adds what old pickles lack.
    restored = kind.__setstate__ is nn.Module.__setstate__ or kind.__module__.startswith("torch.nn.modules.")
    return restored and all(getattr(kind, name) is getattr(nn.Module, name) for name in _COPYING)


def check_plain(module: nn.Module, name: str = "module") -> nn.Module:
    """Return the module behind ``torch.compile``; raise a ValueError if its parameters cannot be replaced.

    Parameters
    ----------
    module : nn.Module
        The module of the user.
    name : str, default="module"
        Name of the module in the error.
    """
    module = getattr(module, "_orig_mod", module)  # torch.compile wraps the module, which shares its parameters
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"{name} must be a plain module; got a {type(module).__name__}; pass its .module instead.")
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f" (its part {path!r} is such a module)" if path else ""
            raise ValueError(
                f"{name} must not be a scripted or traced module{where}, because its parameters cannot be replaced; "
                "pass the module that it was made from."
            )
    return module


def lazy_parameters(module: nn.Module) -> list[str]:
    """Return the names of parameters and buffers that get their shape from the first batch."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in tensors if is_lazy(tensor)]


def private_copy(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a copy in evaluation mode, on the device, with floating-point tensors in ``dtype``.

    Complex tensors get the complex type of the same precision, because ``nn.Module.to`` would drop their imaginary
    part.
    """
    return convert(uncompiled(deepcopy(module)).eval(), device, dtype)


def uncompiled(module: nn.Module) -> nn.Module:
    """Remove the code that was compiled for the original from a copy of a module and from its parts."""
    for part in module.modules():
        part._compiled_call_impl = None
        plain = getattr(part, "_orig_mod", None)
        if isinstance(plain, nn.Module):
            part.forward = plain.forward
    return module


def convert(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move the tensors of a module, in place, to a device and to a real type or the complex type of its precision."""

    def moved(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device, _COMPLEX[dtype])
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    return module._apply(moved)
