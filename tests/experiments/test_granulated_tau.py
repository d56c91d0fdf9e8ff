"""Kendall's tau against SciPy, the granulated one against a loop written from the paper, and its intervals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sklgap.experiments._granulated_tau import draw_resamples, granulated_taus

AXES = np.array(list(itertools.product(range(3), range(2))))


def made_up(n_trials=4, seed=0, axes=AXES, decimals=None):
    """Return two quantities of models over trials x settings, and these."""
    rng = np.random.default_rng(seed)
    first, noise = rng.normal(size=(2, n_trials, len(axes))) + axes.sum(axis=1)
    second = first + noise
    if decimals is not None:
        first, second = first.round(decimals), second.round(decimals)
    return first.ravel(), second.ravel(), np.repeat(np.arange(n_trials), len(axes)), np.tile(axes, (n_trials, 1))


def taus(first, second, trials, settings, n_resamples=50, seed=0):
    return granulated_taus(
        first, second, trials, settings, draw_resamples(max(trials) + 1, n_resamples, np.random.RandomState(seed))
    )


def psi(first, second, trials, settings, axis):
    """Return psi of Jiang et al. (2020), in so many words."""
    others = [j for j in range(settings.shape[1]) if j != axis]
    groups = {}
    for i in range(len(first)):
        groups.setdefault((trials[i], *settings[i, others]), []).append(i)
    found = []
    for rows in groups.values():
        pairs = [(i, j) for i in rows for j in rows if i != j]
        if pairs:
            signs = [np.sign(first[i] - first[j]) * np.sign(second[i] - second[j]) for i, j in pairs]
            found.append(sum(signs) / len(pairs))
    return sum(found) / len(found)


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_against_scipy_and_the_paper(decimals, seed):
    data = made_up(seed=seed, decimals=decimals)
    first, second, _, settings = data
    found = taus(*data)
    assert found.plain.value == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)
    axes = [psi(*data, axis) for axis in (0, 1)]
    assert [tau.value for tau in found.axes] == pytest.approx(axes, abs=1e-12)
    assert found.granulated.value == pytest.approx(np.mean(axes), abs=1e-12)
    cells = [np.flatnonzero((settings == cell).all(axis=1)) for cell in AXES]
    of_cells = [stats.kendalltau(first[rows], second[rows]).statistic for rows in cells]
    assert found.within.value == pytest.approx(np.nanmean(of_cells), abs=1e-12)
    assert {tau.n for tau in (found.plain, found.granulated, found.within)} == {4}


def test_settings_can_turn_the_sign():
    settings = np.tile([[0], [1]], (3, 1))
    trials = np.repeat(np.arange(3), 2)
    # In each trial the second setting is sharper and better; the sharper trials are far worse.
    first = 10.0 * trials + settings[:, 0]
    second = 10.0 * trials - settings[:, 0]
    found = taus(first, second, trials, settings)
    assert found.granulated.value == -1
    assert found.within.value == 1
    assert found.plain.value == pytest.approx(stats.kendalltau(first, second).statistic)


def test_what_is_not_finite_is_left_out():
    first, second, trials, settings = made_up(n_trials=5)
    with_gaps, worse = first.copy(), second.copy()
    with_gaps[[0, 8]], worse[3] = math.nan, math.inf
    known = np.isfinite(with_gaps) & np.isfinite(worse)
    found = taus(with_gaps, worse, trials, settings)
    expected = [psi(first[known], second[known], trials[known], settings[known], axis) for axis in (0, 1)]
    assert [tau.value for tau in found.axes] == pytest.approx(expected)
    assert found.plain.value == pytest.approx(stats.kendalltau(first[known], second[known]).statistic)


def test_trials_that_are_lost_are_not_counted():
    first, second, trials, settings = made_up(n_trials=5)
    first[trials == 2] = math.nan
    assert taus(first, second, trials, settings).plain.n == 4
    first[trials != 0] = math.nan
    found = taus(first, second, trials, settings)
    assert found.plain.n == 1
    assert not found.plain.has_interval
    assert math.isnan(found.within.value)


@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_quantity_has_no_tau(constant):
    data = list(made_up())
    data[constant] = np.full(len(data[constant]), 0.5)
    found = taus(*data)
    assert all(math.isnan(tau.value) for tau in (found.plain, found.granulated, found.within, *found.axes))


def test_no_axes_and_axes_without_a_pair():
    first, second, trials, _ = made_up()
    found = taus(first, second, trials, np.empty((len(first), 0), dtype=int))
    assert math.isnan(found.granulated.value)
    assert found.axes == []
    assert found.within.value == pytest.approx(found.plain.value)
    # Two settings that always change together: no two models differ in one of them alone.
    together = np.repeat(np.arange(6)[None, :, None], 4, axis=0).reshape(-1, 1) + np.zeros((1, 2), dtype=int)
    found = taus(first, second, trials, together)
    assert math.isnan(found.granulated.value)
    assert all(math.isnan(tau.value) for tau in found.axes)


def test_models_of_one_trial_and_one_setting_are_no_pair_of_it():
    first, second, trials, settings = made_up()
    twice = [np.concatenate([values, values]) for values in (first, second, trials, settings)]
    assert taus(*twice).granulated.value == pytest.approx(taus(first, second, trials, settings).granulated.value)


def test_one_trial_and_equal_trials_have_no_interval():
    first, second, trials, settings = made_up(n_trials=1)
    assert not any(tau.has_interval for tau in taus(first, second, trials, settings).axes)
    again = [np.concatenate([values, values]) for values in (first, second)]
    found = taus(*again, np.repeat([0, 1], len(first)), np.concatenate([settings, settings]))
    assert not found.granulated.has_interval
    assert found.granulated.value == pytest.approx(taus(first, second, trials, settings).granulated.value)


def test_the_interval_of_a_mean_over_trials_is_student_s():
    first, _, trials, settings = made_up(n_trials=6)
    second = np.random.default_rng(1).normal(size=len(first))
    data = first, second, trials, settings
    by_trial = [
        np.mean([psi(first[own], second[own], trials[own], settings[own], axis) for axis in (0, 1)])
        for own in (trials == trial for trial in range(6))
    ]
    half = stats.t.ppf(0.975, 5) * np.std(by_trial, ddof=1) / math.sqrt(6)
    found = taus(*data, n_resamples=20_000).granulated
    assert found.high < 1
    assert found.value == pytest.approx(np.mean(by_trial))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.03)


@pytest.mark.parametrize("n_trials", [2, 3, 5, 20])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_in_every_trial(n_trials, sign):
    settings = np.tile(AXES, (n_trials, 1))
    trials, first = np.repeat(np.arange(n_trials), len(AXES)), settings @ [2.0, 1.0]
    found = taus(first, sign * first, trials, settings)
    # The least share of trials with a perfect order, of which n of n come with a chance of 5 %; the others may have -1.
    share = stats.binomtest(n_trials, n_trials).proportion_ci(0.9).low
    ends = sorted([sign * (2 * share - 1), sign * 1.0])
    for tau in (found.granulated, *found.axes):
        assert (tau.value, tau.low, tau.high) == pytest.approx((sign, *ends))


def test_equal_trials_without_a_perfect_order_have_no_interval():
    first, second, _, settings = made_up(n_trials=1)
    again = [np.tile(values, 3) for values in (first, second)]
    found = taus(*again, np.repeat([0, 1, 2], len(first)), np.tile(settings, (3, 1)))
    for tau in (found.granulated, *found.axes):
        assert tau.has_interval == (abs(tau.value) == 1)
    assert any(abs(tau.value) < 1 for tau in found.axes)


def test_trials_without_a_pair_do_not_count_as_a_perfect_order():
    settings = np.tile(AXES, (3, 1))
    trials, first = np.repeat(np.arange(3), len(AXES)), settings @ [2.0, 1.0]
    kept = (trials == 0) | (np.arange(len(first)) % len(AXES) == 0)  # of the other trials one model each
    found = taus(first[kept], first[kept], trials[kept], settings[kept])
    assert found.granulated.value == 1
    assert not found.granulated.has_interval


def test_intervals_stay_between_minus_one_and_one():
    found = taus(*made_up(n_trials=2, seed=1))
    for tau in (found.plain, found.granulated):
        assert -1 <= tau.low <= tau.value <= tau.high <= 1


@st.composite
def data(draw):
    n_trials = draw(st.integers(2, 4))
    values = st.lists(st.integers(-5, 5), min_size=n_trials * len(AXES), max_size=n_trials * len(AXES))
    first, second = (np.array(draw(values), dtype=float) for _ in (0, 1))
    return first, second, np.repeat(np.arange(n_trials), len(AXES)), np.tile(AXES, (n_trials, 1))


def _all(found):
    return [
        number
        for tau in (found.plain, found.granulated, found.within, *found.axes)
        for number in (tau.value, tau.low, tau.high)
    ]


@given(data())
def test_only_the_order_counts(models):
    first, second, trials, settings = models
    np.testing.assert_array_equal(_all(taus(*models)), _all(taus(np.exp(first), second**3, trials, settings)))


@given(data())
def test_a_reversed_measure_has_the_reversed_taus(models):
    first, second, trials, settings = models
    one, other = taus(*models), taus(-first, second, trials, settings)
    for tau, reverse in zip(
        (one.plain, one.granulated, one.within), (other.plain, other.granulated, other.within), strict=True
    ):
        np.testing.assert_allclose(
            [reverse.value, reverse.low, reverse.high], [-tau.value, -tau.high, -tau.low], atol=1e-12
        )


@given(data(), st.randoms())
def test_the_order_of_the_models_does_not_count(models, random):
    order = list(range(len(models[0])))
    random.shuffle(order)
    np.testing.assert_allclose(_all(taus(*(values[order] for values in models))), _all(taus(*models)), atol=1e-12)


@given(data())
def test_the_two_quantities_are_alike(models):
    first, second, trials, settings = models
    np.testing.assert_allclose(_all(taus(second, first, trials, settings)), _all(taus(*models)), atol=1e-12)


def test_intervals_hold_the_true_value():
    """Coverage over 100 studies of five trials; ``examples/benchmarks/tau_intervals.py`` has that of more of them."""
    rng = np.random.RandomState(1)

    def study(n_trials, n_resamples):
        shared, own = rng.normal(size=(2, n_trials, 1)), rng.normal(size=(2, n_trials, len(AXES)))
        first = 0.5 * (AXES[:, 0] - AXES[:, 1]) + 0.5 * shared[0] + own[0]
        second = 0.3 * AXES.sum(axis=1) + 0.25 * shared.sum(axis=0) + 0.5 * own[0] + own[1]
        how = np.repeat(np.arange(n_trials), len(AXES)), np.tile(AXES, (n_trials, 1))
        return granulated_taus(first.ravel(), second.ravel(), *how, draw_resamples(n_trials, n_resamples, rng))

    kinds = ("plain", "granulated", "within")
    truth = {
        kind: np.mean([getattr(found, kind).value for found in [study(60, 2) for _ in range(5)]]) for kind in kinds
    }
    held = {kind: 0 for kind in kinds}
    for _ in range(100):
        found = study(5, 100)
        for kind in kinds:
            held[kind] += not getattr(found, kind).excludes(truth[kind])
    assert min(held.values()) >= 90, held
    assert held["granulated"] < 100  # an interval that holds everything says nothing
