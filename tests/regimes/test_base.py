import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklgap.regimes import BatchRegime, check_batch_size, default_base_batch_size


@pytest.mark.parametrize(
    ("batch_size", "rows"),
    [(1, 1), (7, 7), (1000, 1000), (5000, 1000), (-1, 1000), (0.1, 100), (1.0, 1000), (1e-9, 1), (0.0014, 1)]
    + [(np.int64(7), 7), (np.float32(0.5), 500)],
)
def test_resolution(batch_size, rows):
    result = check_batch_size(batch_size, 1000)
    assert result == rows
    assert type(result) is int


@pytest.mark.parametrize("batch_size", [0, -2, 0.0, 1.5, -1.0, -0.1, float("nan"), float("inf"), True, "8", 1j])
def test_bad_sizes(batch_size):
    with pytest.raises(ValueError, match=r"batch_size must be an integer of at least 1, a fraction .* or -1 for all"):
        check_batch_size(batch_size, 1000)


def test_the_error_names_the_parameter():
    with pytest.raises(ValueError, match=r"^then must be an integer of at least 1"):
        check_batch_size(0, 1000, "then")


@given(
    batch_size=st.one_of(st.integers(1, 10**9), st.just(-1), st.floats(0, 1, exclude_min=True)),
    n_samples=st.integers(1, 10**6),
)
def test_always_between_one_and_all(batch_size, n_samples):
    assert 1 <= check_batch_size(batch_size, n_samples) <= n_samples


@pytest.mark.parametrize(
    ("n_samples", "size"),
    [(5, 5), (100, 8), (320, 8), (400, 10), (1000, 25), (10239, 255), (10240, 256), (60000, 256)],
)
def test_the_small_batch(n_samples, size):
    assert default_base_batch_size(n_samples) == size
    assert check_batch_size(None, n_samples) == size


def test_the_base_class_asks_for_a_definition():
    assert BatchRegime.varies is True
    with pytest.raises(NotImplementedError, match=r"BatchRegime must define batch_size\(epoch, n_samples\)"):
        BatchRegime().batch_size(0, 10)
