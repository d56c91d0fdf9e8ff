import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from sklgap.regimes import SwitchBatch, default_base_batch_size


def _sizes(regime, n_samples=1000, n_epochs=5):
    return [regime.batch_size(epoch, n_samples) for epoch in range(n_epochs)]


def test_switch():
    assert _sizes(SwitchBatch(2, first=32, then=0.5)) == [32, 32, 500, 500, 500]
    assert _sizes(SwitchBatch(0, first=32, then=0.5)) == [500] * 5
    assert _sizes(SwitchBatch(1, first=0.3, then=7)) == [300, 7, 7, 7, 7]


def test_defaults_are_sb_then_lb():
    regime = SwitchBatch()
    assert regime.varies is True
    assert _sizes(regime, 60000, 12) == [256] * 10 + [6000] * 2
    assert _sizes(regime, 1000, 1) == [default_base_batch_size(1000)]


@given(
    switch_epoch=st.integers(0, 9),
    first=st.one_of(st.none(), st.integers(1, 400), st.floats(1e-6, 1)),
    then=st.one_of(st.integers(1, 400), st.floats(1e-6, 1)),
    n_samples=st.integers(1, 300),
    epoch=st.integers(0, 10),
)
def test_within_the_data(switch_epoch, first, then, n_samples, epoch):
    assert 1 <= SwitchBatch(switch_epoch, first, then).batch_size(epoch, n_samples) <= n_samples


def test_clone_and_set_params():
    regime = SwitchBatch(3)
    assert _sizes(clone(regime).set_params(switch_epoch=1, first=5, then=6)) == [5, 6, 6, 6, 6]
    assert regime.get_params() == {"switch_epoch": 3, "first": None, "then": 0.1}


@pytest.mark.parametrize("switch_epoch", [-1, 1.5, "2", None])
def test_bad_switch_epoch(switch_epoch):
    with pytest.raises(ValueError, match="switch_epoch must be an integer of at least 0; got "):
        SwitchBatch(switch_epoch).batch_size(0, 100)


# fit asks for epoch 0 before it trains: a size that is wrong must not wait for its epoch.
@pytest.mark.parametrize("epoch", [0, 10])
@pytest.mark.parametrize("name", ["first", "then"])
def test_bad_sizes_are_found_in_any_epoch(name, epoch):
    with pytest.raises(ValueError, match=f"^{name} must be an integer of at least 1"):
        SwitchBatch(5, **{name: 0}).batch_size(epoch, 100)
