import math

import numpy as np
import pytest
from scipy import optimize, stats

from sklgap.experiments import fit_steps_to_loss

SIZES = np.array([8, 32, 128, 512, 2048, 8192])
S_MIN, B_CRIT = 40.0, 300.0
E_MIN = S_MIN * B_CRIT
STEPS = S_MIN * (1 + B_CRIT / SIZES)


def _measured(seed, scatter, n_trials=2):
    rng = np.random.default_rng(seed)
    return STEPS[:, None] * np.exp(scatter * rng.normal(size=(len(SIZES), n_trials)))


def test_the_trade_off_itself():
    fit = fit_steps_to_loss(SIZES, STEPS)
    assert fit.critical_batch_size == pytest.approx(B_CRIT, rel=1e-6)
    assert fit.min_steps == pytest.approx(S_MIN, rel=1e-6)
    assert fit.min_examples == pytest.approx(E_MIN, rel=1e-6)
    assert fit.scatter < 1e-6
    assert fit.n_measurements == len(SIZES)
    np.testing.assert_allclose(fit.steps(SIZES), STEPS, rtol=1e-6)
    # (S / S_min - 1)(E / E_min - 1) = 1, and at B_crit twice the fewest of both.
    examples = SIZES * fit.steps(SIZES)
    np.testing.assert_allclose((fit.steps(SIZES) / fit.min_steps - 1) * (examples / fit.min_examples - 1), 1, rtol=1e-6)
    assert fit.steps(fit.critical_batch_size) == pytest.approx(2 * fit.min_steps)
    for value, (low, high) in (
        (fit.critical_batch_size, fit.critical_batch_size_interval),
        (fit.min_steps, fit.min_steps_interval),
        (fit.min_examples, fit.min_examples_interval),
    ):
        assert low <= value <= high
        assert (low, high) == pytest.approx((value, value), rel=5e-3)  # the grid


def test_least_squares_by_another_solver():
    measured = _measured(0, 0.2)
    fit = fit_steps_to_loss(SIZES, measured)

    def residuals(p):
        return (np.log(measured) - np.log(np.exp(p[0]) + np.exp(p[1]) / SIZES[:, None])).ravel()

    other = optimize.least_squares(residuals, np.log([30.0, 1e4]), xtol=1e-12, ftol=1e-12)
    assert fit.min_steps == pytest.approx(np.exp(other.x[0]), rel=1e-5)
    assert fit.min_examples == pytest.approx(np.exp(other.x[1]), rel=1e-5)
    assert fit.critical_batch_size == pytest.approx(np.exp(other.x[1] - other.x[0]), rel=1e-5)
    assert fit.scatter == pytest.approx(np.sqrt(np.mean(other.fun**2)), rel=1e-6)
    # At the ends of a profile interval the best fit is worse by Student's t squared.
    n = measured.size
    limit = 2 * other.cost * (1 + stats.t.ppf(0.975, n - 2) ** 2 / (n - 2))
    for end in np.log(fit.min_steps_interval):
        free = optimize.least_squares(lambda p, end=end: residuals([end, p[0]]), [other.x[1]])
        assert 2 * free.cost == pytest.approx(limit, rel=0.02)  # the grid
    for end in np.log(fit.min_examples_interval):
        free = optimize.least_squares(lambda p, end=end: residuals([p[0], end]), [other.x[0]])
        assert 2 * free.cost == pytest.approx(limit, rel=0.02)
    for end in np.log(fit.critical_batch_size_interval):
        free = optimize.least_squares(lambda p, end=end: residuals([p[0], p[0] + end]), [other.x[0]])
        assert 2 * free.cost == pytest.approx(limit, rel=0.02)


def test_intervals_cover():
    fits = [fit_steps_to_loss(SIZES, _measured(seed, 0.15)) for seed in range(100)]
    for true, name in ((B_CRIT, "critical_batch_size"), (S_MIN, "min_steps"), (E_MIN, "min_examples")):
        intervals = np.array([getattr(fit, f"{name}_interval") for fit in fits])
        covered = ((intervals[:, 0] < true) & (true < intervals[:, 1])).mean()
        assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / 100) < covered  # four standard errors
        assert (intervals[:, 1] / intervals[:, 0]).max() < 4  # and say something


def test_batch_sizes_that_do_not_bound_the_critical_one():
    rng = np.random.default_rng(0)
    scatter = np.exp(0.02 * rng.normal(size=6))
    below = fit_steps_to_loss(SIZES, 1e5 / SIZES * scatter)
    assert below.critical_batch_size_interval[1] == math.inf
    assert below.critical_batch_size_interval[0] > SIZES.max()
    assert below.min_steps_interval[0] == 0
    assert below.min_examples == pytest.approx(1e5, rel=0.05)
    assert np.isfinite(below.steps(SIZES)).all()
    above = fit_steps_to_loss(SIZES, 50 * scatter)
    assert above.critical_batch_size_interval[0] == 0
    assert above.critical_batch_size_interval[1] < SIZES.min()
    assert above.min_examples_interval[0] == 0
    assert above.min_steps == pytest.approx(50, rel=0.05)


def test_the_ends_themselves():
    inverse = fit_steps_to_loss(SIZES, 1e5 / SIZES)
    assert (inverse.critical_batch_size, inverse.min_steps) == (math.inf, 0)
    assert inverse.min_examples == pytest.approx(1e5, rel=5e-3)
    constant = fit_steps_to_loss(SIZES, np.full(6, 50))
    assert (constant.critical_batch_size, constant.min_examples) == (0, 0)
    assert constant.min_steps == pytest.approx(50, rel=5e-3)


def test_what_was_not_reached_is_left_out():
    measured = _measured(1, 0.1, n_trials=3)
    measured[0, 1] = measured[3] = np.nan
    fit = fit_steps_to_loss(SIZES, measured)
    kept = np.isfinite(measured)
    sizes = np.broadcast_to(SIZES[:, None], measured.shape)
    assert fit == fit_steps_to_loss(sizes[kept], measured[kept])
    assert fit.n_measurements == 14


def test_two_trainings_fit_exactly_and_bound_nothing():
    fit = fit_steps_to_loss(SIZES[:2], STEPS[:2])
    assert fit.critical_batch_size == pytest.approx(B_CRIT, rel=1e-4)
    assert fit.critical_batch_size_interval == fit.min_steps_interval == fit.min_examples_interval == (0, math.inf)


def test_it_prints():
    assert "critical batch size 300 [300, 300] rows" in str(fit_steps_to_loss(SIZES, STEPS))


@pytest.mark.parametrize(
    ("sizes", "steps", "message"),
    [
        ([1, 2], [1, 2, 3], "batch_sizes must have shape"),
        ([[1, 2]], [[1, 2]], "batch_sizes must have shape"),
        (3, 4, "batch_sizes must have shape"),
        ([], [], "batch_sizes must have at least two different sizes"),
        ([4, 4], [10, 11], "batch_sizes must have at least two different sizes"),
        ([4, 8], [10, np.nan], "batch_sizes must have at least two different sizes"),
        ([4, 0], [10, 11], "must be finite and above 0"),
        ([4, 8], [10, 0], "must be finite and above 0"),
        ([4, 8], [10, np.inf], "must be finite and above 0"),
    ],
)
def test_bad_input(sizes, steps, message):
    with pytest.raises(ValueError, match=message):
        fit_steps_to_loss(sizes, steps)
