import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from sklgap import LBGapClassifier
from sklgap.datasets import make_timit_like


def test_shape_and_types():
    X, y = make_timit_like(70, random_state=0)
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((70, 360), np.float32, (70,), np.int64)
    assert y.min() >= 0
    assert y.max() < 1973


def test_rows_are_frames_with_their_neighbours():
    X, _ = make_timit_like(650, random_state=0)
    frames = X[:, 4 * 40 : 5 * 40]
    for start, stop in ((0, 300), (300, 600), (600, 650)):  # utterances
        for row in (start, start + 1, stop - 1, (start + stop) // 2):
            neighbours = [min(max(row + shift, start), stop - 1) for shift in range(-4, 5)]
            np.testing.assert_array_equal(X[row], frames[neighbours].ravel())


def test_without_noise_a_state_is_one_vector():
    X, y = make_timit_like(3000, n_classes=20, noise=0, random_state=0)
    frames = X[:, 160:200]
    for state in range(20):
        assert len(np.unique(frames[y == state], axis=0)) == 1
    # A state is left with probability 1 / 3 to a random one of 20: four standard errors.
    expected = 19 / 20 / 3
    assert abs(np.mean(y[1:] != y[:-1]) - expected) < 4 * np.sqrt(expected * (1 - expected) / 3000)


def test_the_noise_has_its_size_and_its_correlation_in_time():
    both = [make_timit_like(30_000, n_classes=2, noise=noise, random_state=0)[0] for noise in (0.0, 2.0)]
    noise = (both[1] - both[0])[:, 160:200]
    assert noise.std() == pytest.approx(2, rel=0.01)
    assert noise[0].std() == pytest.approx(2, rel=0.5)
    assert np.mean(noise[1:] * noise[:-1]) / 4 == pytest.approx(0.7, abs=0.01)


def test_classes_can_be_learnt_though_not_by_heart():
    X, y = make_timit_like(8000, n_classes=100, random_state=0)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.01).fit(X[:6000], y[:6000])
    assert 0.5 < model.score(X[6000:], y[6000:]) < 0.99


def test_f2_takes_them():
    X, y = make_timit_like(300, n_classes=5, random_state=0)
    model = LBGapClassifier("F2", module__width=8, max_epochs=1, tol=None, random_state=0).fit(X, y)
    assert model.module_.layers[1].in_features == 360


def test_random_state():
    X, y = make_timit_like(50, random_state=3)
    for again in (make_timit_like(50, random_state=3), make_timit_like(50, random_state=np.random.RandomState(3))):
        np.testing.assert_array_equal(again[0], X)
        np.testing.assert_array_equal(again[1], y)
    assert not np.array_equal(make_timit_like(50, random_state=4)[0], X)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_timit_like(50)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_samples": 0}, r"^n_samples must be an integer of at least 1; got 0\.$"),
        ({"n_classes": 1}, r"^n_classes must be an integer of at least 2; got 1\.$"),
        ({"noise": -1}, r"^noise must be a number of at least 0; got -1\.$"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_timit_like(**parameters)
