import json
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
    assert fit.critical_batch_size.value == pytest.approx(B_CRIT, rel=1e-6)
    assert fit.min_steps.value == pytest.approx(S_MIN, rel=1e-6)
    assert fit.min_examples.value == pytest.approx(E_MIN, rel=1e-6)
    assert fit.scatter < 1e-6
    assert fit.n_measurements == len(SIZES)
    np.testing.assert_allclose(fit.steps(SIZES), STEPS, rtol=1e-6)
    # (S / S_min - 1)(E / E_min - 1) = 1, and at B_crit twice the fewest of both.
    examples = SIZES * fit.steps(SIZES)
    shares = (fit.steps(SIZES) / fit.min_steps.value - 1) * (examples / fit.min_examples.value - 1)
    np.testing.assert_allclose(shares, 1, rtol=1e-6)
    assert fit.steps(fit.critical_batch_size.value) == pytest.approx(2 * fit.min_steps.value)
    for e in (fit.critical_batch_size, fit.min_steps, fit.min_examples):
        assert e.low <= e.value <= e.high
        assert (e.low, e.high) == pytest.approx((e.value, e.value), rel=5e-3)  # the grid
        assert e.n == len(SIZES)


def test_least_squares_by_another_solver():
    measured = _measured(0, 0.2)
    fit = fit_steps_to_loss(SIZES, measured)

    def residuals(p):
        return (np.log(measured) - np.log(np.exp(p[0]) + np.exp(p[1]) / SIZES[:, None])).ravel()

    other = optimize.least_squares(residuals, np.log([30.0, 1e4]), xtol=1e-12, ftol=1e-12)
    assert fit.min_steps.value == pytest.approx(np.exp(other.x[0]), rel=1e-5)
    assert fit.min_examples.value == pytest.approx(np.exp(other.x[1]), rel=1e-5)
    assert fit.critical_batch_size.value == pytest.approx(np.exp(other.x[1] - other.x[0]), rel=1e-5)
    assert fit.scatter == pytest.approx(np.sqrt(np.mean(other.fun**2)), rel=1e-6)
    # At the ends of a profile interval the best fit is worse by Student's t squared.
    n = measured.size
    limit = 2 * other.cost * (1 + stats.t.ppf(0.975, n - 2) ** 2 / (n - 2))
    for end in np.log([fit.min_steps.low, fit.min_steps.high]):
        free = optimize.least_squares(lambda p, end=end: residuals([end, p[0]]), [other.x[1]])
        assert 2 * free.cost == pytest.approx(limit, rel=0.02)  # the grid
    for end in np.log([fit.min_examples.low, fit.min_examples.high]):
        free = optimize.least_squares(lambda p, end=end: residuals([p[0], end]), [other.x[0]])
        assert 2 * free.cost == pytest.approx(limit, rel=0.02)
    for end in np.log([fit.critical_batch_size.low, fit.critical_batch_size.high]):
        free = optimize.least_squares(lambda p, end=end: residuals([p[0], p[0] + end]), [other.x[0]])
        assert 2 * free.cost == pytest.approx(limit, rel=0.02)


def test_intervals_cover():
    fits = [fit_steps_to_loss(SIZES, _measured(seed, 0.15)) for seed in range(100)]
    for true, name in ((B_CRIT, "critical_batch_size"), (S_MIN, "min_steps"), (E_MIN, "min_examples")):
        intervals = np.array([(getattr(fit, name).low, getattr(fit, name).high) for fit in fits])
        covered = ((intervals[:, 0] < true) & (true < intervals[:, 1])).mean()
        assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / 100) < covered  # four standard errors
        assert (intervals[:, 1] / intervals[:, 0]).max() < 4  # and say something


def test_batch_sizes_that_do_not_bound_the_critical_one():
    rng = np.random.default_rng(0)
    scatter = np.exp(0.02 * rng.normal(size=6))
    below = fit_steps_to_loss(SIZES, 1e5 / SIZES * scatter)
    assert below.critical_batch_size.high == math.inf
    assert below.critical_batch_size.low > SIZES.max()
    assert below.min_steps.low == 0
    assert below.min_examples.value == pytest.approx(1e5, rel=0.05)
    assert np.isfinite(below.steps(SIZES)).all()
    assert "larger" in below.notes[0]
    above = fit_steps_to_loss(SIZES, 50 * scatter)
    assert above.critical_batch_size.low == 0
    assert above.critical_batch_size.high < SIZES.min()
    assert above.min_examples.low == 0
    assert above.min_steps.value == pytest.approx(50, rel=0.05)
    assert "smaller" in above.notes[0]


def test_the_ends_themselves():
    inverse = fit_steps_to_loss(SIZES, 1e5 / SIZES)
    assert (inverse.critical_batch_size.value, inverse.min_steps.value) == (math.inf, 0)
    assert inverse.min_examples.value == pytest.approx(1e5, rel=5e-3)
    assert "above" in inverse._verdict()[0]
    constant = fit_steps_to_loss(SIZES, np.full(6, 50))
    assert (constant.critical_batch_size.value, constant.min_examples.value) == (0, 0)
    assert constant.min_steps.value == pytest.approx(50, rel=5e-3)
    assert "below" in constant._verdict()[0]


def test_what_was_not_reached_is_left_out():
    measured = _measured(1, 0.1, n_trials=3)
    measured[0, 1] = measured[3] = np.nan
    fit = fit_steps_to_loss(SIZES, measured)
    kept = np.isfinite(measured)
    sizes = np.broadcast_to(SIZES[:, None], measured.shape)
    alone = fit_steps_to_loss(sizes[kept], measured[kept])
    assert fit._statistics() == alone._statistics()
    assert fit.records == alone.records
    assert fit.n_measurements == 14


def test_two_trainings_fit_exactly_and_bound_nothing():
    fit = fit_steps_to_loss(SIZES[:2], STEPS[:2])
    assert fit.critical_batch_size.value == pytest.approx(B_CRIT, rel=1e-4)
    for estimate in (fit.critical_batch_size, fit.min_steps, fit.min_examples):
        assert not estimate.has_interval
        assert estimate.high == math.inf
    assert "no interval" in fit.notes[0]
    assert "without an interval" in str(fit)


def test_it_prints_and_leaves():
    fit = fit_steps_to_loss(SIZES, STEPS)
    assert "critical batch size is 300 samples [300, 300]" in fit._verdict()[0]
    assert fit.notes == []
    assert "95 % interval" in str(fit)
    assert fit.to_latex().count(r"\\") == len(fit.to_markdown().splitlines()) - 1 == 4
    assert "<td>300 [300, 300]</td>" in fit._repr_html_()
    content = json.loads(fit.to_json())
    assert content["critical_batch_size"]["value"] == fit.critical_batch_size.value
    assert [record["batch_size"] for record in content["records"]] == SIZES.tolist()


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
