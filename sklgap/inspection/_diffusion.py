"""Ultra-slow diffusion of the weights: Hoffer et al. (2017), Section 3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import least_squares

from sklgap._checks import check_arguments, is_number

Interval = tuple[float, float]

NO_INTERVAL = (math.nan, math.nan)


@dataclass(frozen=True)
class DiffusionFit:
    """The distance from the initial weights as a + b log t, and as the power law c t^d.

    Attributes
    ----------
    a, b : float
        The line's value at t = 1, and its growth per unit of log t (natural logarithm): means over the trials.
    a_interval, b_interval : tuple of two float
        Their confidence intervals, by Student's t over the trials; NaN for a single trial, and for equal ones.
    slopes : tuple of float
        b of each trial.
    r2 : float
        Share of the variance of the distances within trials that the lines explain; NaN for constant distances.
    scale, exponent : float
        c and d of the power law: geometric mean and mean over the trials.
    exponent_interval : tuple of two float
        Confidence interval of d, as that of b.
    rss, power_rss : float
        Residual sums of squares of the two laws, both in distance, each trial about its own fit.
    aic, power_aic : float
        Akaike's criterion of the two (smaller is better), summed over trials; they have as many parameters.
    window : tuple of two int
        First and last number of updates fitted.
    n_points : int
        How many points were, in all trials.
    confidence : float
        Level of the intervals.
    """

    a: float
    b: float
    a_interval: Interval
    b_interval: Interval
    slopes: tuple[float, ...]
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
    def n_trials(self) -> int:
        """Number of trajectories."""
        return len(self.slopes)

    @property
    def better(self) -> str:
        """``"log"`` or ``"power"``: which has the smaller residual sum of squares."""
        return "log" if self.rss <= self.power_rss else "power"

    def predict(self, n_updates: npt.ArrayLike) -> np.ndarray:
        """Return a + b log t."""
        return self.a + self.b * np.log(n_updates)

    def __str__(self) -> str:
        several = self.n_trials > 1
        if self.has_interval:
            known = f"b in [{_text(self.b_interval)}] at {100 * self.confidence:g} % over trials"
        elif several:
            known = "no interval: the trials are equal"
        else:
            known = "no interval: one trial does not show how b varies over seeds, fit several"
        points = f"{self.n_points} points" + (f" of {self.n_trials} trials" if several else "")
        interval = f" [{_text(self.exponent_interval)}]" if self.has_interval else ""
        same = self.rss == self.power_rss
        verdict = "as well" if same else "worse" if self.better == "log" else "better"
        difference = 0.0 if same else self.power_aic - self.aic
        return (
            f"distance = {self.a:.4g} + {self.b:.4g} log t for t from {self.window[0]:,} to {self.window[1]:,} "
            f"({points}, {known}; R2 {self.r2:.4f}); a power law of exponent {self.exponent:.3g}{interval} fits "
            f"{verdict} (residual sum of squares {self.power_rss:.3g} against {self.rss:.3g}, AIC {difference:+.1f})"
        )

    @property
    def has_interval(self) -> bool:
        """Whether there are two trials or more, and not all equal."""
        return not math.isnan(self.b_interval[0])


def fit_diffusion(
    n_updates: Sequence[Any] | np.ndarray,
    distances: Sequence[Any] | np.ndarray,
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
    n_updates : array-like of shape (n_records,), or list of such
        t: optimiser steps made. Records at 0 are left out: log 0 is not a number. One for all trials, or one for each.
    distances : array-like of shape (n_records,) or (n_trials, n_records), or list of such
        Euclidean distances from the initial weights, above 0. Intervals need several trials, which are trainings with
        different seeds.
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
        For fewer than 3 different t in the window, values that are not finite, distances of 0 or less within it,
        trials of unequal numbers in the two, or a parameter outside its allowed values.

    See Also
    --------
    recorded : n_updates and distances as a recorder with ``at_updates="log"`` wrote them.
    WeightDistanceDisplay : Draws distances and fits.

    Notes
    -----
    Both laws have two parameters and are fitted to each trial by least squares in the distance (the power law from the
    straight line in log-log coordinates on), so that their residuals compare.

    Intervals are Student's t over the fits of the trials, and hold for new seeds. One trial has none: its points are
    not independent, as what moves the weights away from the curve stays for later records. An interval from the
    residuals about one line takes them for independent, and covers the mean slope in a few percent of cases at a
    nominal 95 % (``examples/benchmarks/intervals.py``). For the same reason the difference of the AIC is too large,
    the more so the denser the records.

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
    trials = [_select(t, distance, window) for t, distance in _trials(n_updates, distances)]
    lines = [stats.linregress(np.log(t), distance) for t, distance in trials]
    powers = [_power_law(np.log(t), distance) for t, distance in trials]
    residuals = [
        float(np.square(distance - line.intercept - line.slope * np.log(t)).sum())
        for line, (t, distance) in zip(lines, trials, strict=True)
    ]
    sizes = [len(t) for t, _ in trials]
    total = sum(float(np.square(distance - distance.mean()).sum()) for _, distance in trials)
    rss, power_rss = sum(residuals), sum(power.rss for power in powers)
    a, b, exponents = (
        np.array(values)
        for values in ([x.intercept for x in lines], [x.slope for x in lines], [x.exponent for x in powers])
    )
    same = len(trials) > 1 and all(np.array_equal(trial, trials[0]) for trial in trials)
    intervals = [NO_INTERVAL if same else _interval(values, confidence) for values in (a, b, exponents)]
    return DiffusionFit(
        a=float(a.mean()),
        b=float(b.mean()),
        a_interval=intervals[0],
        b_interval=intervals[1],
        slopes=tuple(b.tolist()),
        r2=1 - rss / total if total else math.nan,
        scale=math.exp(float(np.mean([power.log_scale for power in powers]))),
        exponent=float(exponents.mean()),
        exponent_interval=intervals[2],
        rss=rss,
        power_rss=power_rss,
        aic=sum(map(_aic, residuals, sizes)),
        power_aic=sum(map(_aic, [power.rss for power in powers], sizes)),
        window=(int(min(t.min() for t, _ in trials)), int(max(t.max() for t, _ in trials))),
        n_points=sum(sizes),
        confidence=float(confidence),
    )


def _interval(values: np.ndarray, confidence: float) -> Interval:
    """Return Student's t interval of the mean over trials."""
    if len(values) < 2:
        return NO_INTERVAL
    interval = stats.t.interval(confidence, len(values) - 1, values.mean(), stats.sem(values))
    return float(interval[0]), float(interval[1])


@dataclass(frozen=True)
class _PowerLaw:
    log_scale: float
    exponent: float
    rss: float


def _power_law(x: np.ndarray, y: np.ndarray) -> _PowerLaw:
    """Fit y = c exp(d x)."""
    unit = float(y.max())
    start = stats.linregress(x, np.log(y / unit))

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.exp(p[0] + p[1] * x) - y / unit

    def jacobian(p: np.ndarray) -> np.ndarray:
        return np.exp(p[0] + p[1] * x)[:, None] * np.stack([np.ones_like(x), x], axis=1)

    first = [start.intercept, start.slope]
    found = least_squares(residuals, first, jacobian, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return _PowerLaw(math.log(unit) + float(found.x[0]), float(found.x[1]), unit**2 * float(np.square(found.fun).sum()))


def _aic(rss: float, n_points: int) -> float:
    """Return n log(RSS / n) + 2 k with k = 3: two coefficients and the variance."""
    return (n_points * math.log(rss / n_points) if rss > 0 else -math.inf) + 6


def _trials(n_updates: Any, distances: Any) -> list[tuple[Any, Any]]:
    """Return (n_updates, distances) of each trial."""
    several = _is_several(distances)
    if not several:
        return [(n_updates, distances)]
    if not _is_several(n_updates):
        n_updates = [n_updates] * len(distances)
    if not len(distances):
        raise ValueError(f"distances must hold at least one trial; got {distances!r}.")
    if len(n_updates) != len(distances):
        raise ValueError(
            "n_updates must be one sequence for all trials, or one for each of at least 1; got "
            f"{len(n_updates)} for {len(distances)} trials."
        )
    return list(zip(n_updates, distances, strict=True))


def _is_several(values: Any) -> bool:
    """Say whether the values are sequences, one a trial, and not numbers."""
    try:
        return np.ndim(values) > 1
    except ValueError:  # sequences of different lengths
        return True


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
