"""MNIST-1D, generated: samples of 40 numbers on which small and large batches differ (Greydanus 2020)."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from sklgap._checks import check_arguments, check_random_state, check_sizes

# The ten digits as curves of 12 points, by Greydanus and Kobak (arXiv:2011.14439, Figure 1 and their data set).
_TEMPLATES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
# The settings of these authors: points of padding, of translation and of the result; strengths of scaling, shear and
# noise.
_LEAST_PADDING, _MOST_PADDING, _TRANSLATION, _LENGTH = 36, 60, 48, 40
_SCALING, _SHEAR, _NOISE, _SMOOTH_NOISE, _SMOOTHNESS = 0.4, 0.75, 0.02, 0.25, 2.0
# The standard deviation of a curve before padding.
_AMPLITUDE = 1 / 6


def make_mnist1d(
    n_samples: int = 4000, *, random_state: int | np.random.RandomState | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Generate MNIST-1D: ten curves that are padded, scaled, shifted, sheared and noised.

    Parameters
    ----------
    n_samples : int, default=4000
        Number of samples; 4,000 is the size of the training set of Greydanus and Kobak. Classes have sizes as equal as
        ``n_samples`` allows.
    random_state : int, RandomState instance or None, default=None
        Seed of everything but the ten curves, which are always the same. Training and test data may therefore come from
        calls with different seeds. None draws from fresh entropy.

    Returns
    -------
    X : ndarray of float32, shape (n_samples, 40)
        The curves.
    y : ndarray of int64, shape (n_samples,)
        The classes, 0 to 9, in random order.

    Raises
    ------
    ValueError, TypeError
        If ``n_samples`` is below 1 or ``random_state`` is wrong.

    Notes
    -----
    A curve of 12 points is padded with 36 to 60 zeros, stretched to 72 points, multiplied by a factor from 0.8 to 1.2,
    and shifted in a circle by up to 47 points. Smooth noise fills the part without the curve. A straight line of random
    slope and white noise are added, and 40 points are taken. Dense nets fit all training data and have a test accuracy
    of 60 to 70 %, which leaves room for a generalization gap.

    References
    ----------
    Greydanus and Kobak, Scaling Down Deep Learning with MNIST-1D, arXiv:2011.14439.

    Examples
    --------
    >>> from sklgap.datasets import make_mnist1d
    >>> X, y = make_mnist1d(100, random_state=0)
    >>> X.shape, X.dtype
    ((100, 40), dtype('float32'))
    >>> sorted(set(y.tolist())) == list(range(10))
    True
    """
    check_arguments(make_mnist1d, locals())
    check_sizes(n_samples=n_samples)
    rng = np.random.default_rng(check_random_state(random_state).randint(2**32, size=4, dtype=np.uint32))
    n = int(n_samples)
    y = rng.permutation(np.arange(n, dtype=np.int64) % len(_TEMPLATES))
    curves = _padded(rng, y)
    curves *= 1 + _SCALING * (rng.random((n, 1)) - 0.5)
    length = curves.shape[1]
    places = (np.arange(length) - rng.integers(_TRANSLATION, size=(n, 1))) % length
    curves = np.take_along_axis(curves, places, axis=1)
    smooth = gaussian_filter1d(_SMOOTH_NOISE * rng.standard_normal((n, length)), _SMOOTHNESS, axis=1)
    curves = np.where(curves == 0, smooth, curves) + _NOISE * rng.standard_normal((n, length))
    curves -= _SHEAR * (rng.random((n, 1)) - 0.5) * np.linspace(-0.5, 0.5, length)
    return _resampled(curves, _LENGTH).astype(np.float32), y


def _padded(rng: np.random.Generator, y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the curve of each class with zeros after it, of length 12 + 60. The curve itself is never exactly 0."""
    templates = (_TEMPLATES - _TEMPLATES.mean(axis=1, keepdims=True)) / _TEMPLATES.std(axis=1, keepdims=True)
    templates = _AMPLITUDE * (templates - templates[:, :1]) + 1e-8
    padding = rng.integers(_LEAST_PADDING, _MOST_PADDING, size=len(y))
    found = np.empty((len(y), templates.shape[1] + _MOST_PADDING))
    for n_zeros in np.unique(padding):
        stretched = _resampled(np.pad(templates, ((0, 0), (0, n_zeros))), found.shape[1])
        found[padding == n_zeros] = stretched[y[padding == n_zeros]]
    return found


def _resampled(curves: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return ``length`` evenly spaced points of each curve, on the straight lines between its own points."""
    places = np.linspace(0, curves.shape[1] - 1, length)
    left = np.minimum(places.astype(int), curves.shape[1] - 2)
    share = places - left
    found: NDArray[np.float64] = (1 - share) * curves[:, left] + share * curves[:, left + 1]
    return found
