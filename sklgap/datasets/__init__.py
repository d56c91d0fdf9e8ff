"""Data sets: MNIST and CIFAR from the publishers' files or OpenML, and offline stand-ins."""

from sklgap.datasets._cifar import fetch_cifar10, fetch_cifar100
from sklgap.datasets._mnist import fetch_mnist
from sklgap.datasets._synthetic import make_cifar10_like, make_image_classification, make_mnist_like

__all__ = [
    "fetch_cifar10",
    "fetch_cifar100",
    "fetch_mnist",
    "make_cifar10_like",
    "make_image_classification",
    "make_mnist_like",
]
