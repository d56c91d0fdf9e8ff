import numpy as np
import pytest

from sklgap.datasets import make_mnist1d
from tests.cases import no_global_random_numbers


def test_shapes_classes_and_repeatability():
    X, y = make_mnist1d(203, random_state=1)
    assert X.shape == (203, 40)
    assert (X.dtype, y.dtype) == (np.float32, np.int64)
    assert np.isfinite(X).all()
    assert sorted(np.bincount(y)) == [20] * 7 + [21] * 3
    again = make_mnist1d(203, random_state=1)
    np.testing.assert_array_equal(again[0], X)
    np.testing.assert_array_equal(again[1], y)
    assert not np.array_equal(make_mnist1d(203, random_state=2)[0], X)


def test_classes_are_the_same_in_every_call():
    """Nearest neighbours among data of another state are of the same class far more often than one in ten."""
    X, y = make_mnist1d(2000, random_state=0)
    X_test, y_test = make_mnist1d(200, random_state=1)
    nearest = ((X_test[:, None] - X) ** 2).sum(axis=2).argmin(axis=1)
    assert (y[nearest] == y_test).mean() > 0.4


def test_a_class_is_its_curve_with_small_changes():
    """The curve is shifted in a circle and sheared: the largest rise of class 7 comes first, that of class 1 last."""
    X, y = make_mnist1d(3000, random_state=0)
    signal = X - X.mean(axis=1, keepdims=True)
    assert 0.1 < signal.std() < 2
    # Class 0 bulges upwards and class 6 downwards: their skewness has opposite signs.
    skew = [np.mean([np.mean(row**3) for row in signal[y == c]]) for c in (0, 6)]
    assert skew[0] > 0 > skew[1]


def test_global_random_numbers_are_not_used():
    with no_global_random_numbers():
        make_mnist1d(20)


@pytest.mark.parametrize("n_samples", [0, 2.5, True, "many"], ids=str)
def test_bad_sizes(n_samples):
    with pytest.raises((ValueError, TypeError), match="n_samples must be"):
        make_mnist1d(n_samples)
