import pytest
import torch
from torch import nn

from sklgap._typing import Aux, Batch
from sklgap.objective._autodiff import value_and_grad
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.regimes import split_rows
from sklgap.remedies import accumulate
from tests.cases import DOUBLE, PLAIN
from tests.remedies.steps import assert_equal, gradient


@pytest.mark.parametrize("max_rows", [1, 4, 11, 22])
@pytest.mark.parametrize("name", PLAIN)
def test_it_is_the_gradient_of_the_whole(name, max_rows):
    module, criterion, X, y = PLAIN[name]()
    params = trainable_parameters(module)
    factor = torch.linspace(-1, 2, len(X), dtype=torch.float64)
    grad_fn = value_and_grad(ModuleLoss(module, criterion, params))
    gradients, aux = accumulate(grad_fn, max_rows)(params, {}, Batch(X, y, factor=factor))
    rows = torch.stack([criterion(module(X[i : i + 1]), y[i : i + 1]) for i in range(len(X))])
    assert_equal(gradients, gradient(module, (factor * rows).mean()), DOUBLE)
    assert_equal(aux.loss, rows.mean().detach(), DOUBLE)
    assert_equal(aux.y_pred, module(X).detach(), DOUBLE)


@pytest.mark.parametrize("max_rows", [23, 24])
def test_a_batch_that_fits_is_evaluated_at_once(max_rows):
    answer = object()
    batch = Batch(torch.zeros(23, 1), torch.zeros(23))
    assert accumulate(lambda params, buffers, given: (answer, given), max_rows)({}, {}, batch) == (answer, batch)


def test_parts_and_what_is_handed_on():
    seen = []

    def grad_fn(params, buffers, batch):
        seen.append(batch)
        n = len(batch.X)
        # The second parameter gets a gradient from the second part alone.
        gradients = {"a": batch.X.mean(), **({"b": batch.X.mean()} if len(seen) == 2 else {})}
        return gradients, Aux(batch.X.mean(), batch.X, {"rows": buffers["rows"] + n})

    X = torch.arange(10.0)
    batch = Batch(X, X, 2 * X, 5 * X, {"noise": 3 * X})
    gradients, aux = accumulate(grad_fn, 3)({}, {"rows": torch.tensor(0)}, batch)
    assert [len(part.X) for part in seen] == [3, 3, 4] == [rows.stop - rows.start for rows in split_rows(10, 3)]
    for part in seen:
        assert_equal(part.y, part.X)
        assert_equal(part.weight, 2 * part.X)
        assert_equal(part.factor, 5 * part.X)
        assert_equal(part.extra, {"noise": 3 * part.X})
    assert gradients["a"] == pytest.approx(4.5)
    assert gradients["b"] == pytest.approx((3 + 4 + 5) / 10)
    assert aux.loss == pytest.approx(4.5)
    assert_equal(aux.y_pred, X)
    assert aux.buffers["rows"] == 10


def test_the_gradients_of_the_parts_are_left_alone():
    parts = []

    def grad_fn(params, buffers, batch):
        parts.append(batch.X.sum().clone())
        return {"a": parts[-1]}, Aux(batch.X.sum(), batch.X, buffers)

    X = torch.arange(6.0)
    accumulate(grad_fn, 2)({}, {}, Batch(X, X))
    assert [part.item() for part in parts] == [1, 5, 9]


WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 20.0, 0.0]).double())


@pytest.mark.parametrize("weight", [None, "samples"])
@pytest.mark.parametrize("criterion", [WEIGHTED, nn.CrossEntropyLoss(ignore_index=1)], ids=["classes", "ignored"])
@pytest.mark.parametrize("max_rows", [1, 4, 22])
def test_weighted_means_are_exact_in_parts(max_rows, criterion, weight):
    module, _, X, y = PLAIN["tanh"]()
    y = y.sort().values  # parts of one class each, some of which count for nothing
    params = trainable_parameters(module)
    batch = Batch(X, y, weight=None if weight is None else torch.arange(len(X)).double() % 3)
    grad_fn = value_and_grad(ModuleLoss(module, criterion, params))
    whole, parts = grad_fn(params, {}, batch), accumulate(grad_fn, max_rows)(params, {}, batch)
    assert_equal(parts[0], whole[0], DOUBLE)
    assert_equal(parts[1].loss, whole[1].loss, DOUBLE)
    assert_equal(parts[1].weights, whole[1].weights, DOUBLE)
