r"""Dynamic sampling by Byrd et al. (2012): the batch grows if the measured noise of its gradient is too large.

.. math:: \frac{\|\mathrm{Var}_i(\nabla \ell_i)\|_1}{|S|} \le \theta^2 \, \|g_S\|_2^2

Keskar et al. (2017), Section 4, mention it as a way from small batches to large ones.
"""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from sklgap.regimes._base import LARGE_BATCH_FRACTION, BatchRegime, check_batch_size


class DynamicSampling(BatchRegime):
    r"""Choose the batch size by the norm test, so that the noise is at most a fraction of the gradient.

    The variance of the gradient of a sample is measured at the end of every epoch. A batch of :math:`|S|` samples
    passes the test if

    .. math:: \|\mathrm{Var}\|_1 / |S| \le \theta^2 \|g_S\|^2

    If it fails, the next epoch uses the batch size that would pass,
    :math:`|S| = \|\mathrm{Var}\|_1 / (\theta^2 \|g_S\|^2)` samples.

    Parameters
    ----------
    initial : int, float or None, default=None
        Batch size of the first epoch: a number of samples, or a fraction of them. None means the small batch, which
        ``"SB"`` stands for.
    theta : float, default=0.9
        Largest standard deviation of the gradient of a batch, as a fraction of its length, in (0, 1). With a smaller
        value the batch grows sooner and faster.
    largest : int or float, default=0.1
        Largest batch size: a number of samples, or a fraction of them. The default is 10 % of the samples, as ``"LB"``.
    max_growth : float, default=2.0
        Largest ratio between the batch sizes of two successive epochs, above 1.
    n_batches : int, default=4
        Number of mini-batches to measure on, at least 2. Fewer are used if there are not enough samples.

    Notes
    -----
    The batch size never shrinks. The squared length of g_S contains the noise, too. On average the test therefore asks
    for at most 1 / theta^2 times the samples at once. If noise prevails, as it does for F1 on MNIST from the first
    epoch on, the test asks for about that factor: the batch grows by 23 % per epoch with theta 0.9, and doubles with
    0.7.

    The test measures the gradients that the optimiser would get, including remedies. It uses disjoint mini-batches of
    the current batch size, or of half the data if that is smaller. The seed of the fit draws them. The weights are
    those at the end of the epoch, the net is in training mode, and the measurement does not change the module. The
    paper computes both quantities from the samples of one batch. That needs gradients of single samples, which do not
    exist under batch norm. The paper's test also assumes an unlimited supply of data. Batches are drawn without
    replacement here, so the test asks for more samples than needed once a batch is a large part of the data.

    With sample weights or class weights, the gradient of a batch is a ratio of sums. Its variance falls as
    :math:`1 / |S|` to first order, so the next batch size is right to first order.

    The measurements are in the history as ``gradient_variance`` (the 1-norm above) and ``squared_gradient_norm``. The
    next batch size depends on nothing else, so a warm start continues with the batch size of the last epoch. Cost:
    ``n_batches`` gradients per epoch, until the largest batch size is reached.

    References
    ----------
    Byrd, Chin, Nocedal, Wu, Sample size selection in optimization methods for machine learning, Mathematical
    Programming 134, 2012.

    Examples
    --------
    >>> from sklgap import DynamicSampling, LBGapClassifier
    >>> model = LBGapClassifier(batch_regime=DynamicSampling(theta=0.5))
    >>> model = model.set_params(batch_regime__largest=0.2)

    With a variance of 60, batches of 64 samples pass the test, because 60 / 64 is below 0.25 * 4. Batches of 32 fail,
    and 60 samples are needed:

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
        """Return the batch size that passes the norm test: the same one, or a larger one."""
        largest = check_batch_size(self.largest, n_samples, "largest", or_none=False)
        size = min(largest, last_epoch["batch_size"])
        variance = last_epoch.get("gradient_variance", 0.0)
        allowed = self.theta**2 * last_epoch.get("squared_gradient_norm", 0.0)
        if not variance / size > allowed:  # also if it is NaN
            return size
        limit = min(largest, max(size + 1, int(min(n_samples, size * self.max_growth))))
        return limit if variance > allowed * limit else min(limit, math.ceil(variance / allowed))

    def measured_batches(self, batch_size: int, n_samples: int) -> int:
        """Return ``n_batches`` until the largest batch size is reached, then 0."""
        return (
            int(self.n_batches)
            if batch_size < check_batch_size(self.largest, n_samples, "largest", or_none=False)
            else 0
        )
