"""The published data themselves, where ``$SKLGAP_DATA`` holds them."""

import os

import numpy as np
import pytest

from sklgap.datasets import fetch_cifar10, fetch_mnist

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not os.environ.get("SKLGAP_DATA"), reason="$SKLGAP_DATA is not set"),
]


@pytest.mark.parametrize(
    ("subset", "counts", "first_labels"),
    [
        (
            "train",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
        ),
        ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
    ],
)
def test_mnist(subset, counts, first_labels):
    X, y = fetch_mnist(subset=subset, return_X_y=True, download_if_missing=False)
    assert X.shape == (sum(counts), 1, 28, 28)
    assert X.min() == 0
    assert X.max() == 1
    assert np.bincount(y).tolist() == counts
    assert y[:10].tolist() == first_labels
    if subset == "train":
        # The mean and standard deviation that MNIST tutorials normalise with.
        assert X.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
        assert X.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)


def test_mnist_all_is_train_then_test():
    X, y = fetch_mnist(subset="all", return_X_y=True, flat=True, download_if_missing=False)
    assert X.shape == (70_000, 784)
    assert y[[0, 59_999, 60_000, 69_999]].tolist() == [5, 8, 7, 6]


@pytest.mark.parametrize(("subset", "n"), [("train", 50_000), ("test", 10_000)])
def test_cifar10(subset, n):
    X, y = fetch_cifar10(subset=subset, return_X_y=True, download_if_missing=False)
    assert X.shape == (n, 3, 32, 32)
    assert X.min() == 0
    assert X.max() == 1
    assert np.bincount(y).tolist() == 10 * [n // 10]
    if subset == "train":
        # The channel means that CIFAR-10 code normalises with; the tolerance admits a copy with lossy pixels.
        means = X.mean(axis=(0, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=2e-3)
