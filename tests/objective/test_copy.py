"""Private copies: what ``copy.deepcopy`` gives, for modules that hold more than layers."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from sklgap.objective._copy import deepcopy
from tests.tiny import TinyC1, TinyF1


class Holds(nn.Module):
    """Parts that stand at several places, a part that knows the whole, and things of all kinds."""

    def __init__(self):
        super().__init__()
        self.a = self.again = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.register_buffer("whole", torch.arange(6.0))
        self.register_buffer("part", self.whole[2:4])
        self.none = None
        self.register_buffer("nothing", None)
        self.shared = self.same = []
        self.names = {"x": [self.a], "empty": {}}
        self.order = OrderedDict()
        self.number, self.text, self.pair = 3, "text", (self.b, 2)
        self.above = [self]
        self.plain = torch.ones(2)

    def forward(self, x):
        return self.b(self.again(x))


def test_what_is_one_object_stays_one():
    module = Holds()
    copied = deepcopy(module)
    assert copied.a is copied.again is copied.names["x"][0]
    assert copied.a is not module.a
    assert copied.b.weight is copied.a.weight
    assert copied.above[0] is copied
    assert copied.pair[0] is copied.b
    assert copied.shared is copied.same
    assert copied.shared is not module.shared
    copied.whole[2] = -1
    assert float(copied.part[0]) == -1
    assert float(module.part[0]) == 2
    assert copied.nothing is None
    assert type(copied.order) is OrderedDict
    copied.plain[0] = 5
    assert float(module.plain[0]) == 1


def test_the_cycle_of_two_modules():
    first, second = nn.Sequential(), nn.Sequential()
    first.other, second.__dict__["back"] = second, first
    copied = deepcopy(first)
    assert copied.other.back is copied


class Custom(nn.Linear):
    """It says itself how it is copied."""

    def __deepcopy__(self, memo):
        made = type(self)(2, 2)
        made.mark = "by itself"
        return made


class Stated(nn.Linear):
    """Its state is not its dict."""

    def __getstate__(self):
        return {**self.__dict__, "restored": "no"}

    def __setstate__(self, state):
        super().__setstate__({**state, "restored": "yes"})


@pytest.mark.parametrize("inside", [False, True])
def test_modules_that_are_copied_in_their_own_way(inside):
    def copied(module):
        return deepcopy(nn.Sequential(module))[0] if inside else deepcopy(module)

    assert copied(Custom(2, 2)).mark == "by itself"
    assert copied(Stated(2, 2)).restored == "yes"


def _compiled():
    module = nn.Linear(3, 3)
    module._compiled_call_impl = print
    return module


@pytest.mark.parametrize(
    "make",
    [
        lambda: TinyF1(4, 3),
        lambda: TinyC1((1, 8, 8), 3),
        lambda: nn.LSTM(3, 4, 2),
        lambda: nn.TransformerEncoderLayer(8, 2, batch_first=True),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        lambda: nn.ModuleDict({"a": nn.ParameterList([torch.ones(2)]), "b": nn.PReLU()}),
        Holds,
    ],
)
def test_as_python_copies(make):
    module = make()
    module.requires_grad_(False)
    next(module.parameters()).requires_grad_(True)
    for train in (True, False):
        module.train(train)
        ours, pythons = deepcopy(module), copy.deepcopy(module)
        assert [type(m) for m in ours.modules()] == [type(m) for m in pythons.modules()]
        assert [m.training for m in ours.modules()] == [m.training for m in pythons.modules()]
        assert [sorted(m.__dict__) for m in ours.modules()] == [sorted(m.__dict__) for m in pythons.modules()]
        for (name, p), (other, q) in zip(ours.named_parameters(), pythons.named_parameters(), strict=True):
            assert name == other
            assert torch.equal(p, q)
            assert p.requires_grad == q.requires_grad
            assert p.data_ptr() != dict(module.named_parameters())[name].data_ptr()
        assert all(torch.equal(b, dict(pythons.named_buffers())[n]) for n, b in ours.named_buffers())


def test_hooks_go_with_the_copy():
    module, seen = nn.Linear(3, 3), []
    module.register_forward_hook(lambda *_: seen.append(1))
    deepcopy(module)(torch.ones(1, 3))
    assert seen == [1]


def test_compiled_code_stays_behind():
    assert deepcopy(_compiled())._compiled_call_impl is None
