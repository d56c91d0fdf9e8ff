"""Gradient hooks on parameters do not reach a measurement, which takes the gradient of the loss itself."""

import copy

import pytest
import torch
from torch import nn

from sklgap.monitor import BatchSizeMonitor, check_accumulation
from sklgap.objective import Objective, check_objective
from sklgap.objective._gradient_hooks import accumulation_hooked_parameter, check_no_gradient_hooks, hooked_parameter
from tests.tiny import Mlp, blobs, small

X, Y = blobs()
CE = nn.CrossEntropyLoss()


def halve(gradient):
    return gradient / 2


def clear(parameter):
    parameter.grad.zero_()


def hooked(kind="register_hook"):
    torch.manual_seed(0)
    module = Mlp()
    getattr(module.layers[2].weight, kind)(halve if kind == "register_hook" else clear)
    return module


KINDS = ["register_hook", "register_post_accumulate_grad_hook"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_measurement_is_that_without_the_hook(kind):
    module = hooked(kind)
    f, g = (Objective(m, CE, (torch.from_numpy(X), torch.from_numpy(Y))) for m in (module, copy.deepcopy(module)))
    assert hooked_parameter(copy.deepcopy(module)) is None
    v = torch.ones(f.n_params)
    for first, second in [
        (f.gradient()[1], g.gradient()[1]),
        (f.gradient(f.theta0 + 0.1)[1], g.gradient(g.theta0 + 0.1)[1]),
        (f.batch_gradient(range(9))[1], g.batch_gradient(range(9))[1]),
        (f.row_gradient_norms(range(9)), g.row_gradient_norms(range(9))),
        (f.hvp(v), g.hvp(v)),
        (f.hessian_operator()(v), g.hessian_operator()(v)),
    ]:
        assert torch.equal(first, second)


class Hooked(Mlp):
    def __init__(self):
        super().__init__()
        self.layers[0].weight.register_hook(halve)


def test_a_fitted_estimator_is_measured_without_the_hook():
    model = small(net=Hooked).fit(X, Y)
    assert hooked_parameter(model.module_) == "layers.0.weight"
    plain = Mlp()
    plain.load_state_dict(model.module_.state_dict())
    expected = Objective(plain, CE, (torch.from_numpy(X), torch.from_numpy(Y))).gradient()[1]
    assert torch.equal(check_objective(model, X, Y).gradient()[1], expected)


def test_the_names():
    assert hooked_parameter(Mlp()) is None
    assert hooked_parameter(hooked()) == "layers.2.weight"
    assert accumulation_hooked_parameter(hooked()) is None
    assert accumulation_hooked_parameter(hooked(KINDS[1])) == hooked_parameter(hooked(KINDS[1])) == "layers.2.weight"
    check_no_gradient_hooks(Mlp(), "net", "")
    module = Mlp()
    module.layers[0].bias.register_hook(halve).remove()
    assert hooked_parameter(module) is None


def accumulate(module, micro_batches):
    for inputs, target in micro_batches:
        (CE(module(inputs), target) / len(micro_batches)).backward()


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_of_accumulation_uses_copies(kind):
    batch = torch.from_numpy(X), torch.from_numpy(Y)
    assert check_accumulation(accumulate, Mlp(), batch, [30, 30]).same
    with pytest.raises(ValueError, match=r"^module must not have gradient hooks .* 'layers.2.weight'; remove it"):
        check_accumulation(accumulate, hooked(kind), batch, [30, 30])


def test_a_monitor_of_micro_batches_refuses_hooks_that_change_the_sum():
    inputs, target = torch.from_numpy(X), torch.from_numpy(Y)
    for kind, refused in zip(KINDS, (False, True), strict=True):
        module = hooked(kind)
        monitor = BatchSizeMonitor(module, CE)
        if refused:
            with (
                pytest.raises(ValueError, match=r"^module must not have post-accumulate hooks .*use step\(batch\)"),
                monitor.accumulate(30),
            ):
                pass
            monitor.step((inputs, target))
            continue
        for part in (slice(30), slice(30, 60)):
            with monitor.accumulate(30):
                (CE(module(inputs[part]), target[part]) / 2).backward()
        monitor.step()
        assert monitor.n_measurements == 1
