"""Intervals over paired trials, and rank statistics: what a printed sentence rests on."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes
    ----------
    value : float
        The estimate; NaN where there is none.
    low, high : float
        Its interval; NaN where there are too few values for one.
    n : int
        Values it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether there were values enough for an interval."""
        return not math.isnan(self.low)

    def excludes(self, value: float) -> bool:
        """Say whether the interval is there and does not hold ``value``."""
        return self.has_interval and not self.low <= value <= self.high

    def text(self, spec: str, unit: str = "") -> str:
        """Return value, unit and interval in words."""
        if math.isnan(self.value):
            return "not defined"
        interval = f", 95 % interval [{self.low:{spec}}, {self.high:{spec}}]" if self.has_interval else ""
        return f"{self.value:{spec}}{unit}{interval}"

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high, self.n)


def mean_estimate(values: Any) -> Estimate:
    """Return the mean of the values that are no NaN, with Student's t interval."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def ratio_estimate(numerators: Any, denominators: Any) -> Estimate:
    """Return the geometric mean of paired ratios, with Student's t interval of their logarithms.

    Pairs with a NaN are left out; not defined where a value is not above 0.
    """
    pairs = np.array([numerators, denominators], dtype=float)
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    if (pairs <= 0).any():
        return Estimate(math.nan, math.nan, math.nan, pairs.shape[1])
    logs = mean_estimate(np.log(pairs[0]) - np.log(pairs[1]))
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.n)


def rank_correlation(first: Any, second: Any) -> Estimate:
    """Return Spearman's rank correlation, with the interval of Bonett and Wright.

    Fisher's z has the standard error sqrt((1 + rho^2 / 2) / (n - 3)) for ranks: Bonett and Wright, Sample size
    requirements for estimating Pearson, Kendall and Spearman correlations, Psychometrika 65 (2000), equation 3. Pairs
    with a NaN are left out; not defined where one of the two is constant, or for fewer than 3 pairs. A perfect order
    has the inner end of the order next to it, two neighbours exchanged.
    """
    pairs = np.array([first, second], dtype=float)
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    n = pairs.shape[1]
    if n < 3 or (np.ptp(pairs, axis=1) == 0).any():
        return Estimate(math.nan, math.nan, math.nan, n)
    rho = round(float(stats.spearmanr(*pairs).statistic), 12)  # a perfect order is 1 but for rounding
    if n < 4:
        return Estimate(rho, math.nan, math.nan, n)
    inner = math.copysign(min(abs(rho), 1 - 12 / (n**3 - n)), rho)
    z = math.atanh(inner)
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    return Estimate(rho, -1.0 if rho == -1 else low, 1.0 if rho == 1 else high, n)


def share_larger(first: Any, second: Any) -> float:
    """Return in which share of all pairs the value of ``first`` is the larger one; ties count half."""
    a, b = (values[~np.isnan(values)] for values in (np.asarray(first, float), np.asarray(second, float)))
    if not len(a) or not len(b):
        return math.nan
    return float(((a[:, None] > b).sum() + 0.5 * (a[:, None] == b).sum()) / (len(a) * len(b)))
