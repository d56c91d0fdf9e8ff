"""The trade-off between updates and samples, fitted to trainings with several batch sizes."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize, stats

from sklgap._checks import WrongArgument, shown
from sklgap.experiments._estimate import CONFIDENCE, Estimate
from sklgap.experiments._result import Result, count

if TYPE_CHECKING:
    from sklgap.experiments._plot._steps_to_loss import StepsToLossDisplay

# The grid of critical batch sizes: 12 powers of e beyond the smallest and the largest batch, 300 steps per power.
_BEYOND, _PER_E = 12, 300
_COVERS = "new trainings, if they scatter around the trade-off at random"


def fit_steps_to_loss(batch_sizes: Any, n_steps: Any) -> "StepsTradeoff":
    r"""Fit the trade-off between updates and samples to measured trainings.

    With S updates of B samples each, a training uses E = B S samples ("examples" in the paper). The trade-off is

    .. math:: \Big(\frac{S}{S_{min}} - 1\Big) \Big(\frac{E}{E_{min}} - 1\Big) = 1, \quad E = B S
        \quad \Longleftrightarrow \quad S = S_{min} \Big(1 + \frac{B_{crit}}{B}\Big),
        \quad B_{crit} = \frac{E_{min}}{S_{min}}

    Parameters
    ----------
    batch_sizes : array-like of shape (n_sizes,)
        Batch sizes in samples, of which at least two are different.
    n_steps : array-like of shape (n_sizes,) or (n_sizes, n_trials)
        Updates until the same loss was reached. NaN means that it was not reached, and is left out.

    Returns
    -------
    StepsTradeoff
        The fit; ``print`` shows it.

    Raises
    ------
    ValueError
        If batch sizes or updates are not positive, are too few, or have shapes that do not match.

    See Also
    --------
    steps_to_loss : Measures the updates.
    sklgap.critical_batch_size : Predicts the critical batch size from the noise of the gradients.

    Notes
    -----
    The fit is least squares in log S, which assumes relative, independent errors of equal size. The intervals come from
    the profile likelihood with Student's t, and include the scatter that the trade-off does not explain.

    References
    ----------
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, Section 2.3.

    Examples
    --------
    >>> from sklgap.experiments import fit_steps_to_loss
    >>> sizes = [10, 100, 1000, 10000]
    >>> tradeoff = fit_steps_to_loss(sizes, [50 * (1 + 200 / size) for size in sizes])
    >>> [round(e.value) for e in (tradeoff.critical_batch_size, tradeoff.min_steps, tradeoff.min_examples)]
    [200, 50, 10000]
    """
    sizes, steps = _check_measured(batch_sizes, n_steps)
    log_steps = np.log(steps)

    def profile(log_critical: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest residual sum of squares for a critical batch size, and its log S_min."""
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
    # The points inside the interval, with the best one.
    critical, smallest = np.append(grid[inside], best), np.append(log_min[inside], log_min_best)
    half = np.sqrt(np.append(np.maximum(0.0, limit - squares[inside]), limit - least) / len(steps))
    flat, steep = squares.argmin() == 0, squares.argmin() == len(grid) - 1  # all of S is S_min, or all E_min / B
    n = len(steps)
    return StepsTradeoff(
        sizes,
        steps,
        critical_batch_size=_estimate(
            0.0 if flat else math.inf if steep else math.exp(best),
            _interval(critical, np.zeros_like(half), inside[0], inside[-1]),
            n,
        ),
        min_steps=_estimate(0.0 if steep else math.exp(log_min_best), _interval(smallest, half, inside[-1], False), n),
        min_examples=_estimate(
            0.0 if flat else math.exp(log_min_best + best),
            _interval(smallest + critical, half, inside[0], False),
            n,
        ),
        scatter=math.sqrt(least / n),
    )


class StepsTradeoff(Result):
    """The trade-off S = S_min + E_min / B between updates S and batch size B; ``print`` shows it.

    Attributes
    ----------
    critical_batch_size : Estimate
        E_min / S_min, in samples. At this batch size, training takes twice the smallest number of updates and twice the
        smallest number of samples. An end of its interval is 0 or infinite if the batch sizes do not bound it.
    min_steps, min_examples : Estimate
        S_min, the smallest number of updates with any batch size, and E_min, the smallest number of samples.
    scatter : float
        Root mean square of log(measured / fitted); 0.1 means that updates deviate by a tenth.
    records : list of dict
        One per fitted training: ``batch_size``, ``n_steps``, ``fitted``.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(
        self,
        batch_sizes: np.ndarray,
        n_steps: np.ndarray,
        *,
        critical_batch_size: Estimate,
        min_steps: Estimate,
        min_examples: Estimate,
        scatter: float,
    ) -> None:
        self.critical_batch_size = critical_batch_size
        self.min_steps = min_steps
        self.min_examples = min_examples
        self.scatter = scatter
        fitted = self.steps(batch_sizes)
        records = [
            {"batch_size": float(size), "n_steps": float(n), "fitted": float(f)}
            for size, n, f in zip(batch_sizes, n_steps, fitted, strict=True)
        ]
        super().__init__(records, {"n_measurements": len(records)})

    @property
    def n_measurements(self) -> int:
        """Number of fitted trainings."""
        return len(self.records)

    def steps(self, batch_size: Any) -> Any:
        """Return the updates that the trade-off predicts for a batch size or an array of batch sizes."""
        return self.min_steps.value + self.min_examples.value / np.asarray(batch_size, dtype=float)

    # -- printing --------------------------------------------------------------------------------------------------

    def _estimates(self) -> dict[str, Estimate]:
        return {
            "critical batch size (samples)": self.critical_batch_size,
            "fewest updates": self.min_steps,
            "fewest examples": self.min_examples,
        }

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        size, found = self.critical_batch_size, []
        if not size.has_interval:
            found.append("There is no interval, because two trainings fit exactly, or the batch sizes bound nothing.")
        elif math.isinf(size.high):
            found.append("The batch sizes do not bound the critical batch size from above. Try larger ones.")
        elif size.low == 0:
            found.append("The batch sizes do not bound the critical batch size from below. Try smaller ones.")
        return found

    def _verdict(self) -> list[str]:
        size = self.critical_batch_size
        if size.value == 0:
            return ["The updates do not fall as batches grow, so the critical batch size is below the measured ones."]
        if math.isinf(size.value):
            return [
                "The updates fall in proportion to the batch size, so the critical batch size is above the measured "
                "ones."
            ]
        interval = f" [{size.low:,.4g}, {size.high:,.4g}]" if size.has_interval else ", without an interval"
        return [
            f"The critical batch size is {size.value:,.4g} samples{interval}: beyond it, larger batches save few "
            "updates."
        ]

    def _head(self) -> list[str]:
        sizes = len({record["batch_size"] for record in self.records})
        trainings = count(self.n_measurements, "training")
        return [
            f"S = S_min + E_min / B fitted to {trainings} of {sizes} batch sizes, with a scatter of "
            f"{100 * self.scatter:.0f} %"
        ]

    def _table(self) -> list[list[str]]:
        return [["", "fitted"], *([name, shown_estimate(estimate)] for name, estimate in self._estimates().items())]

    def _lines(self) -> list[str]:
        """Return the lines below the table of `StepsToLoss`."""
        shown = [f"{name}: {shown_estimate(estimate)}" for name, estimate in self._estimates().items()]
        return ["fitted: S_min + E_min / B", *shown, *self._head(), *self._reading()]

    def _reading(self) -> list[str]:
        about = [f"in brackets: {e.about()}" for e in self._estimates().values() if e.has_interval]
        return list(dict.fromkeys(about))

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        found = {"critical_batch_size": self.critical_batch_size, "min_steps": self.min_steps}
        found["min_examples"] = self.min_examples
        return {**{name: estimate.to_dict() for name, estimate in found.items()}, "scatter": self.scatter}

    def plot(self, ax: Any = None) -> "StepsToLossDisplay":
        """Draw updates against batch size, with the trade-off; return a `StepsToLossDisplay`."""
        from sklgap.experiments._plot._steps_to_loss import StepsToLossDisplay

        return StepsToLossDisplay.from_result(self, ax=ax)


def shown_estimate(estimate: Estimate) -> str:
    """Return the value and its interval, with a separator between thousands."""
    return estimate.text(",.4g") if estimate.has_interval else f"{estimate.value:,.4g}"


def _estimate(value: float, interval: tuple[float, float], n: int) -> Estimate:
    """Return the estimate of a quantity that is never below 0; without an interval if both ends are open."""
    low, high = interval
    if low == 0 and math.isinf(high):
        low = -math.inf
    return Estimate(value, low, high, n, _COVERS)


def _interval(logs: np.ndarray, half: np.ndarray, zero: bool, infinite: bool) -> tuple[float, float]:
    """Return the hull of exp(logs - half) and exp(logs + half); an end is open if the grid, not the data, limits it."""
    with np.errstate(over="ignore"):
        low, high = float(np.exp((logs - half).min())), float(np.exp((logs + half).max()))
    return 0.0 if zero else low, math.inf if infinite else high


def _check_measured(batch_sizes: Any, n_steps: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return two vectors of equal length, without the trainings that did not reach the loss."""
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
