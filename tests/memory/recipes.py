"""Recipes of objects that parameters hold: the same recipe makes equal objects, any other makes an object that differs.

A recipe is (kind, number, recipes of the parts). Code is executed anew for every object, so that equal functions and
classes are never the same ones.
"""

import collections
import dataclasses
import enum
import functools
import random
import types

import numpy as np
import torch
from torch import nn

from sklgap import SAM, Adversarial

LOOK_ALIKE = [0, 0.0, -0.0, False, "0", b"0", 0j, None, "", (), float("nan"), np.float64(0), np.int64(0), np.float32(0)]


def code(text, **names):
    """Return what executing the text defines under the name `made`, as a module of the user would."""
    namespace = {"__name__": "users_code", "nn": nn, "torch": torch, "functools": functools, **names}
    exec(text, namespace)
    return namespace["made"]


def module(**names):
    found = types.ModuleType("users_settings")
    vars(found).update(names)
    return found


class Number(float):
    """As a reader of settings files has it."""

    def __init__(self, value, style="plain"):
        self.style = style


class Colour(enum.IntEnum):
    RED, GREEN, BLUE, GREY, PINK, TEAL = range(6)


Pair = collections.namedtuple("Pair", "first rest")


@dataclasses.dataclass
class Setting:
    size: int
    rest: list = dataclasses.field(default_factory=list)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b


class Held:
    def __init__(self, number, parts):
        self.number, self.parts = number, parts


def layers(number, parts):
    names = [["a", "b", "c"], ["a", "c", "b"], ["b", "a", "c"], ["b", "c", "a"], ["c", "a", "b"], ["c", "b", "a"]]
    made = {"a": nn.Tanh(), "b": nn.ReLU(), "c": nn.Sigmoid()}
    found = nn.Sequential(collections.OrderedDict((name, made[name]) for name in names[number]))
    found.held = parts
    return found


def tied(number, parts):
    torch.manual_seed(0)
    found = nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(3)])
    for layer in found[1:]:
        layer.load_state_dict(found[0].state_dict())
    for first, second in [[], [(0, 1)], [(0, 2)], [(1, 2)], [(0, 1), (0, 2)], [(0, 1)]][number]:
        found[second].weight = found[first].weight
    if number == 5:
        found[2].weight.requires_grad_(False)
    found.held = parts
    return found


def hooked(number, parts):
    found = nn.Linear(2, 2)
    with torch.no_grad():
        found.weight.fill_(1), found.bias.fill_(0)
    for place in range(2):
        hook = code(
            "def made(module, args, output, scale=scale, parts=parts): return output * scale",
            scale=number + place,
            parts=parts,
        )
        found.register_forward_hook(hook)
    return found


def criterion(number, parts):
    found = nn.CrossEntropyLoss(weight=torch.arange(3.0) + number)
    found.held = parts
    return found


def shared(number, parts):
    """Lists that are one, or equal: which of three is which."""
    lists = [[1, *parts] for _ in range(3)]
    first, second, third = [(0, 1, 2), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 0, 0), (0, 0, 2)][number]
    return [lists[first], lists[second], lists[third], number == 5]


def generator(number, parts):
    return [torch.Generator().manual_seed(number), parts]


def advanced(number, parts):
    found = np.random.RandomState(0)
    found.random_sample(number)
    return Held(found, parts)


READS = {
    "closure": "def make(a, parts):\n    def inner(x): return x + a, parts\n    return inner\nmade = make(n, parts)",
    "default": "def made(x, a=n, parts=parts): return x + a",
    "keyword": "def made(x, *, a=n, parts=parts): return x + a",
    "function attribute": "def made(x): return x * made.scale\nmade.scale, made.parts = n, parts",
    "wraps": "def make(n, parts):\n    @functools.wraps(nn.init.normal_)\n    def init(m): return n, parts\n"
    "    return init\nmade = make(n, parts)",
    "wraps a library": "def make(n, parts):\n    @functools.wraps(torch.relu)\n    def f(m): return n, parts\n"
    "    return f\nmade = [make(n, parts)]",
    "partial": "def f(*args, **kwargs): return args\nmade = functools.partial(f, n, parts=parts)",
    "cached": "def make(n, parts):\n    @functools.lru_cache\n    def f(x): return x * n, parts\n    return f\n"
    "made = make(n, parts)",
    "global number": "def made(x): return x * n, parts",
    "global in a lambda": "made = lambda x: [(lambda y: y * n + len(parts))(z) for z in x]",
    "global dict": "S = {'std': n, 'parts': parts}\ndef made(x): return x * S['std']",
    "global list": "S = [n, parts]\ndef made(x): return x * S[0]",
    "global through a function": "def other(x): return x * n, parts\ndef made(x): return other(x)",
    "global that calls itself": "def made(x): return n if x > n else made(x + 1), parts",
    "class attribute": "class made(nn.Module):\n    scale = n\n    held = parts\n"
    "    def forward(self, x): return x * self.scale",
    "class list": "class made:\n    steps = [n, parts]",
    "method": "class made:\n    def f(self, x): return x * n, parts",
    "static method": "class made:\n    @staticmethod\n    def f(x, a=n): return x * a, parts",
    "class method": "class made:\n    @classmethod\n    def f(cls, x, a=n): return x * a, parts",
    "property": "class made:\n    @property\n    def f(self): return n, parts",
    "cached property": "class made:\n    @functools.cached_property\n    def f(self): return n, parts",
    "base": "class Base:\n    a = n\nclass made(Base):\n    held = parts",
    "metaclass": "class Meta(type):\n    def __call__(cls): return n\nclass made(metaclass=Meta):\n    held = parts",
    "instance of a class": "class C:\n    a = n\nmade = C()\nmade.parts = parts",
    "bound method": "class C:\n    def f(self): return self.a\nc = C()\nc.a, c.parts = n, parts\nmade = c.f",
    "partial method": "class made:\n    def f(self, a): return a\n    g = functools.partialmethod(f, n)\n"
    "    held = parts",
    "descriptor": "class D:\n    def __init__(self, a): self.a = a\n    def __get__(self, o, t): return self.a\n"
    "class made:\n    d = D(n)\n    held = parts",
}

NAMESPACES = {
    "global namespace": "def made(x): return x * S.n, S.parts",
    "global module": "def made(x): return x * S.n, S.parts",
    "global module handed on": "def made(x): return vars(S)",
}

MAKERS = {
    "look alike": lambda n, parts: [LOOK_ALIKE[n], parts],
    "look alike too": lambda n, parts: (LOOK_ALIKE[n + 6], parts),
    "int": lambda n, parts: [n, *parts],
    "float": lambda n, parts: [n / 10, *parts],
    "text": lambda n, parts: ["abcdef"[: n + 1], *parts],
    "bytes": lambda n, parts: [bytes([n]), *parts],
    "tuple": lambda n, parts: (n, *parts),
    "deque": lambda n, parts: collections.deque([1, *parts], maxlen=10 + n),
    "dict": lambda n, parts: {"a": n, "b": parts},
    "dict in order": lambda n, parts: {"abcdef"[n]: 0, **dict.fromkeys("abcdef", 0), "parts": parts},
    "ordered": lambda n, parts: collections.OrderedDict([("a", n), ("b", parts)]),
    "default dict": lambda n, parts: collections.defaultdict([list, dict, set, int, float, tuple][n], a=parts),
    "counter": lambda n, parts: [collections.Counter({"a": n}), parts],
    "set": lambda n, parts: [{f"member {i}" for i in range(9 + n)}, parts],
    "frozen set": lambda n, parts: [frozenset({f"member {i}" for i in range(9 + n)}), parts],
    "range": lambda n, parts: [range(n), parts],
    "slice": lambda n, parts: [slice(n), parts],
    "namespace": lambda n, parts: types.SimpleNamespace(a=n, b=parts),
    "number of a reader": lambda n, parts: [Number(n), parts],
    "number's attribute": lambda n, parts: [Number(1, style=str(n)), parts],
    "enum": lambda n, parts: [Colour(n), parts],
    "named tuple": lambda n, parts: Pair(n, parts),
    "data class": lambda n, parts: Setting(n, parts),
    "slots": lambda n, parts: Slotted(n, parts),
    "object": Held,
    "array": lambda n, parts: [np.arange(3) + n, parts],
    "type of an array": lambda n, parts: [np.arange(3).astype(["i1", "i2", "i4", "i8", ">i4", "f4"][n]), parts],
    "shape of an array": lambda n, parts: [np.zeros([(12,), (3, 4), (4, 3), (2, 6), (6, 2), (1, 12)][n]), parts],
    "array of objects": lambda n, parts: np.array([n, parts, None], dtype=object),
    "masked array": lambda n, parts: [np.ma.masked_equal(np.arange(6), n), parts],
    "NumPy's number": lambda n, parts: [np.float32(n), parts],
    "tensor": lambda n, parts: [torch.arange(3) + n, parts],
    "type of a tensor": lambda n, parts: [
        torch.arange(3).to([torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.bfloat16][n]),
        parts,
    ],
    "dtype": lambda n, parts: [
        [torch.half, torch.bfloat16, torch.float, torch.double, torch.int, torch.long][n],
        parts,
    ],
    "NumPy's state": advanced,
    "NumPy's generator": lambda n, parts: [np.random.default_rng(n), parts],
    "Python's random": lambda n, parts: [random.Random(n), parts],
    "torch's generator": generator,
    "layers in order": layers,
    "tied": tied,
    "hooks": hooked,
    "criterion": criterion,
    "shared": shared,
    "remedy": lambda n, parts: [SAM(rho=n / 10), Adversarial(), parts],
    "plain partial": lambda n, parts: functools.partial(nn.Linear, n, device=None, dtype=parts),
    **{
        name: functools.partial(lambda text, n, parts: code(text, n=n, parts=parts), text)
        for name, text in READS.items()
    },
    "global namespace": lambda n, parts: code(
        NAMESPACES["global namespace"], S=types.SimpleNamespace(n=n, parts=parts)
    ),
    "global module": lambda n, parts: code(NAMESPACES["global module"], S=module(n=n, parts=parts)),
    "global module handed on": lambda n, parts: code(NAMESPACES["global module handed on"], S=module(n=n, parts=parts)),
}
KINDS = sorted(MAKERS)


def make(recipe):
    """Return a new object."""
    kind, number, parts = recipe
    return MAKERS[kind](number, [make(part) for part in parts])


def draw(rng, depth=3):
    """Return a random recipe."""
    n_parts = rng.choice([0, 1, 1, 2]) if depth else 0
    return rng.choice(KINDS), rng.randrange(6), tuple(draw(rng, depth - 1) for _ in range(n_parts))


def changed(rng, recipe):
    """Return a recipe that differs in one place: a number, a kind, the order of parts, or their number."""
    kind, number, parts = recipe
    choices = ["number", "kind", "more", *["below"] * 3 * len(parts), *["swap"] * (len(set(parts)) > 1)]
    choice = rng.choice(choices)
    if choice == "number":
        return kind, rng.choice([n for n in range(6) if n != number]), parts
    if choice == "kind":
        return rng.choice([k for k in KINDS if k != kind]), number, parts
    if choice == "more":
        return kind, number, (*parts, draw(rng, 0))
    if choice == "swap":
        return kind, number, parts[::-1]
    place = rng.randrange(len(parts))
    return kind, number, (*parts[:place], changed(rng, parts[place]), *parts[place + 1 :])
