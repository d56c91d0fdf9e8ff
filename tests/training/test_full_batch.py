"""The recipe of full-batch training."""

import math

import pytest
import torch

from sklgap import compare_regimes, full_batch_recipe
from sklgap.training._full_batch import rate_after
from tests.tiny import blobs, small

X, Y = blobs()


def test_a_fit_makes_the_updates_and_rates_that_it_says():
    model = small().set_params(**full_batch_recipe(30, lr=0.4, sub_batch_size=20)).fit(X, Y)
    assert model.n_updates_ == 30
    assert model.history_[:, "batch_size"] == [60] * 30
    rates = [0.4 * (i + 1) / 5 for i in range(4)]
    rates += [0.2 * (1 + math.cos(math.pi * i / 36)) for i in range(26)]
    assert model.history_[:, "lr"] == pytest.approx(rates)
    assert model.score(X, Y) > 0.9


def test_the_gradient_is_clipped():
    recipe = full_batch_recipe(1, lr=0.5, clip=1e-3, warmup_epochs=0)
    recipe |= {"optimizer__momentum": 0, "optimizer__nesterov": False, "optimizer__weight_decay": 0}
    model = small().set_params(**recipe).fit(X, Y)
    assert model.history_[-1, "weight_distance"] == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_strength_is_the_rate_unless_it_is_given():
    for strength, expected in ((None, 0.3), (0.0, 0.0), (2.0, 2.0)):
        (remedy,) = full_batch_recipe(10, lr=0.3, strength=strength)["remedies"]
        assert (remedy.strength, remedy.sub_batch_size) == (expected, 128)


def test_it_is_a_regime():
    regimes = {"SB": {}, "FULL": full_batch_recipe(4, sub_batch_size=20)}
    found = compare_regimes(small(), X, Y, X, Y, regimes=regimes, n_trials=1, epsilon=[], random_state=0, verbose=0)
    assert found.by_trial("FULL", "n_updates").tolist() == [4]


@pytest.mark.parametrize("end", [8.0, 40 / 3])
def test_the_schedule(end):
    rates = [rate_after(i, 3, end) for i in range(8)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rate_after(1, 0, end) == pytest.approx(0.5 * (1 + math.cos(math.pi / end)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_epochs": 0}, "max_epochs must be an integer of at least 1; got 0"),
        ({"lr": 0}, "lr must be a number above 0; got 0"),
        ({"clip": -1}, "clip must be a number above 0; got -1"),
        ({"strength": -1}, "strength must be None or a number of at least 0; got -1"),
        ({"sub_batch_size": 0}, "sub_batch_size must be an integer of at least 1; got 0"),
        ({"warmup_epochs": 10, "max_epochs": 10}, "warmup_epochs must be less than max_epochs, 10; got 10"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        full_batch_recipe(**params)


def test_the_optimiser_is_sgd():
    assert full_batch_recipe()["optimizer"] is torch.optim.SGD
