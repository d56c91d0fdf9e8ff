"""Offline stand-ins: random images whose classes a net can learn, with a test accuracy below 1."""

from collections.abc import Sequence
from numbers import Real

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sklgap._checks import check_arguments, check_integer, check_random_state, check_sizes


def make_image_classification(
    n_samples: int = 1000,
    *,
    shape: Sequence[int] = (3, 32, 32),
    n_classes: int = 10,
    noise: float = 1.0,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Generate images of a random smooth template per class, shifted and overlaid with smooth noise.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of images. Classes have sizes as equal as ``n_samples`` allows.
    shape : tuple of int, default=(3, 32, 32)
        Shape (channels, height, width) of an image.
    n_classes : int, default=10
        Number of classes, at least 2.
    noise : float, default=1.0
        Standard deviation of the noise, in units of the standard deviation of the templates. With a larger value the
        classes overlap more.
    random_state : int, RandomState instance or None, default=None
        Seed of templates, labels, shifts and noise. None draws from fresh entropy; NumPy's global state is never used.

    Returns
    -------
    X : ndarray of float32, shape (n_samples, channels, height, width)
        Pixels in [0, 1].
    y : ndarray of int64, shape (n_samples,)
        Classes, 0 to ``n_classes - 1``, in random order.

    Raises
    ------
    ValueError
        If a number is out of range.
    TypeError
        If a number is of the wrong type.

    Notes
    -----
    The image is ``clip(1/2 + (template[y] shifted + noise * field) / 5, 0, 1)``. Templates and fields are white noise
    under the same Gaussian filter, an eighth of the image wide. Shifts are up to a sixteenth of the image, with
    wrap-around. The noise is as smooth as the signal, so a mean over pixels does not remove it, and the test accuracy
    stays below 1. Training and test samples must come from one call, because another ``random_state`` has other
    templates.

    Examples
    --------
    >>> from sklgap.datasets import make_image_classification
    >>> X, y = make_image_classification(n_samples=20, shape=(1, 8, 8), n_classes=4, random_state=0)
    >>> X.shape, X.dtype
    ((20, 1, 8, 8), dtype('float32'))
    >>> sorted(y.tolist()) == sorted(5 * [0, 1, 2, 3])
    True
    """
    check_arguments(make_image_classification, locals())
    check_integer("n_samples", n_samples)
    check_integer("n_classes", n_classes, 2)
    check_sizes(n_samples=n_samples, n_classes=n_classes)
    channels, height, width = _check_shape(shape)
    if isinstance(noise, bool) or not isinstance(noise, Real):
        raise TypeError(f"noise must be a number of at least 0, got {noise!r}.")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be a finite number of at least 0, got {noise!r}.")
    rng = np.random.default_rng(check_random_state(random_state).randint(2**32, size=4, dtype=np.uint32))

    templates = _smooth_fields(rng, (n_classes, channels, height, width))
    scale = templates.std()
    y = rng.permutation(np.arange(n_samples, dtype=np.int64) % n_classes)

    shifts = [rng.integers(-(size // 16), size // 16 + 1, n_samples) for size in (height, width)]
    rows = (np.arange(height) + shifts[0][:, None]) % height
    columns = (np.arange(width) + shifts[1][:, None]) % width
    X = templates[
        y[:, None, None, None], np.arange(channels)[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
    X += np.float32(noise) * _smooth_fields(rng, X.shape)
    X /= 5 * scale
    X += 0.5
    return np.clip(X, 0, 1, out=X), y


def make_mnist_like(
    n_samples: int = 1000, *, random_state: int | np.random.RandomState | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Generate images with the shape, range and number of classes of MNIST.

    Parameters
    ----------
    n_samples : int, default=1000
        The number of images.
    random_state : int, RandomState instance or None, default=None
        See :func:`make_image_classification`, which does the work with its default noise.

    Returns
    -------
    X : ndarray of float32, shape (n_samples, 1, 28, 28)
        Pixels in [0, 1].
    y : ndarray of int64, shape (n_samples,)
        Classes, 0 to 9.

    Examples
    --------
    >>> from sklgap.datasets import make_mnist_like
    >>> X, y = make_mnist_like(50, random_state=0)
    >>> X.shape
    (50, 1, 28, 28)
    """
    return make_image_classification(n_samples, shape=(1, 28, 28), random_state=random_state)


def make_cifar10_like(
    n_samples: int = 1000, *, random_state: int | np.random.RandomState | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Generate images with the shape, range and number of classes of CIFAR-10.

    Parameters
    ----------
    n_samples : int, default=1000
        The number of images.
    random_state : int, RandomState instance or None, default=None
        See :func:`make_image_classification`, which does the work with its default noise.

    Returns
    -------
    X : ndarray of float32, shape (n_samples, 3, 32, 32)
        Pixels in [0, 1].
    y : ndarray of int64, shape (n_samples,)
        Classes, 0 to 9.

    Examples
    --------
    >>> from sklgap.datasets import make_cifar10_like
    >>> X, y = make_cifar10_like(50, random_state=0)
    >>> X.shape
    (50, 3, 32, 32)
    """
    return make_image_classification(n_samples, shape=(3, 32, 32), random_state=random_state)


def _smooth_fields(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    white = rng.standard_normal(shape, dtype=np.float32)
    return gaussian_filter(white, sigma=[size / 8 for size in shape[2:]], axes=(2, 3), mode="wrap")


def _check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(f"shape must be three integers (channels, height, width), got {shape!r}.")
    for name, size in zip(("channels", "height", "width"), shape, strict=True):
        check_integer(f"shape: {name}", size, 1)
    return shape[0], shape[1], shape[2]
