"""A key for anything that decides a result: parameters, data, code of the user's own functions and classes."""

import functools
import hashlib
import pickle
import platform
import types
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklgap._version import __version__

# Packages whose functions and classes are known by their name, since their versions are part of the key.
LIBRARIES = ("builtins", "collections", "functools", "joblib", "numpy", "scipy", "sklearn", "sklgap", "skorch", "torch")
PLAIN = (type(None), bool, int, float, complex, str, bytes)
# What a repr tells in full.
BY_REPR = (torch.dtype, torch.device, torch.Size, range, slice, np.dtype, PurePath)

# What belongs to a class as a class and tells nothing of what it does.
MACHINERY = (
    *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__firstlineno__", "__slots__"),
    *("__static_attributes__", "__abstractmethods__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__"),
)
DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType)
# Not lists and dicts, which often hold what changes while a program runs.
TOLD_AS_GLOBALS = (*PLAIN, tuple, np.ndarray, np.generic, Tensor, types.FunctionType, type)


def fingerprint(*values: Any) -> str:
    """Return 32 hexadecimal digits that are equal for equal values, in any process, and differ for others.

    Parameters
    ----------
    *values : object
        Numbers, texts, arrays, tensors, containers, data frames; estimators, modules and other objects by their class
        and attributes; functions and classes by name, and by their compiled code where they are not from a library.

    Raises
    ------
    TypeError
        For an object with neither attributes nor a pickle, such as a lock or an open file.

    Notes
    -----
    Nothing is unpickled. Of a user's function its closure counts, and the global numbers, texts, tuples, arrays,
    functions and classes that it reads, but no other objects; of a class its bases.
    """
    digest = _Digest()
    digest.feed(values)
    return digest.hash.hexdigest()


class _Digest:
    """Feeds values to a hash, each with its kind and length, so that no two structures read alike."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self.open: list[int] = []  # objects being described, against cycles

    def put(self, *words: Any) -> None:
        self.hash.update("".join(f"{len(str(word))}:{word}" for word in words).encode("utf-8", "surrogatepass"))

    def feed(self, value: Any) -> None:
        if isinstance(value, np.generic):
            value = value.item()
        if (isinstance(value, PLAIN) and type(value) in PLAIN) or isinstance(value, BY_REPR):
            self.put(type(value).__name__, repr(value))
        elif id(value) in self.open:
            self.put("seen", self.open.index(id(value)))
        else:
            self.open.append(id(value))
            self._feed_object(value)
            self.open.pop()

    def _feed_object(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self._feed_tensor(value)
        elif isinstance(value, np.ndarray):
            self._feed_array(value)
        elif isinstance(value, type):
            self._feed_class(value)
        elif isinstance(value, types.FunctionType):
            self._feed_function(value)
        elif isinstance(value, types.CodeType):
            self._feed_all("code", [value.co_code, value.co_consts, value.co_names])
        elif isinstance(value, types.MethodType):
            self._feed_all("method", [value.__func__, value.__self__])
        elif isinstance(value, types.BuiltinFunctionType):
            self.put("builtin", value.__module__, value.__qualname__)
        elif isinstance(value, functools.partial):
            self._feed_all("partial", [value.func, value.args, value.keywords])
        elif isinstance(value, Mapping):
            self._feed_all(_name(type(value)), sorted(value.items(), key=lambda item: fingerprint(item[0])))
        elif isinstance(value, set | frozenset):
            self._feed_all("set", sorted(fingerprint(item) for item in value))
        elif isinstance(value, list | tuple):
            self._feed_all(_name(type(value)), value)
        elif isinstance(value, np.random.RandomState):
            self._feed_all("RandomState", value.get_state(legacy=True))
        elif isinstance(value, torch.Generator):
            self._feed_all("Generator", [value.get_state()])
        elif hasattr(value, "to_numpy"):  # a data frame or a column of one
            names = list(value.columns) if hasattr(value, "columns") else value.name
            self._feed_all(_name(type(value)), [names, value.to_numpy()])
        elif hasattr(value, "__dict__"):
            slots = [
                name for base in type(value).__mro__ for name in vars(base).get("__slots__", ()) if name[:2] != "__"
            ]
            self._feed_all("object", [type(value), vars(value), [getattr(value, name, None) for name in slots]])
        else:
            self.put("pickle", pickle.dumps(value, protocol=4))

    def _feed_all(self, kind: str, values: Any) -> None:
        self.put(kind, len(values))
        for value in values:
            self.feed(value)

    def _feed_array(self, array: np.ndarray) -> None:
        if array.dtype.hasobject:
            self._feed_all("object array", [array.shape, array.ravel().tolist()])
            return
        self.put("array", array.dtype.str, array.shape)
        self.hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _feed_tensor(self, tensor: Tensor) -> None:
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        self.put("tensor", tensor.dtype, tuple(tensor.shape), tensor.requires_grad)
        self.hash.update(plain.view(torch.uint8).numpy().data)

    def _feed_function(self, function: types.FunctionType) -> None:
        self.put("function", _name(function))
        # A function made by another one, such as a closure, is not known by its name, even in a library.
        if not _from_library(function) or "<" in function.__qualname__:
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            self._feed_all("body", [function.__code__, function.__defaults__, function.__kwdefaults__, cells])
            if not _from_library(function):
                self._feed_all("globals", _globals_read(function))

    def _feed_class(self, cls: type) -> None:
        self.put("class", _name(cls))
        for base in cls.__mro__:
            if not _from_library(base):
                members = [(name, member) for name, member in sorted(vars(base).items()) if name not in MACHINERY]
                self._feed_all(_name(base), [(n, _unwrapped(m)) for n, m in members if not isinstance(m, DESCRIPTORS)])


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _from_library(thing: Any) -> bool:
    return str(thing.__module__).split(".")[0] in LIBRARIES


def _unwrapped(member: Any) -> Any:
    """Return what a class member does, out of what a class wraps around it."""
    if isinstance(member, property):
        return [member.fget, member.fset]
    if isinstance(member, functools.cached_property):
        return member.func
    return getattr(member, "__func__", getattr(member, "__wrapped__", member))


def _globals_read(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the global values, functions and classes that a function may read; of objects it has no more to say."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    found = ((name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__)
    return [(name, value) for name, value in found if isinstance(value, TOLD_AS_GLOBALS)]


def surroundings(device: str) -> tuple[str, ...]:
    """Return what beside parameters and data decides the last bit of a result: versions and kind of device."""
    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else kind
    packages = ("skorch", "scikit-learn", "numpy", "scipy")
    return __version__, torch.__version__, platform.python_version(), name, *(version(package) for package in packages)


def key_of(*values: Any) -> str:
    """Return the key of work that these values decide.

    Raises
    ------
    ValueError
        For a value that cannot be recognised again.
    """
    try:
        return fingerprint(*values)
    except Exception as error:  # a pickle of the user's object may raise anything
        raise ValueError(f"memory must be None here: a parameter cannot be recognised again ({error}).") from error
