import numpy as np
import pytest

from sklgap.regimes import ConstantBatch, GrowingBatch, check_batch_regime


@pytest.mark.parametrize(
    ("batch_regime", "n_samples", "size"),
    [("SB", 60000, 256), ("SB", 1000, 25), ("LB", 60000, 6000), ("LB", 1000, 100), (32, 1000, 32), (0.5, 1000, 500)]
    + [(-1, 1000, 1000), (np.int64(32), 1000, 32)],
)
def test_shorthands(batch_regime, n_samples, size):
    regime = check_batch_regime(batch_regime, n_samples)
    assert regime.varies is False
    assert [regime.batch_size(epoch, n_samples) for epoch in (0, 50)] == [size, size]


def test_a_regime_is_returned_as_it_is():
    regime = GrowingBatch()
    assert check_batch_regime(regime, 1000) is regime


@pytest.mark.parametrize("batch_regime", ["sb", "small", None, GrowingBatch, ConstantBatch, [32], (1, 2)])
def test_anything_else(batch_regime):
    with pytest.raises(ValueError, match="batch_regime must be 'SB', 'LB', an integer, a fraction or a BatchRegime"):
        check_batch_regime(batch_regime, 1000)


@pytest.mark.parametrize("batch_regime", [0, -3, 1.5, True, float("nan")])
def test_bad_numbers(batch_regime):
    with pytest.raises(ValueError, match=r"^batch_regime must be an integer of at least 1, a fraction"):
        check_batch_regime(batch_regime, 1000)
