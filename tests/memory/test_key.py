import argparse
import builtins
import contextvars
import copy
import ctypes
import dataclasses
import datetime
import functools
import importlib
import itertools
import mmap
import os
import pathlib
import pickle
import re
import socket
import sqlite3
import sys
import tempfile
import threading
import types
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import nn

from sklgap import SAM, LBGapClassifier, TrainingRecorder
from sklgap.memory import Fingerprint, Unfollowable, fingerprint, key_of, surroundings
from tests.fresh import call
from tests.tiny import Mlp, TinyF1, blobs

VALUES = [
    None,
    1,
    1.0,
    True,
    "1",
    b"1",
    [1],
    (1,),
    {1},
    {1: 2},
    [[1], 2],
    [[1, 2]],
    ["ab", "c"],
    ["a", "bc"],
    float("nan"),
    np.arange(3),
    np.arange(3.0),
    np.arange(4).reshape(2, 2),
    np.arange(4),
    torch.arange(3),
    torch.arange(3).bfloat16(),
    torch.tensor(3),
    np.array(["a", None], dtype=object),
    np.str_(""),
    np.array([], "U3"),
    np.datetime64("2020-01-01"),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("c", "f8")]),
    np.array(["a", "bc"], dtype=np.dtypes.StringDType()),
    pd.DataFrame({"a": [1, 2]}),
    pd.DataFrame({"b": [1, 2]}),
    pd.Series([1, 2], name="a"),
    Mlp,
    TinyF1,
    nn.Module,
    SAM(),
    SAM(rho=0.1),
    functools.partial(int, base=2),
    functools.partial(int, base=3),
    LRScheduler("StepLR", step_size=2),
    LRScheduler("StepLR", step_size=3),
    EarlyStopping(),
    TrainingRecorder({"a": (np.ones((2, 2)), np.ones(2))}),
    TrainingRecorder({"a": (np.zeros((2, 2)), np.ones(2))}),
    LBGapClassifier(Mlp, callbacks=[EarlyStopping()]),
    np.random.RandomState(0),
    np.random.RandomState(1),
    torch.Generator().manual_seed(0),
    torch.float32,
    np.dtype("float32"),
    slice(1, 2),
    len,
    [].append,
]


def test_different_values_differ():
    keys = [fingerprint(value) for value in VALUES]
    assert len(set(keys)) == len(VALUES)


simple = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(simple, simple)
def test_equal_if_and_only_if_alike(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (repr(one) == repr(other))


def test_what_counts_of_dicts_numbers_and_arrays():
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"b": 2, "a": 1})
    assert fingerprint(np.float64(0.5)) != fingerprint(0.5)
    assert fingerprint(np.arange(8)[::2]) == fingerprint(np.arange(8)[::2].copy())
    assert fingerprint(np.ones((2, 3))) != fingerprint(np.ones((2, 3), order="F"))  # sums have another order
    assert fingerprint(torch.ones(4)[::2]) == fingerprint(torch.ones(2))
    assert fingerprint(torch.ones(1, 2, 3, 3)) != fingerprint(
        torch.ones(1, 2, 3, 3).to(memory_format=torch.channels_last)
    )


def test_weights_of_a_module_matter():
    torch.manual_seed(0)
    module, other = Mlp(), Mlp()
    assert fingerprint(module) != fingerprint(other)
    other.load_state_dict(module.state_dict())
    assert fingerprint(module) == fingerprint(other)
    assert fingerprint(module) != fingerprint(other.eval())


def test_code_of_the_users_functions_matters():
    def make(constant):
        return lambda x: x + constant

    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x - 1)
    assert fingerprint(lambda x=1: x) != fingerprint(lambda x=2: x)


def test_code_of_the_users_classes_matters():
    def make(factor):
        class Net(nn.Module):
            scale = factor

            @property
            def twice(self):
                return 2 * self.scale

            @staticmethod
            def relu(x):
                return x.relu()

            def forward(self, x):
                return self.scale * x

        return Net

    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))
    assert fingerprint(make(1)()) != fingerprint(make(2)())


def test_cycles_end():
    one, other = [1], [1]
    one.append(one)
    other.append(other)
    assert fingerprint(one) == fingerprint(other) != fingerprint([1, [1]])


def fingerprint_and_order():
    """Of an estimator and data, and of a set whose order the process decides."""
    letters = set("abcdefghijklmnop")
    key = fingerprint(letters, LBGapClassifier(Mlp, remedies=[SAM()]).get_params(), *blobs())
    return key, list(letters)


def test_equal_in_another_process():
    (here, order), (there, other) = fingerprint_and_order(), call(fingerprint_and_order)
    assert here == there
    assert len(here) == 32
    assert order != other or "PYTHONHASHSEED" in os.environ


def capturing(value):
    return lambda x: (x, value)


def evaluating(text):
    return eval(text)


def by_import(name):
    return importlib.import_module(name)


def grown():
    return torch.ones(2, requires_grad=True) * 2


REFUSED = {
    "an open file": tempfile.TemporaryFile,
    "a socket": socket.socket,
    "a database": lambda: sqlite3.connect(":memory:"),
    "a lock": threading.Lock,
    "a thread": threading.Thread,
    "a generator": lambda: (i for i in range(3)),
    "an iterator": lambda: iter([1, 2]),
    "a counter": itertools.count,
    "a weak reference": lambda: weakref.ref(Mlp),
    "a variable of a context": lambda: contextvars.ContextVar("x"),
    "a buffer": lambda: mmap.mmap(-1, 8),
    "a number of C": lambda: ctypes.c_int(1),
    "a function of C": lambda: np.frompyfunc(len, 1, 1),
    "a scripted module": lambda: torch.jit.script(nn.Linear(1, 1)),
    "a tensor with a gradient still to come": grown,
    "code that evaluates": lambda: evaluating,
    "code that imports by name": lambda: by_import,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("where", [lambda value: value, lambda value: [{"a": value}], capturing])
def test_what_cannot_be_followed_is_refused(what, where):
    value = REFUSED[what]()
    try:
        with pytest.raises(Unfollowable):
            fingerprint(where(value))
    finally:
        if hasattr(value, "close"):
            value.close()


def test_the_refusal_says_the_way_to_it():
    lock = threading.Lock()

    class Net(nn.Module):
        def forward(self, x):
            return capturing(lock)(x)

    for params, name in [
        ({"init": capturing(lock)}, r"init -> closure 'value' is a lock"),
        ({"lr": 1, "module__a": [1, {"b": lock}]}, r"module__a -> \[1\] -> \['b'\] is a lock"),
        ({"net": Net}, r"net -> forward -> closure 'lock' is a lock"),
    ]:
        with pytest.warns(UserWarning, match=f"this work is not saved, because {name}.*Give it as a plain value"):
            assert key_of(**params) is None


def test_the_order_of_named_values_does_not_matter():
    assert key_of(1, a=1, b=2) == key_of(1, b=2, a=1) != key_of(1, a=2, b=1)
    assert key_of(1, a=1) != key_of(a=1)
    shuffled = [LRScheduler("StepLR", step_size=2, gamma=0.5), LRScheduler("StepLR", gamma=0.5, step_size=2)]
    assert fingerprint(shuffled[0]) == fingerprint(shuffled[1])
    models = [LBGapClassifier(module__a=1, optimizer__b=2), LBGapClassifier(optimizer__b=2, module__a=1)]
    assert fingerprint(models[0]) == fingerprint(models[1])
    assert fingerprint(models[0].set_params(module__a=3)) != fingerprint(models[1])


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value)), functools.partial(clone, safe=False)]
)
def test_a_copy_has_the_same_key(again):
    value = {
        "net": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(2, 2)),
        "callbacks": [("stop", EarlyStopping()), ("lr", LRScheduler("StepLR", step_size=2))],
        "rng": [np.random.RandomState(3), np.random.default_rng(3), torch.Generator().manual_seed(3)],
        "frame": pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["u", "v"])}),
        "dates": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), pathlib.Path("a"), re.compile("a.b")],
    }
    assert fingerprint(again(value)) == fingerprint(value)


def test_what_is_shared_is_not_what_is_equal():
    weight = torch.ones(3)
    shared = {"twice": [weight, weight]}
    assert fingerprint(copy.deepcopy(shared)) == fingerprint(shared)
    assert fingerprint({"twice": [weight, weight.clone()]}) != fingerprint(shared)


def test_memory_that_tensors_share():
    whole = torch.arange(6.0)
    assert fingerprint([whole, whole[:3]]) != fingerprint([whole, whole[:3].clone()])
    assert fingerprint([whole, whole[:3]]) != fingerprint([whole, whole[3:]])
    other = torch.arange(6.0)
    assert fingerprint([whole, whole[:3]]) == fingerprint([other, other[:3]])
    array = np.arange(6.0)
    assert fingerprint([array, torch.from_numpy(array)]) != fingerprint([array, torch.arange(6.0).double()])


def test_hooks_count_in_their_order_and_not_by_their_numbers():
    def hooked(*scales):
        layer = nn.Linear(2, 2)
        nn.init.ones_(layer.weight), nn.init.zeros_(layer.bias)
        for scale in scales:
            layer.register_forward_hook(lambda module, args, output, scale=scale: output * scale)
        return layer

    assert fingerprint(hooked(2, 3)) == fingerprint(hooked(2, 3))
    assert len({fingerprint(hooked(*scales)) for scales in [(), (2,), (2, 3), (3, 2)]}) == 4
    frozen, other = nn.Linear(1, 1), nn.Linear(1, 1)
    other.load_state_dict(frozen.state_dict())
    other.weight.register_hook(lambda grad: grad * 2)
    assert fingerprint(frozen) != fingerprint(other)
    other = copy.deepcopy(frozen)
    other.register_forward_pre_hook(lambda module, args: None)
    assert fingerprint(frozen) != fingerprint(other)


def test_settings_of_torch_are_in_the_surroundings():
    before = surroundings("cpu")
    assert before == surroundings("cpu")
    threads = torch.get_num_threads()
    try:
        torch.set_default_dtype(torch.float64)
        double = surroundings("cpu")
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads + 1)
        more = surroundings("cpu")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
    assert len({fingerprint(found) for found in (before, double, more)}) == 3


SETTINGS = """
STD = 0.1
UNREAD = 1
class Scales:
    first = 1
"""
READING = {
    "attribute": ("import users_config as config\ndef made(m): return config.STD", True),
    "attribute of a class": (
        "import users_config as config\ndef made(m): return config.Scales.first, config.STD",
        True,
    ),
    "name": ("from users_config import STD\ndef made(m): return STD", True),
    "import inside": ("def made(m):\n    from users_config import STD\n    return STD", True),
    "module inside": ("def made(m):\n    import users_config as c\n    return c.STD", False),
    "by getattr": ("import users_config as config\ndef made(m, name='STD'): return getattr(config, name)", False),
}


@pytest.mark.parametrize("how", READING)
def test_settings_in_a_module_of_the_user(how, monkeypatch):
    text, precise = READING[how]

    def key(settings):
        module = types.ModuleType("users_config")
        monkeypatch.setitem(sys.modules, "users_config", module)
        exec(settings, vars(module))
        namespace = {"__name__": "users_code"}
        exec(text, namespace)
        return fingerprint(namespace["made"])

    assert key(SETTINGS) == key(SETTINGS) != key(SETTINGS.replace("0.1", "0.3"))
    assert (key(SETTINGS) == key(SETTINGS.replace("UNREAD = 1", "UNREAD = 2"))) == precise


def test_an_import_that_nobody_has_made_is_refused():
    namespace = {"__name__": "users_code"}
    exec("def made(m):\n    import users_config_nobody_has\n    return 1", namespace)
    with pytest.raises(Unfollowable, match="imports 'users_config_nobody_has', which is not imported yet"):
        fingerprint(namespace["made"])


def test_where_code_stands_does_not_matter():
    keys = []
    for lines, name in [(0, "a.py"), (7, "b.py")]:
        namespace = {"__name__": "users_code"}
        exec(compile("\n" * lines + "def made(x):\n    return x + 1", name, "exec"), namespace)
        keys.append(fingerprint(namespace["made"]))
    assert keys[0] == keys[1]


def test_a_borrowed_name_is_no_library():
    def mine(tensor):
        return tensor

    mine.__module__, mine.__qualname__ = nn.init.normal_.__module__, nn.init.normal_.__qualname__
    assert fingerprint(mine) != fingerprint(nn.init.normal_)
    assert fingerprint(nn.init.normal_) == fingerprint(torch.nn.init.normal_) != fingerprint(nn.init.uniform_)


SCALE = 1


def scaled(x):
    return x * SCALE


def test_globals_that_a_function_reads_matter(monkeypatch):
    before = fingerprint(scaled)
    monkeypatch.setitem(globals(), "SCALE", 2)
    assert fingerprint(scaled) != before


def test_closures_of_a_library_matter():
    namespace = {"__name__": "sklgap.inspection"}
    exec("def make(a):\n    return lambda x: x + a", namespace)
    assert fingerprint(namespace["make"](1)) != fingerprint(namespace["make"](2))


def test_class_attributes_matter():
    def make(**members):
        return type("Net", (nn.Module,), {"__module__": "mine", **members})

    different = [
        make(act=torch.tanh),
        make(act=torch.relu),
        make(act=nn.ReLU),
        make(act=nn.Tanh),
        make(scale=torch.ones(1)),
        make(scale=torch.zeros(1)),
        make(twice=functools.cached_property(lambda self: 2)),
        make(twice=functools.cached_property(lambda self: 3)),
    ]
    assert len({fingerprint(net) for net in different}) == len(different)


def test_a_frozen_layer_is_another():
    module, frozen = Mlp(), Mlp()
    frozen.load_state_dict(module.state_dict())
    frozen.layers[0].weight.requires_grad_(False)
    assert fingerprint(module) != fingerprint(frozen)


def test_dataclasses_and_slots():
    @dataclasses.dataclass
    class Setting:
        size: int = 1

    class Slotted:
        __slots__ = ("__dict__", "a")

    one, other = Slotted(), Slotted()
    one.a, other.a = 1, 2
    assert fingerprint(Setting(1)) != fingerprint(Setting(2))
    assert fingerprint(one) != fingerprint(other)


def reads(text):
    """Return a function with this text, of a module of the user's that imports some of Python's."""
    namespace = {"__name__": "users_code", "sys": sys, "builtins": builtins, "imported": importlib.import_module}
    exec(f"def made():\n    {text}", namespace)
    return namespace["made"]


@pytest.mark.parametrize(
    "text",
    [
        "return made.__globals__['WIDTH']",
        "return sys._getframe().f_globals['WIDTH']",
        "return builtins.eval('WIDTH')",
        "return imported('settings').WIDTH",
        "import sys; return sys.modules['settings'].WIDTH",
        "from importlib import import_module; return import_module('settings').WIDTH",
        "import builtins; return builtins.eval('WIDTH')",
        "return made.__annotations__['width']",
    ],
)
def test_ways_round_the_text_of_code_are_refused(text):
    with pytest.raises(Unfollowable, match="values that the code does not name"):
        fingerprint(reads(text))


def test_what_the_user_puts_into_builtins_counts(monkeypatch):
    monkeypatch.setattr(builtins, "USERS_WIDTH", 3, raising=False)
    before = fingerprint(reads("return USERS_WIDTH"))
    monkeypatch.setattr(builtins, "USERS_WIDTH", 4)
    assert fingerprint(reads("return USERS_WIDTH")) != before


class Own(np.random.RandomState):
    scale = 1


ORDERS = {
    "a namespace": (types.SimpleNamespace(a=1, b=2), types.SimpleNamespace(b=2, a=1)),
    "a name with None": (types.SimpleNamespace(a_=None), types.SimpleNamespace()),
    "parsed arguments": (argparse.Namespace(a=1, b=2), argparse.Namespace(b=2, a=1)),
    "a set of numbers": ({0, 8}, {8, 0}),
    "a frozen set of numbers": (frozenset([0, 8]), frozenset([8, 0])),
    "a class of random numbers": (Own(0), np.random.RandomState(0)),
}


@pytest.mark.parametrize("case", ORDERS)
def test_what_a_loop_or_a_draw_sees_counts(case):
    one, other = ORDERS[case]
    assert fingerprint(one) != fingerprint(other)


def test_autocast_is_among_the_surroundings():
    before = fingerprint(surroundings("cpu"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fingerprint(surroundings("cpu")) != before
    assert fingerprint(surroundings("cpu")) == before


@pytest.mark.parametrize(
    "value", [np.arange(6.0), {"train": (np.eye(3), [1, 2])}, "text"], ids=["array", "parts", "text"]
)
def test_a_known_fingerprint_stands_for_its_value(value):
    known = Fingerprint(fingerprint(value))
    assert key_of("fit", known, 3, lr=0.1) == key_of("fit", value, 3, lr=0.1)
    assert key_of("fit", str(known), 3, lr=0.1) != key_of("fit", value, 3, lr=0.1)  # a text is a text
    assert key_of("fit", Fingerprint(fingerprint("another")), 3, lr=0.1) != key_of("fit", value, 3, lr=0.1)


def test_versions_are_read_once(monkeypatch):
    before = surroundings("cpu")
    monkeypatch.setattr("sklgap.memory._key.version", None)
    assert surroundings("cpu") == before
