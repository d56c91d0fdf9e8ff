"""``steps_to_loss``: the number of updates to a training loss for several batch sizes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import check_arguments, is_flat
from sklgap._typing import BatchNormPolicy
from sklgap.experiments import _notes as notes
from sklgap.experiments._inputs import (
    check_classifier,
    check_keepable,
    check_learning_rates,
    check_rows,
    check_target_loss,
    common_settings,
    without_head,
)
from sklgap.experiments._protocol import draw_seeds
from sklgap.experiments._recorded_training import (
    in_memory,
    lowest_loss,
    recorded_cost,
    train_recorded,
    updates_to_loss,
)
from sklgap.experiments._result import Result, count, describe_measuring, listed, mean_std
from sklgap.experiments._run import interruptible, run
from sklgap.experiments._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.objective._check import check_max_samples
from sklgap.regimes._base import check_batch_size
from sklgap.training._recorder import log_spaced_updates

if TYPE_CHECKING:
    from sklgap.experiments._plot._steps_to_loss import StepsToLossDisplay

# Number of records per doubling of the updates, between which the loss falls by a few percent.
_PER_DOUBLING = 8


@interruptible
def steps_to_loss(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    batch_sizes: Sequence[int | float],
    target_loss: float,
    learning_rates: Sequence[float] | None = None,
    n_trials: int = 3,
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = 2000,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> "StepsToLoss":
    """Count the updates to a training loss for several batch sizes, and fit the trade-off between updates and samples.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Estimator that is cloned for every training. Its ``max_epochs`` must be large enough for the largest batch,
        which may make a single update per epoch, to reach the target. Its ``tol`` and ``n_iter_no_change`` must not end
        the training before that.
    X, y : array-like
        Training data.
    batch_sizes : sequence of int or float
        Values of ``batch_size``: numbers of samples, or fractions of the training samples.
    target_loss : float
        Mean training loss to reach, in evaluation mode. The number of updates is interpolated between records.
    learning_rates : sequence of float, default=None
        Learning rates to try for every batch size. Among those that reach the target in most trials, the one with the
        fewest updates on average counts. None means the ``lr`` and ``lr_scaling`` of the estimator.
    n_trials : int, default=3
        Number of trials. Their starting points are the same for all batch sizes and learning rates.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy of the loss.
    max_samples : int, float or None, default=2000
        Training samples on which the loss is measured: their number, or a fraction in (0, 1]. None means all.
    random_state : int, RandomState or None, default=None
        Source of all random numbers. An int makes the result repeatable.
    n_jobs : int or None, default=None
        Number of fits that run at the same time, as in scikit-learn.
    memory : str, Path or None, default=None
        Folder in which finished work is saved, and from which it is loaded in the next run.
    verbose : int, default=1
        0 is silent; 1 prints the expected cost and shows a progress bar. `sklgap.experiments` explains these four
        parameters.

    Returns
    -------
    StepsToLoss
        The result; ``print`` shows it as a table. After Ctrl-C it holds the trainings that finished; the others are
        NaN.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if the initial weights have already reached the target.
    TypeError
        If the estimator is not an `LBGapClassifier` and does not end in one.

    See Also
    --------
    fit_steps_to_loss : Fits the trade-off to your own numbers.
    sklgap.critical_batch_size : Predicts the critical batch size from one batch size.

    Notes
    -----
    The trade-off holds for the best learning rate at every batch size. With one learning rate for all, large batches
    look worse than they are. The loss is recorded at 0 updates and eight times per doubling of the updates. With batch
    norm, choose batch sizes that do not leave a last batch of a few samples, because its statistics would disturb the
    weights.

    The cost is ``len(batch_sizes) * len(learning_rates) * n_trials`` trainings. They run trial by trial, each with all
    batch sizes and learning rates.

    References
    ----------
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, Section 2.3 and Appendix A.2.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier
    >>> from sklgap.experiments import steps_to_loss
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=100)
    >>> found = steps_to_loss(
    ...     model, X[:600] / 16, y[:600], batch_sizes=[20, 200], target_loss=1.0, n_trials=1, verbose=0)
    >>> bool(found.n_steps[0, 0] > found.n_steps[1, 0])
    True
    """
    check_arguments(steps_to_loss, locals())
    check_batch_norm(batch_norm)
    check_max_samples(max_samples)
    check_keepable(memory, random_state)
    rates = check_learning_rates(learning_rates, check_classifier(estimator))
    X, y = check_rows(X, y)
    sizes = _check_sizes(batch_sizes, len(y))
    check_target_loss(target_loss)
    max_epochs = check_classifier(estimator).max_epochs
    seeds = draw_seeds(n_trials, random_state)
    settings = {
        "n_train": len(y),
        "n_trials": int(n_trials),
        "batch_sizes": sizes,
        "target_loss": float(target_loss),
        "learning_rates": [] if learning_rates is None else rates,
        "batch_norm": batch_norm,
        "max_samples": max_samples,
        "max_epochs": max_epochs,
        **common_settings(estimator, random_state),
    }
    estimator, X = without_head(estimator, X, y)
    at_updates = [0, *log_spaced_updates(_PER_DOUBLING)]
    if verbose:
        parameters = {f"batches of {size:,}": {"batch_size": size} for size in sizes}
        n_fits = n_trials * len(rates)
        cost = recorded_cost(estimator, parameters, n_fits, (X, y), at_updates, max_samples, n_jobs=n_jobs)
        settings["cost"] = asdict(cost)
        print(cost)
    measured = (target_loss, batch_norm, max_samples, at_updates, memory)
    jobs: list[Callable[[], dict[str, Any]]] = [
        partial(count_steps, estimator, X, y, size, rate, trial, seed, *measured)
        for trial, seed in enumerate(seeds)
        for size in sizes
        for rate in rates
    ]
    records, interrupted = run(jobs, n_jobs=n_jobs, verbose=verbose, describe=_describe)
    if not records:
        raise KeyboardInterrupt
    return StepsToLoss(records, settings, interrupted)


def _describe(record: dict[str, Any]) -> str:
    steps = f"{record['n_steps']:,.0f} updates" if record["reached"] else "not reached"
    return f"batches of {record['batch_size']:,}: {steps}"


class StepsToLoss(Result):
    """Result of `steps_to_loss`; ``print`` shows it.

    Attributes
    ----------
    batch_sizes : ndarray of shape (n_sizes,)
        Batch sizes in samples, in the given order.
    n_steps : ndarray of shape (n_sizes, n_trials)
        Updates until the loss was reached, at the chosen learning rate; NaN if it was not reached, or if the training
        did not finish.
    learning_rates : ndarray of shape (n_sizes,)
        The chosen learning rate for each batch size; NaN for the learning rate of the estimator, or if nothing
        finished.
    target_loss : float
        The training loss to reach.
    tradeoff : StepsTradeoff or None
        The fitted trade-off; None if fewer than two batch sizes reached the loss.
    records : list of dict
        One per finished training, for all learning rates: ``batch_size``, ``learning_rate`` (None for that of the
        estimator), ``trial``, ``seed``, ``n_steps``, ``reached``, ``chosen`` (whether its learning rate is the chosen
        one), ``lowest_loss``, ``n_updates_trained``.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(self, records: list[dict[str, Any]], settings: dict[str, Any], interrupted: bool = False) -> None:
        sizes, rates = settings["batch_sizes"], settings["learning_rates"] or [None]
        steps = np.full((len(sizes), len(rates), settings["n_trials"]), np.nan)
        for record in records:
            steps[_place(record, sizes, rates)] = record["n_steps"]
        chosen = [_best_rate(of_size) for of_size in steps]
        done = {record["batch_size"] for record in records}
        ordered = sorted(records, key=lambda record: _place(record, sizes, rates))
        super().__init__(
            [{**r, "chosen": r["learning_rate"] == rates[chosen[sizes.index(r["batch_size"])]]} for r in ordered],
            settings,
            interrupted,
        )
        self.batch_sizes = np.array(sizes)
        self.n_steps = np.array([of_size[i] for of_size, i in zip(steps, chosen, strict=True)])
        self.learning_rates = np.array(
            [rates[i] if size in done else None for size, i in zip(sizes, chosen, strict=True)], dtype=float
        )
        self.target_loss: float = settings["target_loss"]
        enough = np.isfinite(self.n_steps).any(axis=1).sum() > 1
        self.tradeoff: StepsTradeoff | None = fit_steps_to_loss(self.batch_sizes, self.n_steps) if enough else None

    def _chosen(self, size: int) -> list[dict[str, Any]]:
        return [record for record in self.records if record["chosen"] and record["batch_size"] == size]

    # -- printing --------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        sizes = self.settings["batch_sizes"]
        reached = {f"batches of {size:,}": [r["reached"] for r in self._chosen(size)] for size in sizes}
        tried = self.settings["learning_rates"]
        rates = {f"{size:,}": rate for size, rate in zip(sizes, self.learning_rates, strict=True)}
        one_rate = (
            "The trade-off holds for the best learning rate at every batch size. With one learning rate for all, large "
            "batches look worse than they are: try learning_rates."
        )
        return [
            *self._interrupted(),
            *notes.not_converged(reached, target=True),
            *notes.rates_at_the_edge(rates, tried),
            *([] if self.tradeoff is None else self.tradeoff.notes),
            *([one_rate] if not tried and self.tradeoff is not None else []),
        ]

    def _interrupted(self) -> list[str]:
        s = self.settings
        n_all = len(s["batch_sizes"]) * max(1, len(s["learning_rates"])) * s["n_trials"]
        found = notes.interrupted(self.interrupted, len(self.records), n_all, "training")
        if found:
            none = [f"{size:,}" for size in s["batch_sizes"] if not self._chosen(size)]
            missing = sum(s["n_trials"] - len(self._chosen(size)) for size in s["batch_sizes"])
            of_all = f"{missing} of the {self.n_steps.size} trainings of n_steps did not finish and are NaN"
            found.append(f"{of_all}. Nothing finished for batches of {listed(none)}." if none else f"{of_all}.")
        return found

    def _verdict(self) -> list[str]:
        if self.tradeoff is None:
            return [
                "There is no critical batch size, because fewer than two batch sizes reached a loss of "
                f"{self.target_loss:g}."
            ]
        sentence = self.tradeoff.verdict[0]
        return [f"To a training loss of {self.target_loss:g}, {sentence[0].lower()}{sentence[1:]}"]

    def _head(self) -> list[str]:
        s = self.settings
        tried = s["learning_rates"]
        rates = f"the best of {', '.join(f'{rate:g}' for rate in tried)}" if tried else "that of the estimator"
        return [
            f"{s['n_train']:,} training samples, {count(s['n_trials'], 'trial')}, target_loss={self.target_loss:g}",
            f"learning rate: {rates}",
            *describe_measuring(s),
        ]

    def _table(self) -> list[list[str]]:
        rows = [["batch size", "lr", "updates", "reached", "fitted"]]
        for size, steps, rate in zip(self.settings["batch_sizes"], self.n_steps, self.learning_rates, strict=True):
            finished = self._chosen(size)
            reached = steps[np.isfinite(steps)]
            fitted = "" if self.tradeoff is None else f"{float(self.tradeoff.steps(size)):,.0f}"
            lr = "" if math.isnan(rate) else f"{rate:g}"
            rows.append([f"{size:,}", lr, mean_std(reached, ",.0f"), f"{len(reached)} of {len(finished)}", fitted])
        columns = [i for i in range(5) if i in (0, 2, 3) or any(row[i] for row in rows[1:])]
        return [[row[i] for i in columns] for row in rows]

    def _reading(self) -> list[str]:
        lines = ["updates: updates until the loss was reached; reached: number of finished trials that reached it"]
        return lines if self.tradeoff is None else [*lines, *self.tradeoff._lines()]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        fitted = None if self.tradeoff is None else self.tradeoff._statistics()
        return {"n_steps": self.n_steps, "learning_rates": self.learning_rates, "tradeoff": fitted}

    def plot(self, ax: Any = None) -> "StepsToLossDisplay":
        """Draw updates against batch size, with the fitted trade-off; return a `StepsToLossDisplay`."""
        from sklgap.experiments._plot._steps_to_loss import StepsToLossDisplay

        return StepsToLossDisplay.from_result(self, ax=ax)


# -- one training ------------------------------------------------------------------------------------------------------


def count_steps(
    estimator: Any,
    X: Any,
    y: Any,
    size: int,
    rate: float | None,
    trial: int,
    seed: int,
    target_loss: float,
    batch_norm: BatchNormPolicy,
    max_samples: int | float | None,
    at_updates: list[int],
    memory: str | Path | None = None,
) -> dict[str, Any]:
    """Train until the loss is reached, and return the record of this training."""
    parameters: dict[str, Any] = {"batch_size": size, "random_state": seed}
    parameters |= {} if rate is None else {"lr": rate}
    found = train_recorded(
        estimator,
        in_memory(X),
        in_memory(y),
        parameters,
        target_loss,
        batch_norm,
        max_samples,
        at_updates,
        memory=memory,
    )
    steps = updates_to_loss(found, target_loss)
    return {
        "batch_size": size,
        "learning_rate": rate,
        "trial": trial,
        "seed": seed,
        "n_steps": steps,
        "reached": not math.isnan(steps),
        "lowest_loss": lowest_loss(found),
        "n_updates_trained": int(found["n_updates"][-1]),
    }


def _place(record: dict[str, Any], sizes: list[int], rates: list[float | None]) -> tuple[int, int, int]:
    return sizes.index(record["batch_size"]), rates.index(record["learning_rate"]), record["trial"]


def _check_sizes(batch_sizes: Any, n_samples: int) -> list[int]:
    if not is_flat(batch_sizes) or not len(batch_sizes):
        raise ValueError(f"batch_sizes must be a sequence of batch sizes; got {batch_sizes!r}.")
    sizes = [int(check_batch_size(size, n_samples, "batch_sizes")) for size in batch_sizes]
    if len(set(sizes)) < len(sizes) or len(sizes) < 2:
        raise ValueError(f"batch_sizes must have at least two sizes, all different; got {batch_sizes!r}.")
    return sizes


def _best_rate(steps: np.ndarray) -> int:
    """Return the row of an array (n_rates, n_trials) with the fewest missed trials, and then the fewest steps.

    A trial that did not finish is NaN, too, and counts as missed.
    """
    missed = np.isnan(steps).sum(axis=1)
    means = [row[~np.isnan(row)].mean() if np.isfinite(row).any() else math.inf for row in steps]
    return int(np.lexsort((means, missed))[0])
