"""Private copies of modules: the one place that copies what a user holds, so that nothing of the user's changes."""

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

# The complex type with the precision of each real one.
_COMPLEX = {torch.float16: torch.complex32, torch.float32: torch.complex64, torch.float64: torch.complex128}


class _DetachedCopies(TorchFunctionMode):
    """Within it, ``copy.deepcopy`` of a tensor that is part of a graph returns a copy without the graph.

    torch refuses to copy such tensors. Modules hold them as soon as they keep an activation for a plot, and always
    with the old weight norm, the old spectral norm and pruning.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and args[0].requires_grad and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def deepcopy(thing: T) -> T:
    """Return a deep copy of a module, or of what holds modules, also where they hold tensors with a graph."""
    with _DetachedCopies():
        return _copied_module(thing, {}) if isinstance(thing, nn.Module) else copy.deepcopy(thing)


def _copied_module(module: Any, memo: dict[int, Any]) -> Any:
    """Return what ``copy.deepcopy`` returns, in half of its time.

    Most of what a module holds are empty dicts of hooks, and numbers. ``copy.deepcopy`` looks at each of them for long.
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
            # The dict first: a part may hold the module again.
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
# What decides how ``copy.deepcopy`` copies an object: `nn.Module` leaves it to ``__dict__``, but for compiled code.
_COPYING = ("__reduce_ex__", "__reduce__", "__getstate__", "__new__")


@functools.cache
def _is_copied_by_its_dict(kind: Any) -> bool:
    if getattr(kind, "__deepcopy__", None) is not None:
        return False
    # That of `nn.Module` only adds what old pickles lack.
    restored = kind.__setstate__ is nn.Module.__setstate__ or kind.__module__.startswith("torch.nn.modules.")
    return restored and all(getattr(kind, name) is getattr(nn.Module, name) for name in _COPYING)


def check_plain(module: nn.Module, name: str = "module") -> nn.Module:
    """Return the module behind ``torch.compile``; ValueError for what has no parameters that can be replaced.

    Parameters
    ----------
    module : nn.Module
        As the user holds it.
    name : str, default="module"
        What the error sentence calls it.
    """
    module = getattr(module, "_orig_mod", module)  # torch.compile wraps the module, which shares its parameters
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"{name} must be a plain module; got a {type(module).__name__}: pass its .module instead.")
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"; its part {path!r} is one" if path else ""
            raise ValueError(
                f"{name} must not be a scripted or traced module, whose parameters cannot be replaced{where}: "
                "pass the module that it was made from."
            )
    return module


def lazy_parameters(module: nn.Module) -> list[str]:
    """Return the names of parameters and buffers that get their shape from the first batch they see."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in tensors if is_lazy(tensor)]


def private_copy(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a copy in evaluation mode, on the device, with floating-point tensors in ``dtype``.

    Complex tensors become the complex type of the same precision. ``nn.Module.to`` would drop their imaginary part.
    """
    return convert(uncompiled(deepcopy(module)).eval(), device, dtype)


def uncompiled(module: nn.Module) -> nn.Module:
    """Let a copy of a module, and its parts, forget the code that was compiled for the original."""
    for part in module.modules():
        part._compiled_call_impl = None
        plain = getattr(part, "_orig_mod", None)
        if isinstance(plain, nn.Module):
            part.forward = plain.forward
    return module


def convert(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move a module's tensors, in place, to a device and a real type, or the complex type of that precision."""

    def moved(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device, _COMPLEX[dtype])
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    return module._apply(moved)
