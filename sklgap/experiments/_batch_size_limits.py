"""``batch_size_limits``: the batch sizes that fit in memory, are safe, and are useful, in one table."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sklgap._checks import WrongArgument, check_integer, check_kind, shown
from sklgap.experiments._estimate import Estimate
from sklgap.experiments._noise_scale import check_noise_scale
from sklgap.experiments._result import Result, listed
from sklgap.experiments._safe_batch_size import SafeBatchSize
from sklgap.inspection import GradientNoise
from sklgap.monitor import BatchSizeMonitor

if TYPE_CHECKING:
    from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay

FITS, SAFE, USEFUL = "fits in memory", "safe", "useful"


def batch_size_limits(
    safe: SafeBatchSize,
    *,
    fits: int | None = None,
    useful: float | Estimate | GradientNoise | BatchSizeMonitor | None = None,
) -> "BatchSizeLimits":
    """Return the smallest of three limits of the batch size: what fits in memory, what is safe, and what is useful.

    Parameters
    ----------
    safe : SafeBatchSize
        Result of `largest_safe_batch_size`, for an estimator or for a training function.
    fits : int, default=None
        Number of samples of the largest batch that fits in memory; None if it is not known.
    useful : float, Estimate, GradientNoise, or BatchSizeMonitor, default=None
        The batch size, in samples, beyond which larger batches save few updates (the "knee"). Give a
        `sklgap.monitor.BatchSizeMonitor` that counts samples, the result of `sklgap.inspection.gradient_noise_scale`,
        ``critical_batch_size(...).estimate``, or a number. None if it is not known.

    Returns
    -------
    BatchSizeLimits
        The limits; ``print`` shows them as a table, and ``int`` is the smallest one.

    Raises
    ------
    ValueError
        If a limit is not a batch size.
    TypeError
        If ``safe`` is not a `SafeBatchSize`.

    See Also
    --------
    largest_safe_batch_size : The largest safe batch size.
    sklgap.critical_batch_size : The useful batch size of a whole training.

    Notes
    -----
    The three limits answer different questions. A safe batch size loses less of a score than a margin. A batch size at
    the knee needs twice the smallest possible number of updates, and twice the smallest possible number of samples, to
    reach a loss (McCandlish et al., An empirical model of large-batch training, 2018). The knee is about speed, not
    about accuracy.

    Examples
    --------
    >>> import numpy as np
    >>> from sklgap import batch_size_curve, largest_safe_batch_size
    >>> from sklgap.experiments import batch_size_limits
    >>> def train(batch_size, random_state):
    ...     # In place of a training: right in 90 % of the samples, in 70 % after large batches.
    ...     rng = np.random.RandomState([random_state, batch_size])
    ...     return {"correct": rng.rand(2000) < (0.9 if batch_size < 1000 else 0.7)}
    >>> curve = batch_size_curve(train, batch_sizes=[64, 256, 1024], n_trials=5, random_state=0, verbose=0)
    >>> limits = batch_size_limits(largest_safe_batch_size(curve, 0.03), fits=4096, useful=900)
    >>> int(limits), limits.binding
    (256, ['safe'])
    """
    check_kind("safe", safe, SafeBatchSize)
    check_integer("fits", fits, or_none=True)
    if isinstance(useful, Mapping):
        raise WrongArgument(
            "useful must be the BatchSizeMonitor itself, because its state() does not say whether it counts samples; "
            f"got {shown(useful)}."
        )
    useful_size = None if useful is None else check_noise_scale("useful", useful)
    return BatchSizeLimits(safe, None if fits is None else int(fits), useful_size)


class BatchSizeLimits(Result):
    """Result of `batch_size_limits`; ``print`` shows the limits, and ``int`` is the smallest one.

    Attributes
    ----------
    limits : dict of str to float
        The known ones of "fits in memory", "safe" and "useful", in samples; infinite if there is no limit.
    binding : list of str
        Name of the smallest limit, or names of several equal ones.
    records : list of dict
        One per limit: ``limit``, ``batch_size``, ``low`` and ``high``.
    notes : list of str
        Sentences that a reader must know before believing the answer, including the notes of the safe batch size.
    """

    def __init__(self, safe: SafeBatchSize, fits: int | None, useful: Estimate | None) -> None:
        self._safe, self._useful = safe, useful
        known = {FITS: fits, SAFE: safe.batch_size, USEFUL: None if useful is None else useful.value}
        self.limits = {name: float(v) for name, v in known.items() if v is not None and not math.isnan(v)}
        smallest = min(self.limits.values())
        self.binding = [name for name, value in self.limits.items() if value == smallest]
        records = [{"limit": name, "batch_size": value, **self._ends(name)} for name, value in self.limits.items()]
        super().__init__(records, {"safe": safe.settings}, safe.interrupted)

    def __int__(self) -> int:
        return max(1, int(min(self.limits.values())))

    __index__ = __int__

    def _ends(self, name: str) -> dict[str, float | None]:
        useful = self._useful
        if name != USEFUL or useful is None or not useful.has_interval:
            return {"low": None, "high": None}
        return {"low": useful.low, "high": useful.high}

    # -- printing --------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the answer."""
        safe, found = self._safe, []
        if USEFUL in self.limits:
            found.append(
                "The useful batch size is about speed, not about accuracy: larger batches than that save few updates."
            )
        elif self._useful is not None:
            found.append("The useful batch size is not known yet, because the monitor has measured nothing.")
        found += self._doubts()
        if all(test.shown for test in safe.tests):
            found.append("No batch size above the safe one was tested, so a larger one may be safe too.")
        elif not any(test.n_failed for test in safe.tests):
            found.append("A larger batch size may be safe too: the trials show neither that nor the opposite.")
        if self.limits.get(FITS, math.inf) < safe.reference:
            found.append(
                f"The reference of the curve, {safe.reference:,}, does not fit in memory. It is not known whether the "
                "batch sizes that fit are safe."
            )
        return found + safe.notes

    def _doubts(self) -> list[str]:
        """Report which other limits lie in the interval of the useful batch size, so that either may be smaller."""
        ends = self._ends(USEFUL)
        if ends["low"] is None or ends["high"] is None:
            return []
        within = [
            f"{name} ({_number(value)})"
            for name, value in self.limits.items()
            if name != USEFUL and ends["low"] <= value <= ends["high"]
        ]
        if not within:
            return []
        return [
            f"The interval of the useful batch size contains {listed(within)}. It is not shown which of them is "
            "smaller."
        ]

    def _verdict(self) -> list[str]:
        names = {FITS: "what fits in memory", SAFE: "what is safe", USEFUL: "what is useful"}
        shown = [name for name in self.limits if name not in self.binding or self._ends(name)["low"] is not None]
        sizes = "; ".join(f"{name}: {self._size(name)}" for name in shown)
        binding = " and ".join(names[name] for name in self.binding)
        return [f"The smallest limit is {binding}: batches of at most {int(self):,}{f' ({sizes})' if sizes else ''}."]

    def _size(self, name: str) -> str:
        ends, value = self._ends(name), _number(self.limits[name])
        if ends["low"] is None or ends["high"] is None:
            return value
        return f"about {value} [{_number(ends['low'])}, {_number(ends['high'])}]"

    def _head(self) -> list[str]:
        return [
            f"safe: the largest batch size shown to lose less than {self._safe._margins_in_words()}, compared with "
            f"batches of {self._safe.reference:,}; without such a batch size, {self._safe.reference:,} itself"
        ]

    def _table(self) -> list[list[str]]:
        rows = [["limit", "batch size", "from", "to", ""]]
        for name in (FITS, SAFE, USEFUL):
            if name not in self.limits:
                rows.append([name, "not known", "", "", ""])
                continue
            ends = [("" if end is None else _number(end)) for end in self._ends(name).values()]
            rows.append([name, _number(self.limits[name]), *ends, "smallest" if name in self.binding else ""])
        return rows

    def _reading(self) -> list[str]:
        useful = self._useful
        if useful is None or not useful.has_interval:
            return []
        return [f"from, to: {useful.about()}"]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        return {"batch_size": int(self), "binding": self.binding}

    def plot(self, ax: Any = None) -> "BatchSizeCurveDisplay":
        """Draw the curve with the safe batch size marked; return a `BatchSizeCurveDisplay`."""
        return self._safe.plot(ax=ax)


def _number(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "no limit"
