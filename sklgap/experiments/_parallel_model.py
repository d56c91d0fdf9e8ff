"""When many processors make the large batch the faster one: Keskar et al. (2017), Appendix C."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import WrongArgument, is_integer, is_number

if TYPE_CHECKING:
    from sklgap.experiments._plot._parallel_model import ParallelModelDisplay

Efficiency = Callable[[float, np.ndarray], Any]


@dataclass(frozen=True)
class ParallelModel:
    """The idealised parallel model of Keskar et al., Appendix C; ``print`` it.

    Attributes
    ----------
    batch_sizes : ndarray of shape (n_sizes,)
        Rows of a batch.
    n_updates : ndarray of shape (n_sizes,)
        Updates of a training; NaN where the training did not get where it should.
    reference : int
        Position of the batch size that the others are compared with.
    efficiency_needed : ndarray of shape (n_sizes,)
        I B / (I_ref B_ref): a batch size wins where its parallel efficiency is more than this many times the
        reference's.
    reference_efficiency_limit : ndarray of shape (n_sizes,)
        Parallel efficiency of the reference, as a fraction, from which on a batch size cannot win, however efficient
        it is; 1 where it can always.
    """

    batch_sizes: np.ndarray
    n_updates: np.ndarray
    reference: int
    efficiency_needed: np.ndarray
    reference_efficiency_limit: np.ndarray

    def speed_up(self, efficiency: float | Efficiency, n_processors: Any = 1) -> np.ndarray:
        """Return how many times as fast as the reference each batch size is, on so many processors.

        Parameters
        ----------
        efficiency : callable or float
            (batch size, array of processors) -> parallel efficiency in (0, 1]. A number stands for
            `overhead_efficiency` with this overhead in rows.
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

    def plot(self, *, efficiency: float | Efficiency | None = None, axes: Any = None) -> "ParallelModelDisplay":
        """Draw the efficiency needed, and the speed-up under an assumed one; return a `ParallelModelDisplay`."""
        from sklgap.experiments._plot._parallel_model import ParallelModelDisplay

        return ParallelModelDisplay.from_model(self, efficiency=efficiency, axes=axes)

    def __str__(self) -> str:
        rows = [("batch size", "updates", "efficiency needed", "cannot win from")]
        for i, size in enumerate(self.batch_sizes):
            if i == self.reference:
                cells = ("1", "(reference)")
            elif np.isnan(self.n_updates[i]):
                cells = ("-", "never there")
            else:
                limit = self.reference_efficiency_limit[i]
                cells = (f"{self.efficiency_needed[i]:.3g}", "(can always)" if limit >= 1 else f"{100 * limit:.0f} %")
            updates = "-" if np.isnan(self.n_updates[i]) else f"{self.n_updates[i]:,.0f}"
            rows.append((f"{size:,.0f}", updates, *cells))
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        table = ["   ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(
            [
                *table,
                "",
                "Efficiency needed: over that of the reference, on as many processors; beyond it the batch size takes",
                "less time. Where the reference is as efficient as the last column says, it cannot win. The model:",
                "time is proportional to updates * batch size / (processors * efficiency).",
            ]
        )


def parallel_model(batch_sizes: Any, n_updates: Any, *, reference: int | None = None) -> ParallelModel:
    r"""Say which parallel efficiency a batch size needs in order to train in less time than a smaller one.

    On P processors with parallel efficiency e(P), I updates with batches of B rows take a time

    .. math:: T \propto \frac{I B}{P \, e(P)} , \qquad\text{so that LB wins where}\qquad
        \frac{I_{LB} B_{LB}}{I_{SB} B_{SB}} < \frac{e_{LB}(P)}{e_{SB}(P)}

    Parameters
    ----------
    batch_sizes : array-like of shape (n_sizes,)
        Rows of a batch, at least two sizes.
    n_updates : array-like of shape (n_sizes,) or (n_sizes, n_trials)
        Updates that each took to the same end: a test accuracy, a loss. Trials are averaged; NaN: not reached.
    reference : int, default=None
        Position of the batch size to compare with. None: the smallest.

    Returns
    -------
    ParallelModel
        Prints as a table; ``speed_up(efficiency, n_processors)``, ``plot()``.

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
    I B counts rows: the efficiency needed is the ratio of epochs. A large batch that needs twice the epochs of a small
    one wins where it is run more than twice as efficiently.

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
    updates = updates.reshape(len(sizes), -1).mean(axis=1)
    if reference is None:
        reference = int(sizes.argmin())
    if not is_integer(reference, 0) or reference >= len(sizes) or np.isnan(updates[reference]):
        raise ValueError(
            f"reference must be the position of a batch size that got there, below {len(sizes)}; got {reference!r}."
        )
    needed = updates * sizes / (updates[reference] * sizes[reference])
    return ParallelModel(sizes, updates, int(reference), needed, np.minimum(1.0, 1 / needed))


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
