import collections
import copy
import functools
import itertools
import random
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.memory import Graph, Memory, NotPlain, fingerprint, restore_state, saved_state


class Thing:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("a", "b")


class Counts(dict):
    def __setitem__(self, key, value):
        raise TypeError("is written in a way of its own")


def counter():
    count = 0

    def step(by=1):
        nonlocal count
        count += by
        return count

    return step


VALUES = {
    "numbers": lambda: [1, 1.5, True, None, "a", -0.0, 10**30],
    "containers": lambda: [(1, [2]), {"a": (3,)}, {1, 2}, frozenset("ab"), collections.deque([1], maxlen=2)],
    "mappings": lambda: [collections.OrderedDict(b=1, a=2), collections.Counter("aab"), {(1, 2): {3: "x"}}],
    "other plain values": lambda: [b"ab", 1 + 2j, torch.Size([2, 3]), torch.float16, torch.device("cpu")],
    "NumPy's numbers": lambda: [np.float32(1.5), np.int64(3), np.bool_(True), np.datetime64("2020-01-01")],
    "arrays": lambda: [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3))), np.array(["a", "bc"])],
    "types of arrays": lambda: [np.arange(3, dtype=">i2"), np.array([], "f4"), np.array([1, "a", None], dtype=object)],
    "tensors": lambda: [torch.arange(3), torch.ones(2, 3).T, torch.tensor(1.5, dtype=torch.bfloat16), torch.zeros(0)],
    "random states": lambda: [advanced(np.random.RandomState(1)), advanced(np.random.RandomState(2))],
    "other random states": lambda: [advanced(random.Random(3)), torch.Generator().manual_seed(4)],
}


def advanced(rng):
    rng.random()
    return rng


def carried(graph, saved, folder):
    """Return a saved state as a file brings it back."""
    Memory(folder).write("k", "part", saved)
    return Memory(folder).read("k", "part")


@pytest.mark.parametrize("case", VALUES)
def test_values_that_are_new_come_back(case, tmp_path):
    there, here = Thing(held=None), Thing(held=None)
    graph = Graph({"thing": there})
    there.held = VALUES[case]()
    there.again = there.held
    restore_state(Graph({"thing": here}), carried(graph, saved_state(graph), tmp_path))
    assert fingerprint(here) == fingerprint(there)
    assert here.held is here.again


@pytest.mark.parametrize("case", VALUES)
def test_objects_that_are_there_are_changed_in_place(case, tmp_path):
    there, here = (Thing(held=VALUES[case](), more=[0]) for _ in range(2))
    graph, held = Graph({"thing": there}), here.held
    for value in there.held:
        if isinstance(value, np.ndarray | torch.Tensor) and value.dtype != object and len(value.flatten()):
            value[...] = value.flatten()[0]
        elif isinstance(value, np.random.RandomState | np.random.Generator | random.Random):
            value.random()
        elif hasattr(value, "clear"):
            value.clear()
    there.held.append("more")
    restore_state(Graph({"thing": here}), carried(graph, saved_state(graph), tmp_path))
    assert fingerprint(here) == fingerprint(there)
    assert here.held is held


def test_objects_of_the_user(tmp_path):
    def make():
        slotted, counts = Slotted(), Counts(a=1)
        slotted.a = [1]
        module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        nn.init.ones_(module[0].weight), nn.init.zeros_(module[0].bias)
        parts = {"slotted": slotted, "counts": counts, "step": counter(), "module": module, "lock": threading.Lock()}
        return Thing(
            **parts,
            numpy=np.random.default_rng(0),
            kind=collections.OrderedDict,
            method=slotted.a.append,
            weights=list(module.parameters()),
        )

    there, here = make(), make()
    graph = Graph({"thing": there})
    there.slotted.b, there.late = there.slotted.a, [there.slotted]
    dict.__setitem__(there.counts, "b", 2)
    there.step(3)
    there.numpy.random()
    there.module[1].running_mean = torch.ones(2)
    there.module.calls = 7
    there.weights[0].data += 1
    there.weights[0].grad = torch.ones(2, 2)
    del there.kind
    restore_state(Graph({"thing": here}), carried(graph, saved_state(graph), tmp_path))
    assert here.slotted.a is here.slotted.b is not there.slotted.a
    assert here.late == [here.slotted]
    assert dict(here.counts) == {"a": 1, "b": 2}
    assert here.step() == there.step() == 4
    assert here.numpy.random() == there.numpy.random()
    assert here.module[1].running_mean.tolist() == [1, 1]
    assert here.module.calls == 7
    assert here.module[0].weight is here.weights[0]
    assert here.weights[0].flatten().tolist() == [2] * 4
    assert here.weights[0].grad.sum() == 4
    assert not hasattr(here, "kind")
    assert list(vars(here)) == list(vars(there))


def _alias(thing):
    thing.view = thing.weights[:1]


def _part(thing):
    thing.whole = np.zeros(3)
    thing.view = thing.whole[1:]


REFUSED = {
    "a new object": (lambda thing: vars(thing).update(new=Thing()), "thing.new is a Thing that the training has made"),
    "a new function": (lambda thing: vars(thing).update(new=counter()), "thing.new is a function that"),
    "a new parameter": (lambda thing: vars(thing).update(new=nn.Parameter(torch.ones(1))), "thing.new is a Parameter"),
    "a new view of a tensor": (_alias, "thing.view and thing.weights share memory"),
    "views of a new array": (_part, "share memory"),
    "a new generator": (lambda thing: vars(thing).update(new=np.random.default_rng(0)), "thing.new is a Generator"),
    "a gradient to come": (lambda thing: vars(thing).update(new=thing.leaf * 2), "waits for its gradient"),
    "a set of objects": (lambda thing: vars(thing).update(new={(1, 2)}), "a set of values other than numbers"),
    "another shape": (
        lambda thing: setattr(thing.weights, "data", torch.ones(5)),
        "thing.weights has another shape or type",
    ),
    "a class that has changed": (lambda thing: setattr(Thing, "n", Thing.n + 1), "the class Thing has changed"),
    "hooks": (lambda thing: thing.net.register_forward_hook(print), "the hooks of thing.net have changed"),
    "a bytearray": (lambda thing: thing.raw.append(1), "thing.raw is a bytearray, which no plain value holds"),
    "an array with a mask": (lambda thing: thing.masked.sort(), "thing.masked is a MaskedArray"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_file_cannot_bring_back_is_refused(case, monkeypatch):
    monkeypatch.setattr(Thing, "n", 0, raising=False)
    masked = np.ma.masked_equal([3, 1, 2], 3)
    thing = Thing(weights=torch.ones(3), leaf=torch.ones(1, requires_grad=True), net=nn.Linear(1, 1), masked=masked)
    thing.raw = bytearray(b"a")
    graph = Graph({"thing": thing})
    saved_state(graph)
    change, reason = REFUSED[case]
    change(thing)
    with pytest.raises(NotPlain, match=reason):
        saved_state(graph)


def test_arrays_that_have_not_changed_are_not_written(tmp_path):
    thing = Thing(data=np.zeros(10_000), sums=np.zeros(2))
    graph = Graph({"thing": thing})
    thing.sums += 1
    small, whole = saved_state(graph), saved_state(graph, whole=True)
    sizes = [sum(len(node["data"]) for node in saved["nodes"] if "data" in node) for saved in (small, whole)]
    assert sizes == [16, 80_016]
    other = Thing(data=np.zeros(10_000), sums=np.zeros(2))
    restore_state(Graph({"thing": other}), carried(graph, small, tmp_path))
    assert fingerprint(other) == fingerprint(thing)


def test_a_state_of_other_objects_is_an_error():
    graph = Graph({"thing": Thing(a=[1])})
    saved = saved_state(graph)
    for other in (Thing(a=(1,)), Thing(), types.SimpleNamespace(a=[1])):
        with pytest.raises((ValueError, KeyError)):
            restore_state(Graph({"thing": other}), copy.deepcopy(saved))


C_METHODS = {
    "a draw of Python's generator": lambda: random.Random(0).random,
    "a method of a list": lambda: [1, 2, 3, 4, 5].pop,
    "a method of a deque": lambda: collections.deque([1, 2, 3, 4]).popleft,
    "within a partial": lambda: functools.partial(random.Random(1).getrandbits, 20),
    "a draw of NumPy's generator": lambda: np.random.RandomState(0).randn,
    "a method of a dict": lambda: dict(a=1, b=2, c=3, d=4).popitem,
}


@pytest.mark.parametrize("case", C_METHODS)
def test_what_methods_written_in_C_draw_from_comes_back(case, tmp_path):
    there, again, truth = ({"a": Thing(draw=C_METHODS[case]())} for _ in range(3))
    graph = Graph(there)
    there["a"].draw()
    restored = Graph(again)
    restore_state(restored, carried(graph, saved_state(graph), tmp_path))
    truth["a"].draw()
    assert again["a"].draw() == truth["a"].draw()


class MyRandom(random.Random):
    pass


class MyRandomState(np.random.RandomState):
    pass


class MyGenerator(np.random.Generator):
    pass


def stamped():
    def step():
        return getattr(step, "count", 0)

    return step


def with_default():
    def step(by=1):
        return by

    return step


def late():
    def step():
        nonlocal count
        try:
            count += 1
        except NameError:
            count = 1

    if not step:  # never: its cell is empty
        count = 0
    return step


def memoised():
    return functools.lru_cache(lambda x: x)


def add_one(record):
    record["n"] += 1


HIDDEN = {
    "a subclass of Random": (lambda: MyRandom(0), lambda held: held.random()),
    "a subclass of RandomState": (lambda: MyRandomState(0), lambda held: held.rand()),
    "a subclass of Generator": (lambda: MyGenerator(np.random.PCG64(0)), lambda held: held.random()),
    "a record of NumPy's": (lambda: np.zeros(1, dtype=[("n", "i4")])[0], add_one),
    "an attribute that a function gets": (stamped, lambda held: setattr(held, "count", 1)),
    "defaults of a function": (with_default, lambda held: setattr(held, "__defaults__", (2,))),
    "code of a function": (with_default, lambda held: setattr(held, "__code__", (lambda by=1: 3).__code__)),
    "a cell that was empty": (late, lambda held: held()),
    "what a function remembers": (memoised, lambda held: held(1)),
    "the next of an iterator": (lambda: itertools.count().__next__, lambda held: held()),
    "a set that held more": (lambda: set(range(40)), lambda held: held.difference_update({*range(0, 40)} - {8, 39, 0})),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_state_that_no_file_holds_is_refused(case):
    make, change = HIDDEN[case]
    graph = Graph({"a": Thing(held=make())})
    change(graph.roots["a"].held)
    with pytest.raises(NotPlain):
        saved_state(graph)


@pytest.mark.parametrize("numbers", [(8, 0), (0, 8), (16, 8, 0), (1.5, 9, True)])
def test_a_set_of_numbers_comes_back_in_its_order(numbers, tmp_path):
    there, again = Thing(held=set()), Thing(held=set())
    graph = Graph({"a": there})
    for number in numbers:
        there.held.add(number)
    restore_state(Graph({"a": again}), carried(graph, saved_state(graph), tmp_path))
    assert list(again.held) == list(there.held)


@pytest.mark.parametrize(
    "node",
    [
        {"kind": "dtype", "name": "load"},
        {"kind": "ndarray", "dtype": "|O", "shape": [10**9], "items": []},
        {"kind": "ndarray", "dtype": "|O8", "shape": [1], "fortran": False, "data": torch.zeros(8).byte()},
        {"kind": "tuple", "items": [{"node": 99}]},
        {"kind": "SystemRandom"},
    ],
)
def test_a_forged_value_is_an_error(node):
    graph = Graph({"a": Thing(held=None)})
    saved = saved_state(graph)
    saved["nodes"].append({"at": None, **node})
    saved["nodes"][0]["attributes"] = [{"node": len(saved["nodes"]) - 1}]
    with pytest.raises(Exception):  # noqa: B017 - of any kind, as it says
        restore_state(graph, saved)
    assert graph.roots["a"].held is None


def test_a_class_that_cannot_be_read_is_no_obstacle_until_it_is_saved():
    made = type("Made", (), {"lock": threading.Lock()})
    graph = Graph({"a": made()})
    with pytest.raises(NotPlain):
        saved_state(graph)
