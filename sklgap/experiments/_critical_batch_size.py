"""``critical_batch_size``: the batch beyond which more rows stop paying in the speed of optimisation."""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from sklgap._checks import check_arguments, check_integer
from sklgap.experiments._experiment import check_classifier, check_rows
from sklgap.experiments._recorded_training import (
    check_target_loss,
    draw_seeds,
    first_reached,
    train_recorded,
    without_head,
)
from sklgap.experiments._statistics import mean_estimate
from sklgap.inspection import gradient_noise_scale
from sklgap.inspection._gradient_noise import LEAST_BATCHES
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.training._recorder import log_spaced_updates

# Measurements of the noise for every doubling of the updates.
_PER_DOUBLING = 4


@dataclass(frozen=True)
class CriticalBatchSize:
    """The critical batch size of a training, predicted from the noise of its gradients.

    Attributes
    ----------
    critical_batch_size : float
        In rows: the harmonic mean over the trials; infinite where gradients are lost in their noise throughout.
    low, high : float
        Its 95 % interval by Student's t over the trials: 0 and infinity with one trial. It covers the seeds and the
        noise of the measurement, not the assumptions.
    min_steps, min_examples : float
        The fewest updates, and the fewest rows, that the same training would take, on average over the trials.
    target_loss : float or None
        The training loss up to which the trainings count; None: all of each.
    n_updates : ndarray of shape (n_trials,)
        Updates that count.
    batch_size : int
        Rows of the batches trained, and measured, with (the first, where they vary).
    trials : list of dict of ndarrays
        Per trial: ``n_updates``, ``loss``, and there ``trace``, ``squared_gradient_norm`` (negative where noise
        prevails) and ``noise_scale`` (then infinite).
    batch_norm : str
        The batch-norm policy of gradients and losses.
    """

    critical_batch_size: float
    low: float
    high: float
    min_steps: float
    min_examples: float
    target_loss: float | None
    n_updates: np.ndarray
    batch_size: int
    trials: list[dict[str, np.ndarray]] = field(repr=False)
    batch_norm: str

    def __str__(self) -> str:
        until = "over the whole training" if self.target_loss is None else f"to a training loss of {self.target_loss:g}"
        one = len(self.trials) == 1
        interval = "no interval from one trial" if one else f"95 % interval [{self.low:,.3g}, {self.high:,.3g}]"
        return (
            f"critical batch size {self.critical_batch_size:,.3g} rows, {interval} over {len(self.trials)} "
            f"trial{'' if one else 's'} (seeds; not the assumptions): the gradient noise scale {until}, measured at "
            f"batches of {self.batch_size:,} (batch norm: {self.batch_norm}). Assumes that curvature is the same in "
            "all directions, plain gradient steps and the best learning rate at every batch size: good for an order of "
            "magnitude. It is about the speed of optimisation, not about test accuracy."
        )


def critical_batch_size(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    target_loss: float | None = None,
    n_trials: int = 3,
    n_batches: int = 50,
    batch_norm: str = "batch",
    max_samples: int | float | None = 10_000,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    verbose: int = 1,
) -> CriticalBatchSize:
    r"""Critical batch size of a training: beyond it, more rows a batch save few updates.

    The estimator is trained with its own, small, batches, and the gradient noise scale
    :math:`\mathcal B = \mathrm{tr}(\Sigma) / \|g\|^2` is measured along the way. A step on B rows does the work of
    :math:`ds = dt / (1 + \mathcal B / B)` steps without noise, so that the training would take at least

    .. math:: S_{min} = \int \frac{dt}{1 + \mathcal B / B} \;\text{ updates}, \qquad
        E_{min} = \int \frac{\mathcal B \, dt}{1 + \mathcal B / B} \;\text{ rows}, \qquad
        B_{crit} = \frac{E_{min}}{S_{min}}

    and, with batches of B_crit, twice as many of either.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Cloned for every trial. Train it with a batch well below the result.
    X, y : array-like
        Training data.
    target_loss : float, default=None
        Count the training up to this mean loss, in evaluation mode: the noise scale grows as the loss falls, and so
        does the critical batch size. None: the whole training, as the estimator's own stopping rule ends it.
    n_trials : int, default=3
        Starting points.
    n_batches : int, default=50
        Mini-batches that the noise is measured from at each of its points: at 0 updates, at four points for every
        doubling, and at the end.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy of the loss, and of the gradients; ``"batch"`` is how the estimator trains.
    max_samples : int or float, default=10_000
        Training rows that mini-batches and losses are taken from, or their fraction; None: all.
    random_state : int, RandomState or None, default=None
        An int makes the result repeatable, whatever ``n_jobs``, at equal thread count.
    n_jobs : int, default=None
        Trainings at once, as in scikit-learn.
    verbose : int, default=1
        0: silent; 1: a progress bar.

    Returns
    -------
    CriticalBatchSize
        Prints as a sentence with its assumptions.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, or a target that the initial weights have reached.
    TypeError
        For an estimator that is no `LBGapClassifier` and does not end in one.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        When a trial did not reach ``target_loss``: all of it counts.

    See Also
    --------
    sklgap.experiments.steps_to_loss : Measures the critical batch size by training with many batch sizes.
    sklgap.inspection.gradient_noise_scale : The noise scale of one point.

    Notes
    -----
    The integrals are sums over points, by the trapezoidal rule, of trace and squared norm themselves, so that points at
    which the gradient is lost in its noise need no special care. At an update of its training the noise is measured at
    the batch size used then.

    The theory takes the Hessian for a multiple of the identity, and steps for plain gradient steps at the best learning
    rate. McCandlish et al. find such predictions within an order of magnitude of the batch sizes that trainings
    themselves show. With ADAM, and with a learning rate far from the best, expect no more.

    Cost: ``n_trials`` trainings and, for each point, ``n_batches`` gradients of a batch: ``4 * n_batches`` for every
    doubling of the number of updates.

    References
    ----------
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, Sections 2.2 and 2.3, equations
    (2.7), (2.9) and (D.1).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, critical_batch_size
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=30)
    >>> found = critical_batch_size(model, X / 16, y, target_loss=1.0, n_trials=2, random_state=0, verbose=0)
    >>> bool(1 < found.critical_batch_size < 10_000)
    True
    """
    check_arguments(critical_batch_size, locals())
    check_batch_norm(batch_norm)
    check_integer("n_batches", n_batches, least=LEAST_BATCHES)
    if target_loss is not None:
        check_target_loss(target_loss)
    X, y = check_rows(X, y)
    check_classifier(estimator)
    estimator, X = without_head(estimator, X, y)
    seeds = draw_seeds(n_trials, random_state)

    def run(seed: int) -> dict[str, np.ndarray]:
        def noise(net: Any) -> dict[str, float]:
            # Of the current epoch; before the first one has begun, what it will be.
            size = net.size_ if hasattr(net, "size_") else net.regime.batch_size(0, getattr(net, "n_samples_", len(y)))
            found = gradient_noise_scale(
                net,
                X,
                y,
                method="batches",
                batch_size=size,
                n_batches=n_batches,
                max_samples=max_samples,
                random_state=(seed + net.n_updates_) % 2**32,
                batch_norm=batch_norm,
            )
            parts = {"trace": found.trace, "squared_gradient_norm": found.squared_gradient_norm}
            return {**parts, "noise_scale": found.noise_scale, "batch_size": size}

        parameters = {"random_state": seed}
        at_updates = [0, *log_spaced_updates(_PER_DOUBLING)]
        return train_recorded(
            estimator, X, y, parameters, target_loss, batch_norm, max_samples, at_updates, {"noise": noise}
        )

    results = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(run)(seed) for seed in seeds)
    records = list(tqdm(results, total=n_trials, unit="fit", disable=not verbose))
    ends = [_end(record, target_loss) for record in records]
    sums = np.array([minimal_work(record, end) for record, end in zip(records, ends, strict=True)])
    value, low, high = _average(sums[:, 0] / sums[:, 1])
    return CriticalBatchSize(
        critical_batch_size=value,
        low=low,
        high=high,
        min_steps=max(0.0, float(sums[:, 0].mean())),
        min_examples=float(sums[:, 1].mean()),
        target_loss=target_loss,
        n_updates=np.array(ends),
        batch_size=int(records[0]["noise_batch_size"][0]),
        trials=[_trajectory(record) for record in records],
        batch_norm=batch_norm,
    )


def minimal_work(record: dict[str, np.ndarray], end: float) -> tuple[float, float]:
    """Return S_min and E_min of a recorded training up to ``end`` updates."""
    n_updates, size = record["n_updates"], record["noise_batch_size"]
    trace, square = record["noise_trace"], record["noise_squared_gradient_norm"]
    # 1 / (1 + trace / square / B), and trace / square times that; B square + trace is B E||g_B||^2, and positive.
    both = size * square + trace
    known = np.isfinite(both) & (both > 0)
    if not known.any():
        raise ValueError("The gradients must be finite along training; none of those measured was: try a smaller lr.")
    points = np.append(n_updates[known & (n_updates < end)], end)
    steps, examples = (
        float(np.trapezoid(np.interp(points, n_updates[known], size[known] * part[known] / both[known]), points))
        for part in (square, trace)
    )
    return steps, examples


def _average(inverses: np.ndarray) -> tuple[float, float, float]:
    """Return the critical batch size whose inverse is the mean over the trials, and its interval.

    The inverse is finite, and may fall below 0, where a trial's gradients are lost in their noise.
    """
    found = mean_estimate(inverses)
    # Without an interval, from a single trial, the inverse may be anything.
    ends = (found.high, found.low) if found.has_interval else (math.inf, -math.inf)
    value, low, high = (1 / inverse if inverse > 0 else math.inf for inverse in (found.value, *ends))
    return value, low, high


def _end(record: dict[str, np.ndarray], target_loss: float | None) -> float:
    """Return the updates that count; a warning where the target was not reached."""
    last = float(record["n_updates"][-1])
    if target_loss is None:
        return last
    end = first_reached(record["n_updates"], record["train_loss"], target_loss)
    if end == 0:
        raise ValueError(
            f"target_loss must be below the loss at the start, {record['train_loss'][0]:.3g}; got {target_loss}."
        )
    if not math.isnan(end):
        return end
    warnings.warn(
        f"A trial did not reach target_loss={target_loss:g} before its stopping rule or max_epochs ended it; its "
        f"lowest loss is {np.nanmin(record['train_loss']):.3g}, and all of its updates count.",
        ConvergenceWarning,
        stacklevel=3,
    )
    return last


def _trajectory(record: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = {"noise_trace": "trace", "noise_squared_gradient_norm": "squared_gradient_norm"}
    kept = {"n_updates": "n_updates", "train_loss": "loss", **names, "noise_noise_scale": "noise_scale"}
    return {new: record[old] for old, new in kept.items()}
