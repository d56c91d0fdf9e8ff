"""How many updates a training loss takes with batches of several sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from sklgap._checks import check_arguments, is_flat, shown
from sklgap.experiments._experiment import check_classifier, check_rows
from sklgap.experiments._recorded_training import (
    check_target_loss,
    draw_seeds,
    first_reached,
    train_recorded,
    without_head,
)
from sklgap.experiments._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.regimes._base import check_batch_size
from sklgap.training._recorder import log_spaced_updates

# The loss falls by a few percent from one record to the next.
_PER_DOUBLING = 8


@dataclass(frozen=True)
class StepsToLoss:
    """Updates to a training loss, by batch size.

    Attributes
    ----------
    batch_sizes : ndarray of shape (n_sizes,)
        Rows of a batch.
    n_steps : ndarray of shape (n_sizes, n_trials)
        Updates until the loss was reached, at the learning rate chosen; NaN where it was not.
    learning_rates : ndarray of shape (n_sizes,)
        The rate chosen for each size; NaN where the estimator's own was used.
    target_loss : float
        The loss.
    tradeoff : StepsTradeoff or None
        The trade-off fitted to them; None where fewer than two sizes reached the loss.
    """

    batch_sizes: np.ndarray
    n_steps: np.ndarray
    learning_rates: np.ndarray
    target_loss: float
    tradeoff: StepsTradeoff | None

    def __str__(self) -> str:
        lines = [f"updates to a training loss of {self.target_loss:g}:"]
        for size, steps, rate in zip(self.batch_sizes, self.n_steps, self.learning_rates, strict=True):
            reached = steps[np.isfinite(steps)]
            mean = f"{reached.mean():,.0f}" if len(reached) else "not reached"
            spread = f" ± {reached.std(ddof=1):,.0f}" if len(reached) > 1 else ""
            missed = f", {len(steps) - len(reached)} trials missed it" if 0 < len(reached) < len(steps) else ""
            chosen = "" if math.isnan(rate) else f" (learning rate {rate:g})"
            lines.append(f"  batches of {size:>6,}: {mean}{spread}{missed}{chosen}")
        fitted = "no trade-off: fewer than two batch sizes reached the loss" if self.tradeoff is None else self.tradeoff
        return "\n".join([*lines, str(fitted)])


def steps_to_loss(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    batch_sizes: Sequence[int | float],
    target_loss: float,
    learning_rates: Sequence[float] | None = None,
    n_trials: int = 3,
    batch_norm: str = "batch",
    max_samples: int | float | None = 2000,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    verbose: int = 1,
) -> StepsToLoss:
    """Count the updates that batches of several sizes take to one training loss, and fit the trade-off.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Cloned for every training. Its ``max_epochs`` must let the largest batch get there, which may have a single
        update an epoch, and its ``tol`` and ``n_iter_no_change`` must not end the training before.
    X, y : array-like
        Training data.
    batch_sizes : sequence of int or float
        Values of ``batch_size``: rows, or fractions of the rows.
    target_loss : float
        Mean training loss to reach, in evaluation mode; reached between two records it is interpolated.
    learning_rates : sequence of float, default=None
        Tried for every batch size; the one with the fewest updates on average over the trials counts, of those that
        get there in most trials. None: the estimator's ``lr`` and ``lr_scaling``.
    n_trials : int, default=3
        Starting points, the same for all sizes and rates.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy of the loss.
    max_samples : int or float, default=2000
        Training rows that the loss is measured on, or their fraction; None: all.
    random_state : int, RandomState or None, default=None
        Draws the seeds of the trials.
    n_jobs : int, default=None
        Trainings at once, as in scikit-learn.
    verbose : int, default=1
        0: silent; 1: a progress bar.

    Returns
    -------
    StepsToLoss

    Raises
    ------
    ValueError
        For a parameter outside its allowed values.
    TypeError
        For an estimator that is no `LBGapClassifier` and does not end in one.

    See Also
    --------
    fit_steps_to_loss : The fit alone.
    sklgap.critical_batch_size : A prediction from one batch size.

    Notes
    -----
    The trade-off holds for the best learning rate at every batch size; with one rate for all, large batches look worse
    than they are. The loss is recorded at 0 updates and at eight updates for every doubling. With batch norm choose
    sizes that leave no last batch of a few rows, whose statistics would throw the weights.

    Costs ``len(batch_sizes) * len(learning_rates) * n_trials`` trainings.

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
    >>> found = steps_to_loss(model, X / 16, y, batch_sizes=[20, 200], target_loss=1.0, n_trials=1, verbose=0)
    >>> bool(found.n_steps[0, 0] > found.n_steps[1, 0])
    True
    """
    check_arguments(steps_to_loss, locals())
    check_batch_norm(batch_norm)
    rates = _check_learning_rates(learning_rates)
    X, y = check_rows(X, y)
    if not is_flat(batch_sizes) or not len(batch_sizes):
        raise ValueError(f"batch_sizes must be a sequence of batch sizes; got {batch_sizes!r}.")
    sizes = np.array([check_batch_size(size, len(y), "batch_sizes") for size in batch_sizes])
    if len(np.unique(sizes)) < len(sizes) or len(sizes) < 2:
        raise ValueError(f"batch_sizes must have at least two sizes, all different; got {batch_sizes!r}.")
    check_target_loss(target_loss)
    check_classifier(estimator)
    estimator, X = without_head(estimator, X, y)
    seeds = draw_seeds(n_trials, random_state)

    def run(size: int, rate: float, seed: int) -> float:
        parameters: dict[str, Any] = {"batch_size": int(size), "random_state": seed}
        parameters |= {} if math.isnan(rate) else {"lr": rate}
        records = train_recorded(
            estimator, X, y, parameters, target_loss, batch_norm, max_samples, [0, *log_spaced_updates(_PER_DOUBLING)]
        )
        return first_reached(records["n_updates"], records["train_loss"], target_loss)

    tasks = [(size, rate, seed) for size in sizes for rate in rates for seed in seeds]
    results = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(run)(*task) for task in tasks)
    steps = np.array(list(tqdm(results, total=len(tasks), unit="fit", disable=not verbose)))
    steps = steps.reshape(len(sizes), len(rates), len(seeds))
    chosen = [_best_rate(of_size) for of_size in steps]
    n_steps = np.array([of_size[i] for of_size, i in zip(steps, chosen, strict=True)])
    enough = np.isfinite(n_steps).any(axis=1).sum() > 1
    if enough and (n_steps == 0).any():
        raise ValueError(f"target_loss must be below the losses at the start; got {shown(target_loss)}.")
    return StepsToLoss(
        batch_sizes=sizes,
        n_steps=n_steps,
        learning_rates=np.array([rates[i] for i in chosen]),
        target_loss=float(target_loss),
        tradeoff=fit_steps_to_loss(sizes, n_steps) if enough else None,
    )


def _best_rate(steps: np.ndarray) -> int:
    """Return the row, of (n_rates, n_trials), with the fewest missed trials, and then the fewest steps."""
    missed = np.isnan(steps).sum(axis=1)
    means = [row[~np.isnan(row)].mean() if np.isfinite(row).any() else math.inf for row in steps]
    return int(np.lexsort((means, missed))[0])


def _check_learning_rates(learning_rates: Any) -> list[float]:
    if learning_rates is None:
        return [math.nan]
    try:
        rates = np.asarray(learning_rates, dtype=float)
    except (TypeError, ValueError):
        rates = np.empty(0)
    if rates.ndim != 1 or not len(rates) or not ((rates > 0) & np.isfinite(rates)).all():
        raise ValueError(f"learning_rates must be None or a sequence of numbers above 0; got {learning_rates!r}.")
    return rates.tolist()
