"""Mixup against plain torch, and the batch with two targets that it makes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sklgap._typing import Batch, Mix
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.objective._row_loss import row_loss
from sklgap.remedies import Mixup
from tests.cases import DOUBLE, PLAIN, PROBLEMS
from tests.remedies.steps import assert_equal, check_neutral, drawn, gradient, stepped
from tests.tiny import blobs, small


def test_neutral():
    batch, rng = Batch(torch.ones(7, 2), torch.zeros(7)), torch.Generator()
    state = rng.get_state()
    assert Mixup(0).transform_batch(batch, rng) is batch
    assert torch.equal(rng.get_state(), state)
    check_neutral(Mixup(0.0))


def _drawn(remedy, X, y):
    return remedy.transform_batch(Batch(X, y), torch.Generator().manual_seed(3))


@pytest.mark.parametrize("alpha", [0.2, 1, 5.0])
@pytest.mark.parametrize("name", PROBLEMS)
def test_against_plain_torch(name, alpha):
    module, _, X, y = PROBLEMS[name]()
    batch = _drawn(Mixup(alpha), X, y)
    gradients, result, _ = stepped(PROBLEMS[name](), [Mixup(alpha)])
    share = batch.weight
    rows = nn.CrossEntropyLoss(reduction="none")
    outputs = module(batch.X)
    loss = (share * rows(outputs, y) + (1 - share) * rows(outputs, batch.mix.y)).mean()
    assert_equal(gradients, gradient(module, loss), DOUBLE)
    assert_equal(result["loss"], loss.detach(), DOUBLE)
    assert_equal(result["mass"], torch.tensor(float(len(y)), dtype=torch.float64), DOUBLE)


def test_every_sample_is_mixed_with_one_of_the_batch_in_its_share():
    X = torch.eye(50, dtype=torch.float64)
    batch = _drawn(Mixup(1.0), X, torch.arange(50))
    assert (batch.weight >= 0.5).all()
    assert_equal(batch.weight + batch.mix.weight, torch.ones(50, dtype=torch.float64))
    assert sorted(batch.mix.y.tolist()) == list(range(50))
    for i, other in enumerate(batch.mix.y.tolist()):
        assert_equal(batch.X[i], batch.weight[i] * X[i] + batch.mix.weight[i] * X[other])
    assert batch.weight.unique().numel() == 50  # a share of its own


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_shares_are_those_of_the_beta_distribution(alpha):
    n = 20_000
    share = _drawn(Mixup(alpha), torch.zeros(n, 1), torch.zeros(n)).weight.double().numpy()
    # Of a share of Beta(a, a) the variance is 1 / (4 (2a + 1)), whichever of the two is taken; at most five errors.
    variance = 1 / (4 * (2 * alpha + 1))
    squares = (share - 0.5) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / math.sqrt(n)


@pytest.mark.parametrize("by_class", [None, [0.5, 2.0, 0.0]])
@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.2)])
def test_each_label_counts_as_its_own_sample_does(criterion, by_class):
    module, _, X, y = PLAIN["tanh"]()
    params = trainable_parameters(module)
    counts = torch.arange(len(y)).double() % 3
    mixed = Mixup(1.0).transform_batch(Batch(X, y, counts), torch.Generator().manual_seed(3))
    loss = row_loss(criterion)
    loss = loss if by_class is None else loss.by_class(torch.tensor(by_class, dtype=torch.float64))
    found, aux = ModuleLoss(module, loss, params)(params, {}, mixed)
    bare = _drawn(Mixup(1.0), X, y)
    other = torch.tensor([next(j for j in range(len(X)) if _is_mix(bare, X, i, j)) for i in range(len(X))])
    assert_equal(y[other], mixed.mix.y)
    weight = torch.ones(3, dtype=torch.float64) if by_class is None else torch.tensor(by_class, dtype=torch.float64)
    first = bare.weight * counts * weight[y]
    second = bare.mix.weight * counts[other] * weight[y[other]]
    rows = nn.CrossEntropyLoss(reduction="none", label_smoothing=criterion.label_smoothing)
    outputs = module(mixed.X)
    total = (first * rows(outputs, y) + second * rows(outputs, y[other])).sum()
    assert_equal(found, total / (first + second).sum(), DOUBLE)
    assert_equal(aux.weights, first + second, DOUBLE)
    assert_equal(aux.loss, found.detach())


def _is_mix(batch, X, i, j):
    return torch.allclose(batch.X[i], batch.weight[i] * X[i] + (1 - batch.weight[i]) * X[j], rtol=1e-12, atol=1e-12)


def test_micro_batches_and_factors():
    factor = torch.linspace(0, 2, 23, dtype=torch.float64)
    whole, parts = (
        stepped(PLAIN["conv"](), [Mixup(1.0)], factor=factor, micro_batch_size=size)[0] for size in (None, 5)
    )
    assert_equal(parts, whole, DOUBLE)
    assert not torch.equal(whole["0.weight"], stepped(PLAIN["conv"](), [Mixup(1.0)])[0]["0.weight"])


def test_two_targets_of_which_the_first_has_no_weight():
    module, criterion, X, y = PLAIN["tanh"]()
    params = trainable_parameters(module)
    batch = Batch(X, y, mix=Mix(y, torch.ones(len(y))))
    with pytest.raises(ValueError, match=r"batch\.weight must hold the weight of the first target"):
        ModuleLoss(module, criterion, params)(params, {}, batch)


def test_a_batch_keeps_all_it_has_in_its_parts():
    t = torch.arange(6.0)
    batch = Batch(t, t + 1, t + 2, t + 3, {"a": t + 4}, Mix(t + 5, t + 6), 7)
    part = batch.rows(slice(1, 3))
    assert part.number == 7
    tensors = (part.X, part.y, part.weight, part.factor, part.extra["a"], *part.mix)
    assert [x.tolist() for x in tensors] == [[1.0 + i, 2.0 + i] for i in range(7)]
    twice = batch.map(lambda x: torch.cat([x, x]))
    assert twice.mix.weight.tolist() == 2 * (t + 6).tolist()


def test_a_fit_and_a_single_sample():
    X, y = blobs()
    model = small(remedies=["mixup"], max_epochs=10, batch_size=12).fit(X, y)
    assert model.score(X, y) > 0.8
    assert np.isfinite(model.history_[:, "train_loss"]).all()
    one = Batch(torch.ones(1, 2), torch.zeros(1))
    assert drawn(Mixup(1.0), torch.ones(1, 2)).mix is None
    assert Mixup(1.0).transform_batch(one, torch.Generator()) is one


class MeanSquares(nn.Module):
    """A user's loss without a ``reduction``."""

    def forward(self, y_pred, y):
        return (y_pred - nn.functional.one_hot(y, y_pred.shape[1])).square().mean()


def test_a_criterion_of_which_only_the_mean_is_known():
    with pytest.raises(TypeError, match="need a criterion that is a torch loss module with a 'reduction'"):
        small(criterion=MeanSquares, remedies=[Mixup()]).fit(*blobs())


@pytest.mark.parametrize("alpha", [-1, math.inf, None, "1"])
def test_bad_parameters(alpha):
    with pytest.raises(ValueError, match="alpha must be a number of at least 0; got "):
        Mixup(alpha).check()
    Mixup().check()


@pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.uint8, torch.bool])
def test_inputs_without_means_are_refused(dtype):
    """The share of an integer is 0 or 1: the batch would be that of other samples, without a word."""
    X = torch.arange(12).reshape(6, 2).to(dtype)
    with pytest.raises(TypeError, match=f"^Mixup needs floating-point inputs.*{dtype}"):
        drawn(Mixup(), X)
    assert torch.equal(drawn(Mixup(0), X).X, X)
    mixed = drawn(Mixup(1.0), X.to(torch.complex64) * 1j)
    assert mixed.X.imag.abs().max() > 0
