import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from sklgap.regimes import BatchRegime, DynamicSampling, default_base_batch_size


def _next(regime, size, variance, squared_norm, n_samples=1000):
    record = {"batch_size": size, "gradient_variance": variance, "squared_gradient_norm": squared_norm}
    return regime.next_batch_size(record, n_samples)


@pytest.mark.parametrize(
    ("size", "variance", "squared_norm", "following"),
    [
        (32, 8.0, 1.0, 32),  # 8 / 32 = 0.25 is just allowed with theta = 0.5
        (32, 8.001, 1.0, 33),  # and needs 32.004 rows where it is not
        (32, 12.0, 1.0, 48),
        (32, 12.1, 1.0, 49),
        (32, 16.0, 1.0, 64),
        (32, 17.0, 1.0, 64),  # 68 rows: at most doubled
        (32, 1e300, 1e-300, 64),
        (32, 1.0, 0.0, 64),
        (32, 0.0, 0.0, 32),
        (32, 0.0, 1.0, 32),
        (90, 45.0, 1.0, 100),  # 180 rows: never above the largest
        (100, 100.0, 1.0, 100),
    ],
)
def test_the_norm_test(size, variance, squared_norm, following):
    assert _next(DynamicSampling(theta=0.5, largest=100), size, variance, squared_norm) == following


def test_the_unit_of_the_gradient_does_not_matter():
    regime = DynamicSampling(theta=0.5, max_growth=10.0, largest=-1)
    assert {_next(regime, 32, 12.1 * scale, scale) for scale in (1e-12, 1.0, 1e12)} == {49}


@pytest.mark.parametrize("theta", [0.1, 0.5, 0.9])
def test_theta_is_the_noise_to_signal_ratio_of_the_next_batch(theta):
    size = _next(DynamicSampling(theta=theta, largest=-1, max_growth=1e9), 2, 30.0, 2.0, n_samples=10**6)
    assert math.sqrt(30.0 / size) <= theta * math.sqrt(2.0) < math.sqrt(30.0 / (size - 1))


def test_a_growth_limit_near_one_still_grows():
    assert _next(DynamicSampling(max_growth=1.01), 4, 1e9, 1.0) == 5


def test_without_a_measurement_the_size_stays():
    """As after an epoch of another regime, before a warm start."""
    assert DynamicSampling().next_batch_size({"batch_size": 40}, 1000) == 40
    assert DynamicSampling(largest=30).next_batch_size({"batch_size": 40}, 1000) == 30


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_measurement_that_is_no_number(bad):
    assert _next(DynamicSampling(), 32, math.nan, bad) == 32
    assert _next(DynamicSampling(), 32, math.inf, 1.0) == 64


@given(
    size=st.integers(1, 300),
    variance=st.floats(0, 1e300),
    squared_norm=st.floats(0, 1e300),
    theta=st.floats(1e-6, 1, exclude_max=True),
    max_growth=st.floats(1.001, 1e300),
    largest=st.one_of(st.integers(1, 400), st.floats(1e-6, 1), st.just(-1)),
    n_samples=st.integers(300, 400),
)
def test_never_shrinks_and_stays_within_its_limits(size, variance, squared_norm, theta, max_growth, largest, n_samples):
    regime = DynamicSampling(1, theta, largest, max_growth)
    limit = DynamicSampling(-1, largest=largest).batch_size(0, n_samples)
    size = min(size, limit)
    following = _next(regime, size, variance, squared_norm, n_samples)
    assert type(following) is int
    assert size <= following <= min(limit, max(size + 1, size * max_growth))


def test_first_size_and_defaults():
    regime = DynamicSampling()
    assert regime.varies
    assert regime.adaptive
    assert regime.batch_size(0, 60000) == 256
    assert regime.batch_size(0, 1000) == default_base_batch_size(1000)
    assert DynamicSampling(500, largest=0.2).batch_size(0, 1000) == 200
    assert clone(regime).get_params() == regime.get_params()
    assert regime.set_params(theta=0.25).theta == 0.25


def test_measures_until_the_largest_size():
    regime = DynamicSampling(largest=100, n_batches=3)
    assert [regime.measured_batches(size, 1000) for size in (1, 99, 100, 200)] == [3, 3, 0, 0]


def test_other_regimes_measure_nothing():
    assert BatchRegime.adaptive is False
    assert BatchRegime().measured_batches(10, 100) == 0
    with pytest.raises(NotImplementedError, match=r"BatchRegime must define next_batch_size\(last_epoch, n_samples\)"):
        BatchRegime().next_batch_size({"batch_size": 10}, 100)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"theta": 0}, "theta must be a number between 0 and 1; got 0"),
        ({"theta": 1.0}, r"theta must be a number between 0 and 1; got 1\.0"),
        ({"theta": True}, "theta must be a number between 0 and 1; got True"),
        ({"theta": float("nan")}, "theta must be a number between 0 and 1; got nan"),
        ({"theta": "0.5"}, r"theta must be a number between 0 and 1; got '0\.5'"),
        ({"max_growth": 1}, "max_growth must be a number above 1; got 1"),
        ({"max_growth": float("inf")}, "max_growth must be a number above 1; got inf"),
        ({"max_growth": None}, "max_growth must be a number above 1; got None"),
        ({"n_batches": 1}, "n_batches must be an integer of at least 2; got 1"),
        ({"n_batches": 2.0}, r"n_batches must be an integer of at least 2; got 2\.0"),
        ({"initial": 0}, "initial must be an integer of at least 1"),
        ({"largest": 1.5}, "largest must be an integer of at least 1"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        DynamicSampling(**parameters).batch_size(0, 100)
