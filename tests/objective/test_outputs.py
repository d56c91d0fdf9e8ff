"""The tensor that a module's outputs hold, whatever they are."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch

from sklgap.objective._outputs import logits_of

LOGITS, OTHER = torch.zeros(3, 2), torch.ones(3)
Named = namedtuple("Named", ["loss", "logits"])


@pytest.mark.parametrize(
    "outputs",
    [
        LOGITS,
        (LOGITS, OTHER),
        [LOGITS],
        {"loss": OTHER, "logits": LOGITS},
        OrderedDict(logits=LOGITS),
        SimpleNamespace(logits=LOGITS),
        Named(OTHER, LOGITS),
    ],
    ids=["tensor", "tuple", "list", "dict", "ordered dict", "object", "named tuple"],
)
def test_logits_are_found(outputs):
    assert logits_of(outputs) is LOGITS


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (None, "got a NoneType"),
        ((), "got a tuple"),
        (((LOGITS,), OTHER), "a tuple that starts with a tuple"),
        ({"out": LOGITS}, "a dict with 'out'"),
        (SimpleNamespace(logits=None), "got a SimpleNamespace"),
    ],
)
def test_anything_else_is_refused(outputs, words):
    with pytest.raises(TypeError, match=words):
        logits_of(outputs)
