import dataclasses
import functools
import os
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import nn

from sklgap import SAM, LBGapClassifier, TrainingRecorder
from sklgap.memory import fingerprint
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
    assert (fingerprint(one) == fingerprint(other)) == (repr(one) == repr(other) or _sorted(one) == _sorted(other))


def _sorted(value):
    """The text of a value, whatever the order of its dicts."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{key!r}: {_sorted(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list | tuple):
        return type(value).__name__ + "(" + ", ".join(_sorted(item) for item in value) + ")"
    return repr(value)


def test_order_of_dicts_and_kind_of_number_do_not_matter():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(np.float64(0.5)) == fingerprint(0.5)
    assert fingerprint(np.arange(6).reshape(2, 3).T) == fingerprint(np.arange(6).reshape(2, 3).T.copy())
    assert fingerprint(torch.ones(4)[::2]) == fingerprint(torch.ones(2))


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


def test_what_cannot_be_told_is_an_error():
    with pytest.raises(TypeError, match="cannot pickle"):
        fingerprint(threading.Lock())


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
