"""A key for all that determines a result. The key is complete, or the value is refused.

A value is followed to its end: its type, its content, the code of the user's own functions and classes, and the values
that this code reads. ``docs/saved_work.md`` explains what counts.
"""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import logging
import platform
import random
import re
import sys
import types
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from numpy.lib.array_utils import byte_bounds
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils.hooks import RemovableHandle

from sklgap._version import __version__
from sklgap.memory._code import MAIN, Unreadable, code_objects, is_library, library_name, module_name, read_by

NUMBERS_AND_TEXTS = (type(None), bool, int, float, complex, str, bytes)
# Types whose repr is complete.
BY_REPR = (
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, range),
    *(datetime.date, datetime.timedelta, decimal.Decimal, type(Ellipsis), type(NotImplemented)),
)
CONTAINERS = (list, tuple, dict, set, frozenset, bytearray, collections.deque, *NUMBERS_AND_TEXTS[1:])
# Attributes that every class has, or that repeat others in another form.
MACHINERY = (
    *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__firstlineno__", "__parameters__"),
    *("__static_attributes__", "__abstractmethods__", "_abc_impl", "__dataclass_params__", "__orig_bases__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__classdictcell__"),
)
C_MEMBERS = (
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType),
    *(types.MethodDescriptorType, types.ClassMethodDescriptorType, type(vars(collections.namedtuple("_", "x"))["x"])),
)
IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


class Unfollowable(ValueError):
    """Raised for a value that cannot be followed to its end.

    Parameters
    ----------
    name : str
        The path to the value, such as ``init -> closure 'handle'``.
    reason : str
        A description of the value.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name, self.reason = name, reason


def fingerprint(*values: Any) -> str:
    """Return 32 hexadecimal digits that are the same for equal values in any process, and differ for others.

    Parameters
    ----------
    *values : object
        Any objects.

    Raises
    ------
    Unfollowable
        If a value cannot be followed to its end, such as an open file, a lock, a generator, or an object of an
        extension in C.
    """
    follower = _Follower()
    follower.all("values", values)
    return follower.hash.hexdigest()


class Fingerprint(str):
    """A fingerprint that was computed earlier; `key_of` accepts it instead of the value."""

    __slots__ = ()


class _Follower:
    """Feed values to a hash, each with its kind and length, so that different structures never look the same.

    A mutable object is followed once and gets a number, because the same list in two places differs from two equal
    lists. An immutable object counts by its content alone.
    """

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self.path: list[str] = []
        self.seen: dict[int, tuple[int, Any]] = {}  # holds the object, so that no other object gets its id
        self.pure: dict[int, tuple[str, Any]] = {}  # digests of definitions that hold nothing mutable
        self.memory: list[tuple[int, int, int]] = []  # addresses of tensors and arrays, each with its number
        self.parts: list[_Follower] = []  # followers of the members of sets, with the objects that they have seen
        self.in_sets: set[int] = set()
        self.hooks: dict[int, int] = {}  # dicts of hooks of modules

    # -- words ---------------------------------------------------------------------------------------------------------

    def put(self, *words: Any) -> None:
        self.hash.update("".join(f"{len(str(word))}:{word}" for word in words).encode("utf-8", "surrogatepass"))

    def all(self, kind: str, values: Iterable[Any]) -> None:
        values = list(values)
        self.put(kind, len(values))
        for value in values:
            self.feed(value)

    def named(self, kind: str, values: Mapping[str, Any] | Iterable[tuple[str, Any]], what: str = "") -> None:
        """Feed values by name. The names form the path to a value that cannot be followed."""
        values = list(values.items() if isinstance(values, Mapping) else values)
        self.put(kind, len(values))
        for name, value in values:
            self.put(name)
            self.feed(value, f"{what} {name!r}" if what else name)

    def refuse(self, reason: str) -> Any:
        raise Unfollowable(" -> ".join(self.path) or "a value", reason)

    # -- any value -----------------------------------------------------------------------------------------------------

    def feed(self, value: Any, name: str | None = None) -> None:
        if name is not None:
            self.path.append(name)
        try:
            self._feed(value)
        except RecursionError:
            self.refuse("is nested too deeply")
        if name is not None:
            self.path.pop()

    def _feed(self, value: Any) -> None:
        kind = type(value)
        if kind in NUMBERS_AND_TEXTS:
            self.put(kind.__name__, hex(value) if kind is int else repr(value))
        elif kind is tuple:
            self._items("tuple", value)
        elif kind is frozenset:
            self._set("frozenset", value)
        elif isinstance(value, BY_REPR) and is_library(kind.__module__):
            self.put(kind.__name__, repr(value))
            zone = getattr(value, "tzinfo", None)
            if not is_library(type(zone).__module__):
                self.feed(zone, "tzinfo")
        elif isinstance(value, enum.Enum):
            self.feed(kind, "type")
            self.named("member", {name: held for name, held in vars(value).items() if name != "__objclass__"})
        elif isinstance(value, np.generic):
            self._array(np.asarray(value), kind.__name__)
        elif isinstance(value, PurePath) and is_library(kind.__module__):
            self.put(kind.__name__, str(value))
        elif isinstance(value, type | types.FunctionType):
            self._definition(value)
        elif id(value) in self.in_sets:
            self.refuse("is in a set, whose order differs in other processes")
        elif id(value) in self.seen:
            self.put("again", self.seen[id(value)][0])
        else:
            self._mark(value)
            self._object(value)

    def _mark(self, value: Any) -> None:
        self.seen[id(value)] = len(self.seen), value

    def _object(self, value: Any) -> None:
        """Feed an object that is met for the first time."""
        kind = type(value)
        for types_, feed in FEEDS:
            if isinstance(value, types_):
                feed(self, value)
                return
        known = library_name(value)
        if known is not None:
            self.put("known", known)
        elif _pandas(value) is not None:
            self._table(value)
        else:
            self._instance(value, kind)

    # -- containers ----------------------------------------------------------------------------------------------------

    def _items(self, kind: str, values: Iterable[Any]) -> None:
        values = list(values)
        self.put(kind, len(values))
        for place, value in enumerate(values):
            self.feed(value, f"[{place}]")

    def _mapping(self, kind: str, mapping: Mapping[Any, Any]) -> None:
        self.put(kind, len(mapping))
        for key, value in mapping.items():
            self.feed(key, "a key")
            self.feed(value, f"[{key!r}]" if type(key) in NUMBERS_AND_TEXTS else "[...]")

    def _set(self, kind: str, values: Iterable[Any]) -> None:
        """Feed a set in an order that does not depend on the memory addresses of its members."""
        values, digests = list(values), []
        for value in values:
            part = _Follower()
            part.path = [*self.path, "a member"]
            part.feed(value)
            if not part.seen.keys().isdisjoint(self.seen):
                self.refuse("holds in a set an object that is also elsewhere")
            self.in_sets |= part.seen.keys()
            self.parts.append(part)
            digests.append(part.hash.hexdigest())
        # In every process, a set holds numbers in the order in which they were added. The order of strings differs
        # between processes.
        in_order = all(type(value) in (bool, int, float, complex) for value in values)
        self.put(kind, len(digests), *(digests if in_order else sorted(digests)))

    # -- numbers in memory ---------------------------------------------------------------------------------------------

    def _place(self, start: int, stop: int, offset: Any) -> None:
        """Feed which earlier tensor or array shares the memory, because a change of one then changes both."""
        shared = [(number, start - first) for first, last, number in self.memory if start < last and first < stop]
        self.put("memory", len(shared), *(shared and [shared[0], offset]))
        self.memory.append((start, stop, len(self.memory)))

    def _array(self, array: np.ndarray, kind: str = "array") -> None:
        self.put(kind, array.dtype.str, repr(array.dtype), array.shape, _axes(array.strides, array.shape))
        self.feed(dict(array.dtype.metadata) if array.dtype.metadata else None)
        if (array.dtype.hasobject and array.dtype.names is None) or array.dtype.kind == "T":
            self._items("objects", array.ravel().tolist())
        elif array.dtype.hasobject:
            self.refuse("is an array of records that hold objects, which cannot be followed to their end")
        elif array.nbytes:
            self.hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _shared_array(self, array: np.ndarray) -> None:
        if isinstance(array, np.ma.MaskedArray):
            self.feed([np.ma.getmaskarray(array), np.asarray(array.fill_value), bool(array.hardmask)], "mask")
        if type(array) is not np.ndarray:
            self.feed(type(array))
            if type(array) not in (np.memmap, np.ma.MaskedArray):
                self.named("attributes", vars(array) if hasattr(array, "__dict__") else {})
        if array.size:
            self._place(*byte_bounds(np.asarray(array)), array.strides)
        self._array(np.asarray(array))

    def _tensor(self, tensor: Tensor) -> None:
        self.feed(type(tensor))
        self.put("tensor", tensor.dtype, tensor.requires_grad, tensor.device.type, tensor.layout)
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            return
        self.put(tuple(tensor.shape))
        if tensor.grad_fn is not None:
            self.refuse("is a tensor that waits for its gradient; detach it")
        hooks = {name: getattr(tensor, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks")}
        self.named("hooks", ((name, list(found.values())) for name, found in hooks.items() if found))
        self.named("attributes", vars(tensor))
        self.feed(tensor.grad if tensor.is_leaf else None, "grad")
        plain = tensor.detach()
        if plain.layout == torch.sparse_coo:
            self.put(plain.is_coalesced())
            self.all("sparse", [plain._indices(), plain._values()])
        elif plain.layout != torch.strided or plain.is_quantized or plain.device.type == "meta" or plain.is_nested:
            self.refuse(
                f"is a tensor of layout {plain.layout} on {plain.device.type}, which cannot be followed to its end"
            )
        else:
            if plain.numel():
                storage = plain.untyped_storage()
                start = storage.data_ptr() if plain.device.type == "cpu" else id(plain)
                self._place(start, start + storage.nbytes(), (plain.storage_offset(), plain.stride()))
            self.put(_axes(plain.stride(), plain.shape))
            dense = plain.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
            self.hash.update(dense.view(torch.uint8).numpy().data if dense.numel() else b"")

    def _table(self, value: Any) -> None:
        """Feed labels, types and values of a pandas object."""
        pandas = _pandas(value)
        self.put(type(value).__name__)
        self.named("attributes", value.attrs if hasattr(value, "attrs") else {})
        if isinstance(value, pandas.DataFrame):
            self._table(value.columns)
            self._table(value.index)
            for place in range(value.shape[1]):
                self._table(value.iloc[:, place].array)
        elif isinstance(value, pandas.Series | pandas.Index):
            self.feed(list(value.names) if isinstance(value, pandas.Index) else value.name, "name")
            if isinstance(value, pandas.MultiIndex):
                self._items("labels", value.to_list())
            else:
                self._table(value.array)
                if isinstance(value, pandas.Series):
                    self._table(value.index)
        elif isinstance(value, pandas.Categorical):
            self.put(value.ordered)
            self._array(np.asarray(value.codes))
            self._table(value.categories)
        elif isinstance(value, pandas.api.extensions.ExtensionArray):
            self.put(repr(value.dtype))
            self._array(value.to_numpy() if value.dtype.kind in "biufcO" else value.to_numpy(dtype=object))
        elif hasattr(value, "isoformat") or value is pandas.NA:
            self.put(repr(value))
        else:
            self._instance(value, type(value))

    # -- definitions: functions and classes ----------------------------------------------------------------------------

    def _definition(self, value: Any) -> None:
        """Feed a function or a class: by name if a library has it under that name, otherwise by its content.

        Two equal definitions count as one, unless they hold something mutable.
        """
        if id(value) in self.seen:
            self.put("again", self.seen[id(value)][0])
            return
        if getattr(value, "hooked", False) and module_of_code(value) == torch.optim.Optimizer.__module__:
            value = value.__wrapped__  # torch wraps `step` of the user's optimiser when it makes the first instance
        if id(value) not in self.pure:
            known = library_name(value)
            if known is None and isinstance(value, type) and is_library(value.__module__) and _is_c_type(value):
                known = f"{value.__module__}.{value.__qualname__}"
            outer, self.hash = self.hash, hashlib.blake2b(digest_size=16)
            before = len(self.seen)
            if known is not None:
                self.put("known", known)
            else:
                self._mark(value)
                (self._class if isinstance(value, type) else self._function)(value)
            digest, self.hash = self.hash.hexdigest(), outer
            if known is None and len(self.seen) > before + 1:
                self.put("definition", digest)
                return
            self.seen.pop(id(value), None)
            self.pure[id(value)] = digest, value
        self.put("definition", self.pure[id(value)][0])

    def _function(self, function: types.FunctionType) -> None:
        self.put("function", module_name(function), function.__qualname__)
        self._code(function.__code__)
        self.feed(function.__defaults__, "defaults")
        self.named("keywords", function.__kwdefaults__ or {}, "default")
        self.named("attributes", function.__dict__)
        self.named(
            "closure", zip(function.__code__.co_freevars, function.__closure__ or (), strict=True), what="closure"
        )
        try:
            read = read_by(function)
        except Unreadable as error:
            self.refuse(str(error))
        self.named("globals", read, "global")

    def _code(self, code: types.CodeType) -> None:
        for part in code_objects(code):
            self.put("code", part.co_name, part.co_code.hex(), part.co_exceptiontable.hex(), part.co_flags)
            self.put(part.co_argcount, part.co_posonlyargcount, part.co_kwonlyargcount)
            self.put(part.co_names, part.co_varnames, part.co_freevars, part.co_cellvars)
            self.all("constants", [None if isinstance(c, types.CodeType) else c for c in part.co_consts])

    def _class(self, cls: type) -> None:
        self.put("class", module_name(cls), cls.__qualname__)
        self.feed(type(cls), "metaclass")
        self.all("bases", cls.__bases__)
        self.named("members", ((n, m) for n, m in vars(cls).items() if n not in MACHINERY and not _is_c_member(m)))

    def _wrapped(self, value: Any) -> None:
        """Feed a member that wraps functions: a property, a static method, a partial function."""
        names = ("fget", "fset", "fdel", "func", "args", "keywords", "__func__", "__wrapped__", "dispatcher")
        parts = {name: getattr(value, name) for name in names if hasattr(value, name)}
        self.put(type(value).__name__, str(getattr(value, "cache_parameters", dict)()))
        if library_name(type(value)) is None:
            self.feed(type(value), "type")
        own = getattr(value, "__dict__", {})
        self.named("parts", {**parts, **{k: v for k, v in own.items() if k not in (*parts, "lock", "__doc__")}})

    def _module(self, module: types.ModuleType) -> None:
        """Feed a module that code passes on as a whole."""
        self.put("module", MAIN.get(module.__name__, module.__name__))
        if not is_library(module.__name__):
            self.named("attributes", ((n, v) for n, v in vars(module).items() if not n.startswith("__")))

    def _random(self, kind: str, value: Any, state: list[Any]) -> None:
        """Feed a random generator, and the attributes that a user's subclass adds to it."""
        library = next(cls for cls in type(value).__mro__ if is_library(cls.__module__))
        added = {name: held for name, held in attributes_of(value).items() if not hasattr(library, name)}
        self.all(kind, [type(value), *state, added])

    # -- instances -----------------------------------------------------------------------------------------------------

    def _instance(self, value: Any, kind: type) -> None:
        """Feed type, content and attributes of an object."""
        self.put("object")
        self.feed(kind, "type")
        state = hidden_state(kind)
        if state is not None:
            self.refuse(f"is a {kind.__name__}, which cannot be followed to its end")
        if isinstance(value, collections.defaultdict):
            self.feed(value.default_factory, "default_factory")
        base: Any = next((base for base in kind.__mro__ if base in CONTAINERS), None)
        if base is not None:
            self._content(base, value)
        attributes = attributes_of(value)
        if isinstance(value, nn.Module):
            attributes = self._with_numbered_hooks(attributes)
        if library_name(kind) is not None and kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
            # Code does not loop over the attributes of a library's object, so their order does not count; it does over
            # those of a SimpleNamespace of Python. Copies by skorch have some more attributes that are None.
            attributes = {n: v for n, v in sorted(attributes.items()) if v is not None or not n.endswith("_")}
        self.named("attributes", attributes)

    def _with_numbered_hooks(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Number the hooks of a module in their order, instead of torch's count of all hooks in the process."""
        hooks = {name: held for name, held in attributes.items() if "_hooks" in name and isinstance(held, dict)}
        for held in hooks.values():
            self.hooks[id(held)] = len(self.hooks)
        numbers = {id_: n for n, id_ in enumerate(sorted({id_ for held in hooks.values() for id_ in held}))}
        numbered = {name: [(numbers[id_], hook) for id_, hook in held.items()] for name, held in hooks.items()}
        # `_flat_weight_refs` holds weak references to the content of `_flat_weights`.
        return {name: held for name, held in {**attributes, **numbered}.items() if name != "_flat_weight_refs"}

    def _content(self, base: type, value: Any) -> None:
        if base is dict:
            self._mapping("content", dict(items_of(value)))
        elif base in (set, frozenset):
            self._set("content", base.__iter__(value))
        elif base in (list, tuple, collections.deque):
            self.put(getattr(value, "maxlen", None))
            self._items("content", base.__iter__(value))
        elif base is bytearray:
            self.put(bytes(value).hex())
        elif base is bool:
            self.put(bool(value))
        else:
            self.put("content", base.__dict__["__repr__"](value) if base is not int else hex(int.__index__(value)))


def module_of_code(function: Any) -> str:
    """Return the module of a function's code, whatever the function reports."""
    return str(getattr(function, "__globals__", {}).get("__name__"))


def _is_c_type(cls: type) -> bool:
    return bool(cls.__flags__ & IMMUTABLE_TYPE)


def _is_c_member(member: Any) -> bool:
    return isinstance(member, C_MEMBERS)


@functools.lru_cache(maxsize=1000)
def hidden_state(kind: Any) -> type | None:
    """Return the first class of a type that holds more than attributes and container content; None without one.

    A class made by Python code has room for its slots, its ``__dict__`` and its weak references, and for nothing else.
    """
    for cls in kind.__mro__:
        if cls is object or cls in CONTAINERS or cls in KNOWN_CONTENT:
            continue
        base = cls.__base__
        assert base is not None
        room = sum(isinstance(m, types.MemberDescriptorType) for m in vars(cls).values())
        room += ("__dict__" in vars(cls)) + ("__weakref__" in vars(cls))
        if cls.__basicsize__ - base.__basicsize__ > 8 * room or cls.__itemsize__ != base.__itemsize__:
            return cls
    return None


def items_of(mapping: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Return keys and values of a dict in their order, whatever a user's subclass changes."""
    if isinstance(mapping, collections.OrderedDict):
        return collections.OrderedDict.items(mapping)
    return dict.items(mapping)


def attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object itself, in the order in which they were set, those in slots last."""
    found = dict(getattr(value, "__dict__", {}))
    kind: Any = type(value)
    for name, slot in _slots(kind):
        try:
            found[name] = slot.__get__(value)
        except AttributeError:
            continue
    return found


@functools.lru_cache(maxsize=1000)
def _slots(kind: Any) -> list[tuple[str, Any]]:
    return [
        (name, member)
        for cls in kind.__mro__
        if cls not in CONTAINERS and cls not in KNOWN_CONTENT
        for name, member in vars(cls).items()
        if name != "__dict__" and isinstance(member, types.MemberDescriptorType)
    ]


def _axes(strides: Iterable[int], shape: Iterable[int]) -> str:
    """Return the order of the axes in memory, which determines the order of sums."""
    strides = [abs(stride) for stride, size in zip(strides, shape, strict=True) if size > 1]
    return str(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def _pandas(value: Any) -> Any:
    """Return pandas if it made the value."""
    return sys.modules.get("pandas") if type(value).__module__.partition(".")[0] == "pandas" else None


def _handle(follower: _Follower, handle: RemovableHandle) -> None:
    hooks: Any = handle.hooks_dict_ref()
    if hooks is None or id(hooks) not in follower.hooks:
        follower.refuse("is the handle of a hook of another object, which cannot be followed to its end")
    follower.put("hook handle", follower.hooks[id(hooks)], [*hooks, handle.id].index(handle.id))


def _cell(follower: _Follower, cell: types.CellType) -> None:
    try:
        follower.all("cell", [cell.cell_contents])
    except ValueError as error:
        if isinstance(error, Unfollowable):
            raise
        follower.put("empty cell")


def _builtin(follower: _Follower, function: Any) -> None:
    owner = function.__self__
    follower.put("builtin", getattr(function, "__module__", None), function.__qualname__)
    if owner is not None and not isinstance(owner, types.ModuleType):
        follower.feed(owner, "self")


def _record_field(follower: _Follower, field: Any) -> None:
    parts = (
        "name",
        "default",
        "default_factory",
        "init",
        "repr",
        "hash",
        "compare",
        "metadata",
        "kw_only",
        "_field_type",
    )
    follower.named("field", {name: getattr(field, name) for name in parts})


def _ufunc(follower: _Follower, function: np.ufunc) -> None:
    owners = (np, sys.modules.get("scipy.special"))
    if not any(getattr(owner, function.__name__, None) is function for owner in owners):
        follower.refuse("is a function of an extension in C, which cannot be followed to its end")
    follower.put("ufunc", function.__name__)


def _logger(follower: _Follower, logger: Any) -> None:
    follower.put("logger", logger.name)  # a logger does not affect any number


KNOWN_CONTENT = (Tensor, torch._C.TensorBase, np.ndarray, collections.OrderedDict, collections.defaultdict)
FEEDS: list[tuple[Any, Any]] = [
    (types.CellType, _cell),
    (Tensor, _Follower._tensor),
    (np.ndarray, _Follower._shared_array),
    (types.MethodType, lambda f, m: f.named("method", {"function": m.__func__, "self": m.__self__})),
    ((types.BuiltinFunctionType, types.MethodWrapperType), _builtin),
    (C_MEMBERS[:-1], lambda f, m: f.put("member of C", m.__objclass__.__qualname__, m.__name__)),
    (
        (
            *(property, staticmethod, classmethod, functools.cached_property, functools.partialmethod),
            *(functools.partial, functools.singledispatchmethod, functools._lru_cache_wrapper),
        ),
        _Follower._wrapped,
    ),
    (types.ModuleType, _Follower._module),
    (types.CodeType, _Follower._code),
    (slice, lambda f, s: f.all("slice", [s.start, s.stop, s.step])),
    (types.MappingProxyType, lambda f, m: f._mapping("mapping proxy", m)),
    (re.Pattern, lambda f, p: f.all("pattern", [p.pattern, p.flags])),
    (array.array, lambda f, a: f.put("array.array", a.typecode, a.tobytes().hex())),
    (np.dtype, lambda f, d: f.put("dtype", d.str, repr(d))),
    (np.ufunc, _ufunc),
    (np.random.RandomState, lambda f, r: f._random("RandomState", r, [r.get_state(legacy=False)])),
    (np.random.Generator, lambda f, g: f._random("random generator", g, [g.bit_generator])),
    (np.random.BitGenerator, lambda f, b: f.all("bits", [type(b), b.state, getattr(b.seed_seq, "state", None)])),
    (random.Random, lambda f, r: f._random("Random", r, [r.getstate()])),
    (torch.Generator, lambda f, g: f._random("Generator", g, [g.device, g.get_state()])),
    (RemovableHandle, _handle),
    (dataclasses.Field, _record_field),
    (logging.Logger, _logger),
]


def surroundings(device: str) -> tuple[Any, ...]:
    """Return what else determines the last bit of a result: versions, device and settings of torch.

    The number of threads belongs to it, because it determines the order of the sum over a batch.
    """
    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else kind
    versions = (__version__, torch.__version__, platform.python_version(), *_installed())
    settings = (
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.allow_tf32,
        torch.backends.mkldnn.enabled,
        *((torch.is_autocast_enabled(of), torch.get_autocast_dtype(of)) for of in ("cpu", "cuda")),
    )
    hooks = [list(held.values()) for held in vars(nn.modules.module).values() if _is_global_hooks(held)]
    machine = (platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
    return versions, name, machine, settings, hooks


@functools.cache
def _installed() -> tuple[str, ...]:
    """Return the versions of the other packages. The result is cached, because reading them from files takes 15 ms."""
    return tuple(version(package) for package in ("skorch", "scikit-learn", "numpy", "scipy"))


def _is_global_hooks(held: Any) -> bool:
    return isinstance(held, collections.OrderedDict) and len(held) > 0


def key_of(*values: Any, **named: Any) -> str | None:
    """Return the key of work that these values determine; None, with a warning, if there is no complete key.

    Values are followed one by one, so memory that two of them share does not count. The named values are one value.
    Their order does not count, and the warning says which of them was the reason. A `Fingerprint` stands for its value.
    """
    try:
        found = [str(value) if type(value) is Fingerprint else fingerprint(value) for value in values]
        return fingerprint(*found, fingerprint_of_named(named))
    except Unfollowable as error:
        not_saved(f"{error}. Give it as a plain value, or leave it out")
    except Exception as error:  # the user's objects may raise any exception when they are read
        not_saved(f"a parameter cannot be read ({type(error).__name__}: {error})")
    return None


def fingerprint_of_named(values: Mapping[str, Any]) -> str:
    """Return the fingerprint of named values in any order."""
    follower = _Follower()
    follower.named("named", sorted(values.items()))
    return follower.hash.hexdigest()


def not_saved(reason: str) -> None:
    """Warn that work continues and is not saved."""
    warnings.warn(f"memory: this work is not saved, because {reason}.", UserWarning, stacklevel=4)
