"""Two parameters in one memory are refused; different views of one tensor, and constants, are not."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import weight_distance
from sklgap.monitor import BatchSizeMonitor, StabilityMonitor, check_accumulation
from sklgap.objective import Objective
from sklgap.objective._parameters import trainable_parameters
from sklgap.objective._shared_memory import check_memory

CE = nn.CrossEntropyLoss()
X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4


class Pair(nn.Module):
    """An encoder and a decoder of the same shape."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

    def forward(self, X):
        return self.b(torch.tanh(self.a(X)))


def tied_by_data():
    module = Pair()
    module.b.weight.data = module.a.weight.data
    return module


def tied_by_object():
    module = Pair()
    module.b.weight = module.a.weight
    return module


def of_views(first, second):
    module = Pair()
    module.a.weight, module.b.weight = nn.Parameter(first), nn.Parameter(second)
    return module


def through_numpy():
    memory = np.zeros((4, 4), dtype=np.float32)
    return of_views(torch.from_numpy(memory), torch.from_numpy(memory))


FLAT = torch.randn(40)
WIDE = torch.randn(4, 8)
SAME = "got 'a.weight' and 'b.weight'; assign the same Parameter to both, b.weight = a.weight."
PARTLY = "got 'a.weight' and 'b.weight'; compute one from the other in the forward pass"
REFUSED = {
    "data": (tied_by_data, SAME),
    "a Parameter of the same tensor": (lambda: of_views(FLAT[:16].view(4, 4), FLAT[:16].view(4, 4)), SAME),
    "numpy": (through_numpy, SAME),
    "transposed": (lambda: of_views(FLAT[:16].view(4, 4), FLAT[:16].view(4, 4).T), PARTLY),
    "one number in common": (lambda: of_views(FLAT[:16].view(4, 4), FLAT[15:31].view(4, 4)), PARTLY),
    "columns that overlap": (lambda: of_views(WIDE[:, :4], WIDE[:, 3:7]), PARTLY),
    "real and complex": (
        lambda: of_views(FLAT[:16].view(4, 4), torch.view_as_complex(FLAT[:32].view(4, 4, 2))),
        PARTLY,
    ),
}
ALLOWED = {
    "one object": tied_by_object,
    "a flat buffer": lambda: of_views(FLAT[:16].view(4, 4), FLAT[16:32].view(4, 4)),
    "a flat buffer, backwards": lambda: of_views(FLAT[16:32].view(4, 4), FLAT[:16].view(4, 4)),
    "columns": lambda: of_views(WIDE[:, :4], WIDE[:, 4:]),
    "every other column": lambda: of_views(WIDE[:, ::2], WIDE[:, 1::2]),
    "a recurrent layer": lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True),
    "no numbers": lambda: nn.ParameterList([torch.ones(0), torch.ones(0)]),
    "without memory": lambda: nn.Sequential(nn.Linear(4, 4, device="meta"), nn.Linear(4, 4, device="meta")),
    "sparse": lambda: nn.ParameterList([torch.eye(3).to_sparse(), torch.eye(3).to_sparse()]),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(4)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence_with_both_names(case):
    build, words = REFUSED[case]
    with pytest.raises(ValueError, match=r"^module must not have two parameters in the same memory") as caught:
        trainable_parameters(build())
    assert words in str(caught.value)
    with pytest.raises(ValueError, match=r"^net must not have two parameters"):
        trainable_parameters(build(), owner="net")


@pytest.mark.parametrize("case", ALLOWED)
def test_allowed(case):
    module = ALLOWED[case]()
    assert list(trainable_parameters(module)) == [name for name, _ in module.named_parameters()]


def test_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert len(trainable_parameters(Pair())) == 2


def with_buffer(make):
    module = Pair()
    module.register_buffer("kept", make(module.a.weight))
    return module


@pytest.mark.parametrize(
    "make",
    [lambda w: w.detach(), lambda w: w.data.T, lambda w: w.detach()[1], lambda w: w],
    ids=["whole", "transposed", "a row", "the Parameter itself"],
)
def test_a_buffer_in_the_memory_of_a_parameter_is_refused(make):
    with pytest.raises(ValueError, match=r"^module must not have a buffer in the memory of a parameter.*") as caught:
        trainable_parameters(with_buffer(make))
    assert "got the buffer 'kept' in the memory of 'a.weight'; register a copy" in str(caught.value)
    trainable_parameters(with_buffer(lambda w: make(w).detach().clone()))


def test_constants_may_share_memory():
    module = tied_by_data()
    module.b.weight.requires_grad_(False)  # a step of a.weight would move it
    with pytest.raises(ValueError, match=re.escape("'a.weight' and 'b.weight'")):
        trainable_parameters(module)
    module.a.weight.requires_grad_(False)
    assert trainable_parameters(module) == {}
    module.c = nn.Linear(2, 2)
    assert list(trainable_parameters(module)) == ["c.weight", "c.bias"]
    # Parameters that match no pattern are constants.
    other = tied_by_data()
    other.c = nn.Linear(2, 2)
    assert list(trainable_parameters(other, "c.*")) == ["c.weight", "c.bias"]
    with pytest.raises(ValueError, match=re.escape("'a.weight' and 'b.weight'")):
        trainable_parameters(other, "a.*")
    # Buffers among themselves, as a table that all layers read.
    buffers = Pair()
    buffers.register_buffer("whole", torch.zeros(4))
    buffers.register_buffer("part", buffers.whole[:2])
    check_memory(buffers, ["a.weight", "b.weight"])


def test_many_parameters_take_a_moment_only():
    module = nn.ParameterList([piece.detach() for piece in torch.randn(3000, 2).unbind()])
    module.append(module[1234].detach())
    with pytest.raises(ValueError, match="'1234' and '3000'; assign the same Parameter to both, 3000 = 1234"):
        trainable_parameters(module)


def loss_of(module, micro_batches):
    for inputs, target in micro_batches:
        (CE(module(inputs), target) / len(micro_batches)).backward()


COLLECTS = {
    "objective": lambda m: Objective(m, CE, (X, Y)),
    "some parameters": lambda m: Objective(m, CE, (X, Y), parameters="a.*"),
    "distance": lambda m: weight_distance(m, Pair()),
    "batch size": lambda m: BatchSizeMonitor(m, CE),
    "groups": lambda m: BatchSizeMonitor(m, CE, parameters={"first": "a.*", "second": "b.*"}),
    "accumulation": lambda m: check_accumulation(loss_of, m, (X, Y), [6, 6]),
    "stability": lambda m: StabilityMonitor(m, CE, torch.optim.SGD(m.parameters(), lr=0.1), (X, Y)),
}


@pytest.mark.parametrize("case", COLLECTS)
def test_refused_wherever_parameters_are_collected(case):
    with pytest.raises(ValueError, match=r"'a.weight' and 'b.weight'; assign the same Parameter"):
        COLLECTS[case](tied_by_data())
    COLLECTS[case](ALLOWED["a flat buffer"]())


def test_a_tie_by_object_is_measured_as_one_parameter():
    assert Objective(tied_by_object(), CE, (X, Y)).n_params == 16
    assert Objective(Pair(), CE, (X, Y)).n_params == 32
