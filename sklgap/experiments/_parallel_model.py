"""``parallel_model``: when many processors make the large batch the faster one (Keskar et al. 2017, Appendix C)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import WrongArgument, is_integer, is_number
from sklgap.experiments._result import Result, listed, mean_std

if TYPE_CHECKING:
    from sklgap.experiments._plot._parallel_model import ParallelModelDisplay

Efficiency = Callable[[float, np.ndarray], Any]


def parallel_model(batch_sizes: Any, n_updates: Any, *, reference: int | None = None) -> "ParallelModel":
    r"""Say which parallel efficiency a batch size needs in order to train in less time than a smaller one.

    On P processors with parallel efficiency e(P), I updates with batches of B samples take a time

    .. math:: T \propto \frac{I B}{P \, e(P)} , \qquad\text{so that LB wins where}\qquad
        \frac{I_{LB} B_{LB}}{I_{SB} B_{SB}} < \frac{e_{LB}(P)}{e_{SB}(P)}

    Parameters
    ----------
    batch_sizes : array-like of shape (n_sizes,)
        Rows of a batch, at least two sizes.
    n_updates : array-like of shape (n_sizes,) or (n_sizes, n_trials)
        Updates that each took to the same end: a test accuracy, a loss. Trials are averaged; NaN: not reached. A size
        that was not there in every trial has no answer.
    reference : int, default=None
        Position of the batch size to compare with. None: the smallest.

    Returns
    -------
    ParallelModel
        Prints as a table; ``speed_up(efficiency, n_processors)`` says what an efficiency wins.

    Raises
    ------
    ValueError
        For sizes or updates that are not positive or do not belong together, or a reference that is not one of them
        or has not got there.

    See Also
    --------
    time_to_accuracy : Updates, epochs and seconds to a test accuracy, from real trainings.
    steps_to_loss : Updates to a training loss, for many batch sizes.

    Notes
    -----
    I B counts samples: the efficiency needed is the ratio of epochs. A large batch that needs twice the epochs of a
    small one wins where it is run more than twice as efficiently.

    References
    ----------
    Keskar et al., ICLR 2017, Appendix C.

    Examples
    --------
    A small batch of 256 that takes 10,000 updates, and a large one of 4,096 that takes 1,250: twice the epochs.

    >>> from sklgap.experiments import parallel_model
    >>> model = parallel_model([256, 4096], [10_000, 1_250])
    >>> float(model.efficiency_needed[1]), float(model.reference_efficiency_limit[1])
    (2.0, 0.5)
    >>> model.speed_up(lambda batch_size, P: 1 / (1 + P / batch_size), n_processors=512)[1].round(2)
    np.float64(1.33)
    """
    try:
        sizes, updates = np.asarray(batch_sizes, dtype=float), np.asarray(n_updates, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"batch_sizes and n_updates must be numbers; got {batch_sizes!r} and {n_updates!r}.") from None
    if sizes.ndim != 1 or len(sizes) < 2 or updates.ndim not in (1, 2) or len(updates) != len(sizes):
        raise ValueError(
            "batch_sizes must have shape (n_sizes,), at least two, and n_updates (n_sizes,) or (n_sizes, n_trials); "
            f"got {sizes.shape} and {updates.shape}."
        )
    if (
        not (np.isfinite(sizes) & (sizes > 0)).all()
        or not ((updates > 0) & (updates < np.inf) | np.isnan(updates)).all()
    ):
        raise ValueError(f"batch_sizes and n_updates must be above 0; got {batch_sizes!r} and {n_updates!r}.")
    by_trial = updates.reshape(len(sizes), -1)
    updates = by_trial.mean(axis=1)
    if reference is None:
        reference = int(sizes.argmin())
    if not is_integer(reference, 0) or reference >= len(sizes) or np.isnan(updates[reference]):
        raise ValueError(
            f"reference must be the position of a batch size that got there, below {len(sizes)}; got {reference!r}."
        )
    return ParallelModel(sizes, by_trial, int(reference))


class ParallelModel(Result):
    """The idealised parallel model of Keskar et al., Appendix C; ``print`` it.

    Attributes
    ----------
    batch_sizes : ndarray of shape (n_sizes,)
        Rows of a batch.
    n_updates : ndarray of shape (n_sizes,)
        Updates of a training; NaN where a trial did not get where it should.
    reference : int
        Position of the batch size that the others are compared with.
    efficiency_needed : ndarray of shape (n_sizes,)
        I B / (I_ref B_ref): a batch size wins where its parallel efficiency is more than this many times the
        reference's.
    reference_efficiency_limit : ndarray of shape (n_sizes,)
        Parallel efficiency of the reference, as a fraction, from which on a batch size cannot win, however efficient
        it is; 1 where it can always.
    records : list of dict
        One per batch size.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(self, batch_sizes: np.ndarray, updates_by_trial: np.ndarray, reference: int) -> None:
        self.batch_sizes, self.reference = batch_sizes, reference
        self.n_updates = updates_by_trial.mean(axis=1)
        rows = self.n_updates * batch_sizes
        self.efficiency_needed = rows / rows[reference]
        self.reference_efficiency_limit = np.minimum(1.0, 1 / self.efficiency_needed)
        self._by_trial = updates_by_trial
        records = [
            {
                "batch_size": float(size),
                "n_updates": float(self.n_updates[i]),
                "n_trials": updates_by_trial.shape[1],
                "n_reached": int(np.isfinite(updates_by_trial[i]).sum()),
                "is_reference": i == reference,
                "efficiency_needed": float(self.efficiency_needed[i]),
                "reference_efficiency_limit": float(self.reference_efficiency_limit[i]),
            }
            for i, size in enumerate(batch_sizes)
        ]
        super().__init__(records, {"reference": float(batch_sizes[reference]), "n_trials": updates_by_trial.shape[1]})

    def speed_up(self, efficiency: float | Efficiency, n_processors: Any = 1) -> np.ndarray:
        """Return how many times as fast as the reference each batch size is, on so many processors.

        Parameters
        ----------
        efficiency : callable or float
            (batch size, array of processors) -> parallel efficiency in (0, 1]. A number stands for
            `overhead_efficiency` with this overhead in samples.
        n_processors : int or array-like of shape (n,), default=1
            Processors, the same for all batch sizes.

        Returns
        -------
        ndarray of shape (n_sizes,) or (n_sizes, n)
            Above 1: the batch size wins.
        """
        curve = overhead_efficiency(efficiency) if not callable(efficiency) else efficiency
        processors = np.asarray(n_processors, dtype=float)
        if processors.ndim > 1 or not (processors >= 1).all() or not np.isfinite(processors).all():
            raise ValueError(f"n_processors must be numbers of at least 1; got {n_processors!r}.")
        try:
            efficiencies = np.array(
                [np.broadcast_to(curve(float(size), processors), processors.shape) for size in self.batch_sizes],
                dtype=float,
            )
        except Exception as error:  # the function is the user's
            raise WrongArgument(
                f"efficiency must be a function of a batch size and an array of processors, but it failed: {error}"
            ) from error
        if not ((efficiencies > 0) & (efficiencies <= 1)).all():
            raise ValueError("efficiency must return numbers in (0, 1]; it returned others.")
        needed = self.efficiency_needed.reshape(-1, *[1] * processors.ndim)
        return efficiencies / efficiencies[self.reference] / needed

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        n_trials = self.settings["n_trials"]
        missed = [
            f"{r['batch_size']:,.0f} ({n_trials - r['n_reached']} of {n_trials})"
            for r in self.records
            if r["n_reached"] < n_trials
        ]
        found = [f"These batch sizes did not always get there, and have no answer: {listed(missed)}."] if missed else []
        if n_trials == 1:
            found.append("One number of updates each: the efficiencies needed have no spread to judge a difference by.")
        return found

    def _verdict(self) -> list[str]:
        others = [r for r in self.records if not r["is_reference"] and np.isfinite(r["efficiency_needed"])]
        if not others:
            return ["No other batch size got there in every trial."]
        size, needed = min(((r["batch_size"], r["efficiency_needed"]) for r in others), key=lambda pair: pair[1])
        least = "" if len(others) == 1 else ", the least of all"
        return [
            f"Batches of {size:,.0f} take less time than batches of {self.settings['reference']:,.0f} where their "
            f"parallel efficiency is more than {needed:.3g} times as high{least}."
        ]

    def _head(self) -> list[str]:
        return ["time is proportional to updates * batch size / (processors * efficiency)"]

    def _table(self) -> list[list[str]]:
        rows = [["batch size", "updates", "efficiency needed", "cannot win from"]]
        for i, record in enumerate(self.records):
            limit = record["reference_efficiency_limit"]
            updates = mean_std(self._by_trial[i], ",.0f")
            if record["is_reference"]:
                cells = [updates, "1", "(reference)"]
            elif record["n_reached"] < record["n_trials"]:
                cells = ["-", "-", "not always there" if record["n_reached"] else "never there"]
            else:
                last = "(can always)" if limit >= 1 else f"{100 * limit:.0f} %"
                cells = [updates, f"{record['efficiency_needed']:.3g}", last]
            rows.append([f"{record['batch_size']:,.0f}", *cells])
        return rows

    def _reading(self) -> list[str]:
        return [
            "efficiency needed: over that of the reference, on as many processors; above it a size takes less time",
            "cannot win from: efficiency of the reference from which on a batch size cannot take less time",
        ]

    def _statistics(self) -> dict[str, Any]:
        return {}

    def plot(self, *, efficiency: float | Efficiency | None = None, axes: Any = None) -> "ParallelModelDisplay":
        """Draw the efficiency needed, and the speed-up under an assumed one; return a `ParallelModelDisplay`."""
        from sklgap.experiments._plot._parallel_model import ParallelModelDisplay

        return ParallelModelDisplay.from_model(self, efficiency=efficiency, axes=axes)


def overhead_efficiency(overhead: float) -> Efficiency:
    """Return the parallel efficiency of updates that cost a fixed time besides their rows.

    An update of B rows on P processors takes max(1, B / P) + ``overhead`` times the time of a row; its efficiency is
    B / P over that. Not in the paper, which assumes nothing about e(P).

    Parameters
    ----------
    overhead : float
        Time of an update that processors do not share (communication, the step itself), in rows of one processor.

    Returns
    -------
    callable
        (batch size, array of processors) -> efficiency.

    Examples
    --------
    >>> from sklgap.experiments import overhead_efficiency
    >>> efficiency = overhead_efficiency(10)
    >>> [float(efficiency(batch_size, 10.0)) for batch_size in (100, 900)]
    [0.5, 0.9]
    """
    if not is_number(overhead) or overhead < 0:
        raise ValueError(f"efficiency must be a callable, or an overhead in rows of at least 0; got {overhead!r}.")

    def efficiency(batch_size: float, n_processors: np.ndarray) -> Any:
        rows = batch_size / np.asarray(n_processors, dtype=float)
        return rows / (np.maximum(1.0, rows) + overhead)

    return efficiency
