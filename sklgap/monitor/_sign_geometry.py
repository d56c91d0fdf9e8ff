r"""The noise scale of optimisers that step by signs, with noise and gradient in the dual norm of their steps.

A step of signSGD has the same length in every coordinate. It lowers the loss by the sum of the absolute values of the
gradient, which is its L1 norm. The noise is measured in that norm, too, as in arXiv:2602.03001. With :math:`\sigma_j`
the standard deviation of coordinate j of the gradient of a single sample:

.. math:: B_{sign} = \left( \sum_j \sigma_j \Big/ \sum_j |g_j| \right)^2

There is no unbiased estimate of an L1 norm. The L1 norm of the batch gradient is too large on average, because noise
has an absolute value, too. The product of one half of the batch with the signs of the other half is too small on
average, because signs may be wrong. The true value lies between the two expected values.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sklgap.monitor._window import Ratio, named, nothing_measured, ratio_of_means


class SignSums:
    """Sums over the parts of a batch for each coordinate: three vectors of the size of the parameters."""

    def __init__(self, like: Sequence[Tensor]) -> None:
        self._squares, *self._halves = ([torch.zeros_like(t) for t in like] for _ in range(3))
        self._masses = [0.0, 0.0]
        self._n_parts = 0

    def add(self, mass: float, gradients: Iterable[Tensor]) -> None:
        """Add the gradient of a part that counts as ``mass`` samples."""
        half = self._n_parts % 2
        for sum_, square, gradient in zip(self._halves[half], self._squares, gradients, strict=True):
            gradient = gradient.to(sum_.dtype)
            sum_.add_(gradient, alpha=mass)
            square.addcmul_(gradient, gradient, value=mass)
        self._masses[half] += mass
        self._n_parts += 1

    def by_parameter(self) -> np.ndarray:
        """Return three L1 norms by parameter: the noise of a sample, and the lower and upper bound of the gradient."""
        rows = [self._norms(*tensors) for tensors in zip(self._squares, *self._halves, strict=True)]
        return torch.stack([torch.stack(row) for row in rows]).cpu().double().numpy()

    def _norms(self, square: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = sum(self._masses)
        degrees = self._n_parts - 1
        variance = ((square - (first + second).square() / n) / degrees).clamp_min(0.0)
        # The root of an unbiased variance is too small on average. This correction is exact for normally distributed
        # parts.
        correction = math.sqrt(degrees / 2) * math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2))
        a, b = first / self._masses[0], second / self._masses[1]
        least = ((a * b.sign()).sum() + (b * a.sign()).sum()) / 2
        return variance.sqrt().sum() * correction, least, (first + second).abs().sum() / n


def sign_noise_scale_of(rows: np.ndarray) -> dict[str, float]:
    """Return the estimates from rows of (noise, gradient at least, gradient at most), of shape (n, 3).

    The interval runs from the lower end for the largest gradient to the upper end for the smallest one. The noise scale
    is the geometric mean of the two noise scales.
    """
    names = ("noise_l1", "gradient_l1_least", "gradient_l1_most")
    if not len(rows):
        return nothing_measured(*names)
    noise, least, most = map(float, rows.mean(axis=0))
    small, large = ratio_of_means(rows[:, [0, 2]]), ratio_of_means(rows[:, [0, 1]])
    found = Ratio(small.value * large.value, small.low**2, large.high**2, small.n_effective)
    return named(found, dict(zip(names, (noise, least, most), strict=True)))


def sign_saving(knee: float, batch_size: float) -> float:
    """Return the share of updates that a doubling saves if all coordinates have the same signal-to-noise ratio.

    The gain of a step is proportional to how much more often its signs are right than wrong: erf(sqrt(B / (2 knee))).
    """
    return 1 - math.erf(math.sqrt(batch_size / (2 * knee))) / math.erf(math.sqrt(batch_size / knee))
