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
    """Two fits to the distance from the initial weights: a + b log t, and the power law c t^d.

    Attributes
    ----------
    a, b : float
        The value of the line at t = 1, and its growth per unit of log t (natural logarithm). Both are means over
        trials.
    a_interval, b_interval : tuple of two float
        Confidence intervals of a and b, by Student's t over the trials. NaN for a single trial and for equal trials.
    slopes : tuple of float
        The growth b of each trial.
    r2 : float
        Share of the variance of the distances within trials that the lines explain. NaN for constant distances.
    scale, exponent : float
        The factor c and the exponent d of the power law: the geometric mean and the mean over the trials.
    exponent_interval : tuple of two float
        Confidence interval of the exponent d, computed like that of b.
    rss, power_rss : float
        Residual sums of squares of the two laws, both in distance. Each trial is compared with its own fit.
    aic, power_aic : float
        Akaike's criterion of the two laws, summed over trials. Smaller is better. The laws have equally many
        parameters.
    window : tuple of two int
        First and last number of updates in the fit.
    n_points : int
        Number of points in the fit, over all trials.
    confidence : float
        Confidence level of the intervals.
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
        """The law with the smaller residual sum of squares: ``"log"`` or ``"power"``."""
        return "log" if self.rss <= self.power_rss else "power"

    def predict(self, n_updates: npt.ArrayLike) -> np.ndarray:
        """Return a + b log t for these numbers of updates.

        Parameters
        ----------
        n_updates : array-like
            Numbers of updates t, above 0.

        Returns
        -------
        ndarray
            The fitted distances, of the shape of ``n_updates``.
        """
        return self.a + self.b * np.log(n_updates)

    def __str__(self) -> str:
        several = self.n_trials > 1
        if self.has_interval:
            known = f"{100 * self.confidence:g} % interval of the slope over trials [{_text(self.b_interval)}]"
        elif several:
            known = "no interval, because all trials are equal"
        else:
            known = "no interval, because one trial does not show how the slope varies over seeds"
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
        """Whether there are at least two trials and they are not all equal."""
        return not math.isnan(self.b_interval[0])


def fit_diffusion(
    n_updates: Sequence[Any] | np.ndarray,
    distances: Sequence[Any] | np.ndarray,
    *,
    window: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> DiffusionFit:
    r"""Fit :math:`\lVert w_t - w_0 \rVert = a + b \log t`, and a power law for comparison.

    Hoffer et al. (2017) find that at a constant high learning rate the distance from the initial weights grows like the
    logarithm of the number of updates. They call this "ultra-slow diffusion", as of a random walk on a random
    potential. An ordinary random walk would give a power law, :math:`\sqrt t`.

    Parameters
    ----------
    n_updates : array-like of shape (n_records,), or list of such
        Numbers t of optimiser steps. Give one sequence for all trials, or one for each trial. Records at t = 0 are left
        out, because log 0 is not a number.
    distances : array-like of shape (n_records,) or (n_trials, n_records), or list of such
        Euclidean distances from the initial weights, above 0. Intervals need several trials, that is, trainings with
        different seeds.
    window : tuple (first, last), default=None
        Fit the records with first <= t <= last. There must be at least 3 of them. None fits all records. The law of the
        paper describes the initial phase of training. Choose the window before you look at the fit.
    confidence : float, default=0.95
        Confidence level of the intervals, between 0 and 1.

    Returns
    -------
    DiffusionFit
        Both fits, with intervals over the trials.

    Raises
    ------
    ValueError
        If the window holds fewer than 3 different t, values that are not finite, or distances of 0 or less; if the two
        arguments hold different numbers of trials; or if a parameter is outside its allowed values.

    See Also
    --------
    recorded : Numbers of updates and distances from a recorder with ``at_updates="log"``.
    WeightDistanceDisplay : Draws distances and fits.

    Notes
    -----
    Both laws have two parameters and are fitted to each trial by least squares in the distance, so that their residuals
    can be compared. The fit of the power law starts from the straight line in log-log coordinates.

    Intervals are Student's t intervals over the fits of the trials, and they hold for new seeds. A single trial has no
    interval, because its points are not independent: what moves the weights away from the curve remains in later
    records. An interval from the residuals about one line assumes independent points. At a nominal 95 % it covers the
    mean slope in a few percent of cases (``examples/benchmarks/intervals.py``). For the same reason the difference of
    the AIC is too large, and more so the denser the records are.

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
    """Return n log(RSS / n) + 2 k with k = 3 for two coefficients and the variance."""
    return (n_points * math.log(rss / n_points) if rss > 0 else -math.inf) + 6


def _trials(n_updates: Any, distances: Any) -> list[tuple[Any, Any]]:
    """Return (n_updates, distances) of each trial."""
    several = _is_several(distances)
    if not several:
        return [(n_updates, distances)]
    if not _is_several(n_updates):
        n_updates = [n_updates] * len(distances)
    if not len(distances):
        raise ValueError(f"distances must contain at least one trial; got {distances!r}.")
    if len(n_updates) != len(distances):
        raise ValueError(
            "n_updates must be one sequence for all trials or one sequence for each trial; got "
            f"{len(n_updates)} sequences for {len(distances)} trials."
        )
    return list(zip(n_updates, distances, strict=True))


def _is_several(values: Any) -> bool:
    """Say whether the values are sequences, one for each trial, and not numbers."""
    try:
        return np.ndim(values) > 1
    except ValueError:  # sequences of different lengths
        return True


def _select(n_updates: Any, distances: Any, window: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        t, distance = np.asarray(n_updates, dtype=float), np.asarray(distances, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"n_updates and distances must be sequences of numbers; NumPy reports: {error}.") from error
    if t.ndim != 1 or t.shape != distance.shape:
        raise ValueError(
            "n_updates and distances must have one dimension and the same length; got the shapes "
            f"{t.shape} and {distance.shape}."
        )
    first, last = _check_window(window)
    chosen = (t > 0) & (t >= first) & (t <= last)
    t, distance = t[chosen], distance[chosen]
    if not np.isfinite(t).all() or not np.isfinite(distance).all() or not (distance > 0).all():
        raise ValueError("Within the window, distances must be finite and above 0, and n_updates must be finite.")
    if len(np.unique(t)) < 3:
        raise ValueError(
            f"window must contain at least 3 different numbers of updates above 0; got {len(np.unique(t))}."
        )
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
