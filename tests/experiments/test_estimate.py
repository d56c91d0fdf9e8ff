import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

from sklgap.experiments._estimate import (
    Components,
    Estimate,
    bootstrap_components,
    check_margin,
    components_from_means,
    crossed_components,
    fixed_sequence,
    folds_estimate,
    loss_test,
    mean_estimate,
    needed_rows,
    paired_estimate,
    rank_correlation,
    ratio_estimate,
    row_differences,
    share_larger,
    smallest_margin,
    time_ratio,
    trial_components,
    unseen_failure_rate,
)

RNG = np.random.default_rng(0)
A, B = RNG.lognormal(size=12), RNG.lognormal(size=12)
# Shares of right rows, and their sums, carry the rounding of float64.
EXACT = 1e-9


def differences(rng, n_trials, n_rows, seeds=0.01, rows=0.2, residual=0.2):
    """Normal differences with the standard deviations given: mean 0."""
    by_trial, by_row = rng.standard_normal((n_trials, 1)), rng.standard_normal((1, n_rows))
    return seeds * by_trial + rows * by_row + residual * rng.standard_normal((n_trials, n_rows))


def parts(D):
    """A, B and C by the two-way analysis of variance, residual by residual."""
    D = np.asarray(D, dtype=float)
    (J, n), grand = D.shape, D.mean()
    residual = sum((D[j, i] - D[j].mean() - D[:, i].mean() + grand) ** 2 for j in range(J) for i in range(n))
    A, B = D.mean(axis=1).var(ddof=1) / J, D.mean(axis=0).var(ddof=1) / n
    return A, B, residual / ((J - 1) * (n - 1)) / (n * J)


def ends(estimate):
    return estimate.value, estimate.low, estimate.high


# -- Estimate ----------------------------------------------------------------------------------------------------------


def test_words():
    found = Estimate(0.096, 0.067, 0.125, 5, "new seeds")
    assert found.scaled(100).text(".1f", " points") == "9.6 points [6.7, 12.5]"
    assert found.points("+.1f") == "+9.6 points [+6.7, +12.5]"
    assert str(found) == "0.096 [0.067, 0.125]"
    assert found.about() == "95 % interval, for new seeds"
    assert Estimate(2, 1, 3, 5, level=0.9375).about() == "93.75 % interval, for new seeds"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(2.0, -math.inf, math.inf, 1), "2 times (no interval)"),
        (Estimate(2.0, math.nan, math.nan, 1), "2 times (no interval)"),
        (Estimate(math.nan, math.nan, math.nan, 0), "not defined"),
        (Estimate(math.nan, 1.5, math.inf, 5), "unknown [1.5, inf]"),
        (Estimate(2.0, 1.5, math.nan, 5), "2 times [1.5, unknown]"),
    ],
)
def test_words_where_an_end_is_missing(estimate, text):
    assert estimate.text(".3g", " times") == text


def test_what_an_interval_excludes():
    found = Estimate(2.0, 1.0, 3.0, 5)
    assert found.excludes(0.5)
    assert found.excludes(3.5)
    assert not found.excludes(1.0)
    assert not Estimate(2.0, -math.inf, math.inf, 1).excludes(0)
    assert not Estimate(2.0, math.nan, math.nan, 1).excludes(0)
    assert Estimate(math.nan, 1.5, math.nan, 5).excludes(1.0)


def test_units_turn_with_a_negative_factor():
    assert ends(Estimate(2.0, 1.0, math.nan, 5).scaled(-2))[0::2] == (-4.0, -2.0)
    found = Estimate(2.0, 1.0, 4.0, 5, "x", 0.9).scaled(-1)
    assert (*ends(found), found.n, found.covers, found.level) == (-2.0, -4.0, -1.0, 5, "x", 0.9)


def test_as_a_dict():
    found = mean_estimate([1.0, 2.0, 4.0])
    assert Estimate(**json.loads(json.dumps(found.to_dict()))) == found
    components = crossed_components(np.eye(3))
    assert Components(**{**json.loads(json.dumps(components.to_dict())), "trials": components.trials}) == components


# -- over trials: SciPy's tests ----------------------------------------------------------------------------------------


def test_mean_is_the_t_test_of_scipy():
    expected = stats.ttest_1samp(A, 0).confidence_interval(0.95)
    assert ends(mean_estimate(A)) == pytest.approx((A.mean(), *expected))
    assert mean_estimate([*A, np.nan]) == mean_estimate(A)
    assert (mean_estimate(A).n, mean_estimate(A).covers) == (12, "new seeds")


def test_paired_differences_and_ratios_are_the_t_tests_of_scipy():
    expected = stats.ttest_rel(A, B).confidence_interval(0.95)
    assert ends(paired_estimate(A, B)) == pytest.approx((np.mean(A - B), *expected))
    expected = stats.ttest_rel(np.log(A), np.log(B)).confidence_interval(0.95)
    assert ends(ratio_estimate(A, B)) == pytest.approx(np.exp([np.log(A / B).mean(), *expected]))
    assert ratio_estimate([*A, np.nan], [*B, 1.0]) == ratio_estimate(A, B)
    assert paired_estimate([*A, np.nan], [*B, 1.0]) == paired_estimate(A, B)


def test_bound_and_p_over_trials_are_the_one_sided_t_test_of_scipy():
    found = trial_components(A)
    test = stats.ttest_1samp(A, 1.5, alternative="less")
    assert found.p_value(1.5) == pytest.approx(test.pvalue)
    assert found.bound(0.9) == pytest.approx(test.confidence_interval(0.9).high)


@pytest.mark.parametrize("values", [[3.0], [3.0, math.nan], [0.3, 0.3, 0.3], [0.1 + 0.2, 0.3]])
def test_one_trial_and_equal_trials_have_no_interval(values):
    found = mean_estimate(values)
    assert found.value == pytest.approx(values[0])
    assert not found.has_interval
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert not found.excludes(0)
    assert trial_components(values).bound() == math.inf
    assert math.isnan(trial_components(values).p_value(100))


def test_pairs_that_differ_alike_but_for_rounding_have_no_interval():
    assert not paired_estimate([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]).has_interval
    ratio = ratio_estimate([3.0, 6.0, 9.0], [1.0, 2.0, 3.0])
    assert ratio.value == pytest.approx(3)
    assert not ratio.has_interval


def test_no_values_at_all():
    assert mean_estimate([]).text() == "not defined"
    assert paired_estimate([math.nan], [1.0]).text() == "not defined"
    assert ratio_estimate([1.0, 0.0], [1.0, 1.0]).text() == "not defined"
    assert ratio_estimate([], []).text() == "not defined"
    for one, other in (([1.0, math.inf], [1.0, 1.0]), ([math.inf] * 2, [math.inf] * 2), ([1.0], [math.inf])):
        assert ratio_estimate(one, other).text() == "not defined"


def test_a_ratio_that_two_wild_trials_do_not_bound():
    assert ratio_estimate([1e30, 1e-30], [1.0, 1.0]).high == math.inf


def test_folds_have_the_interval_of_nadeau_and_bengio():
    values = np.array([0.01, 0.03, 0.02, 0.05])
    found = folds_estimate(values, 1 / 3)
    half = stats.t.ppf(0.975, 3) * math.sqrt((1 / 4 + 1 / 3) * values.var(ddof=1))
    assert ends(found) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))
    assert found.n == 4
    assert not folds_estimate(values[:1], 1 / 3).has_interval


def test_rank_correlation_is_spearmans():
    found = rank_correlation(A, B)
    assert found.value == pytest.approx(stats.spearmanr(A, B).statistic)
    half = stats.norm.ppf(0.975) * math.sqrt((1 + found.value**2 / 2) / 9)
    assert np.arctanh([found.low, found.high]) == pytest.approx(np.arctanh(found.value) + np.array([-half, half]))
    assert rank_correlation(range(6), range(6)).high == 1.0
    assert rank_correlation(range(6), range(6)).low < 1.0
    assert rank_correlation([1, 1, 1], [1, 2, 3]).text() == "not defined"
    assert not rank_correlation([1, 2, 3], [1, 2, 3]).has_interval


def test_share_larger_counts_pairs():
    one, other = [1.0, 2.0, 2.0, math.nan], [2.0, 0.0]
    assert share_larger(one, other) == np.mean([(a > b) + 0.5 * (a == b) for a in one[:3] for b in other])
    assert math.isnan(share_larger([], other))


# -- crossed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_trials", "n_rows"), [(2, 9), (3, 20), (5, 7), (10, 2)])
def test_components_are_the_mean_squares_of_two_ways(n_trials, n_rows):
    D = differences(np.random.default_rng(n_trials), n_trials, n_rows)
    found = crossed_components(D)
    assert (found.seeds, found.rows, found.residual) == pytest.approx(parts(D), rel=EXACT)
    assert found.value == pytest.approx(D.mean(), rel=EXACT)
    assert found.trials == pytest.approx(D.mean(axis=1), rel=EXACT)
    assert (found.n_trials, found.n_rows) == (n_trials, n_rows)
    assert found.worst == max(found.trials)
    within = np.square(D - D.mean(axis=1, keepdims=True)).mean()
    same = components_from_means(D.mean(axis=1), D.mean(axis=0), within)
    assert (same.seeds, same.rows, same.residual) == pytest.approx(parts(D), rel=EXACT)


@pytest.mark.parametrize("kind", [bool, np.int8, float])
def test_components_of_right_and_wrong(kind):
    rng = np.random.default_rng(3)
    one, other = (rng.random((4, 50)) < 0.8 for _ in range(2))
    found = crossed_components(row_differences(one.astype(kind), other.astype(kind)))
    D = one.astype(int) - other
    assert (found.seeds, found.rows, found.residual) == pytest.approx(parts(D), rel=EXACT)
    bits = [[np.packbits(row) for row in rows] for rows in (one, other)]
    unpacked = ((np.unpackbits(row, count=50) for row in rows) for rows in bits)
    assert crossed_components(row_differences(*unpacked)) == found
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        crossed_components(row_differences(one, other[:3]))


def by_hand(D, p):
    """The half-width in a few lines."""
    (J, n), (A, B, C) = D.shape, parts(D)
    v = max(A + B - C, A, B)
    t = A / v * stats.t.ppf(p, J - 1) + (1 - A / v) * stats.t.ppf(p, n - 1)
    if J > 3:
        t = stats.t.ppf(p, max(v**2 / (A**2 / (J - 1) + B**2 / (n - 1) + C**2 / ((n - 1) * (J - 1))), 1))
    return t * math.sqrt(v)


@pytest.mark.parametrize("n_trials", [2, 3, 4, 5, 10])
@pytest.mark.parametrize("seeds", [0.001, 0.05, 0.5])
def test_interval_and_bound(n_trials, seeds):
    D = differences(np.random.default_rng(n_trials), n_trials, 30, seeds)
    found = crossed_components(D)
    half = by_hand(D, 0.975)
    assert ends(found.estimate()) == pytest.approx((D.mean(), D.mean() - half, D.mean() + half), rel=EXACT)
    assert found.bound() == pytest.approx(D.mean() + by_hand(D, 0.95), rel=EXACT)
    assert found.estimate(level=0.9).high == pytest.approx(found.bound(0.95))
    assert found.estimate().covers == "new seeds and new test samples, for this training set"
    assert found.estimate("new things").covers == "new things"


def test_only_seeds_or_only_rows_vary():
    """Then it is Student's t interval over those."""
    seeds, rows = RNG.standard_normal(5), RNG.standard_normal(40)
    for n in (2, 3, 5):
        over_trials = crossed_components(np.repeat(seeds[:n, None], 40, axis=1)).estimate()
        assert ends(over_trials) == pytest.approx(ends(mean_estimate(seeds[:n])))
    # The trials' means stay equal: two that err on other rows, as often.
    D = np.stack([rows, rows]) + np.array([[1], [-1]]) * 1e-3 * np.tile([1, -1], 20)
    expected = stats.ttest_1samp(rows, 0).confidence_interval(0.95)
    assert ends(crossed_components(D).estimate())[1:] == pytest.approx(tuple(expected), rel=1e-6)


@pytest.mark.parametrize("n_trials", [2, 3, 10])
@pytest.mark.parametrize("row", [np.zeros(20), np.tile([0, 1], 10), RNG.standard_normal(20)])
def test_equal_trials_show_nothing(n_trials, row):
    found = crossed_components(np.tile(row, (n_trials, 1)))
    assert not found.estimate().has_interval
    assert found.bound() == math.inf
    assert math.isnan(found.p_value(10.0))
    assert not loss_test(found, 0.5).shown
    assert found.estimate().value == pytest.approx(row.mean())


def test_one_trial_shows_nothing():
    found = crossed_components([np.tile([0, 1], 10)])
    assert found.value == 0.5
    assert not found.estimate().has_interval
    assert found.bound() == math.inf
    assert crossed_components([]).estimate().text() == "not defined"


@pytest.mark.parametrize("D", [[[1.0], [2.0]], [[1, 2], [1, 2, 3]], [1, 2, 3]])
def test_bad_shapes(D):
    with pytest.raises(ValueError, match="differences must have at least 2 samples, the same number"):
        crossed_components(D)


def test_differences_that_are_not_finite():
    with pytest.raises(ValueError, match="differences must be finite"):
        crossed_components([[1.0, 2.0], [1.0, math.nan]])


@given(st.integers(2, 6), st.integers(2, 12), st.integers(0, 10**6), st.floats(0.01, 10), st.floats(-5, 5))
def test_properties(n_trials, n_rows, seed, factor, shift):
    D = differences(np.random.default_rng(seed), n_trials, n_rows, seeds=0.2)
    found = crossed_components(D)
    assert found.variance >= max(found.seeds, found.rows) * (1 - 1e-12)
    assert min(found.seeds, found.rows, found.residual) >= 0
    # Units, order of trials and of rows.
    moved = crossed_components(factor * D + shift)
    assert moved.bound() == pytest.approx(factor * found.bound() + shift, rel=1e-6, abs=1e-6)
    assert moved.p_value(shift + factor) == pytest.approx(found.p_value(1.0), rel=1e-5, abs=1e-12)
    assert ends(crossed_components(D[::-1, ::-1]).estimate()) == pytest.approx(ends(found.estimate()))
    # The other way round.
    low, high = found.estimate().low, found.estimate().high
    assert ends(crossed_components(-D).estimate())[1:] == pytest.approx((-high, -low))
    # p and bound agree, and p falls with the margin.
    for level in (0.6, 0.95, 0.999):
        assert found.p_value(found.bound(level)) == pytest.approx(1 - level, rel=1e-6)
    p = [found.p_value(margin) for margin in (-1.0, 0.0, 1.0, 2.0)]
    assert p == sorted(p, reverse=True)
    assert all(0 <= value <= 1 for value in p)


# -- scores without rows -----------------------------------------------------------------------------------------------


def predictions(rng, n_trials=3, n_rows=120, kind="labels"):
    y = (np.arange(n_rows) % 4 == 0).astype(int)
    u = rng.standard_normal(n_rows)
    both = [[shift * y + u + rng.standard_normal(n_rows) for _ in range(n_trials)] for shift in (2.0, 1.5)]
    if kind == "labels":
        both = [[(p > 1).astype(int) for p in trials] for trials in both]
    if kind == "ties":
        both = [[p.round() for p in trials] for trials in both]
    return y, *both


def plain_bootstrap(score, y, reference, other, n_resamples, seed):
    """A, B and C by resampling rows, one score at a time."""
    rng, drawn = np.random.RandomState(seed), []
    while len(drawn) < n_resamples:
        rows = rng.randint(len(y), size=len(y))
        if len(np.unique(y[rows])) == len(np.unique(y)):
            drawn.append(
                [score(y[rows], a[rows]) - score(y[rows], b[rows]) for a, b in zip(reference, other, strict=True)]
            )
    drawn, J = np.array(drawn), len(reference)
    trials = np.array([score(y, a) - score(y, b) for a, b in zip(reference, other, strict=True)])
    rows = drawn.mean(axis=1).var(ddof=1)
    return trials.var(ddof=1) / J, rows, (drawn.var(axis=0, ddof=1).mean() - rows) / (J - 1)


@pytest.mark.parametrize(
    ("score", "kind"),
    [
        (average_precision_score, "scores"),
        (average_precision_score, "ties"),
        (roc_auc_score, "scores"),
        (f1_score, "labels"),
        (balanced_accuracy_score, "labels"),
        (accuracy_score, "labels"),
        (functools.partial(f1_score, average="macro"), "labels"),
        (lambda y, p: f1_score(y, p), "labels"),
    ],
)
def test_bootstrap_is_the_plain_one(score, kind):
    y, reference, other = predictions(np.random.default_rng(0), n_trials=2, kind=kind)
    found = bootstrap_components(score, y, reference, other, n_resamples=20, random_state=7)
    expected = plain_bootstrap(score, y, reference, other, 20, 7)
    assert (found.seeds, found.rows, found.residual) == pytest.approx(expected, rel=EXACT)
    differences = [score(y, a) - score(y, b) for a, b in zip(reference, other, strict=True)]
    assert found.trials == pytest.approx(differences, rel=EXACT)
    assert (found.value, found.n_rows) == (pytest.approx(np.mean(differences)), 120)
    assert bootstrap_components(score, y, reference, other, n_resamples=20, random_state=7) == found


def test_bootstrap_of_words_and_of_several_classes():
    rng = np.random.default_rng(1)
    y = np.array(["a", "b", "c"])[rng.integers(3, size=90)]
    one, two = ([np.where(rng.random(90) < share, y, "a") for _ in range(2)] for share in (0.9, 0.7))
    score = balanced_accuracy_score
    found = bootstrap_components(score, y, one, two, n_resamples=20, random_state=2)
    assert (found.seeds, found.rows, found.residual) == pytest.approx(plain_bootstrap(score, y, one, two, 20, 2))


@pytest.mark.parametrize("score", [f1_score, balanced_accuracy_score])
def test_bootstrap_of_models_that_know_one_class(score):
    y, reference, _ = predictions(np.random.default_rng(5), n_trials=2)
    constant = [np.zeros(120, dtype=int)] * 2
    found = bootstrap_components(score, y, reference, constant, n_resamples=20)
    assert found.trials == pytest.approx([score(y, one) - score(y, constant[0]) for one in reference])


def test_bootstrap_of_accuracy_is_the_crossed_interval():
    """Of 2,000 resamples, whose variance has a standard error of 1 / sqrt(1,000) of itself; three of them."""
    y, reference, other = predictions(np.random.default_rng(2), n_trials=4, n_rows=400)
    drawn = bootstrap_components(lambda y, p: np.mean(y == p), y, reference, other, n_resamples=2000)
    crossed = crossed_components(row_differences(np.equal(reference, y), np.equal(other, y)))
    assert drawn.value == pytest.approx(crossed.value)
    assert drawn.seeds == pytest.approx(crossed.seeds)
    assert (drawn.rows, drawn.residual) == pytest.approx((crossed.rows, crossed.residual), rel=0.1)


def test_bootstrap_of_equal_trials_shows_nothing():
    y, reference, other = predictions(np.random.default_rng(3), kind="scores")
    found = bootstrap_components(average_precision_score, y, reference[:1] * 3, other[:1] * 3, n_resamples=40)
    assert found.rows > 0
    assert not found.estimate().has_interval
    assert math.isnan(found.p_value(1.0))
    one = bootstrap_components(average_precision_score, y, reference[:1], other[:1], n_resamples=40)
    assert not one.estimate().has_interval


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_resamples": 5}, "n_resamples must be an integer of at least 20"),
        ({"other": []}, "other must have as many trials as reference, 3; got 0"),
        ({"other": [np.zeros(4)] * 3}, "a prediction for each of the 120 samples"),
        (
            {"y": np.r_[np.ones(9), np.zeros(111)]},
            "at least 10 samples of every class.* the smallest class has 9. Hold out more",
        ),
        ({"other": [np.full(120, math.nan)] * 3}, "must be finite; leave out trials"),
        ({"score": lambda y, p: math.nan}, "score must be finite"),
    ],
)
def test_bootstrap_refuses(change, sentence):
    y, reference, other = predictions(np.random.default_rng(4))
    given = {"score": accuracy_score, "y": y, "reference": reference, "other": other, **change}
    with pytest.raises(ValueError, match=sentence):
        bootstrap_components(**given)


def test_no_trials_at_all():
    assert bootstrap_components(f1_score, [0, 1] * 10, [], []).estimate().text() == "not defined"


# -- times -------------------------------------------------------------------------------------------------------------

YES, NO = True, False


def test_median_ratio_between_the_extremes():
    found = time_ratio([1, 1, 1, 2, 1], [2, 5, 3, 8, 1], [YES] * 5, [YES] * 5)
    assert ends(found) == pytest.approx((3, 1, 5))
    assert found.level == 0.9375
    assert found.about() == "93.75 % interval, for new seeds"
    even = time_ratio([1, 1], [2, 8], [YES] * 2, [YES] * 2)
    assert (*ends(even), even.level) == pytest.approx((4, 2, 8, 0.5))  # the geometric middle


@pytest.mark.parametrize(("n", "k"), [(3, 1), (5, 1), (6, 1), (8, 1), (9, 2), (12, 3), (20, 6)])
def test_order_statistics(n, k):
    """Exact levels by counting heads of n coins: the k-th smallest is above the median if fewer than k fall below."""
    ratios = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    found = time_ratio(np.ones(n), ratios, np.ones(n, bool), np.ones(n, bool))
    assert (found.low, found.high) == (k, n + 1 - k)
    assert found.level == pytest.approx(1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n)


def test_the_upper_end_is_infinite_where_the_other_is_censored():
    found = time_ratio([1, 1, 1, 2, 1], [2, 5, 3, 8, 9], [YES] * 5, [YES, YES, YES, YES, NO])
    assert (found.value, found.low, found.high) == (pytest.approx(4), 2, math.inf)
    early = time_ratio([1, 1, 1, 2, 1], [2, 5, 3, 8, 1], [YES] * 5, [YES, YES, YES, YES, NO])
    assert (early.low, early.high) == (1, math.inf)  # it was trained as long as the reference needed
    assert math.isnan(early.value)


def test_the_lower_end_is_zero_where_the_reference_is_censored():
    found = time_ratio([1, 1, 1, 2, 4], [2, 5, 3, 8, 1], [YES, YES, YES, YES, NO], [YES] * 5)
    assert (found.low, found.high) == (0, 5)


def test_the_ends_are_unknown_where_both_are_censored():
    found = time_ratio([1, 1, 1, 2, 9], [2, 5, 3, 8, 9], [YES, YES, YES, YES, NO], [YES, YES, YES, YES, NO])
    assert np.isnan([found.low, found.high]).all()
    assert not found.excludes(100)
    recorded = time_ratio([1, 1, 1, 2, math.nan], [2, 5, 3, 8, 9], [YES] * 5, [YES] * 5)
    assert np.isnan([recorded.low, recorded.high]).all()
    # Nine trials do not rest on their extremes.
    nine = time_ratio([1.0] * 9, range(1, 10), [YES] * 8 + [NO], [YES] * 8 + [NO])
    assert (nine.low, nine.high) == (1, 8)


def test_one_time_and_no_time():
    one = time_ratio([1], [3], [YES], [YES])
    assert (one.value, one.has_interval) == (3, False)
    assert time_ratio([], [], [], []).text() == "not defined"
    assert math.isnan(time_ratio([1], [3], [YES], [NO]).value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([1, 2], [1], [YES] * 2, [YES] * 2), "must have one value for each trial"),
        (([1, 2], [1, 2], [YES], [YES] * 2), "must have one value for each trial"),
        (([0, 2], [1, 2], [YES] * 2, [YES] * 2), "must be finite times above 0"),
        (([1, 2], [1, math.inf], [YES] * 2, [YES] * 2), "must be finite times above 0"),
    ],
)
def test_bad_times(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        time_ratio(*arguments)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=12), st.floats(0.1, 12))
def test_censoring_only_widens(pairs, budget):
    one, two = np.array(pairs).T
    reached = one <= budget, two <= budget
    full = time_ratio(one, two, one > 0, two > 0)
    censored = time_ratio(np.minimum(one, budget), np.minimum(two, budget), *reached)
    assert censored.level == full.level
    assert not censored.low > full.low * (1 + 1e-12)
    assert not censored.high < full.high * (1 - 1e-12)
    assert math.isnan(censored.value) or censored.value == pytest.approx(full.value)


# -- non-inferiority ---------------------------------------------------------------------------------------------------


def losses(*trials):
    return trial_components(trials)


def test_a_size_is_shown_where_its_bound_is_below_the_margin():
    test = loss_test(losses(0.001, 0.002, 0.003), 0.01)
    bound = 0.002 + stats.t.ppf(0.95, 2) * 0.001 / math.sqrt(3)
    assert (test.lost, test.bound, test.shown) == (pytest.approx(0.002), pytest.approx(bound), True)
    assert (test.worst, test.n_failed, test.n_trials) == (0.003, 0, 3)
    assert test.p_value < 0.05
    beyond = loss_test(losses(0.001, 0.002, 0.003), bound * 0.99)
    assert not beyond.shown
    assert beyond.p_value > 0.05


@pytest.mark.parametrize("trials", [(0.0,), (0.0, 0.0), (-0.1,) * 5])
def test_equal_trials_are_no_evidence(trials):
    test = loss_test(losses(*trials), 0.01)
    assert not test.shown
    assert math.isnan(test.p_value)
    assert test.bound == math.inf


def test_a_failed_trial_is_one_that_loses_more_than_five_margins():
    many = [-0.05, -0.05, -0.04, -0.05] * 8
    assert loss_test(losses(*many, 0.0499), 0.01).shown
    test = loss_test(losses(*many, 0.0501), 0.01)
    assert test.bound < 0.01
    assert (test.n_failed, test.shown, test.worst) == (1, False, 0.0501)


def test_the_first_failure_ends_the_sequence():
    good, bad = losses(0.001, 0.002, 0.003), losses(0.1, 0.2, 0.3)
    read = []
    cases = (read.append(i) or one for i, one in enumerate([good, bad, good]))
    found = fixed_sequence(cases, lambda case: [loss_test(case, 0.01)])
    assert [test.shown for _, tests in found for test in tests] == [True, False]
    assert read == [0, 1]
    assert fixed_sequence([], lambda case: []) == []
    # Several tests of one case must all be shown.
    both = fixed_sequence([0, 1], lambda case: [loss_test(good, 0.01), loss_test(bad, 0.01)])
    assert [case for case, _ in both] == [0]


def test_margins_that_the_rows_can_show():
    assert smallest_margin(1000) == 0.005
    assert needed_rows(0.005) == 1000
    assert needed_rows(0.01) == 500
    assert needed_rows(0.003) == 1667
    for margin, n_rows in ((0.005, 1000), (0.01, 500), (0.05, 100)):
        check_margin(margin, n_rows)
        with pytest.raises(ValueError, match=f"margin must be at least .* with {n_rows - 1} validation samples"):
            check_margin(margin, n_rows - 1)
    with pytest.raises(ValueError, match=r"at least 0.0103 with 490 .*; 0.01 needs a hold-out of 500"):
        check_margin(0.01, 490)


@given(st.integers(6, 10**6))
def test_the_smallest_margin_is_one_that_can_be_shown(n_rows):
    check_margin(smallest_margin(n_rows), n_rows)
    assert needed_rows(smallest_margin(n_rows)) == n_rows


@pytest.mark.parametrize("margin", [0, 1, -0.1, math.nan, "1 %", True])
def test_margins_outside_of_0_and_1(margin):
    with pytest.raises(ValueError, match="margin must be a number above 0 and below 1"):
        check_margin(margin, 1000)


def test_failures_that_would_not_have_shown():
    assert unseen_failure_rate(5) == pytest.approx(0.4507, abs=5e-5)
    assert unseen_failure_rate(0) == 1
    assert (1 - unseen_failure_rate(10)) ** 10 == pytest.approx(0.05)


# -- simulation: a short version of examples/benchmarks/intervals.py ---------------------------------------------------


@pytest.mark.parametrize("n_trials", [2, 5, 10])
@pytest.mark.parametrize("seeds", [0.003, 0.01])
def test_level_and_coverage(n_trials, seeds):
    """400 experiments with 300 rows: level at most 5 % and coverage at least 95 %, within 3.5 standard errors.

    Parts of the variance as measured: a twentieth of the rows differs between models.
    """
    rng, n = np.random.default_rng(n_trials), 400
    found = [crossed_components(differences(rng, n_trials, 300, seeds, 0.12, 0.18)) for _ in range(n)]
    error = 3.5 * math.sqrt(0.05 * 0.95 / n)
    assert np.mean([c.bound() < 0 for c in found]) <= 0.05 + error
    assert np.mean([not c.estimate().excludes(0) for c in found]) >= 0.95 - error


def test_seeds_alone_do_not_cover_new_rows():
    """What the crossed interval is for: ten trials with the same 300 rows, 400 experiments, 3.5 standard errors."""
    rng, n = np.random.default_rng(0), 400
    found = [trial_components(differences(rng, 10, 300, 0.003, 0.12, 0.18).mean(axis=1)) for _ in range(n)]
    assert np.mean([c.bound() < 0 for c in found]) > 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / n)


def test_coverage_of_the_bootstrap():
    """80 experiments of average precision, whose mean is the true value; 3.5 standard errors of the coverage."""
    rng, n, found = np.random.default_rng(0), 80, []
    for _ in range(n):
        y, reference, other = predictions(rng, n_trials=4, n_rows=200, kind="scores")
        found.append(bootstrap_components(average_precision_score, y, reference, other, n_resamples=40))
    truth = np.mean([c.value for c in found])
    covered = np.mean([not c.estimate().excludes(truth) for c in found])
    assert covered >= 0.95 - 3.5 * math.sqrt(0.05 * 0.95 / n)


def test_coverage_of_the_median_ratio():
    """400 experiments of 5 trials, a third of the times censored: at least 93.75 %, within 3.5 standard errors."""
    rng, n, hits = np.random.default_rng(0), 400, 0
    for _ in range(n):
        one, two = rng.lognormal(0, 0.4, 5), 2 * rng.lognormal(0, 0.4, 5)
        found = time_ratio(np.minimum(one, 2.5), np.minimum(two, 2.5), one < 2.5, two < 2.5)
        hits += not found.excludes(2)
    assert hits / n >= 0.9375 - 3.5 * math.sqrt(0.0625 * 0.9375 / n)
