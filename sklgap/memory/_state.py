"""The state of live objects as plain values, and back into objects of the same kind: no pickle, no class by name.

A `Graph` finds all objects below some roots and stores the path to each. `saved_state` writes down their content and
what they share. `restore_state` puts that into the objects at the same places of another graph.
"""

import collections
import contextlib
import datetime
import enum
import functools
import logging
import math
import random
import re
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from numpy.lib.array_utils import byte_bounds
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sklgap.memory._code import is_library, library_name, module_name
from sklgap.memory._key import CONTAINERS, Unfollowable, attributes_of, fingerprint, hidden_state, items_of
from sklgap.memory._plain import NotPlain

EXACT = (type(None), bool, int, float, str)
LISTS = {kind.__name__: kind for kind in (list, collections.deque)}
DICTS = {kind.__name__: kind for kind in (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)}
# Types without a state that a training could change.
CONSTANT = (
    *(types.ModuleType, types.CodeType, types.MappingProxyType, np.ufunc, np.dtype),
    *(weakref.ref, logging.Logger, property, slice, range, type(threading.Lock()), type(threading.RLock())),
    *(
        enum.Enum,
        PurePath,
        re.Pattern,
        RemovableHandle,
        torch.memory_format,
        torch.layout,
        datetime.date,
        datetime.timedelta,
        Decimal,
    ),
)
LIBRARY_BARS = ("tqdm",)
# Methods of objects that are not written in Python, such as `numbers.append`. Their state is the object.
C_METHODS = (types.BuiltinFunctionType, types.MethodWrapperType)
# `saved_state` writes some types in a special way: exactly these types, because a subclass may hold more,
RANDOM = (np.random.RandomState, np.random.Generator, random.Random, torch.Generator)
# and all of these with their subclasses.
WRITTEN = (torch.Size, torch.dtype, torch.device, types.MethodType, types.FunctionType, functools.partial, *C_METHODS)

Skipped = Callable[[Any], set[str]]


class Graph:
    """All objects below the roots, each with the path to it.

    Parameters
    ----------
    roots : dict
        Objects by the name with which the paths start.
    skipped : callable
        Function from an object to the names of the attributes that do not belong to its state.
    """

    def __init__(self, roots: Mapping[str, Any], skipped: Skipped = lambda value: set()) -> None:
        self.roots, self.skipped = dict(roots), skipped
        self.paths: dict[int, str] = {}
        self.objects: dict[str, Any] = {}
        self.types: dict[str, type] = {}
        self.shapes: dict[str, Any] = {}
        self.digests: dict[str, str] = {}
        self.hooks: dict[str, list[int]] = {}
        self.outlines: dict[str, Any] = {}
        self.defaults: list[Any] = []  # so that no other object gets their ids
        for name, root in self.roots.items():
            self.add(name, root)
        self.overlaps = _overlaps({path: value for path, value in self.objects.items() if _has_memory(value)})

    def add(self, path: str, value: Any) -> None:
        """Add an object and all objects below it."""
        waiting = [(path, value)]
        while waiting:
            path, value = waiting.pop()
            if type(value) in EXACT or id(value) in self.paths:
                continue
            self.paths[id(value)], self.objects[path], self.types[path] = path, value, type(value)
            if _has_memory(value) or _is_users_class(value):
                self.shapes[path] = _shape(value)
                with contextlib.suppress(NotPlain):
                    self.digests[path] = digest(value)
            elif _is_opaque(value):
                with contextlib.suppress(NotPlain):
                    self.digests[path] = digest(value)
                continue
            if isinstance(value, types.FunctionType):
                self.outlines[path] = _outline(value)
                self.defaults.append((value.__defaults__, *(value.__kwdefaults__ or {}).values()))
            for hooks in _hook_dicts(value):
                self.hooks[f"{path}.{hooks}"] = list(vars(value)[hooks])
            waiting += [(path + step, child) for step, child in reversed(list(children(value, self.skipped)))]


def digest(value: Any) -> str:
    """Return a digest of an array, a tensor without its gradient, or a class."""
    if isinstance(value, Tensor):
        value = [value.detach(), value.requires_grad]
    elif isinstance(value, np.ndarray):
        value = np.asarray(value)
    elif isinstance(value, functools._lru_cache_wrapper):
        value = [value, value.cache_info().currsize]
    try:
        return fingerprint(value)
    except Unfollowable as error:
        raise NotPlain(str(error)) from error
    except Exception as error:  # the user's objects may raise any exception when they are read
        raise NotPlain(f"{_article(type(value))} that cannot be read ({type(error).__name__}: {error})") from error


def children(value: Any, skipped: Skipped) -> Iterator[tuple[str, Any]]:
    """Yield the content of an object, each value with the step to it."""
    kind = type(value)
    if isinstance(value, (type, *CONSTANT)) or kind in (*EXACT, bytes, complex):
        return
    if kind is types.MethodType:
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, C_METHODS):
        if not isinstance(value.__self__, types.ModuleType):
            yield ".__self__", value.__self__
    elif kind is types.FunctionType:
        if library_name(value) is None:
            yield from ((f".<{name}>", cell.cell_contents) for name, cell in _cells(value))
            yield from ((f".default{i}", held) for i, held in enumerate(value.__defaults__ or ()))
            yield from ((f".default {name}", held) for name, held in (value.__kwdefaults__ or {}).items())
            yield from ((f".{name}", held) for name, held in vars(value).items())
    elif isinstance(value, functools.partial):
        yield from ((f".{name}", getattr(value, name)) for name in ("func", "args", "keywords"))
        yield from ((f".{name}", held) for name, held in vars(value).items())
    elif isinstance(value, np.ndarray):
        if value.dtype.kind == "O":
            yield from ((f"[{i}]", held) for i, held in enumerate(value.ravel().tolist()))
    else:
        if isinstance(value, dict):
            for i, (key, held) in enumerate(items_of(value)):
                yield f".key{i}", key
                yield _step(key, i), held
            if isinstance(value, collections.defaultdict):
                yield ".default_factory", value.default_factory
        elif isinstance(value, list | tuple | collections.deque):
            yield from ((f"[{i}]", held) for i, held in enumerate(value))
        if isinstance(value, Tensor):
            if value.is_leaf and value.grad is not None:
                yield ".grad", value.grad
        elif kind not in CONTAINERS:
            yield ".__class__", kind
        left_out = skipped(value)
        hooks = _hook_dicts(value)
        for name, held in attributes_of(value).items():
            if name in hooks:
                yield from ((f".{name}[{i}]", hook) for i, hook in enumerate(held.values()))
            elif name not in left_out:
                yield f".{name}", held


def saved_state(graph: Graph, *, gradients: bool = True, whole: bool = False) -> dict[str, Any]:
    """Return the current content of the objects below the roots of a graph, as values that `Memory.write` accepts.

    Parameters
    ----------
    graph : Graph
        A graph that was made in the state in which `restore_state` will find the objects. They may have changed since.
    gradients : bool, default=True
        Whether to save ``.grad`` of tensors, too.
    whole : bool, default=False
        Whether to write down also the arrays that have not changed since the graph was made.

    Raises
    ------
    NotPlain
        For a new object that is not a plain value, and for a change that a file cannot restore: new memory that two
        tensors share, added or removed hooks, a changed class, a gradient graph.
    """
    writer = _Writer(graph, gradients, whole)
    roots = {name: writer.write(root, name) for name, root in graph.roots.items()}
    writer.check_shared_memory()
    return {"roots": roots, "nodes": writer.nodes}


class _Writer:
    def __init__(self, graph: Graph, gradients: bool, whole: bool) -> None:
        self.graph, self.gradients, self.whole = graph, gradients, whole
        self.nodes: list[Any] = []
        self.memo: dict[int, int] = {}
        self.alive: list[Any] = []
        self.with_memory: dict[str, Any] = {}

    def write(self, value: Any, path: str) -> Any:
        if type(value) in EXACT:
            return value
        if id(value) not in self.memo:
            self.memo[id(value)] = len(self.nodes)
            self.alive.append(value)
            self.nodes.append(None)
            number = len(self.nodes) - 1
            self.nodes[number] = self._node(value, path)
        return {"node": self.memo[id(value)]}

    def _node(self, value: Any, path: str) -> dict[str, Any]:
        kind, known = type(value), self.graph.paths.get(id(value))
        node: dict[str, Any] = {"kind": kind.__name__, "at": known}
        if known is not None:
            node["type"] = _type_name(value)
            if self.graph.types[known] is not kind:
                raise NotPlain(f"{path} has become {_article(kind)}")

        def all_of(values: Any, step: str = "") -> list[Any]:
            return [self.write(held, f"{path}{step}[{i}]") for i, held in enumerate(values)]

        if kind is tuple:
            node["items"] = all_of(value)
        elif kind in LISTS.values():
            node["items"], node["maxlen"] = all_of(value), getattr(value, "maxlen", None)
        elif kind in (set, frozenset):
            if any(type(held) not in EXACT for held in value):
                raise NotPlain(f"{path} is a set of values other than numbers and strings")
            # A set holds numbers in the order in which they were added. The order of strings differs between processes.
            in_order = all(type(held) in (bool, int, float) for held in value)
            node["items"] = list(value) if in_order else sorted(value, key=repr)
            if in_order and list(kind(node["items"])) != node["items"]:
                raise NotPlain(f"{path} is a set in an order that depends on its former content")
        elif kind in DICTS.values():
            node["keys"] = all_of(value.keys(), ".key")
            node["items"] = [self.write(held, path + _step(key, i)) for i, (key, held) in enumerate(value.items())]
            if kind is collections.defaultdict:
                node["factory"] = self.write(value.default_factory, f"{path}.default_factory")
        elif kind is bytes:
            node["data"] = _bytes(np.frombuffer(value, np.uint8))
        elif kind is complex:
            node["data"] = [value.real, value.imag]
        elif isinstance(value, np.generic) and value.dtype.kind in "biufcSUmM":
            node |= {"kind": "scalar", "dtype": value.dtype.str, "data": _bytes(np.asarray(value))}
        elif kind is np.ndarray:
            self._array(node, value, path)
        elif isinstance(value, Tensor) and _has_memory(value):
            self._tensor(node, value, path, known)
        elif kind is np.random.RandomState:
            node["state"] = self.write(value.get_state(legacy=False), path)
        elif kind is np.random.Generator and known is not None:
            node["state"] = self.write(value.bit_generator.state, path)
            node["spawned"] = _n_spawned(value)
        elif kind is random.Random:
            node["state"] = self.write(value.getstate(), path)
        elif kind is torch.Generator and value is not torch.default_generator:
            node["state"], node["device"] = value.get_state().clone(), str(value.device)
        elif kind in (torch.dtype, torch.device):
            node["name"] = str(value).removeprefix("torch.")
        elif kind is torch.Size:
            node["items"] = list(value)
        elif known is None:
            raise NotPlain(f"{path} is {_article(kind)} that the training has made")
        elif _is_opaque(value):
            if known not in self.graph.digests or digest(value) != self.graph.digests[known]:
                raise NotPlain(f"{path} is {_article(kind)}, which no plain value holds")
        elif not self._is_constant(value, known):
            self._known(node, value, path, known)
        return node

    def _is_constant(self, value: Any, known: str) -> bool:
        if isinstance(value, type):
            if _is_users_class(value) and digest(value) != self.graph.digests.get(known):
                raise NotPlain(f"the class {value.__qualname__} has changed")
            return True
        if isinstance(value, types.FunctionType):
            return library_name(value) is not None
        return (
            isinstance(value, CONSTANT)
            or value is torch.default_generator
            or type(value).__module__.partition(".")[0] in LIBRARY_BARS
        )

    def _known(self, node: dict[str, Any], value: Any, path: str, known: str) -> None:
        """Write down the content of an object that will exist again."""
        if isinstance(value, (types.MethodType, functools.partial, types.FunctionType, *C_METHODS)):
            if self.graph.outlines.get(known) != _outline(value):
                raise NotPlain(f"the function {path} has other code, names or defaults than at the start")
            held = dict(children(value, self.graph.skipped))
            node["parts"] = {step: self.write(part, path + step) for step, part in held.items()}
            return
        self.write(type(value), f"{path}.__class__")
        if isinstance(value, dict):
            node["content"] = [
                [self.write(key, f"{path}.key{i}"), self.write(held, path + _step(key, i))]
                for i, (key, held) in enumerate(items_of(value))
            ]
        elif isinstance(value, list | tuple | collections.deque):
            node["content"] = [self.write(held, f"{path}[{i}]") for i, held in enumerate(value)]
        hooks = _hook_dicts(value)
        left_out = {*self.graph.skipped(value), *hooks}
        for name in hooks:
            if list(vars(value)[name]) != self.graph.hooks.get(f"{known}.{name}"):
                raise NotPlain(f"the hooks of {path} have changed")
            for number, hook in enumerate(vars(value)[name].values()):
                node[f"{name}{number}"] = self.write(hook, f"{path}.{name}[{number}]")
        attributes = {n: held for n, held in attributes_of(value).items() if n not in left_out}
        node["names"] = list(attributes)
        node["attributes"] = [self.write(held, f"{path}.{name}") for name, held in attributes.items()]

    def _array(self, node: dict[str, Any], array: np.ndarray, path: str) -> None:
        if array.dtype.kind == "O":
            node |= {"shape": list(array.shape), "dtype": "|O"}
            node["items"] = [self.write(held, f"{path}[{i}]") for i, held in enumerate(array.ravel().tolist())]
            return
        if array.dtype.kind not in "biufcSUmM":
            raise NotPlain(f"{path} is an array of {array.dtype}")
        self.with_memory[self.graph.paths.get(id(array), f"new: {path}")] = array
        if not self._is_unchanged(node, array):
            fortran = array.flags.f_contiguous and not array.flags.c_contiguous
            node |= {"shape": list(array.shape), "dtype": array.dtype.str, "fortran": fortran, "data": _bytes(array)}

    def _tensor(self, node: dict[str, Any], tensor: Tensor, path: str, known: str | None) -> None:
        if tensor.grad_fn is not None:
            raise NotPlain(f"{path} is a tensor that waits for its gradient")
        if known is None and type(tensor) is not Tensor:
            raise NotPlain(f"{path} is {_article(type(tensor))} that the training has made")
        self.with_memory[known or f"new: {path}"] = tensor
        node |= {"kind": "Tensor", "requires_grad": tensor.requires_grad, "device": tensor.device.type}
        if not self._is_unchanged(node, tensor):
            node["data"] = tensor.detach().cpu().clone()
        if tensor.is_leaf and tensor.grad is not None and self.gradients:
            node["grad"] = self.write(tensor.grad, f"{path}.grad")
        hooks = _hook_dicts(tensor)
        node["names"] = [name for name in vars(tensor) if name not in hooks]
        node["attributes"] = [self.write(vars(tensor)[name], f"{path}.{name}") for name in node["names"]]

    def _is_unchanged(self, node: dict[str, Any], value: Any) -> bool:
        known = node["at"]
        if known is not None and _shape(value) != self.graph.shapes[known]:
            raise NotPlain(f"{known} has another shape or type than at the start")
        return not self.whole and known is not None and digest(value) == self.graph.digests.get(known)

    def check_shared_memory(self) -> None:
        """Raise NotPlain unless tensors and arrays share memory exactly as before."""
        found = _overlaps(self.with_memory)
        before = {pair for pair in self.graph.overlaps if pair <= self.with_memory.keys()}
        for pair in found ^ before:
            one, other = sorted(path.removeprefix("new: ") for path in pair)
            raise NotPlain(f"{one} and {other} share memory, or did before")


def restore_state(graph: Graph, saved: dict[str, Any]) -> None:
    """Put a saved state into the objects of a graph at the same places, and into new lists, arrays and the like.

    Raises
    ------
    Exception
        Of any kind, if the state is that of other objects. The objects may then be half changed.
    """
    reader = _Reader(graph, saved["nodes"])
    for name, root in graph.roots.items():
        if reader.read(saved["roots"][name]) is not root:
            raise ValueError(f"{name} is another object")


class _Reader:
    def __init__(self, graph: Graph, nodes: list[dict[str, Any]]) -> None:
        self.graph, self.nodes = graph, nodes
        self.memo: dict[int, Any] = {}

    def read(self, value: Any) -> Any:
        if type(value) in EXACT:
            return value
        number = value["node"]
        if number not in self.memo:
            self._build(number, self.nodes[number])
        return self.memo[number]

    def _all(self, values: Sequence[Any]) -> list[Any]:
        return [self.read(value) for value in values]

    def _build(self, number: int, node: dict[str, Any]) -> None:
        kind = node["kind"]
        target = None
        if node["at"] is not None:
            target = self.graph.objects[node["at"]]
            if _type_name(target) != node["type"]:
                raise ValueError(f"{node['at']} is {_article(type(target))} now")
        if kind in ("tuple", "set", "frozenset", "bytes", "complex", "scalar", "dtype", "device", "Size"):
            self.memo[number] = self._immutable(kind, node, target)
        elif kind in LISTS and "items" in node:
            new: Any = [] if kind == "list" else collections.deque(maxlen=node["maxlen"])
            self.memo[number] = new if target is None else target
            _set_items(self.memo[number], self._all(node["items"]))
        elif kind in DICTS and "items" in node:
            made: Any = DICTS[kind]() if target is None else target
            self.memo[number] = made
            if kind == "defaultdict":
                made.default_factory = self.read(node["factory"])
            _set_pairs(made, self._all(node["keys"]), self._all(node["items"]))
        elif kind == "ndarray":
            self._array(number, node, target)
        elif kind == "Tensor":
            self._tensor(number, node, target)
        elif "state" in node:
            self._random(number, node, target)
        else:
            self._known(number, node, target)

    def _immutable(self, kind: str, node: dict[str, Any], target: Any) -> Any:
        if kind == "dtype":
            found = getattr(torch, node["name"])
            if not isinstance(found, torch.dtype):
                raise ValueError(f"{node['name']} is no dtype")
            return found
        if kind == "device":
            return torch.device(node["name"])
        if kind == "Size":
            return torch.Size(node["items"])
        if kind == "bytes":
            return node["data"].numpy().tobytes()
        if kind == "complex":
            return complex(*node["data"])
        if kind == "scalar":
            return np.frombuffer(node["data"].numpy().tobytes(), np.dtype(node["dtype"]))[0]
        if kind == "tuple":
            made: Any = tuple(self._all(node["items"]))
            same = target is not None and len(made) == len(target) and all(map(_is, made, target))
            return target if same else made
        if kind == "set" and target is not None:
            target.clear()
            target.update(node["items"])
            return target
        return set(node["items"]) if kind == "set" else frozenset(node["items"])

    def _array(self, number: int, node: dict[str, Any], target: Any) -> None:
        if "dtype" not in node:
            self.memo[number] = target  # it has not changed
        elif node["dtype"] == "|O":
            if math.prod(node["shape"]) != len(node["items"]):
                raise ValueError("the number of values of an array does not match its shape")
            made = self.memo[number] = np.empty(node["shape"], dtype=object) if target is None else target
            flat = np.empty(made.size, dtype=object)
            for place, item in enumerate(self._all(node["items"])):
                flat[place] = item
            made[...] = flat.reshape(made.shape)
        else:
            order = "F" if node["fortran"] else "C"
            data = np.frombuffer(node["data"].numpy().tobytes(), np.dtype(node["dtype"])).reshape(node["shape"])
            if target is None:
                self.memo[number] = np.array(data, order=order)  # type: ignore[call-overload] # order is a str to mypy
                return
            if _shape(data) != _shape(target):
                raise ValueError(f"{node['at']} has another shape or type")
            target[...] = data
            self.memo[number] = target

    def _tensor(self, number: int, node: dict[str, Any], target: Any) -> None:
        with torch.no_grad():
            if target is None:
                target = node["data"].clone().to(node["device"])
            elif "data" in node:
                if _shape(node["data"]) != _shape(target):
                    raise ValueError(f"{node['at']} has another shape or type")
                target.detach().copy_(node["data"])
        self.memo[number] = target
        if target.requires_grad != node["requires_grad"]:
            target.requires_grad_(node["requires_grad"])
        if target.is_leaf:
            target.grad = self.read(node["grad"]) if "grad" in node else None
        for name, held in zip(node["names"], self._all(node["attributes"]), strict=True):
            vars(target)[name] = held

    def _random(self, number: int, node: dict[str, Any], target: Any) -> None:
        kind = node["kind"]
        if kind == "Generator" and "device" in node:
            made = torch.Generator(node["device"]) if target is None else target
            made.set_state(node["state"])
        elif kind == "Generator":
            state = self.read(node["state"])
            if target is None or _n_spawned(target) != node["spawned"]:
                raise ValueError(f"{node['at']} has had other children")
            made = target
            made.bit_generator.state = state
        elif kind == "RandomState":
            made = np.random.RandomState() if target is None else target
            made.set_state(self.read(node["state"]))
        else:
            made = random.Random() if target is None else target
            made.setstate(self.read(node["state"]))
        self.memo[number] = made

    def _known(self, number: int, node: dict[str, Any], target: Any) -> None:
        if target is None:
            raise ValueError(f"a {node['kind']} has no place")
        self.memo[number] = target
        if "parts" in node:
            self._function(node["parts"], target)
        if "names" not in node:
            return
        if "content" in node and isinstance(target, dict):
            _set_pairs(target, *(self._all(part) for part in zip(*node["content"], strict=True)))
        elif "content" in node:
            _set_items(target, self._all(node["content"]))
        hooks = _hook_dicts(target)
        for name in hooks:
            for place in range(len(vars(target)[name])):
                self.read(node[f"{name}{place}"])
        left = {*self.graph.skipped(target), *hooks}
        _set_attributes(target, dict(zip(node["names"], self._all(node["attributes"]), strict=True)), left)

    def _function(self, parts: dict[str, Any], target: Any) -> None:
        found = {step: self.read(part) for step, part in parts.items()}
        if isinstance(target, types.FunctionType):
            for name, cell in _cells(target):
                if cell.cell_contents is not found[f".<{name}>"]:
                    cell.cell_contents = found[f".<{name}>"]
            vars(target).update({name: found[f".{name}"] for name in vars(target)})


def _set_attributes(target: Any, attributes: dict[str, Any], left: set[str]) -> None:
    """Give an object exactly these attributes, without touching those named in ``left``."""
    slots = {name: _slot(target, name) for name in (*attributes, *attributes_of(target))}
    for name, slot in slots.items():
        if slot is not None and name in attributes:
            slot.__set__(target, attributes[name])
        elif slot is not None and name not in left:
            slot.__delete__(target)
    own = getattr(target, "__dict__", None)
    if own is not None:
        wanted = {name: held for name, held in attributes.items() if slots[name] is None}
        wanted |= {name: held for name, held in own.items() if name in left}
        _set_pairs(own, list(wanted), list(wanted.values()))


def _set_items(target: Any, items: list[Any]) -> None:
    """Give a list, a deque or a named tuple these items, without touching one that has them already."""
    if len(items) != len(target) or not all(map(_is, items, target)):
        target.clear()
        target.extend(items)


def _set_pairs(target: dict[Any, Any], keys: Sequence[Any] = (), items: Sequence[Any] = ()) -> None:
    """Give a dict these keys and values in this order, without touching one that has them already."""
    pairs, present = list(zip(keys, items, strict=True)), list(items_of(target))
    if len(pairs) != len(present) or not all(
        _is(key, other) and _is(item, held) for (key, item), (other, held) in zip(pairs, present, strict=True)
    ):
        kind = collections.OrderedDict if isinstance(target, collections.OrderedDict) else dict
        kind.clear(target)
        for key, item in pairs:
            kind.__setitem__(target, key, item)


def _slot(target: Any, name: str) -> Any:
    found = next((vars(cls)[name] for cls in type(target).__mro__ if name in vars(cls)), None)
    return found if isinstance(found, types.MemberDescriptorType) else None


def _cells(function: types.FunctionType) -> list[tuple[str, types.CellType]]:
    """Return the filled cells of a closure by name."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [(name, cell) for name, cell in cells if _is_filled(cell)]


def _outline(function: Any) -> Any:
    """Return what a file does not restore of a function: its code, and the names of its content."""
    if not isinstance(function, types.FunctionType):
        return None
    defaults = [*map(id, function.__defaults__ or ()), *map(id, (function.__kwdefaults__ or {}).values())]
    return function.__code__, defaults, [step for step, _ in children(function, lambda value: set())]


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _hook_dicts(value: Any) -> list[str]:
    """Return the names of the attributes that hold hooks, which torch numbers differently in every process."""
    attributes = getattr(value, "__dict__", {}) if not isinstance(value, type) else {}
    return [name for name, held in attributes.items() if "_hooks" in name and isinstance(held, dict)]


def _is_opaque(value: Any) -> bool:
    """Return whether an object holds more than Python shows, so that it must be unchanged since the start."""
    kind: Any = type(value)
    if isinstance(value, np.void) or (isinstance(value, RANDOM) and kind not in RANDOM):
        return True
    if isinstance(value, (type, *CONSTANT, *WRITTEN, *RANDOM, np.generic)) or kind in (*EXACT, *CONTAINERS, np.ndarray):
        return kind is bytearray
    if isinstance(value, Tensor):
        return not _has_memory(value)
    held_in_c = kind.__module__.partition(".")[0] == "pandas" or hidden_state(kind) is not None
    return held_in_c or isinstance(value, np.ndarray | set | frozenset)


def _is_users_class(value: Any) -> bool:
    return isinstance(value, type) and not is_library(value.__module__)


def _has_memory(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.layout == torch.strided and value.device.type != "meta" and not torch.nn.parameter.is_lazy(value)
    return type(value) is np.ndarray and value.dtype.kind in "biufcSUmM"


def _n_spawned(generator: np.random.Generator) -> int:
    return int(getattr(generator.bit_generator.seed_seq, "n_children_spawned", 0))


def _shape(value: Any) -> Any:
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor | np.ndarray) else None


def _overlaps(with_memory: dict[str, Any]) -> set[frozenset[str]]:
    """Return the pairs of names of tensors and arrays that share memory."""
    spans = []
    for path, value in with_memory.items():
        if isinstance(value, Tensor):
            start = value.untyped_storage().data_ptr()
            spans.append((start, start + value.untyped_storage().nbytes(), path))
        else:
            spans.append((*byte_bounds(value), path))
    found: set[frozenset[str]] = set()
    open_: list[tuple[int, str]] = []
    for start, stop, path in sorted(span for span in spans if span[0] < span[1]):
        open_ = [(last, other) for last, other in open_ if last > start]
        found |= {frozenset((path, other)) for _, other in open_}
        open_.append((stop, path))
    return found


def _bytes(array: np.ndarray) -> Tensor:
    return torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8) if array.nbytes else torch.zeros(0).byte()


def _is(one: Any, other: Any) -> bool:
    return one is other or (type(one) in EXACT and type(one) is type(other) and repr(one) == repr(other))


def _type_name(value: Any) -> str:
    return f"{module_name(type(value))}.{type(value).__qualname__}"


def _step(key: Any, place: int) -> str:
    """Return the step from a dict to one of its values."""
    return f"[{key!r}]" if type(key) in EXACT else f"[#{place}]"


def _article(kind: type) -> str:
    return f"a{'n' if kind.__name__[0].lower() in 'aeiou' else ''} {kind.__name__}"
