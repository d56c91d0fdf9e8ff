import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from sklgap.regimes import ConstantBatch, default_base_batch_size


@given(size=st.one_of(st.integers(1, 400), st.floats(1e-6, 1)), n_samples=st.integers(1, 300), epoch=st.integers(0, 99))
def test_it_is_constant_and_within_the_data(size, n_samples, epoch):
    regime = ConstantBatch(size)
    assert 1 <= regime.batch_size(epoch, n_samples) <= n_samples
    assert regime.batch_size(epoch, n_samples) == regime.batch_size(0, n_samples)


def test_default_and_clone():
    regime = ConstantBatch()
    assert regime.varies is False
    assert regime.batch_size(0, 10**5) == 256
    assert clone(regime).set_params(size=0.5).batch_size(3, 10) == 5
    assert regime.size is None


def test_the_default_is_the_small_batch():
    for n_samples in (5, 400, 1000, 60000):
        assert ConstantBatch().batch_size(0, n_samples) == default_base_batch_size(n_samples)


def test_bad_size():
    with pytest.raises(ValueError, match=r"^size must be an integer of at least 1"):
        ConstantBatch(0).batch_size(0, 10)
