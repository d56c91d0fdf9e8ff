r"""Dynamic sampling: the batch grows when the measured noise of its gradient says so, Byrd et al. (2012).

.. math:: \frac{\|\mathrm{Var}_i(\nabla \ell_i)\|_1}{|S|} \le \theta^2 \, \|g_S\|_2^2

Keskar et al. (2017), Section 4, name it as a way from small batches to large ones.
"""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from sklgap.regimes._base import LARGE_BATCH_FRACTION, BatchRegime, check_batch_size


class DynamicSampling(BatchRegime):
    r"""Batch size by the norm test: as large as it takes for the noise to be a fraction of the gradient.

    At the end of every epoch the variance of a row's gradient is measured. Where a batch of :math:`|S|` rows
    fails the test

    .. math:: \|\mathrm{Var}\|_1 / |S| \le \theta^2 \|g_S\|^2

    the next epoch has the batches that would pass it, :math:`|S| = \|\mathrm{Var}\|_1 / (\theta^2 \|g_S\|^2)` rows.

    Parameters
    ----------
    initial : int, float or None, default=None
        Rows or fraction in the first epoch; None: the small batch, what ``"SB"`` is for the data.
    theta : float, default=0.9
        Largest standard deviation of a batch's gradient, as a fraction of its length; in (0, 1). The smaller, the
        sooner and the faster the batch grows.
    largest : int or float, default=0.1
        Rows or fraction that is never exceeded (10 % of the data: ``"LB"``).
    max_growth : float, default=2.0
        The batch of an epoch is at most this many times that of the epoch before; above 1.
    n_batches : int, default=4
        Mini-batches to measure on, at least 2; fewer where the data do not hold so many.

    Notes
    -----
    The batch never shrinks. As the squared length of g_S holds the noise too, the test asks for at most 1 / theta^2
    times the rows at once, on average; and where noise prevails, as from the first epoch on for F1 on MNIST, for just
    about that: with 0.9 the batch then grows by 23 % an epoch, with 0.7 it doubles.

    Measured are the gradients that the optimiser would be given, remedies included, on disjoint mini-batches of the
    size trained with (of half the data where that is less), drawn by the seed of the fit, at the weights at the end of
    the epoch, in training mode; nothing of the module changes. The paper takes both from the rows of one batch, which
    gradients of single rows would be needed for; they do not exist under batch norm. The paper's test also knows no
    end of the data: as batches are drawn without replacement, it asks for more rows than needed once they are a large
    part of them.

    With sample weights or class weights the gradient of a batch is a ratio of sums: its variance falls as
    :math:`1 / |S|` to first order, and the next size is right to first order.

    The measurements are in the history, as ``gradient_variance`` (the 1-norm above) and ``squared_gradient_norm``; the
    next size depends on nothing else, so that a warm start goes on from the size of the last epoch.
    Cost: ``n_batches`` gradients an epoch, until the largest size is reached.

    References
    ----------
    Byrd, Chin, Nocedal, Wu, Sample size selection in optimization methods for machine learning, Mathematical
    Programming 134, 2012.

    Examples
    --------
    >>> from sklgap import DynamicSampling, LBGapClassifier
    >>> model = LBGapClassifier(batch_regime=DynamicSampling(theta=0.5))
    >>> model = model.set_params(batch_regime__largest=0.2)

    A variance of 60 passes in batches of 64 (60 / 64 is below 0.25 * 4), and needs 60 rows; in batches of 32 it fails:

    >>> regime = DynamicSampling(initial=32, theta=0.5)
    >>> for size in (64, 32):
    ...     epoch = {"batch_size": size, "gradient_variance": 60.0, "squared_gradient_norm": 4.0}
    ...     print(regime.next_batch_size(epoch, n_samples=1000))
    64
    60
    """

    adaptive = True

    def __init__(
        self,
        initial: int | float | None = None,
        theta: float = 0.9,
        largest: int | float = LARGE_BATCH_FRACTION,
        max_growth: float = 2.0,
        n_batches: int = 4,
    ) -> None:
        self.initial = initial
        self.theta = theta
        self.largest = largest
        self.max_growth = max_growth
        self.n_batches = n_batches

    def batch_size(self, epoch: int, n_samples: int) -> int:
        """Return the batch size of the first epoch."""
        for name, low, high in (("theta", 0, 1), ("max_growth", 1, math.inf)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low < float(value) < high:
                allowed = f"above {low}" if high == math.inf else f"between {low} and {high}"
                raise ValueError(f"{name} must be a number {allowed}; got {value!r}.")
        n_batches = self.n_batches
        if isinstance(n_batches, bool) or not isinstance(n_batches, numbers.Integral) or n_batches < 2:
            raise ValueError(f"n_batches must be an integer of at least 2; got {n_batches!r}.")
        largest = check_batch_size(self.largest, n_samples, "largest", or_none=False)
        return min(largest, check_batch_size(self.initial, n_samples, "initial"))

    def next_batch_size(self, last_epoch: Mapping[str, Any], n_samples: int) -> int:
        """Return the size that passes the norm test: the same, or a larger one."""
        largest = check_batch_size(self.largest, n_samples, "largest", or_none=False)
        size = min(largest, last_epoch["batch_size"])
        variance = last_epoch.get("gradient_variance", 0.0)
        allowed = self.theta**2 * last_epoch.get("squared_gradient_norm", 0.0)
        if not variance / size > allowed:  # also where it is not a number
            return size
        limit = min(largest, max(size + 1, int(min(n_samples, size * self.max_growth))))
        return limit if variance > allowed * limit else min(limit, math.ceil(variance / allowed))

    def measured_batches(self, batch_size: int, n_samples: int) -> int:
        """Return ``n_batches`` until the batch is at its largest."""
        return (
            int(self.n_batches)
            if batch_size < check_batch_size(self.largest, n_samples, "largest", or_none=False)
            else 0
        )
