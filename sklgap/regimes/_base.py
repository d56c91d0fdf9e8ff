"""What a batch regime is, and the sizes it may name."""

import numbers
from collections.abc import Mapping
from typing import Any

from sklearn.base import BaseEstimator

from sklgap._checks import check_flag, check_integer, shown

# Section 1 and Appendix of Keskar et al. (2017): 256 samples against 10 % of the training set.
SMALL_BATCH = 256
LARGE_BATCH_FRACTION = 0.1


class BatchRegime(BaseEstimator):
    """How large the batch is in each epoch; subclass it and define ``batch_size``.

    Parameters are explicit arguments of ``__init__``, as in any scikit-learn estimator, so that searches reach them by
    nested names (``batch_regime__switch_epoch``).

    Attributes
    ----------
    varies : bool
        Whether the batch size depends on the epoch; True by default.
    adaptive : bool
        Whether ``batch_size`` is asked for the first epoch only, and ``next_batch_size`` for every later one; False by
        default. An adaptive regime keeps no state: what it needs to know of the past is in the history of the net.

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
        """Return the number of rows of a batch, between 1 and n_samples.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        n_samples : int
            Number of training samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must define batch_size(epoch, n_samples).")

    def next_batch_size(self, last_epoch: Mapping[str, Any], n_samples: int) -> int:
        """Return the number of rows of a batch after an epoch, for an adaptive regime.

        Parameters
        ----------
        last_epoch : mapping
            The epoch's row of the history: ``batch_size``, ``train_loss``, ``lr`` and so on; where
            ``measured_batches`` asked for it ``gradient_variance``, summed over the parameters, of the gradient of a
            single row, and ``squared_gradient_norm``, of a mini-batch's gradient (mean over those measured).
        n_samples : int
            Number of training samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must define next_batch_size(last_epoch, n_samples).")

    def measured_batches(self, batch_size: int, n_samples: int) -> int:
        """Return on how many mini-batches the net measures its gradient's variance after an epoch.

        At least 2, or 0: it is not measured.
        """
        return 0


def default_base_batch_size(n_samples: int) -> int:
    """Return the size of the small batch: 256, or n // 40 (at least 8) where the data have fewer than 10,240 samples.

    The large batch is a tenth of the data; the small one stays four times below it.
    """
    check_integer("n_samples", n_samples)
    return min(n_samples, SMALL_BATCH if n_samples >= 40 * SMALL_BATCH else max(8, n_samples // 40))


def check_batch_size(
    batch_size: int | float | None, n_samples: int, name: str = "batch_size", or_none: bool = True
) -> int:
    """Resolve a batch size to a number of rows.

    Parameters
    ----------
    batch_size : int, float or None
        An integer of at least 1, a fraction of the training samples in (0, 1], or -1 for all of them; None: the small
        batch of `default_base_batch_size`.
    n_samples : int
        Number of training samples.
    name : str
        What the error calls it.
    or_none : bool
        Whether it may be None.

    Returns
    -------
    int
        Between 1 and n_samples: a larger batch is all the data.
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
