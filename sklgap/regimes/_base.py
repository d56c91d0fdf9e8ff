"""The base class of batch regimes, and the allowed batch sizes."""

import numbers
from collections.abc import Mapping
from typing import Any

from sklearn.base import BaseEstimator

from sklgap._checks import check_flag, check_integer, shown

# Section 1 and Appendix of Keskar et al. (2017): 256 samples against 10 % of the training set.
SMALL_BATCH = 256
LARGE_BATCH_FRACTION = 0.1


class BatchRegime(BaseEstimator):
    """Base class of batch regimes, which return the batch size of each epoch.

    Subclass it and define ``batch_size``. Parameters are explicit arguments of ``__init__``, as in any scikit-learn
    estimator, so searches can set them by nested names (``batch_regime__switch_epoch``).

    Attributes
    ----------
    varies : bool
        Whether the batch size depends on the epoch; True by default.
    adaptive : bool
        Whether training calls ``batch_size`` for the first epoch only, and ``next_batch_size`` for every later epoch;
        False by default. An adaptive regime saves no state. The history of the net holds all that it needs.

    Examples
    --------
    >>> from sklgap import BatchRegime
    >>> class Alternating(BatchRegime):
    ...     def __init__(self, large=0.1):
    ...         self.large = large
    ...
    ...     def batch_size(self, epoch, n_samples):
    ...         return 32 if epoch % 2 == 0 else int(self.large * n_samples)
    >>> [Alternating().batch_size(epoch, n_samples=1000) for epoch in range(3)]
    [32, 100, 32]
    """

    varies: bool = True
    adaptive: bool = False

    def batch_size(self, epoch: int, n_samples: int) -> int:
        """Return the batch size of an epoch, between 1 and n_samples.

        Parameters
        ----------
        epoch : int
            Number of the epoch, counted from 0.
        n_samples : int
            Number of training samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must define batch_size(epoch, n_samples).")

    def next_batch_size(self, last_epoch: Mapping[str, Any], n_samples: int) -> int:
        """Return the batch size of the epoch after ``last_epoch``, for an adaptive regime.

        Parameters
        ----------
        last_epoch : mapping
            The record of the last epoch in the history: ``batch_size``, ``train_loss``, ``lr`` and so on. If
            ``measured_batches`` asked for them, it also has ``gradient_variance``, the variance of the gradient of a
            single sample, summed over the parameters, and ``squared_gradient_norm``, the squared norm of the gradient
            of a mini-batch, averaged over the measured mini-batches.
        n_samples : int
            Number of training samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must define next_batch_size(last_epoch, n_samples).")

    def measured_batches(self, batch_size: int, n_samples: int) -> int:
        """Return the number of mini-batches on which the net measures the variance of its gradient after an epoch.

        It is at least 2, or 0 for no measurement.
        """
        return 0


def default_base_batch_size(n_samples: int) -> int:
    """Return the size of the small batch (SB).

    It is 256, or n // 40 (at least 8) if there are fewer than 10,240 samples. With at least 320 samples it is at most a
    quarter of the large batch, which is a tenth of the samples.

    Parameters
    ----------
    n_samples : int
        Number of training samples, at least 1.

    Returns
    -------
    int
        The batch size, at most ``n_samples``.

    Examples
    --------
    >>> from sklgap.regimes import default_base_batch_size
    >>> default_base_batch_size(60000), default_base_batch_size(1000)
    (256, 25)
    """
    check_integer("n_samples", n_samples)
    return min(n_samples, SMALL_BATCH if n_samples >= 40 * SMALL_BATCH else max(8, n_samples // 40))


def check_batch_size(
    batch_size: int | float | None, n_samples: int, name: str = "batch_size", or_none: bool = True
) -> int:
    """Return a batch size as a number of samples.

    Parameters
    ----------
    batch_size : int, float or None
        An integer of at least 1, a fraction of the training samples in (0, 1], or -1 for all of them. None means the
        small batch of `default_base_batch_size`.
    n_samples : int
        Number of training samples.
    name : str
        Name of the parameter in the error message.
    or_none : bool
        Whether ``batch_size`` may be None.

    Returns
    -------
    int
        Between 1 and n_samples. A larger batch size means all samples.
    """
    check_integer("n_samples", n_samples)
    check_flag("or_none", or_none)
    if batch_size is None and or_none:
        return default_base_batch_size(n_samples)
    whole = isinstance(batch_size, numbers.Integral)
    if (
        isinstance(batch_size, bool)
        or not isinstance(batch_size, numbers.Real)
        or not (batch_size == -1 or batch_size >= 1 if whole else 0 < batch_size <= 1)
    ):
        raise ValueError(
            f"{name} must be an integer of at least 1, a fraction of the training samples in (0, 1], "
            f"or -1 for all of them; got {shown(batch_size)}."
        )
    if batch_size == -1 and whole:
        return n_samples
    rows = int(batch_size) if whole else max(1, round(float(batch_size) * n_samples))
    return min(rows, n_samples)
