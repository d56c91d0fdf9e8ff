import math

import numpy as np
import pytest
from scipy import stats

from sklgap.experiments._statistics import mean_estimate, rank_correlation, ratio_estimate, share_larger

RNG = np.random.default_rng(0)
A, B = RNG.lognormal(size=12), RNG.lognormal(size=12)


def _as_tuple(estimate):
    return estimate.value, estimate.low, estimate.high


def test_mean_is_the_t_test_of_scipy():
    expected = stats.ttest_1samp(A, 0).confidence_interval(0.95)
    assert _as_tuple(mean_estimate(A)) == pytest.approx((A.mean(), *expected))
    assert mean_estimate([*A, np.nan]) == mean_estimate(A)
    assert mean_estimate(A).n == 12


def test_one_value_has_no_interval_and_none_no_mean():
    one = mean_estimate([3.0, np.nan])
    assert (one.value, one.n, one.has_interval) == (3.0, 1, False)
    assert not one.excludes(0)
    assert one.text("+.1f", " points") == "+3.0 points"
    none = mean_estimate([])
    assert math.isnan(none.value)
    assert none.text(".1f") == "not defined"


def test_ratio_is_a_mean_of_logarithms():
    found = ratio_estimate(A, B)
    expected = stats.ttest_rel(np.log(A), np.log(B)).confidence_interval(0.95)
    assert _as_tuple(found) == pytest.approx(np.exp([np.log(A / B).mean(), *expected]))
    assert _as_tuple(ratio_estimate(B, A)) == pytest.approx((1 / found.value, 1 / found.high, 1 / found.low))
    assert ratio_estimate([*A, np.nan], [*B, 1.0]) == found
    assert _as_tuple(ratio_estimate(3 * B, B)) == pytest.approx((3, 3, 3))


def test_no_ratio_where_a_value_is_not_above_0():
    assert ratio_estimate([1.0, 0.0], [1.0, 1.0]).text(".2g") == "not defined"


def test_text_and_unit():
    found = mean_estimate([1.0, 3.0]).scaled(100)
    low, high = stats.ttest_1samp([100.0, 300.0], 0).confidence_interval(0.95)
    assert found.text("+.0f", " points") == f"+200 points, 95 % interval [{low:+.0f}, {high:+.0f}]"
    assert found.excludes(1e6)
    assert not found.excludes(200)


def test_rank_correlation_is_spearmans():
    found = rank_correlation(A, B)
    assert found.value == pytest.approx(stats.spearmanr(A, B).statistic)
    assert _as_tuple(rank_correlation(np.log(A), B**3)) == pytest.approx(_as_tuple(found))
    assert rank_correlation([*A, np.nan], [*B, 1.0]) == found
    # atanh of the ends lies as far to either side of atanh of the value as the formula says.
    z, low, high = (math.atanh(x) for x in _as_tuple(found))
    half = 1.959964 * math.sqrt((1 + found.value**2 / 2) / 9)
    assert (z - low, high - z) == pytest.approx((half, half), rel=1e-6)


@pytest.mark.parametrize("rho", [0.0, -0.7])
def test_the_interval_of_a_rank_correlation_covers(rho):
    rng = np.random.default_rng(1)
    truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's of a bivariate normal
    n_runs, hits = 1000, 0
    for _ in range(n_runs):
        pairs = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=20).T
        found = rank_correlation(*pairs)
        hits += found.low <= truth <= found.high
    # Four standard errors of a share of 0.95, and 0.01 for what is approximate in the formula.
    assert abs(hits / n_runs - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n_runs) + 0.01


@pytest.mark.parametrize("pair", [([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2], [1, 2])], ids=["constant", "two"])
def test_no_rank_correlation(pair):
    assert math.isnan(rank_correlation(*pair).value)


def test_a_perfect_order():
    next_to_it = rank_correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5])
    found = rank_correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])
    assert _as_tuple(found) == pytest.approx((1, next_to_it.low, 1))
    falling = rank_correlation([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])
    assert _as_tuple(falling) == pytest.approx((-1, -1, -next_to_it.low))
    assert math.isnan(rank_correlation([1, 2, 3], [1, 2, 3]).low)


def test_share_larger_is_mann_whitneys():
    one, other = np.array([1.0, 2, 2, 5]), np.array([2.0, 0, 1])
    assert share_larger(one, other) == stats.mannwhitneyu(one, other).statistic / 12
    assert share_larger([*one, np.nan], other) == share_larger(one, other)
    assert math.isnan(share_larger([], other))
