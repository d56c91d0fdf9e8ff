import copy

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.objective._autodiff import value_and_grad
from sklgap.objective._loss import ModuleLoss, is_classification, predicted_right
from sklgap.objective._parameters import copy_of, trainable_parameters
from sklgap.objective._row_loss import per_sample
from tests.cases import BIT_FOR_BIT, DOUBLE, PROBLEMS, WITH_BATCH_NORM


def _state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("name", PROBLEMS)
def test_it_is_the_loss_of_the_module(name, own):
    module, criterion, X, y = PROBLEMS[name]()
    plain = copy.deepcopy(module)
    params = trainable_parameters(module)
    loss_fn = ModuleLoss(module, criterion, params)
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
    grad_fn = value_and_grad(ModuleLoss(module, criterion, params))
    _, aux = grad_fn(params, dict(module.named_buffers()), Batch(X, y))
    assert not aux.y_pred.requires_grad
    assert not aux.loss.requires_grad


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_own_parameters_move_the_modules_buffers_others_only_return_them(name):
    module, criterion, X, y = WITH_BATCH_NORM[name]()
    after = copy.deepcopy(module)
    after(X)
    params, buffers = trainable_parameters(module), dict(module.named_buffers())
    loss_fn = ModuleLoss(module, criterion, params)
    before = _state(module)
    _, aux = loss_fn(copy_of(params), buffers, Batch(X, y))
    torch.testing.assert_close(_state(module), before, **BIT_FOR_BIT)
    torch.testing.assert_close(dict(aux.buffers), dict(after.named_buffers()), **BIT_FOR_BIT)
    _, aux = loss_fn(params, buffers, Batch(X, y))
    assert all(aux.buffers[name] is buffer for name, buffer in buffers.items())
    torch.testing.assert_close(buffers, dict(after.named_buffers()), **BIT_FOR_BIT)


@pytest.mark.parametrize("name", PROBLEMS)
def test_other_parameters_leave_the_modules_own_where_they_are(name):
    module, criterion, X, y = PROBLEMS[name]()
    params = trainable_parameters(module)
    before, slots = copy_of(params), [id(p) for p in module.parameters()]
    moved = {key: p.detach() + 1 for key, p in params.items()}
    ModuleLoss(module, criterion, params)(moved, dict(module.named_buffers()), Batch(X, y))
    assert [id(p) for p in module.parameters()] == slots
    torch.testing.assert_close(copy_of(params), before, **BIT_FOR_BIT)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_factors_multiply_the_losses(criterion):
    module, _, X, y = PROBLEMS["tanh"]()
    factor = torch.linspace(0, 2, len(X), dtype=torch.float64)
    loss_fn = ModuleLoss(module, criterion)
    params = trainable_parameters(module)
    loss, aux = loss_fn(params, {}, Batch(X, y, factor=factor))
    by_hand = sum(w * criterion(module(X[i : i + 1]), y[i : i + 1]) for i, w in enumerate(factor)) / len(X)
    torch.testing.assert_close(loss, by_hand, **DOUBLE)
    torch.testing.assert_close(aux.loss, criterion(module(X), y).detach(), **DOUBLE)  # the clean one
    assert not aux.loss.requires_grad
    assert aux.weights is None
    ones, _ = loss_fn(params, {}, Batch(X, y, factor=torch.ones_like(factor)))
    torch.testing.assert_close(ones, criterion(module(X), y), **DOUBLE)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2]).double()),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2]).double(), label_smoothing=0.2),
        nn.CrossEntropyLoss(ignore_index=1),
    ],
    ids=["plain", "smooth", "classes", "classes, smooth", "ignored"],
)
def test_a_weight_of_k_is_a_sample_given_k_times(criterion):
    module, _, X, y = PROBLEMS["tanh"]()
    times = torch.arange(len(X)) % 4
    repeated = torch.arange(len(X)).repeat_interleave(times)
    loss_fn = ModuleLoss(module, criterion)
    loss, aux = loss_fn(trainable_parameters(module), {}, Batch(X, y, weight=times.double()))
    expected = criterion(module(X[repeated]), y[repeated])
    torch.testing.assert_close(loss, expected, **DOUBLE)
    torch.testing.assert_close(aux.loss, expected.detach(), **DOUBLE)
    whole = loss_fn(trainable_parameters(module), {}, Batch(X[repeated], y[repeated], weight=torch.ones(len(repeated))))
    torch.testing.assert_close(torch.as_tensor(aux.mass), torch.as_tensor(whole[1].mass).double(), **DOUBLE)


def test_a_batch_in_which_nothing_counts_has_no_loss_and_no_gradient():
    module, _, X, y = PROBLEMS["tanh"]()
    params = trainable_parameters(module)
    grad_fn = value_and_grad(ModuleLoss(module, nn.CrossEntropyLoss(ignore_index=0), params))
    gradients, aux = grad_fn(params, {}, Batch(X, torch.zeros_like(y)))
    assert (float(aux.loss), float(aux.mass)) == (0, 0)
    assert all(not g.any() for g in gradients.values())


def test_weights_need_a_loss_module():
    with pytest.raises(TypeError, match="Sample weights need a criterion that is a torch loss module with a 'reduc"):
        per_sample(torch.nn.functional.cross_entropy)


class OnlyMeans(nn.CrossEntropyLoss):
    """A user's loss that does not look at its ``reduction``."""

    def forward(self, y_pred, y):
        return nn.functional.cross_entropy(y_pred, y)


def test_weights_need_the_loss_of_every_row():
    module, _, X, y = PROBLEMS["tanh"]()
    loss_fn = ModuleLoss(module, OnlyMeans())
    with pytest.raises(
        TypeError, match=r"returns the loss of every sample .* got a tensor of shape \(\) for 23 samples"
    ):
        loss_fn(trainable_parameters(module), {}, Batch(X, y, weight=torch.ones(len(X))))


def test_per_sample_leaves_the_criterion_alone():
    criterion = nn.CrossEntropyLoss()
    assert per_sample(criterion).reduction == "none"
    assert criterion.reduction == "mean"


def test_accuracy_counts_and_when_it_means_anything():
    scores = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    y = torch.tensor([1, 1, 1])
    assert predicted_right(scores, y).sum() == 2
    assert is_classification(scores, y)
    assert not is_classification(scores, y.double())
    assert not is_classification(scores[:, 0], y)
    assert not is_classification(scores, torch.eye(3).long())
