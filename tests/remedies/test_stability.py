import math

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._parameters import trainable_parameters
from sklgap.remedies import Stability
from sklgap.remedies._stability import EXTRA
from tests.cases import DOUBLE, PLAIN, PROBLEMS
from tests.remedies.steps import assert_equal, check_neutral, drawn, gradient, stepped
from tests.tiny import Probabilities, blobs, small


def test_neutral():
    remedy, rng = Stability(weight=0), torch.Generator()
    batch, state = Batch(torch.ones(3, 2), torch.zeros(3)), rng.get_state()
    assert remedy.transform_batch(batch, rng) is batch
    assert torch.equal(rng.get_state(), state)
    check_neutral(remedy)


@pytest.mark.parametrize("name", PROBLEMS)
def test_against_plain_torch(name):
    module, criterion, X, y = PROBLEMS[name]()
    remedy = Stability(0.3, weight=0.7)
    gradients, _, _ = stepped(PROBLEMS[name](), [remedy])

    noise = drawn(remedy, X).extra[EXTRA]
    clean = module(X)
    p, q = (z.exp() / z.exp().sum(1, keepdim=True) for z in (clean, module(X + noise)))
    loss = criterion(clean, y) - 0.7 * sum(p_row @ q_row.log() for p_row, q_row in zip(p, q, strict=True)) / len(X)
    assert_equal(gradients, gradient(module, loss), DOUBLE)


def test_without_noise_the_term_is_the_entropy():
    module, criterion, X, y = PLAIN["tanh"]()
    params, remedy = trainable_parameters(module), Stability(0.0, weight=2.0)
    batch = remedy.transform_batch(Batch(X, y), torch.Generator())
    loss, aux = remedy.transform_loss(ModuleLoss(module, criterion, params), None)(params, {}, batch)
    entropy = torch.distributions.Categorical(logits=module(X)).entropy().mean()
    assert_equal(loss, criterion(module(X), y) + 2 * entropy, DOUBLE)
    assert_equal(aux.loss, criterion(module(X), y).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_normal(dtype):
    X = torch.zeros(500, 2, 5, 4, dtype=dtype)
    noise = drawn(Stability(0.3), X).extra[EXTRA]
    assert (noise.dtype, noise.shape) == (dtype, X.shape)
    n = noise.numel()
    # Five standard errors: sigma / sqrt(n) of the mean, sigma^2 sqrt(2 / n) of the variance.
    assert abs(noise.mean()) < 5 * 0.3 / math.sqrt(n)
    assert abs(noise.var() - 0.09) < 5 * 0.09 * math.sqrt(2 / n)
    # Kurtosis 3 with standard error sqrt(24 / n).
    assert abs((noise**4).mean() / noise.var() ** 2 - 3) < 5 * math.sqrt(24 / n)


def test_what_other_remedies_have_drawn_stays():
    batch = Batch(torch.ones(3, 2), torch.zeros(3), extra={"other": torch.arange(3)})
    after = Stability().transform_batch(batch, torch.Generator())
    assert set(after.extra) == {"other", EXTRA}
    assert set(batch.extra) == {"other"}
    assert after.X is batch.X


def test_a_loss_of_probabilities():
    sentence = "Stability needs a net that returns logits; the criterion NLLLoss takes probabilities"
    with pytest.raises(ValueError, match=sentence):
        small(net=Probabilities, criterion=nn.NLLLoss, remedies=[Stability()]).fit(*blobs())
    model = small(net=Probabilities, criterion=nn.NLLLoss, warm_start=True, max_epochs=1).fit(*blobs())
    with pytest.raises(ValueError, match=sentence):
        model.set_params(remedies=[Stability()]).fit(*blobs())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"noise": -1}, "noise must be a number of at least 0; got -1"),
        ({"noise": math.inf}, "noise must be a number of at least 0; got inf"),
        ({"weight": -1e-9}, "weight must be a number of at least 0; got -1e-09"),
        ({"weight": None}, "weight must be a number of at least 0; got None"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        Stability(**params).check()


def test_defaults_are_allowed():
    Stability().check()
    Stability(0, 3).check()
