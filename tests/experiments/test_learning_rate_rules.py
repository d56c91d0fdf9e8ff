"""Sentences on the rules for the learning rate, from estimates and rates that are given."""

import math

import pytest

from sklgap import batch_size_curve
from sklgap.experiments._estimate import Estimate
from sklgap.experiments._learning_rate_rules import rule_held, tuned_exponents

GAPS = {
    "64": Estimate(0.001, -0.003, 0.004, 5, "new seeds"),
    "256": Estimate(0.01, -0.01, 0.03, 5, "new seeds"),
    "1024": Estimate(0.05, 0.02, 0.08, 5, "new seeds"),
    "2048": Estimate(0.004, 0.001, 0.008, 5, "new seeds"),
}
GRID = [1e-3 * 2**i for i in range(8)]


def test_where_a_rule_held():
    (sentence,) = rule_held("sqrt", GAPS, is_fraction=True)
    assert "held within a point for 64 and 2048" in sentence
    assert "did not hold for 1024" in sentence
    assert "do not decide it for 256" in sentence


def test_a_score_without_points_only_fails():
    (sentence,) = rule_held("sde", GAPS, is_fraction=False)
    assert "within a point" not in sentence
    assert "did not hold for 1024 and 2048" in sentence
    assert "do not decide it for 64 and 256" in sentence


@pytest.mark.parametrize("lr", ["fixed", "tuned"])
def test_no_rule_no_sentence(lr):
    assert rule_held(lr, GAPS, is_fraction=True) == []


def test_no_interval_no_sentence():
    assert rule_held("sqrt", {"8": Estimate(0.0, -math.inf, math.inf, 1, "new seeds")}, is_fraction=True) == []


@pytest.mark.parametrize(
    ("exponent", "name"),
    [(0.0, "the same rate for all sizes fits"), (0.5, "the square-root rule fits"), (1.0, "the linear rule fits")],
)
def test_the_power_that_tuned_rates_follow(exponent, name):
    grid = [1e-4 * 2 ** (i / 2) for i in range(40)]
    rates = {
        str(size): min(grid, key=lambda r: abs(math.log(r / (1e-3 * (size / 16) ** exponent)))) for size in (16, 4096)
    }
    (sentence,) = tuned_exponents(rates, grid)
    assert name in sentence


def test_a_coarse_grid_leaves_several_rules():
    (sentence,) = tuned_exponents({"64": 0.01, "128": 0.01}, [0.001, 0.01, 0.1])
    assert "learning_rates is too coarse to decide" in sentence


def test_a_grid_that_rules_one_out():
    (sentence,) = tuned_exponents({"64": 0.01, "4096": 0.01}, [0.001, 0.01, 0.1])
    assert "the same rate for all sizes and the square-root rule fit" in sentence


def test_rates_that_follow_no_power():
    (sentence,) = tuned_exponents({"10": GRID[1], "100": GRID[6], "1000": GRID[1]}, GRID)
    assert "do not follow a power" in sentence


def test_a_power_between_the_rules():
    (sentence,) = tuned_exponents({"1": GRID[1], "1000000": GRID[6]}, GRID)
    assert "no usual rule fits" in sentence
    assert "between 0.2 and 0.3" in sentence


@pytest.mark.parametrize("rates", [{"10": GRID[2]}, {"10": GRID[0], "20": GRID[-1], "40": GRID[3]}, {}])
def test_rates_at_an_end_of_the_grid_say_nothing(rates):
    assert tuned_exponents(rates, GRID) == []


def test_a_curve_says_it():
    def train(batch_size, learning_rate, random_state):
        return 0.9 - 0.1 * (batch_size > 20) + 1e-4 * (random_state % batch_size)

    curve = batch_size_curve(
        train, batch_sizes=[10, 40], lr="linear", learning_rate=0.1, n_trials=4, random_state=0, verbose=0
    )
    assert any("lr='linear'" in note and "did not hold for 40" in note for note in curve.notes)


def test_sde_needs_an_estimator():
    def train(batch_size, learning_rate, random_state):
        return 1.0

    with pytest.raises(ValueError, match=r"^lr must not be 'sde' for a function"):
        batch_size_curve(train, batch_sizes=[10, 40], lr="sde", learning_rate=0.1, random_state=0, verbose=0)
