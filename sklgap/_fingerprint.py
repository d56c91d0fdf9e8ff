"""A key for anything that decides a result: parameters, data, code of the user's own functions and classes."""

import functools
import hashlib
import pickle
import types
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Packages whose functions and classes are known by their name, since their versions are part of the key.
LIBRARIES = ("builtins", "collections", "functools", "joblib", "numpy", "scipy", "sklearn", "sklgap", "skorch", "torch")
PLAIN = (type(None), bool, int, float, complex, str, bytes)
# What a repr tells in full.
BY_REPR = (torch.dtype, torch.device, torch.Size, range, slice, np.dtype, PurePath)


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
    Nothing is unpickled. The code a user's function calls is not followed beyond the function, its closure and, for a
    class, its bases.
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
            self._feed_all("object", [type(value), vars(value)])
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
        self.put("tensor", tensor.dtype, tuple(tensor.shape))
        self.hash.update(plain.view(torch.uint8).numpy().data)

    def _feed_function(self, function: types.FunctionType) -> None:
        self.put("function", _name(function))
        if not _from_library(function):
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            self._feed_all("body", [function.__code__, function.__defaults__, function.__kwdefaults__, cells])

    def _feed_class(self, cls: type) -> None:
        self.put("class", _name(cls))
        for base in cls.__mro__:
            if not _from_library(base):
                members = [(n, _code_of(m)) for n, m in sorted(vars(base).items()) if n != "__firstlineno__"]
                self._feed_all(_name(base), [member for member in members if member[1] is not None])


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _from_library(thing: Any) -> bool:
    return str(thing.__module__).split(".")[0] in LIBRARIES


def _code_of(member: Any) -> Any:
    """Return what a class member does: its functions or its plain value; None for the machinery of a class."""
    if isinstance(member, property):
        return [member.fget, member.fset]
    member = getattr(member, "__func__", member)  # of a static or class method
    return member if isinstance(member, (types.FunctionType, *PLAIN, list, tuple, dict)) else None
