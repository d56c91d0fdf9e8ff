import copy

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.objective._autodiff import value_and_grad
from sklgap.objective._loss import is_classification, make_loss_fn, n_correct, per_sample
from sklgap.objective._parameters import copy_of, trainable_parameters
from tests.cases import BIT_FOR_BIT, DOUBLE, PROBLEMS, WITH_BATCH_NORM


def _state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("name", PROBLEMS)
def test_it_is_the_loss_of_the_module(name, own):
    module, criterion, X, y = PROBLEMS[name]()
    plain = copy.deepcopy(module)
    params = trainable_parameters(module)
    loss_fn = make_loss_fn(module, criterion, params)
    given = params if own else copy_of(params)
    loss, aux = loss_fn(given, dict(module.named_buffers()), Batch(X, y))
    outputs = plain(X)
    torch.testing.assert_close(loss, criterion(outputs, y), **BIT_FOR_BIT)
    torch.testing.assert_close(aux.loss, loss.detach(), **BIT_FOR_BIT)
    torch.testing.assert_close(aux.y_pred, outputs.detach(), **BIT_FOR_BIT)
    assert not aux.loss.requires_grad
    # The outputs stay in the graph, for losses that are built on them, where there is one.
    assert aux.y_pred.requires_grad == loss.requires_grad == own


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_outputs_leave_the_graph_with_the_gradient(name):
    module, criterion, X, y = PROBLEMS[name]()
    params = trainable_parameters(module)
    grad_fn = value_and_grad(make_loss_fn(module, criterion, params))
    _, aux = grad_fn(params, dict(module.named_buffers()), Batch(X, y))
    assert not aux.y_pred.requires_grad
    assert not aux.loss.requires_grad


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_own_parameters_move_the_modules_buffers_others_only_return_them(name):
    module, criterion, X, y = WITH_BATCH_NORM[name]()
    after = copy.deepcopy(module)
    after(X)
    params, buffers = trainable_parameters(module), dict(module.named_buffers())
    loss_fn = make_loss_fn(module, criterion, params)
    before = _state(module)
    _, aux = loss_fn(copy_of(params), buffers, Batch(X, y))
    torch.testing.assert_close(_state(module), before, **BIT_FOR_BIT)
    torch.testing.assert_close(dict(aux.buffers), dict(after.named_buffers()), **BIT_FOR_BIT)
    _, aux = loss_fn(params, buffers, Batch(X, y))
    assert aux.buffers is buffers
    torch.testing.assert_close(buffers, dict(after.named_buffers()), **BIT_FOR_BIT)


@pytest.mark.parametrize("name", PROBLEMS)
def test_other_parameters_leave_the_modules_own_where_they_are(name):
    module, criterion, X, y = PROBLEMS[name]()
    params = trainable_parameters(module)
    before, slots = copy_of(params), [id(p) for p in module.parameters()]
    moved = {key: p.detach() + 1 for key, p in params.items()}
    make_loss_fn(module, criterion, params)(moved, dict(module.named_buffers()), Batch(X, y))
    assert [id(p) for p in module.parameters()] == slots
    torch.testing.assert_close(copy_of(params), before, **BIT_FOR_BIT)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_weights(criterion):
    module, _, X, y = PROBLEMS["tanh"]()
    weight = torch.linspace(0, 2, len(X), dtype=torch.float64)
    loss_fn = make_loss_fn(module, criterion)
    params = trainable_parameters(module)
    loss, aux = loss_fn(params, {}, Batch(X, y, weight))
    by_hand = sum(w * criterion(module(X[i : i + 1]), y[i : i + 1]) for i, w in enumerate(weight)) / len(X)
    torch.testing.assert_close(loss, by_hand, **DOUBLE)
    torch.testing.assert_close(aux.loss, criterion(module(X), y).detach(), **BIT_FOR_BIT)  # the clean one
    assert not aux.loss.requires_grad
    ones, _ = loss_fn(params, {}, Batch(X, y, torch.ones_like(weight)))
    torch.testing.assert_close(ones, criterion(module(X), y), **DOUBLE)


def test_weights_need_a_loss_module():
    with pytest.raises(TypeError, match="Sample weights need a criterion that is a torch loss module with a 'reduc"):
        per_sample(torch.nn.functional.cross_entropy)


class OnlyMeans(nn.CrossEntropyLoss):
    """A user's loss that does not look at its ``reduction``."""

    def forward(self, y_pred, y):
        return nn.functional.cross_entropy(y_pred, y)


def test_weights_need_the_loss_of_every_row():
    module, _, X, y = PROBLEMS["tanh"]()
    loss_fn = make_loss_fn(module, OnlyMeans())
    with pytest.raises(TypeError, match=r"returns the loss of every row .* got a tensor of shape \(\) for 23 rows"):
        loss_fn(trainable_parameters(module), {}, Batch(X, y, torch.ones(len(X))))


def test_per_sample_leaves_the_criterion_alone():
    criterion = nn.CrossEntropyLoss()
    assert per_sample(criterion).reduction == "none"
    assert criterion.reduction == "mean"


def test_accuracy_counts_and_when_it_means_anything():
    scores = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    y = torch.tensor([1, 1, 1])
    assert n_correct(scores, y) == 2
    assert is_classification(scores, y)
    assert not is_classification(scores, y.double())
    assert not is_classification(scores[:, 0], y)
    assert not is_classification(scores, torch.eye(3).long())
