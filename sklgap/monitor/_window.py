"""The noise scale estimated from the measurements of a window, which depend on each other."""

import math
from typing import NamedTuple

import numpy as np

from sklgap.inspection._gradient_noise import ratio_interval

# The interval comes from the means of 4 to 10 stretches of the window, each of at least two measurements.
MOST_STRETCHES, LEAST_STRETCHES = 10, 4


class Ratio(NamedTuple):
    """A ratio of means, its 95 % interval, and the number of independent measurements that it is worth."""

    value: float
    low: float
    high: float
    n_effective: float


def ratio_of_means(pairs: np.ndarray) -> Ratio:
    """Return the ratio of the means of (numerator, denominator), of shape (n, 2), with its interval by batch means."""
    n = len(pairs)
    numerator, denominator = map(float, pairs.mean(axis=0))
    ratio = numerator / denominator if denominator > 0 else (math.inf if numerator > 0 else math.nan)
    low, high, effective = 0.0, math.inf, math.nan
    stretches = min(MOST_STRETCHES, n // 2)
    if stretches >= LEAST_STRETCHES:
        length = n // stretches
        means = pairs[n - stretches * length :].reshape(stretches, length, 2).mean(axis=1)
        covariance = np.cov(means, rowvar=False) / stretches
        low, high = ratio_interval(numerator, denominator, covariance, stretches - 1)
        if math.isfinite(ratio):
            direction = np.array([1.0, -ratio])
            single = float(direction @ np.cov(pairs, rowvar=False) @ direction)
            together = float(direction @ covariance @ direction)
            effective = min(float(n), single / together) if together > 0 else float(n)
    return Ratio(ratio, float(low), float(high), effective)


def noise_scale_of(pairs: np.ndarray) -> dict[str, float]:
    """Return the estimates from rows of (trace, squared gradient norm), of shape (n, 2)."""
    if not len(pairs):
        return nothing_measured("trace", "squared_gradient_norm")
    found = ratio_of_means(pairs)
    trace, square = map(float, pairs.mean(axis=0))
    return named(found, {"trace": trace, "squared_gradient_norm": square})


def named(noise_scale: Ratio, values: dict[str, float]) -> dict[str, float]:
    """Return a noise scale and its components under the names that a monitor uses."""
    value, low, high, effective = noise_scale
    found = {"noise_scale": value, "noise_scale_low": low, "noise_scale_high": high}
    return {**found, **values, "n_effective": effective}


def nothing_measured(*names: str) -> dict[str, float]:
    """Return NaN for the noise scale and for its components."""
    return named(Ratio(math.nan, math.nan, math.nan, 0.0), dict.fromkeys(names, math.nan))
