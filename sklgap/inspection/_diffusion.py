"""Ultra-slow diffusion of the weights: Hoffer et al. (2017), Section 3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import t as student_t

from sklgap._checks import check_arguments, is_number

Interval = tuple[float, float]


@dataclass(frozen=True)
class DiffusionFit:
    """The distance from the initial weights as a + b log t, and as the power law c t^d.

    Attributes
    ----------
    a, b : float
        The line's value at t = 1, and its growth per unit of log t (natural logarithm).
    a_interval, b_interval : tuple of two float
        Their confidence intervals.
    r2 : float
        Share of the variance of the distances that a + b log t explains; NaN for constant distances.
    scale, exponent : float
        c and d of the power law.
    exponent_interval : tuple of two float
        Confidence interval of d.
    rss, power_rss : float
        Residual sums of squares of the two, both in distance.
    aic, power_aic : float
        Akaike's criterion of the two (smaller is better); they have the same number of parameters.
    window : tuple of two int
        First and last number of updates fitted.
    n_points : int
        How many points were.
    confidence : float
        Level of the intervals.
    """

    a: float
    b: float
    a_interval: Interval
    b_interval: Interval
    r2: float
    scale: float
    exponent: float
    exponent_interval: Interval
    rss: float
    power_rss: float
    aic: float
    power_aic: float
    window: tuple[int, int]
    n_points: int
    confidence: float

    @property
    def better(self) -> str:
        """``"log"`` or ``"power"``: which has the smaller residual sum of squares, and so the smaller AIC."""
        return "log" if self.rss <= self.power_rss else "power"

    def predict(self, n_updates: Any) -> np.ndarray:
        """Return a + b log t."""
        return self.a + self.b * np.log(n_updates)

    def _aic_difference(self) -> float:
        return 0.0 if self.rss == self.power_rss else self.power_aic - self.aic

    def __str__(self) -> str:
        power = f"a power law of exponent {self.exponent:.3g} [{_text(self.exponent_interval)}]"
        verdict = "as well" if self.rss == self.power_rss else "worse" if self.better == "log" else "better"
        return (
            f"distance = {self.a:.4g} + {self.b:.4g} log t for t from {self.window[0]:,} to {self.window[1]:,} "
            f"({self.n_points} points, b in [{_text(self.b_interval)}] at {100 * self.confidence:g} %, "
            f"R2 {self.r2:.4f}); {power} fits {verdict} "
            f"(residual sum of squares {self.power_rss:.3g} against {self.rss:.3g}, "
            f"AIC {self._aic_difference():+.1f})"
        )


def fit_diffusion(
    n_updates: Sequence[float] | np.ndarray,
    distances: Sequence[float] | np.ndarray,
    *,
    window: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> DiffusionFit:
    r"""Fit :math:`\lVert w_t - w_0 \rVert = a + b \log t`, and a power law beside it.

    Hoffer et al. (2017) find that at a constant high learning rate the distance from the initial weights grows like the
    logarithm of the number of updates ("ultra-slow diffusion", as of a random walk on a random potential), where an
    ordinary random walk would give a power law, :math:`\sqrt t`.

    Parameters
    ----------
    n_updates : array-like of shape (n_records,)
        t: optimiser steps made. Records at 0 are left out: log 0 is not a number.
    distances : array-like of shape (n_records,)
        Euclidean distances from the initial weights, above 0.
    window : tuple (first, last), default=None
        Fit the records with first <= t <= last, at least 3; None: all of them. The paper's law is about the initial
        phase; choose the window before looking at the fit.
    confidence : float, default=0.95
        Level of the intervals, between 0 and 1.

    Returns
    -------
    DiffusionFit

    Raises
    ------
    ValueError
        For fewer than 3 different t in the window, values that are not finite, distances of 0 or less within it, or a
        parameter outside its allowed values.

    See Also
    --------
    recorded : n_updates and distances as a recorder with ``at_updates="log"`` wrote them.
    WeightDistanceDisplay : Draws distances and fits.

    Notes
    -----
    Both laws have two parameters and are fitted by least squares in the distance (the power law from the straight line
    in log-log coordinates on), so that their residuals compare. Intervals are from the t-distribution with
    n_points - 2 degrees of freedom, that of the exponent by linearisation.

    They take residuals for independent. Along one run they are not: what moves the weights away from the curve stays
    for later records, so the intervals are too narrow, the more so the denser the records, and so is the difference of
    the AIC too large. They tell how straight this run is, not how b varies over seeds: for that, fit several runs.

    References
    ----------
    Hoffer et al., Train longer, generalize better, NeurIPS 2017, Section 3 and Figure 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklgap.inspection import fit_diffusion
    >>> t = np.array([1, 2, 4, 8, 16, 32])
    >>> fit = fit_diffusion(t, 2 + 0.5 * np.log(t))
    >>> round(fit.a, 6), round(fit.b, 6), fit.better
    (2.0, 0.5, 'log')
    """
    check_arguments(fit_diffusion, locals())
    if not is_number(confidence) or not 0 < confidence < 1:
        raise ValueError(f"confidence must be a number between 0 and 1; got {confidence!r}.")
    t, distance = _select(n_updates, distances, window)
    quantile = float(student_t.ppf((1 + confidence) / 2, len(t) - 2))
    (a, b), (a_error, b_error), rss = _straight_line(np.log(t), distance)
    scale, exponent, exponent_error, power_rss = _power_law(np.log(t), distance)
    total = float(np.square(distance - distance.mean()).sum())
    return DiffusionFit(
        a=a,
        b=b,
        a_interval=(a - quantile * a_error, a + quantile * a_error),
        b_interval=(b - quantile * b_error, b + quantile * b_error),
        r2=1 - rss / total if total else math.nan,
        scale=scale,
        exponent=exponent,
        exponent_interval=(exponent - quantile * exponent_error, exponent + quantile * exponent_error),
        rss=rss,
        power_rss=power_rss,
        aic=_aic(rss, len(t)),
        power_aic=_aic(power_rss, len(t)),
        window=(int(t.min()), int(t.max())),
        n_points=len(t),
        confidence=float(confidence),
    )


def _straight_line(x: np.ndarray, y: np.ndarray) -> tuple[Interval, Interval, float]:
    """Return intercept and slope, their standard errors, and the residual sum of squares."""
    mean, spread = x.mean(), float(np.square(x - x.mean()).sum())
    slope = float(((x - mean) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean() - slope * mean)
    rss = float(np.square(y - intercept - slope * x).sum())
    variance = rss / (len(x) - 2)
    errors = math.sqrt(variance * (1 / len(x) + mean**2 / spread)), math.sqrt(variance / spread)
    return (intercept, slope), errors, rss


def _power_law(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Return c, d and its standard error, and the residual sum of squares of y = c exp(d x)."""
    unit = float(y.max())
    (start, slope), _, _ = _straight_line(x, np.log(y / unit))

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.exp(p[0] + p[1] * x) - y / unit

    def jacobian(p: np.ndarray) -> np.ndarray:
        return np.exp(p[0] + p[1] * x)[:, None] * np.stack([np.ones_like(x), x], axis=1)

    found = least_squares(residuals, [start, slope], jacobian, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    rss = float(np.square(found.fun).sum())
    covariance = np.linalg.inv(found.jac.T @ found.jac) * rss / (len(x) - 2)
    return unit * math.exp(found.x[0]), float(found.x[1]), math.sqrt(covariance[1, 1]), unit**2 * rss


def _aic(rss: float, n_points: int) -> float:
    """Return n log(RSS / n) + 2 k with k = 3: two coefficients and the variance."""
    return (n_points * math.log(rss / n_points) if rss > 0 else -math.inf) + 6


def _select(n_updates: Any, distances: Any, window: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        t, distance = np.asarray(n_updates, dtype=float), np.asarray(distances, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"n_updates and distances must be sequences of numbers; {error}.") from error
    if t.ndim != 1 or t.shape != distance.shape:
        raise ValueError(
            f"n_updates and distances must be of one length, in one dimension; got shapes {t.shape}, {distance.shape}."
        )
    first, last = _check_window(window)
    chosen = (t > 0) & (t >= first) & (t <= last)
    t, distance = t[chosen], distance[chosen]
    if not np.isfinite(t).all() or not np.isfinite(distance).all() or not (distance > 0).all():
        raise ValueError("distances must be finite and above 0, and n_updates finite, within the window.")
    if len(np.unique(t)) < 3:
        raise ValueError(f"window must hold at least 3 different numbers of updates above 0; got {len(np.unique(t))}.")
    return t, distance


def _check_window(window: Any) -> tuple[float, float]:
    if window is None:
        return 0.0, math.inf
    pair = isinstance(window, tuple | list) and len(window) == 2 and all(is_number(end, finite=False) for end in window)
    if not pair or not 0 <= window[0] < window[1]:
        raise ValueError(f"window must be None or a pair (first, last) with 0 <= first < last; got {window!r}.")
    return float(window[0]), float(window[1])


def _text(interval: Interval) -> str:
    return f"{interval[0]:.4g}, {interval[1]:.4g}"
