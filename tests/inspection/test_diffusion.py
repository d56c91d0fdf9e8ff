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
    assert fit.a_interval == pytest.approx((3, 3), **EXACT)
    assert fit.b_interval == pytest.approx((2, 2), **EXACT)
    assert fit.rss == pytest.approx(0, abs=1e-20)
    assert fit.better == "log"
    assert fit.power_rss > 0.1
    assert (fit.n_points, fit.window, fit.confidence) == (14, (1, 128), 0.95)
    np.testing.assert_allclose(fit.predict([1, np.e]), [3, 5], rtol=1e-9)


@pytest.mark.parametrize("exponent", [0.5, 1.0, -0.3])
def test_power_laws_are_recovered(exponent):
    fit = fit_diffusion(T, 3 * T**exponent)
    assert (fit.scale, fit.exponent) == pytest.approx((3, exponent), **EXACT)
    assert fit.exponent_interval == pytest.approx((exponent, exponent), **EXACT)
    assert fit.better == "power"
    assert fit.power_aic < fit.aic


def test_three_points_by_hand():
    """x = 0, 1, 2 and y = 1, 2, 4: slope 3/2, intercept 5/6, RSS 1/6; t at 1 degree of freedom is tan(pi p / 2)."""
    fit = fit_diffusion(np.exp([0, 1, 2]), [1, 2, 4], confidence=0.9)
    assert (fit.a, fit.b, fit.rss) == pytest.approx((5 / 6, 3 / 2, 1 / 6), **EXACT)
    assert fit.r2 == pytest.approx(1 - (1 / 6) / (14 / 3), **EXACT)
    quantile, variance = np.tan(np.pi * 0.9 / 2), 1 / 6
    b_half, a_half = quantile * np.sqrt(variance / 2), quantile * np.sqrt(variance * (1 / 3 + 1 / 2))
    assert fit.b_interval == pytest.approx((1.5 - b_half, 1.5 + b_half), **EXACT)
    assert fit.a_interval == pytest.approx((5 / 6 - a_half, 5 / 6 + a_half), **EXACT)
    assert fit.aic == pytest.approx(3 * np.log(1 / 18) + 6, **EXACT)


def test_constant_distances():
    fit = fit_diffusion(T, np.full(len(T), 2.0))
    assert (fit.a, fit.b, fit.exponent) == pytest.approx((2, 0, 0), abs=1e-12)
    assert np.isnan(fit.r2)


# -- independent libraries ---------------------------------------------------------------------------------------------


def test_as_scipy_has_it():
    y = 3 + 2 * X + NOISE
    fit, line = fit_diffusion(T, y, confidence=0.99), stats.linregress(X, y)
    quantile = stats.t.ppf(0.995, len(T) - 2)
    assert (fit.a, fit.b, fit.r2) == pytest.approx((line.intercept, line.slope, line.rvalue**2), rel=1e-12)
    assert fit.b_interval[1] - fit.b == pytest.approx(quantile * line.stderr, rel=1e-10)
    assert fit.a - fit.a_interval[0] == pytest.approx(quantile * line.intercept_stderr, rel=1e-10)
    y = 3 * T**0.4 + NOISE
    fit = fit_diffusion(T, y, confidence=0.99)
    (scale, exponent), covariance = curve_fit(lambda t, c, d: c * t**d, T, y, p0=(1, 0.5))
    # curve_fit differentiates by finite differences.
    assert (fit.scale, fit.exponent) == pytest.approx((scale, exponent), rel=1e-6)
    half_width = quantile * np.sqrt(covariance[1, 1])
    assert fit.exponent_interval == pytest.approx((exponent - half_width, exponent + half_width), rel=1e-4)
    assert fit.power_rss == pytest.approx(np.square(y - scale * T**exponent).sum(), rel=1e-6)


def test_the_power_law_is_the_best_in_distance():
    """Least squares in log-log coordinates would be another law: small distances would count most."""
    y = 3 * T**0.4 + 10 * NOISE
    fit = fit_diffusion(T, y)
    for scale in (fit.scale * 0.999, fit.scale, fit.scale * 1.001):
        for exponent in (fit.exponent - 1e-3, fit.exponent, fit.exponent + 1e-3):
            assert np.square(y - scale * T**exponent).sum() >= fit.power_rss * (1 - 1e-12)
    assert fit.power_aic - fit.aic == pytest.approx(len(T) * np.log(fit.power_rss / fit.rss), rel=1e-12)


# -- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.95, 0.6])
def test_intervals_cover_the_truth_as_often_as_they_say(confidence):
    """400 data sets with independent errors; four standard errors of a share."""
    rng = np.random.default_rng(1)
    hits = np.zeros(3)
    n_sets = 400
    for _ in range(n_sets):
        fit = fit_diffusion(T, 3 + 2 * X + 0.1 * rng.standard_normal(len(T)), confidence=confidence)
        power = fit_diffusion(T, 3 * T**0.4 + 0.1 * rng.standard_normal(len(T)), confidence=confidence)
        within = (fit.a_interval, 3), (fit.b_interval, 2), (power.exponent_interval, 0.4)
        hits += [low <= truth <= high for (low, high), truth in within]
    margin = 4 * np.sqrt(confidence * (1 - confidence) / n_sets)
    np.testing.assert_allclose(hits / n_sets, confidence, atol=margin)


def test_points_of_one_walk_are_not_independent():
    """What the notes say: about the line of a random walk the intervals of b cover far less than they say."""
    rng = np.random.default_rng(2)
    slopes, half_widths = [], []
    for _ in range(200):
        steps = rng.standard_normal(len(T)) * 0.1
        fit = fit_diffusion(T, 10 + 2 * X + np.cumsum(steps))
        slopes.append(fit.b)
        half_widths.append(fit.b_interval[1] - fit.b)
    coverage = np.mean(np.abs(np.array(slopes) - 2) <= half_widths)
    assert coverage < 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200)


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
    assert "log t for t from 2 to 64 (11 points, b in [" in text
    assert "] at 95 %, R2 0.99" in text
    assert "fits worse (residual sum of squares" in text
    assert "fits better" in str(fit_diffusion(T, 3 * T**0.5))


# -- bad input ---------------------------------------------------------------------------------------------------------

Y = 3 + 2 * X
BAD = {
    "lengths": ((T, Y[1:]), {}, r"must be of one length, in one dimension; got shapes \(14,\), \(13,\)"),
    "dimensions": ((T[:, None], Y[:, None]), {}, "must be of one length, in one dimension"),
    "words": ((T, ["far"] * 14), {}, "n_updates and distances must be sequences of numbers"),
    "too few": ((T[:2], Y[:2]), {}, "window must hold at least 3 different numbers of updates above 0; got 2"),
    "one t": (([5, 5, 5], [1, 2, 3]), {}, "at least 3 different numbers of updates above 0; got 1"),
    "empty window": ((T, Y), {"window": (200, 300)}, "at least 3 different numbers of updates above 0; got 0"),
    "nan": ((T, np.where(T == 4, np.nan, Y)), {}, "distances must be finite and above 0"),
    "zero": ((T, np.where(T == 4, 0, Y)), {}, "distances must be finite and above 0"),
    "infinite t": (([1, 2, 3, np.inf], [1, 2, 3, 4]), {}, "n_updates finite"),
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
