import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from sklgap.datasets import make_cifar10_like, make_image_classification, make_mnist_like


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 5, 9), (1, 1, 1)])
def test_shapes_range_and_balance(shape):
    X, y = make_image_classification(n_samples=41, shape=shape, n_classes=4, random_state=0)
    assert X.shape == (41, *shape)
    assert X.dtype == np.float32
    assert y.dtype == np.int64
    assert X.flags.c_contiguous
    assert X.min() >= 0
    assert X.max() <= 1
    assert sorted(np.bincount(y)) == [10, 10, 10, 11]
    assert (np.diff(y) < 0).any()


@pytest.mark.parametrize("make", [make_mnist_like, make_cifar10_like])
def test_classes_are_learnable_but_overlap(make):
    X, y = make(1000, random_state=0)
    flat = X.reshape(len(X), -1)
    accuracy = NearestCentroid().fit(flat[:500], y[:500]).score(flat[500:], y[500:])
    # Chance is 0.1.
    assert 0.7 < accuracy < 1


def test_noise_makes_it_harder():
    accuracies = []
    for noise in (0.0, 1.5, 6.0):
        X, y = make_image_classification(600, shape=(1, 28, 28), noise=noise, random_state=0)
        flat = X.reshape(len(X), -1)
        accuracies.append(NearestCentroid().fit(flat[:300], y[:300]).score(flat[300:], y[300:]))
    assert accuracies[0] == 1
    assert accuracies[0] > accuracies[1] + 0.1 > accuracies[2] + 0.2


def test_images_of_a_class_are_shifted_copies_without_noise():
    X, y = make_image_classification(200, shape=(1, 16, 16), n_classes=2, noise=0, random_state=0)
    one_class = X[y == 0][:, 0]
    shifts = [np.roll(one_class[0], (i, j), axis=(0, 1)) for i in range(-2, 3) for j in range(-2, 3)]
    # A sixteenth of the side: -1, 0 or 1 pixel in each direction.
    assert len(np.unique(one_class, axis=0)) == 9
    for image in one_class:
        assert any(np.array_equal(image, shift) for shift in shifts)


def test_channels_differ():
    X, _ = make_image_classification(4, shape=(2, 8, 8), n_classes=2, noise=0, random_state=0)
    assert not np.allclose(X[:, 0], X[:, 1])


@pytest.mark.parametrize("make", [make_mnist_like, make_cifar10_like, make_image_classification])
def test_random_state_determines_everything(make):
    X, y = make(30, random_state=7)
    for again in (make(30, random_state=7), make(30, random_state=np.random.RandomState(7))):
        np.testing.assert_array_equal(again[0], X)
        np.testing.assert_array_equal(again[1], y)
    assert not np.array_equal(make(30, random_state=8)[0], X)


def test_random_state_instance_moves_on():
    rng = np.random.RandomState(0)
    first, second = (make_mnist_like(20, random_state=rng)[0] for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("random_state", [None, 0, np.random.RandomState(0)], ids=["None", "int", "instance"])
def test_global_state_is_neither_used_nor_moved(random_state):
    before = np.random.get_state()  # noqa: NPY002
    make_image_classification(20, shape=(1, 8, 8), random_state=random_state)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_none_is_fresh():
    state = np.random.get_state()  # noqa: NPY002
    first = make_mnist_like(20)[0]
    np.random.set_state(state)  # noqa: NPY002
    assert not np.array_equal(first, make_mnist_like(20)[0])


@pytest.mark.parametrize(
    ("parameters", "error", "sentence"),
    [
        ({"n_samples": 0}, ValueError, r"^n_samples must be an integer of at least 1; got 0\.$"),
        ({"n_samples": 2.5}, ValueError, r"^n_samples must be an integer of at least 1; got 2\.5\.$"),
        ({"n_samples": True}, ValueError, r"^n_samples must be an integer"),
        ({"n_classes": 1}, ValueError, r"^n_classes must be an integer of at least 2; got 1\.$"),
        ({"shape": (28, 28)}, ValueError, r"^shape must be three integers \(channels, height, width\), got \(28, 28\)"),
        ({"shape": 784}, ValueError, r"^shape must be three integers"),
        ({"shape": (1, 0, 8)}, ValueError, r"^shape: height must be an integer of at least 1; got 0\.$"),
        ({"shape": (1, 8, 8.0)}, ValueError, r"^shape: width must be an integer of at least 1; got 8\.0\.$"),
        ({"noise": -0.1}, ValueError, r"^noise must be a finite number of at least 0, got -0\.1\.$"),
        ({"noise": float("nan")}, ValueError, r"^noise must be a finite number of at least 0, got nan\.$"),
        ({"noise": "loud"}, TypeError, r"^noise must be a number of at least 0, got 'loud'\.$"),
        ({"random_state": "x"}, ValueError, "random_state must be None, an integer from 0 to"),
    ],
)
def test_bad_parameters(parameters, error, sentence):
    with pytest.raises(error, match=sentence):
        make_image_classification(**parameters)
