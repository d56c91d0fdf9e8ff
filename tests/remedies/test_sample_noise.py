import math

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.remedies import SampleNoise
from tests.cases import DOUBLE, PLAIN
from tests.remedies.steps import assert_equal, check_neutral, drawn, gradient, stepped
from tests.tiny import Probabilities, blobs, small


@pytest.mark.parametrize("remedy", [SampleNoise(0), SampleNoise(0.0), SampleNoise(base_batch_size=7)])
def test_neutral(remedy):
    rng = torch.Generator()
    batch, state = Batch(torch.ones(7, 2), torch.zeros(7)), rng.get_state()
    assert remedy.transform_batch(batch, rng) is batch
    assert torch.equal(rng.get_state(), state)
    check_neutral(remedy)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.2)])
@pytest.mark.parametrize("name", PLAIN)
def test_every_rows_gradient_is_multiplied(name, criterion):
    module, _, X, y = PLAIN[name]()
    remedy = SampleNoise(0.7)
    gradients, _, _ = stepped((PLAIN[name]()[0], criterion, X, y), [remedy])
    z = drawn(remedy, X).factor
    assert z.shape == (len(X),)
    expected = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    for i in range(len(X)):
        for n, g in gradient(module, criterion(module(X[i : i + 1]), y[i : i + 1])).items():
            expected[n] += z[i] * g / len(X)
    assert_equal(gradients, expected, DOUBLE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_factors_are_normal_with_mean_one(dtype):
    n, sigma = 40_000, 0.7
    z = drawn(SampleNoise(sigma), torch.zeros(n, 1, dtype=dtype)).factor
    assert z.dtype == dtype
    # Five standard errors: sigma / sqrt(n), sigma^2 sqrt(2 / n), sqrt(24 / n).
    assert abs(z.mean() - 1) < 5 * sigma / math.sqrt(n)
    assert abs(z.var() - sigma**2) < 5 * sigma**2 * math.sqrt(2 / n)
    assert abs(((z - 1) ** 4).mean() / z.var() ** 2 - 3) < 5 * math.sqrt(24 / n)


@pytest.mark.parametrize(("base", "n"), [(256, 40_000), (8, 40_000), (None, 40_000), (39_999, 40_000)])
def test_the_default_gives_the_second_moment_of_the_small_batch(base, n):
    z = drawn(SampleNoise(base_batch_size=base), torch.zeros(n, 1, dtype=torch.float64)).factor
    second = n / (base or 256)  # of z: (1 + sigma^2) / n = 1 / base
    variance = second - 1
    # Var z^2 = 2 sigma^4 + 4 sigma^2: five standard errors.
    assert abs((z**2).mean() - second) < 5 * math.sqrt((2 * variance**2 + 4 * variance) / n)


def test_covariance_of_the_mean_gradient():
    """E[g^2] / b - E[g]^2 / B, over draws of the batch and of the noise."""
    n_rows, base, n_draws, mean = 64, 16, 4000, 0.5
    remedy, rng = SampleNoise(base_batch_size=base), torch.Generator().manual_seed(0)
    means = []
    for _ in range(n_draws):
        g = mean + torch.randn(n_rows, generator=rng, dtype=torch.float64)
        means.append((remedy.transform_batch(Batch(g[:, None], g), rng).factor * g).mean())
    means = torch.stack(means)
    expected = (1 + mean**2) / base - mean**2 / n_rows
    # A mean of 64 rows is normal to a few per cent in its fourth moment: five standard errors of a variance.
    assert abs(means.var() - expected) < 5 * expected * math.sqrt(2 / n_draws)
    assert abs(means.mean() - mean) < 5 * math.sqrt(expected / n_draws)


def test_factors_of_the_rows_are_multiplied():
    X, factor = torch.zeros(6, 2), torch.arange(6.0)
    after = SampleNoise(0.5).transform_batch(Batch(X, X, factor=factor), torch.Generator().manual_seed(3))
    assert_equal(after.factor, drawn(SampleNoise(0.5), X).factor * factor)
    assert factor.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("params", "base"), [({}, 8), ({"base_batch_size": 5}, 5), ({"batch_regime": "LB"}, 8)])
def test_the_estimator_knows_the_small_batch(params, base):
    remedy, (X, y) = SampleNoise(), blobs()
    model = small(remedies=[remedy], max_epochs=1, **params).fit(X, y)
    assert model.net_.remedies[0].base_batch_size == base
    assert remedy.base_batch_size is None
    assert small(remedies=[SampleNoise(base_batch_size=3)], **params).fit(X, y).net_.remedies[0].base_batch_size == 3


class MeanSquares(nn.Module):
    """A user's loss without a ``reduction``."""

    def forward(self, y_pred, y):
        return (y_pred - nn.functional.one_hot(y, y_pred.shape[1])).square().mean()


def test_a_criterion_whose_mean_cannot_be_undone():
    model = small(criterion=MeanSquares, remedies=[SampleNoise()])
    with pytest.raises(
        TypeError, match="Sample weights need a criterion that is a torch loss module with a 'reduction'"
    ):
        model.fit(*blobs())
    assert not hasattr(model, "net_")


def test_probabilities():
    model = small(net=Probabilities, criterion=nn.NLLLoss, batch_size=30, remedies=[SampleNoise()]).fit(*blobs())
    assert math.isfinite(model.train_loss_)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sigma": -1}, "sigma must be None or a number of at least 0; got -1"),
        ({"sigma": "1"}, "sigma must be None or a number of at least 0; got '1'"),
        ({"base_batch_size": 0}, "base_batch_size must be None or an integer of at least 1; got 0"),
        ({"base_batch_size": 0.5}, "base_batch_size must be None or an integer of at least 1; got 0.5"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        SampleNoise(**params).check()


def test_defaults_are_allowed():
    SampleNoise().check()
    SampleNoise(0.5, 32).check()
