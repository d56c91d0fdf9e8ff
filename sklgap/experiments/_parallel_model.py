"""``parallel_model``: when many processors make the large batch faster (Keskar et al. 2017, Appendix C)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import WrongArgument, is_integer, is_number
from sklgap.experiments._result import Result, listed, mean_std

if TYPE_CHECKING:
    from sklgap.experiments._plot._parallel_model import ParallelModelDisplay

Efficiency = Callable[[float, np.ndarray], Any]


def parallel_model(batch_sizes: Any, n_updates: Any, *, reference: int | None = None) -> "ParallelModel":
    r"""Compute the parallel efficiency that a batch size needs to train in less time than a smaller one.

    On P processors with parallel efficiency e(P), I updates with batches of B samples take the time

    .. math:: T \propto \frac{I B}{P \, e(P)} , \qquad\text{so that LB wins where}\qquad
        \frac{I_{LB} B_{LB}}{I_{SB} B_{SB}} < \frac{e_{LB}(P)}{e_{SB}(P)}

    Parameters
    ----------
    batch_sizes : array-like of shape (n_sizes,)
        Batch sizes in samples, at least two.
    n_updates : array-like of shape (n_sizes,) or (n_sizes, n_trials)
        Updates that each batch size took to the same goal, such as a test accuracy or a loss. Trials are averaged. NaN
        means that a trial did not reach the goal; a batch size with such a trial has no answer.
    reference : int, default=None
        Position of the batch size to compare with. None means the smallest batch size.

    Returns
    -------
    ParallelModel
        The model. ``print`` shows it as a table, and ``speed_up(efficiency, n_processors)`` returns the speed-up for an
        assumed efficiency.

    Raises
    ------
    ValueError
        If batch sizes or updates are not positive or have shapes that do not match, or if the reference is not one of
        the batch sizes or did not reach the goal.

    See Also
    --------
    time_to_accuracy : Reads updates, epochs and seconds to a test accuracy from trainings.
    steps_to_loss : Counts updates to a training loss for many batch sizes.

    Notes
    -----
    I B is a number of samples, so that the needed efficiency is the ratio of epochs. A large batch that needs twice the
    epochs of a small one is faster if it runs more than twice as efficiently.

    References
    ----------
    Keskar et al., ICLR 2017, Appendix C.

    Examples
    --------
    A small batch of 256 takes 10,000 updates, and a large batch of 4,096 takes 1,250, which is twice the epochs.

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
            f"reference must be the position, below {len(sizes)}, of a batch size that reached the goal; got "
            f"{reference!r}."
        )
    return ParallelModel(sizes, by_trial, int(reference))


class ParallelModel(Result):
    """The idealised parallel model of Keskar et al., Appendix C; ``print`` shows it.

    Attributes
    ----------
    batch_sizes : ndarray of shape (n_sizes,)
        Batch sizes in samples.
    n_updates : ndarray of shape (n_sizes,)
        Mean number of updates; NaN if a trial did not reach the goal.
    reference : int
        Position of the batch size that the others are compared with.
    efficiency_needed : ndarray of shape (n_sizes,)
        I B / (I_ref B_ref). A batch size is faster if its parallel efficiency, divided by that of the reference,
        exceeds this number.
    reference_efficiency_limit : ndarray of shape (n_sizes,)
        Parallel efficiency of the reference, as a fraction, from which on a batch size cannot be faster, however
        efficient it is; 1 if it always can.
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
        """Return the speed of each batch size divided by that of the reference, on this number of processors.

        Parameters
        ----------
        efficiency : callable or float
            Function (batch size, array of processors) -> parallel efficiency in (0, 1]. A number stands for
            `overhead_efficiency` with this overhead in samples.
        n_processors : int or array-like of shape (n,), default=1
            Number of processors, the same for all batch sizes.

        Returns
        -------
        ndarray of shape (n_sizes,) or (n_sizes, n)
            The speed-up; above 1, the batch size is faster.
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
            raise ValueError("efficiency must return numbers in (0, 1]; it returned other values.")
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
        found = []
        if missed:
            found.append(f"These batch sizes missed the goal in some trials, and have no answer: {listed(missed)}.")
        if n_trials == 1:
            found.append("There is one trial for each batch size, so the spread of the efficiencies is not known.")
        return found

    def _verdict(self) -> list[str]:
        others = [r for r in self.records if not r["is_reference"] and np.isfinite(r["efficiency_needed"])]
        if not others:
            return ["No other batch size reached the goal in every trial."]
        size, needed = min(((r["batch_size"], r["efficiency_needed"]) for r in others), key=lambda pair: pair[1])
        least = "" if len(others) == 1 else ", the smallest factor of all batch sizes"
        return [
            f"Batches of {size:,.0f} take less time than batches of {self.settings['reference']:,.0f} if their "
            f"parallel efficiency is more than {needed:.3g} times as high{least}."
        ]

    def _head(self) -> list[str]:
        return ["time is proportional to updates * batch size / (processors * efficiency)"]

    def _table(self) -> list[list[str]]:
        rows = [["batch size", "updates", "efficiency needed", "not faster from"]]
        for i, record in enumerate(self.records):
            limit = record["reference_efficiency_limit"]
            updates = mean_std(self._by_trial[i], ",.0f")
            if record["is_reference"]:
                cells = [updates, "1", "(reference)"]
            elif record["n_reached"] < record["n_trials"]:
                cells = ["-", "-", "goal missed in some trials" if record["n_reached"] else "goal never reached"]
            else:
                last = "(can be faster)" if limit >= 1 else f"{100 * limit:.0f} %"
                cells = [updates, f"{record['efficiency_needed']:.3g}", last]
            rows.append([f"{record['batch_size']:,.0f}", *cells])
        return rows

    def _reading(self) -> list[str]:
        return [
            "efficiency needed: efficiency divided by that of the reference, on equally many processors, above which a "
            "batch size takes less time",
            "not faster from: efficiency of the reference from which on a batch size cannot take less time",
        ]

    def _statistics(self) -> dict[str, Any]:
        return {}

    def plot(self, *, efficiency: float | Efficiency | None = None, axes: Any = None) -> "ParallelModelDisplay":
        """Draw the efficiency needed, and the speed-up under an assumed one; return a `ParallelModelDisplay`."""
        from sklgap.experiments._plot._parallel_model import ParallelModelDisplay

        return ParallelModelDisplay.from_model(self, efficiency=efficiency, axes=axes)


def overhead_efficiency(overhead: float) -> Efficiency:
    """Return the parallel efficiency of updates with a fixed overhead.

    An update of B samples on P processors takes max(1, B / P) + ``overhead`` times the time of one sample. Its
    efficiency is B / P divided by this number. This model is not in the paper, which makes no assumption about e(P).

    Parameters
    ----------
    overhead : float
        Time of an update that processors cannot share (communication, the step itself), in units of the time of one
        sample on one processor.

    Returns
    -------
    callable
        Function (batch size, array of processors) -> efficiency.

    Examples
    --------
    >>> from sklgap.experiments import overhead_efficiency
    >>> efficiency = overhead_efficiency(10)
    >>> [float(efficiency(batch_size, 10.0)) for batch_size in (100, 900)]
    [0.5, 0.9]
    """
    if not is_number(overhead) or overhead < 0:
        raise ValueError(f"efficiency must be a callable, or an overhead in samples of at least 0; got {overhead!r}.")

    def efficiency(batch_size: float, n_processors: np.ndarray) -> Any:
        rows = batch_size / np.asarray(n_processors, dtype=float)
        return rows / (np.maximum(1.0, rows) + overhead)

    return efficiency
