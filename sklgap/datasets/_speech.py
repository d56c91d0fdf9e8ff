"""An offline stand-in for frames of speech, of the shape that the net F2 takes."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from sklgap._checks import check_arguments, check_integer, check_nonnegative, check_random_state, check_sizes
from sklgap.datasets._timit import splice

_N_FEATURES, _CONTEXT = 40, 4  # 9 frames of 40 features: the 360 inputs of F2
_FRAMES = 300  # 3 seconds, the mean of TIMIT
_HELD = 3  # mean number of frames of a state
_CORRELATION = 0.7  # correlation of the noise from frame to frame


def make_timit_like(
    n_samples: int = 1000,
    *,
    n_classes: int = 1973,
    noise: float = 1.0,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Generate frames of artificial speech, with the shape and number of classes of TIMIT in the paper.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of frames.
    n_classes : int, default=1973
        Number of states, at least 2. A state without a frame is missing from y. With few frames most states are
        missing.
    noise : float, default=1.0
        Standard deviation of the noise, in units of the standard deviation of the templates of the states.
    random_state : int, RandomState or None, default=None
        Seed of templates, states and noise. None draws from fresh entropy.

    Returns
    -------
    X : ndarray of float32, shape (n_samples, 360)
        Nine frames of 40 features: the frame and the four on either side, joined as in `load_timit`.
    y : ndarray of int64, shape (n_samples,)
        States, from 0 to ``n_classes - 1``.

    Raises
    ------
    ValueError
        If a number is out of range.

    See Also
    --------
    load_timit : The real data.

    Notes
    -----
    Utterances have 300 frames. A state lasts 3 frames on average (geometrically distributed), and the next state is
    drawn uniformly. A frame is the template of its state, 40 standard normal numbers, plus noise with a correlation of
    0.7 from frame to frame. Samples follow each other in time and overlap. Use the first ones for training and the last
    ones for testing, rather than a random split. Training and test samples must come from one call, because another
    ``random_state`` has other templates.

    Examples
    --------
    >>> from sklgap.datasets import make_timit_like
    >>> X, y = make_timit_like(500, random_state=0)
    >>> X.shape, X.dtype
    ((500, 360), dtype('float32'))
    """
    check_arguments(make_timit_like, locals())
    check_integer("n_samples", n_samples)
    check_integer("n_classes", n_classes, least=2)
    check_sizes(n_samples=n_samples, n_classes=n_classes)
    check_nonnegative("noise", noise)
    rng = np.random.default_rng(check_random_state(random_state).randint(2**32, size=4, dtype=np.uint32))
    templates = rng.standard_normal((n_classes, _N_FEATURES), dtype=np.float32)
    # A new state begins with probability 1 / _HELD, and at the start of an utterance.
    changes = rng.uniform(size=n_samples) < 1 / _HELD
    changes[::_FRAMES] = True
    y = rng.integers(n_classes, size=int(changes.sum()))[np.cumsum(changes) - 1]
    white = rng.standard_normal((n_samples, _N_FEATURES), dtype=np.float32)
    frames = templates[y] + np.float32(noise) * _correlated(white)
    return splice(np.split(frames, range(_FRAMES, n_samples, _FRAMES)), _CONTEXT, _CONTEXT), y


def _correlated(white: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return noise of variance 1 whose neighbours in time are correlated."""
    scale = np.sqrt(1 - _CORRELATION**2)
    first = (1 - scale) * white[:1]  # this gives variance 1 from the first frame on
    return lfilter([scale], [1, -_CORRELATION], white, axis=0, zi=first)[0].astype(np.float32)
