"""Label smoothing against torch's own, and the loss that is reported without it."""

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.objective._row_loss import row_loss
from sklgap.remedies import LabelSmoothing
from tests.cases import DOUBLE, PLAIN, PROBLEMS
from tests.remedies.steps import assert_equal, check_neutral, gradient, stepped
from tests.tiny import Mlp, Probabilities, blobs, small


def _no_loss(params, buffers, batch):
    raise AssertionError


@pytest.mark.parametrize("remedy", [LabelSmoothing(0), LabelSmoothing(0.0)])
def test_neutral(remedy):
    assert remedy.transform_loss(_no_loss, None) is _no_loss
    check_neutral(remedy)


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1])
@pytest.mark.parametrize("name", PROBLEMS)
def test_it_is_the_label_smoothing_of_torch(name, smoothing):
    module, criterion, X, y = PROBLEMS[name]()
    gradients, result, _ = stepped(PROBLEMS[name](), [LabelSmoothing(smoothing)])
    smooth = nn.CrossEntropyLoss(label_smoothing=float(smoothing))
    assert_equal(gradients, gradient(module, smooth(module(X), y)), DOUBLE)
    assert_equal(result["loss"], criterion(module(X), y).detach())


@pytest.mark.parametrize("factor", [None, "noise"])
@pytest.mark.parametrize("weight", [None, "samples"])
@pytest.mark.parametrize("by_class", [None, [0.5, 2.0, 0.0], [1.0, 3.0, 0.1]])
def test_class_weights_sample_weights_and_factors(by_class, weight, factor):
    module, _, X, y = PLAIN["tanh"]()
    params = trainable_parameters(module)
    weight = None if weight is None else torch.arange(len(y)).double() % 3
    factor = None if factor is None else torch.linspace(-1, 2, len(y), dtype=torch.float64)
    found = []
    for smoothing, remedies in ((0.0, [LabelSmoothing(0.3)]), (0.3, [])):
        loss = row_loss(nn.CrossEntropyLoss(label_smoothing=smoothing))
        loss = loss if by_class is None else loss.by_class(torch.tensor(by_class, dtype=torch.float64))
        loss_fn = ModuleLoss(module, loss, params)
        for remedy in remedies:
            loss_fn = remedy.transform_loss(loss_fn, None)
        found.append(gradient(module, loss_fn(params, {}, Batch(X, y, weight, factor))[0]))
    assert_equal(found[0], found[1], DOUBLE)


def test_a_fit_is_that_of_the_criterion_and_its_losses_are_clean():
    X, y = blobs()
    given = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "max_epochs": 1, "batch_size": -1, "net": Mlp}
    remedy = small(remedies=[LabelSmoothing(0.2)], **given).fit(X, y)
    torch_own = small(criterion__label_smoothing=0.2, **given).fit(X, y)
    plain = small(**given).fit(X, y)
    assert remedy.train_loss_ == plain.train_loss_ != torch_own.train_loss_
    for ours, theirs in zip(remedy.module_.parameters(), torch_own.module_.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # ADAM in float32, one update


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"criterion": nn.NLLLoss, "net": Probabilities},
            TypeError,
            "needs the criterion CrossEntropyLoss; got NLLLoss",
        ),
        ({"criterion": nn.MultiMarginLoss}, TypeError, "needs the criterion CrossEntropyLoss; got MultiMarginLoss"),
        ({"criterion__label_smoothing": 0.1}, ValueError, r"would smooth the labels twice; got label_smoothing=0\.1"),
        ({"criterion__weight": [1.0, 2.0, 3.0]}, ValueError, "needs a criterion without weight"),
    ],
)
def test_other_criteria_are_refused(params, error, message):
    with pytest.raises(error, match=message):
        small(remedies=["labelsmoothing"], **params).fit(*blobs())


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, None, "0.1"])
def test_bad_parameters(smoothing):
    with pytest.raises(ValueError, match="smoothing must be a number in"):
        LabelSmoothing(smoothing).check()
    LabelSmoothing().check()
