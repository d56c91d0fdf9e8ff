import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from sklgap.inspection import fit_diffusion

T = np.array([1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128])
X = np.log(T)
# Noise of one percent of the distances below.
NOISE = 0.05 * np.random.default_rng(0).standard_normal(len(T))
# Rounding of distances of order ten in float64, carried through a least-squares fit.
EXACT = {"rel": 1e-9, "abs": 1e-9}


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_logarithmic_distances_are_recovered():
    fit = fit_diffusion(T, 3 + 2 * X)
    assert (fit.a, fit.b, fit.r2) == pytest.approx((3, 2, 1), **EXACT)
    assert fit.slopes == (fit.b,)
    assert fit.rss == pytest.approx(0, abs=1e-20)
    assert fit.better == "log"
    assert fit.power_rss > 0.1
    assert (fit.n_points, fit.window, fit.confidence) == (14, (1, 128), 0.95)
    np.testing.assert_allclose(fit.predict([1, np.e]), [3, 5], rtol=1e-9)


@pytest.mark.parametrize("exponent", [0.5, 1.0, -0.3])
def test_power_laws_are_recovered(exponent):
    fit = fit_diffusion(T, 3 * T**exponent)
    assert (fit.scale, fit.exponent) == pytest.approx((3, exponent), **EXACT)
    assert fit.better == "power"
    assert fit.power_aic < fit.aic


def test_three_points_by_hand():
    """x = 0, 1, 2 and y = 1, 2, 4: slope 3/2, intercept 5/6, RSS 1/6."""
    fit = fit_diffusion(np.exp([0, 1, 2]), [1, 2, 4])
    assert (fit.a, fit.b, fit.rss) == pytest.approx((5 / 6, 3 / 2, 1 / 6), **EXACT)
    assert fit.r2 == pytest.approx(1 - (1 / 6) / (14 / 3), **EXACT)
    assert fit.aic == pytest.approx(3 * np.log(1 / 18) + 6, **EXACT)


def test_three_trials_by_hand():
    """Slopes 1, 2 and 3: mean 2, standard error 1 / sqrt(3); t at 2 degrees of freedom and 90 % is 2.9200."""
    fit = fit_diffusion(T, [5 + slope * X for slope in (1, 2, 3)], confidence=0.9)
    assert (fit.a, fit.b, fit.r2) == pytest.approx((5, 2, 1), **EXACT)
    half = 2.91998558 / np.sqrt(3)
    assert fit.b_interval == pytest.approx((2 - half, 2 + half), rel=1e-8)
    assert fit.slopes == pytest.approx((1, 2, 3), **EXACT)
    assert fit.a_interval == pytest.approx((5, 5), **EXACT)
    assert (fit.n_trials, fit.n_points, fit.window) == (3, 42, (1, 128))
    np.testing.assert_allclose(fit.predict([1, np.e]), [5, 7], rtol=1e-9)


def test_constant_distances():
    fit = fit_diffusion(T, np.full(len(T), 2.0))
    assert (fit.a, fit.b, fit.exponent) == pytest.approx((2, 0, 0), abs=1e-12)
    assert np.isnan(fit.r2)


# -- independent libraries ---------------------------------------------------------------------------------------------


def test_as_scipy_has_it():
    y = 3 + 2 * X + NOISE
    fit, line = fit_diffusion(T, y), stats.linregress(X, y)
    assert (fit.a, fit.b, fit.r2) == pytest.approx((line.intercept, line.slope, line.rvalue**2), rel=1e-12)
    y = 3 * T**0.4 + NOISE
    fit = fit_diffusion(T, y)
    (scale, exponent), _ = curve_fit(lambda t, c, d: c * t**d, T, y, p0=(1, 0.5))
    # curve_fit differentiates by finite differences.
    assert (fit.scale, fit.exponent) == pytest.approx((scale, exponent), rel=1e-6)
    assert fit.power_rss == pytest.approx(np.square(y - scale * T**exponent).sum(), rel=1e-6)


def test_intervals_are_the_t_tests_of_scipy_over_single_fits():
    trials = [3 + 2 * X + 0.1 * np.random.default_rng(seed).standard_normal(len(T)) for seed in range(4)]
    fit, single = fit_diffusion(T, trials, confidence=0.99), [fit_diffusion(T, trial) for trial in trials]
    for name in ("a", "b", "exponent"):
        interval = stats.ttest_1samp([getattr(one, name) for one in single], 0).confidence_interval(0.99)
        assert getattr(fit, f"{name}_interval") == pytest.approx(tuple(interval), rel=1e-12)
    for name in ("rss", "power_rss", "aic", "power_aic", "n_points"):
        assert getattr(fit, name) == pytest.approx(sum(getattr(one, name) for one in single), rel=1e-12)
    assert fit.scale == pytest.approx(stats.gmean([one.scale for one in single]), rel=1e-12)


def test_the_power_law_is_the_best_in_distance():
    """Least squares in log-log coordinates would be another law: small distances would count most."""
    y = 3 * T**0.4 + 10 * NOISE
    fit = fit_diffusion(T, y)
    for scale in (fit.scale * 0.999, fit.scale, fit.scale * 1.001):
        for exponent in (fit.exponent - 1e-3, fit.exponent, fit.exponent + 1e-3):
            assert np.square(y - scale * T**exponent).sum() >= fit.power_rss * (1 - 1e-12)
    assert fit.power_aic - fit.aic == pytest.approx(len(T) * np.log(fit.power_rss / fit.rss), rel=1e-12)


# -- statistics --------------------------------------------------------------------------------------------------------


def test_intervals_over_trials_cover_the_truth_as_often_as_they_say():
    """400 experiments of 4 runs whose errors are walks, as in training; four standard errors of a share."""
    rng = np.random.default_rng(1)
    hits, n_sets = 0, 400
    for _ in range(n_sets):
        walks = np.cumsum(0.1 * rng.standard_normal((4, len(T))), axis=1)
        low, high = fit_diffusion(T, 10 + 2 * X + walks).b_interval
        hits += low <= 2 <= high
    assert hits / n_sets == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / n_sets))


@pytest.mark.parametrize("n_points", [4, 14])
def test_one_trajectory_has_no_interval(n_points):
    fit = fit_diffusion(T[:n_points], (3 + 2 * X + NOISE)[:n_points])
    assert np.isnan([*fit.a_interval, *fit.b_interval, *fit.exponent_interval]).all()
    assert not fit.has_interval
    assert "no interval, because one trial" in str(fit)
    assert "[" not in str(fit)


def test_equal_trials_have_no_interval():
    fit = fit_diffusion(T, [3 + 2 * X + NOISE] * 3)
    assert np.isnan(fit.b_interval).all()
    assert "no interval, because all trials are equal" in str(fit)
    assert fit.b == pytest.approx(fit_diffusion(T, 3 + 2 * X + NOISE).b)


def test_trials_of_unequal_length():
    first, second = (T, 3 + 2 * X + NOISE), (T[:9], (4 + X + NOISE)[:9])
    fit = fit_diffusion([first[0], second[0]], [first[1], second[1]])
    assert fit.slopes == pytest.approx((fit_diffusion(*first).b, fit_diffusion(*second).b))
    assert fit.n_points == 23
    with pytest.raises(ValueError, match="n_updates must be one sequence for all trials or one sequence for each"):
        fit_diffusion([T, T], [Y, Y, Y])


def test_a_random_walk_is_no_ultra_slow_diffusion():
    """In 2,000 dimensions the distance is sqrt(2,000 t) within some percent."""
    steps = np.random.default_rng(3).standard_normal((128, 2000))
    distances = np.linalg.norm(np.cumsum(steps, axis=0), axis=1)[T - 1]
    fit = fit_diffusion(T, distances)
    assert fit.better == "power"
    assert fit.exponent == pytest.approx(0.5, abs=0.02)


# -- invariances and selection -----------------------------------------------------------------------------------------


def test_units_of_distance_and_time():
    y = 3 + 2 * X + NOISE
    fit, larger, slower = fit_diffusion(T, y), fit_diffusion(T, 1e6 * y), fit_diffusion(10 * T, y)
    assert (larger.a, larger.b, larger.scale) == pytest.approx(tuple(1e6 * np.array([fit.a, fit.b, fit.scale])))
    assert (larger.exponent, larger.r2) == pytest.approx((fit.exponent, fit.r2))
    assert (slower.a, slower.b) == pytest.approx((fit.a - fit.b * np.log(10), fit.b))
    assert (slower.exponent, slower.power_rss) == pytest.approx((fit.exponent, fit.power_rss))


def test_the_window_is_what_is_fitted():
    y = np.where((T >= 4) & (T <= 45), 3 + 2 * X, 99.0)
    fit = fit_diffusion(T, y, window=(4, 45))
    assert (fit.a, fit.b) == pytest.approx((3, 2), **EXACT)
    assert (fit.window, fit.n_points) == ((4, 45), 8)
    assert fit_diffusion(T, y, window=(3.5, 63)).n_points == 8
    assert fit_diffusion(T, 3 + 2 * X, window=(8, np.inf)).window == (8, 128)


def test_the_initial_weights_are_left_out():
    assert fit_diffusion([0, *T], [0.0, *(3 + 2 * X + NOISE)]) == fit_diffusion(T, 3 + 2 * X + NOISE)


def test_what_is_printed():
    text = str(fit_diffusion(T, 3 + 2 * X + NOISE, window=(2, 64)))
    assert text.startswith("distance = 3.0")
    assert "log t for t from 2 to 64 (11 points, no interval" in text
    assert "R2 0.99" in text
    assert "fits worse (residual sum of squares" in text
    assert "fits better" in str(fit_diffusion(T, 3 * T**0.5))
    text = str(fit_diffusion(T, [3 + 2 * X + NOISE, 3 + 2 * X - NOISE], confidence=0.9))
    assert "(28 points of 2 trials, 90 % interval of the slope over trials [" in text


# -- bad input ---------------------------------------------------------------------------------------------------------

Y = 3 + 2 * X
BAD = {
    "lengths": ((T, Y[1:]), {}, r"must have one dimension and the same length; got the shapes \(14,\) and \(13,\)"),
    "dimensions": ((T[None, None], Y[None, None]), {}, "must have one dimension and the same length"),
    "columns": ((T[:, None], Y[:, None]), {}, "at least 3 different numbers of updates above 0; got 1"),
    "words": ((T, ["far"] * 14), {}, "n_updates and distances must be sequences of numbers"),
    "too few": ((T[:2], Y[:2]), {}, "window must contain at least 3 different numbers of updates above 0; got 2"),
    "one t": (([5, 5, 5], [1, 2, 3]), {}, "at least 3 different numbers of updates above 0; got 1"),
    "empty window": ((T, Y), {"window": (200, 300)}, "at least 3 different numbers of updates above 0; got 0"),
    "nan": ((T, np.where(T == 4, np.nan, Y)), {}, "distances must be finite and above 0"),
    "zero": ((T, np.where(T == 4, 0, Y)), {}, "distances must be finite and above 0"),
    "infinite t": (([1, 2, 3, np.inf], [1, 2, 3, 4]), {}, "n_updates must be finite"),
    "window": ((T, Y), {"window": 5}, r"window must be None or a pair \(first, last\) with 0 <= first < last; got 5"),
    "window order": ((T, Y), {"window": (9, 3)}, r"window must be None or a pair .* got \(9, 3\)"),
    "window words": ((T, Y), {"window": ("a", "b")}, "window must be None or a pair"),
    "confidence": ((T, Y), {"confidence": 1.0}, "confidence must be a number between 0 and 1; got 1.0"),
    "percent": ((T, Y), {"confidence": "95"}, "confidence must be a number between 0 and 1; got '95'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    arguments, options, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence):
        fit_diffusion(*arguments, **options)


def test_constant_distances_are_fitted_alike_by_both_laws():
    fit = fit_diffusion([1, 2, 4, 8], [3.0, 3.0, 3.0, 3.0])
    assert (fit.b, fit.exponent, fit.rss, fit.power_rss) == (0, 0, 0, 0)
    assert "fits as well" in str(fit)
    assert "AIC +0.0" in str(fit)
