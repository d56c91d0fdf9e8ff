import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from sklgap.regimes import GrowingBatch


def _sizes(regime, n_samples=1000, n_epochs=6):
    return [regime.batch_size(epoch, n_samples) for epoch in range(n_epochs)]


def test_growth():
    assert _sizes(GrowingBatch(32, 2, 1, 100)) == [32, 64, 100, 100, 100, 100]
    assert _sizes(GrowingBatch(10, 1.5, 2, -1)) == [10, 10, 15, 15, 22, 22]
    assert _sizes(GrowingBatch(0.01, 10, 3, 0.5)) == [10] * 3 + [100] * 3


def test_a_factor_near_one_still_grows_and_one_does_not():
    assert _sizes(GrowingBatch(4, 1.01, 1, 7)) == [4, 5, 6, 7, 7, 7]
    assert _sizes(GrowingBatch(4, 1, 1, 7)) == [4] * 6


def test_defaults_go_from_sb_to_lb():
    regime = GrowingBatch()
    assert regime.varies is True
    assert _sizes(regime, 60000, 31)[::5] == [256, 512, 1024, 2048, 4096, 6000, 6000]


def test_an_initial_size_above_the_largest_is_cut():
    assert _sizes(GrowingBatch(64, largest=16)) == [16] * 6


@given(
    initial=st.one_of(st.none(), st.integers(1, 400), st.floats(1e-6, 1)),
    factor=st.floats(1, 1e6),
    every=st.integers(1, 4),
    largest=st.one_of(st.integers(1, 400), st.floats(1e-6, 1), st.just(-1)),
    n_samples=st.integers(1, 300),
)
def test_monotone_and_within_the_data(initial, factor, every, largest, n_samples):
    sizes = _sizes(GrowingBatch(initial, factor, every, largest), n_samples, 12)
    assert sizes == sorted(sizes)
    assert sizes[0] >= 1
    assert sizes[-1] <= n_samples


def test_a_late_epoch_costs_nothing():
    assert GrowingBatch(1, 1.0, 1, 10).batch_size(10**12, 100) == 1
    assert GrowingBatch(1, 2.0, 1, 10).batch_size(10**12, 100) == 10


def test_clone_and_set_params():
    regime = GrowingBatch(8)
    assert _sizes(clone(regime).set_params(every=1, factor=3, largest=50)) == [8, 24, 50, 50, 50, 50]
    assert regime.get_params() == {"initial": 8, "factor": 2.0, "every": 5, "largest": 0.1}


@pytest.mark.parametrize("epoch", [0, 10])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factor": 0.9}, r"factor must be a number of at least 1; got 0\.9"),
        ({"factor": float("nan")}, "factor must be a number of at least 1; got nan"),
        ({"factor": float("inf")}, "factor must be a number of at least 1; got inf"),
        ({"factor": "2"}, "factor must be a number of at least 1; got '2'"),
        ({"every": 0}, "every must be an integer of at least 1; got 0"),
        ({"every": 1.5}, r"every must be an integer of at least 1; got 1\.5"),
        ({"initial": 0}, "initial must be an integer of at least 1"),
        ({"largest": 1.5}, "largest must be an integer of at least 1"),
    ],
)
def test_bad_parameters(parameters, message, epoch):
    with pytest.raises(ValueError, match=message):
        GrowingBatch(**parameters).batch_size(epoch, 100)
