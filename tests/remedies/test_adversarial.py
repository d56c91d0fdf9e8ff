import copy

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.remedies import Adversarial
from tests.cases import DOUBLE, PLAIN, PROBLEMS
from tests.remedies.steps import assert_equal, check_neutral, gradient, stepped


def _no_loss(params, buffers, batch):
    raise AssertionError


@pytest.mark.parametrize("remedy", [Adversarial(0), Adversarial(0.0, clip=(0, 1)), Adversarial(weight=0)])
def test_neutral(remedy):
    assert remedy.transform_loss(_no_loss, None) is _no_loss
    check_neutral(remedy)


@pytest.mark.parametrize(("epsilon", "weight", "clip"), [(0.1, 0.5, None), (0.3, 0.8, (-0.5, 1.0)), (0.1, 1, None)])
@pytest.mark.parametrize("name", PROBLEMS)
def test_against_plain_torch(name, epsilon, weight, clip):
    module, criterion, X, y = PROBLEMS[name]()
    gradients, _, _ = stepped(PROBLEMS[name](), [Adversarial(epsilon, weight, clip)])

    X.requires_grad_()
    clean = criterion(module(X), y)
    (slope,) = torch.autograd.grad(clean, X, retain_graph=True)
    moved = (X + epsilon * slope.sign()).detach()
    if clip is not None:
        moved = moved.clip(*clip)
    assert_equal(gradients, gradient(module, (1 - weight) * clean + weight * criterion(module(moved), y)), DOUBLE)


def test_closed_form_for_a_linear_net():
    # Of a linear net with two classes the margin of a row falls by epsilon times the 1-norm of the slope.
    torch.manual_seed(0)
    module, X, y = nn.Linear(4, 2).double(), torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 2
    params = trainable_parameters(module)
    loss_fn = Adversarial(0.3, weight=1).transform_loss(ModuleLoss(module, nn.CrossEntropyLoss(), params), None)
    loss, aux = loss_fn(params, {}, Batch(X, y))
    slope = module.weight[1] - module.weight[0]
    margin = (2 * y - 1) * (X @ slope + module.bias[1] - module.bias[0])
    assert_equal(loss, nn.functional.softplus(0.3 * slope.abs().sum() - margin).mean(), DOUBLE)
    assert_equal(aux.loss, nn.functional.softplus(-margin).mean().detach(), DOUBLE)


@pytest.mark.parametrize("name", PLAIN)
def test_a_row_of_negative_weight_is_attacked_all_the_same(name):
    module, criterion, X, y = PLAIN[name]()
    weight = torch.linspace(-1, 2, len(X), dtype=torch.float64)
    gradients, _, _ = stepped(PLAIN[name](), [Adversarial(0.2)], factor=weight)

    X.requires_grad_()
    (slope,) = torch.autograd.grad(criterion(module(X), y), X)  # of the rows' own losses
    rows = nn.CrossEntropyLoss(reduction="none")
    loss = sum((weight * rows(module(Z), y)).mean() / 2 for Z in (X, (X + 0.2 * slope.sign()).detach()))
    assert_equal(gradients, gradient(module, loss), DOUBLE)


def test_the_net_sees_rows_that_are_moved_by_epsilon_and_clipped():
    module, criterion, X, y = PLAIN["tanh"]()
    seen = []
    module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    before = X.clone()
    stepped((module, criterion, X, y), [Adversarial(0.2, clip=(-1, 1))])
    assert_equal(X, before)
    assert_equal(seen[0], X)
    inside = X.abs() < 0.8
    assert_equal((seen[1] - X).abs()[inside], torch.full_like(X[inside], 0.2), DOUBLE)
    assert seen[1].abs().max() == 1
    assert len(seen) == 2


def test_no_gradient_flows_through_the_attack_and_the_data_need_none():
    module, criterion, X, y = PLAIN["tanh"]()
    params = trainable_parameters(module)
    copied = copy.deepcopy(module)
    Adversarial().transform_loss(ModuleLoss(module, criterion, params), None)(params, {}, Batch(X, y))
    assert not X.requires_grad
    assert all(p.grad is None for p in module.parameters())
    assert_equal(dict(module.state_dict()), dict(copied.state_dict()))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epsilon": -0.1}, "epsilon must be a number of at least 0; got -0.1"),
        ({"epsilon": float("nan")}, "epsilon must be a number of at least 0; got nan"),
        ({"epsilon": "0.1"}, "epsilon must be a number of at least 0; got '0.1'"),
        ({"epsilon": True}, "epsilon must be a number of at least 0; got True"),
        ({"weight": 1.1}, r"weight must be a number in \[0, 1\]; got 1.1"),
        ({"weight": None}, r"weight must be a number in \[0, 1\]; got None"),
        ({"clip": 1}, r"clip must be None or a pair \(low, high\) of numbers with low < high; got 1"),
        ({"clip": (1, 0)}, r"clip must be None or a pair .* got \(1, 0\)"),
        ({"clip": (0, 1, 2)}, r"clip must be None or a pair .* got \(0, 1, 2\)"),
        ({"clip": (0, float("nan"))}, r"clip must be None or a pair .* got \(0, nan\)"),
        ({"clip": "ab"}, r"clip must be None or a pair .* got 'ab'"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        Adversarial(**params).check()


def test_defaults_are_allowed():
    Adversarial().check()
    Adversarial(0.25, 1.0, clip=[0, 1]).check()
