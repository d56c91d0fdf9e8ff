"""The trade-off between updates and examples that trainings with several batch sizes follow: a fit."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from sklgap._checks import WrongArgument, shown
from sklgap.experiments._statistics import CONFIDENCE

# Critical batch sizes tried: so many powers of e beyond the smallest and the largest batch, so many steps to a power.
_BEYOND, _PER_E = 12, 300


@dataclass(frozen=True)
class StepsTradeoff:
    """The trade-off S = S_min + E_min / B between updates S and batch size B.

    Attributes
    ----------
    critical_batch_size : float
        E_min / S_min, in rows: there training takes twice the fewest updates and twice the fewest examples.
    critical_batch_size_interval : tuple of two floats
        Its 95 % interval; 0 or infinity where the batch sizes do not bound it.
    min_steps, min_examples : float
        S_min, updates with batches of any size at least, and E_min, rows at least.
    min_steps_interval, min_examples_interval : tuple of two floats
        Their 95 % intervals.
    scatter : float
        Root mean square of log(measured / fitted): 0.1 means that updates are off by a tenth.
    n_measurements : int
        Trainings fitted to.
    """

    critical_batch_size: float
    critical_batch_size_interval: tuple[float, float]
    min_steps: float
    min_steps_interval: tuple[float, float]
    min_examples: float
    min_examples_interval: tuple[float, float]
    scatter: float
    n_measurements: int

    def steps(self, batch_size: Any) -> Any:
        """Return the updates that the trade-off says batches of this size take; arrays too."""
        return self.min_steps + self.min_examples / np.asarray(batch_size, dtype=float)

    def __str__(self) -> str:
        def show(value: float, interval: tuple[float, float]) -> str:
            return f"{value:,.4g} [{interval[0]:,.4g}, {interval[1]:,.4g}]"

        return (
            f"critical batch size {show(self.critical_batch_size, self.critical_batch_size_interval)} rows, fewest "
            f"updates {show(self.min_steps, self.min_steps_interval)}, fewest examples "
            f"{show(self.min_examples, self.min_examples_interval)} (95 % intervals; {self.n_measurements} trainings, "
            f"{100 * self.scatter:.0f} % off the fit)"
        )


def fit_steps_to_loss(batch_sizes: Any, n_steps: Any) -> StepsTradeoff:
    r"""Fit the trade-off between updates and examples to measured trainings.

    .. math:: \Big(\frac{S}{S_{min}} - 1\Big) \Big(\frac{E}{E_{min}} - 1\Big) = 1, \quad E = B S
        \quad \Longleftrightarrow \quad S = S_{min} \Big(1 + \frac{B_{crit}}{B}\Big),
        \quad B_{crit} = \frac{E_{min}}{S_{min}}

    Parameters
    ----------
    batch_sizes : array-like of shape (n_sizes,)
        Rows of a batch, of at least two different sizes.
    n_steps : array-like of shape (n_sizes,) or (n_sizes, n_trials)
        Updates until one and the same loss was reached; NaN (not reached) is left out.

    Returns
    -------
    StepsTradeoff

    Raises
    ------
    ValueError
        For sizes or updates that are not positive, of which there are not enough, or that do not belong together.

    See Also
    --------
    steps_to_loss : Measures them.
    sklgap.critical_batch_size : Predicts the critical batch size from the noise of the gradients.

    Notes
    -----
    Least squares in log S: errors are taken for relative, independent and of one size. The intervals are those of the
    profile likelihood with Student's t, and include what the trade-off does not explain.

    References
    ----------
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, Section 2.3.

    Examples
    --------
    >>> from sklgap.experiments import fit_steps_to_loss
    >>> sizes = [10, 100, 1000, 10000]
    >>> tradeoff = fit_steps_to_loss(sizes, [50 * (1 + 200 / size) for size in sizes])
    >>> round(tradeoff.critical_batch_size), round(tradeoff.min_steps), round(tradeoff.min_examples)
    (200, 50, 10000)
    """
    sizes, steps = _check_measured(batch_sizes, n_steps)
    log_steps = np.log(steps)

    def profile(log_critical: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the residual sum of squares, and log S_min, that a critical batch size has at best."""
        shape = np.log1p(np.exp(np.subtract.outer(log_critical, np.log(sizes))))
        log_min = (log_steps - shape).mean(axis=-1)
        return np.square(log_steps - shape - log_min[..., None]).sum(axis=-1), log_min

    ends = math.log(sizes.min()) - _BEYOND, math.log(sizes.max()) + _BEYOND
    grid = np.linspace(*ends, round((ends[1] - ends[0]) * _PER_E))
    squares, log_min = profile(grid)
    i = int(np.clip(squares.argmin(), 1, len(grid) - 2))
    best = optimize.minimize_scalar(
        lambda b: float(profile(b)[0]), bounds=(grid[i - 1], grid[i + 1]), method="bounded", options={"xatol": 1e-10}
    ).x
    least, log_min_best = (float(value) for value in profile(best))
    degrees = len(steps) - 2
    t = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) if degrees else math.inf
    limit = least * (1 + t**2 / degrees) if degrees else math.inf
    inside = squares <= limit
    # What the interval holds beside the best itself.
    critical, smallest = np.append(grid[inside], best), np.append(log_min[inside], log_min_best)
    half = np.sqrt(np.append(np.maximum(0.0, limit - squares[inside]), limit - least) / len(steps))
    flat, steep = squares.argmin() == 0, squares.argmin() == len(grid) - 1  # all of S is S_min, or all E_min / B
    return StepsTradeoff(
        critical_batch_size=0.0 if flat else math.inf if steep else math.exp(best),
        critical_batch_size_interval=_interval(critical, np.zeros_like(half), inside[0], inside[-1]),
        min_steps=0.0 if steep else math.exp(log_min_best),
        min_steps_interval=_interval(smallest, half, inside[-1], False),
        min_examples=0.0 if flat else math.exp(log_min_best + best),
        min_examples_interval=_interval(smallest + critical, half, inside[0], False),
        scatter=math.sqrt(least / len(steps)),
        n_measurements=len(steps),
    )


def _interval(logs: np.ndarray, half: np.ndarray, zero: bool, infinite: bool) -> tuple[float, float]:
    """Return the hull of exp(logs - half) and exp(logs + half); open where the grid, not the data, ends it."""
    with np.errstate(over="ignore"):
        low, high = float(np.exp((logs - half).min())), float(np.exp((logs + half).max()))
    return 0.0 if zero else low, math.inf if infinite else high


def _check_measured(batch_sizes: Any, n_steps: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return two vectors of equal length, without what was not reached."""
    try:
        sizes, steps = np.asarray(batch_sizes, dtype=float), np.asarray(n_steps, dtype=float)
    except (TypeError, ValueError):
        raise WrongArgument(
            f"batch_sizes and n_steps must be numbers; got {shown(batch_sizes)} and {shown(n_steps)}."
        ) from None
    if sizes.ndim != 1 or steps.ndim not in (1, 2) or len(steps) != len(sizes):
        raise ValueError(
            "batch_sizes must have shape (n_sizes,) and n_steps (n_sizes,) or (n_sizes, n_trials); "
            f"got {sizes.shape} and {steps.shape}."
        )
    sizes = np.broadcast_to(sizes[:, None], (len(sizes), steps.size // max(1, len(sizes)))).ravel()
    steps = steps.ravel()
    sizes, steps = sizes[~np.isnan(steps)], steps[~np.isnan(steps)]
    if not ((sizes > 0) & (steps > 0) & np.isfinite(sizes + steps)).all():
        raise ValueError(f"batch_sizes and n_steps must be finite and above 0; got {batch_sizes!r} and {n_steps!r}.")
    if len(np.unique(sizes)) < 2:
        raise ValueError(
            f"batch_sizes must have at least two different sizes that reached the loss; got {np.unique(sizes)}."
        )
    return sizes, steps
