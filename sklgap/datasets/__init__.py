"""Data sets: MNIST and CIFAR from the publishers' files or OpenML, TIMIT from Kaldi files, and offline stand-ins."""

from sklgap.datasets._cifar import fetch_cifar10, fetch_cifar100
from sklgap.datasets._mnist import fetch_mnist
from sklgap.datasets._mnist1d import make_mnist1d
from sklgap.datasets._random_labels import randomize_labels
from sklgap.datasets._speech import make_timit_like
from sklgap.datasets._synthetic import make_cifar10_like, make_image_classification, make_mnist_like
from sklgap.datasets._timit import load_timit

__all__ = [
    "fetch_cifar10",
    "fetch_cifar100",
    "fetch_mnist",
    "load_timit",
    "make_cifar10_like",
    "make_image_classification",
    "make_mnist1d",
    "make_mnist_like",
    "make_timit_like",
    "randomize_labels",
]
