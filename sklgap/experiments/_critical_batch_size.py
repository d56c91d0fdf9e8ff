"""``critical_batch_size``: the batch size beyond which larger batches make training little faster."""

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sklgap._checks import check_arguments, check_integer
from sklgap._typing import BatchNormPolicy
from sklgap.experiments import _notes as notes
from sklgap.experiments._estimate import Estimate, mean_estimate
from sklgap.experiments._inputs import (
    check_classifier,
    check_keepable,
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
from sklgap.experiments._result import Result, count, describe_measuring, mean_std
from sklgap.experiments._run import interruptible, run
from sklgap.inspection import gradient_noise_scale
from sklgap.inspection._gradient_noise import LEAST_BATCHES
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.objective._check import check_max_samples
from sklgap.training._recorder import log_spaced_updates

if TYPE_CHECKING:
    from sklgap.experiments._plot._critical_batch_size import CriticalBatchSizeDisplay

# Number of noise measurements per doubling of the updates.
_PER_DOUBLING = 4


class Measured(NamedTuple):
    """One training: its figures, and the noise measured along it."""

    record: dict[str, Any]
    trajectory: dict[str, np.ndarray]


@interruptible
def critical_batch_size(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    target_loss: float | None = None,
    n_trials: int = 3,
    n_batches: int = 50,
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = 10_000,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> "CriticalBatchSize":
    r"""Predict the critical batch size of a training, beyond which larger batches save few updates.

    The estimator is trained with its own, small batches. The gradient noise scale :math:`\mathcal B =
    \mathrm{tr}(\Sigma) / \|g\|^2` is measured along the way. A step on B samples does the work of :math:`ds = dt / (1 +
    \mathcal B / B)` steps without noise. The training would therefore take at least

    .. math:: S_{min} = \int \frac{dt}{1 + \mathcal B / B} \;\text{ updates}, \qquad
        E_{min} = \int \frac{\mathcal B \, dt}{1 + \mathcal B / B} \;\text{ samples}, \qquad
        B_{crit} = \frac{E_{min}}{S_{min}}

    and, with batches of B_crit samples, twice as many updates and twice as many samples.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Estimator that is cloned for every trial. Its batch size should be well below the result.
    X, y : array-like
        Training data.
    target_loss : float, default=None
        Mean training loss, in evaluation mode, up to which the training counts. The noise scale, and with it the
        critical batch size, grows as the loss falls. None means the whole training, up to the stopping rule of the
        estimator.
    n_trials : int, default=3
        Number of trials, each with its own starting point.
    n_batches : int, default=50
        Number of mini-batches for each measurement of the noise. The noise is measured at 0 updates, four times per
        doubling of the updates, and at the end.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy of the loss and of the gradients. The estimator itself trains with ``"batch"``.
    max_samples : int, float or None, default=10_000
        Training samples from which mini-batches and losses are taken: their number, or a fraction in (0, 1]. None means
        all.
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
    CriticalBatchSize
        The prediction; ``print`` shows it as a table with its assumptions. After Ctrl-C it holds the trainings that
        finished.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if the initial weights have already reached the target.
    TypeError
        If the estimator is not an `LBGapClassifier` and does not end in one.

    See Also
    --------
    sklgap.experiments.steps_to_loss : Measures the critical batch size by training with many batch sizes.
    sklgap.inspection.gradient_noise_scale : The noise scale of one point.

    Notes
    -----
    The integrals are computed by the trapezoidal rule from trace and squared norm themselves. Points at which the
    gradient is lost in its noise therefore need no special treatment. At each point, the noise is measured at the batch
    size of that update.

    The theory assumes that the Hessian is a multiple of the identity, and that steps are plain gradient steps at the
    best learning rate. McCandlish et al. find that such predictions are within an order of magnitude of the batch sizes
    measured in trainings. Expect no more precision than that with ADAM, or with a learning rate far from the best one.

    The cost is ``n_trials`` trainings and ``n_batches`` gradients of a batch for each measurement, which is ``4 *
    n_batches`` gradients per doubling of the updates.

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
    >>> found = critical_batch_size(
    ...     model, X[:600] / 16, y[:600], target_loss=1.0, n_trials=2, n_batches=10, random_state=0, verbose=0)
    >>> bool(1 < found.critical_batch_size < 10_000)
    True
    """
    check_arguments(critical_batch_size, locals())
    check_batch_norm(batch_norm)
    check_max_samples(max_samples)
    check_integer("n_batches", n_batches, least=LEAST_BATCHES)
    if target_loss is not None:
        check_target_loss(target_loss)
    check_keepable(memory, random_state)
    X, y = check_rows(X, y)
    max_epochs = check_classifier(estimator).max_epochs
    seeds = draw_seeds(n_trials, random_state)
    settings = {
        "n_train": len(y),
        "n_trials": int(n_trials),
        "target_loss": None if target_loss is None else float(target_loss),
        "n_batches": int(n_batches),
        "batch_norm": batch_norm,
        "max_samples": max_samples,
        "max_epochs": max_epochs,
        **common_settings(estimator, random_state),
    }
    estimator, X = without_head(estimator, X, y)
    at_updates = [0, *log_spaced_updates(_PER_DOUBLING)]
    if verbose:
        cost = recorded_cost(
            estimator, {"training": {}}, n_trials, (X, y), at_updates, max_samples, n_batches=n_batches, n_jobs=n_jobs
        )
        settings["cost"] = asdict(cost)
        print(cost)
    jobs: list[Callable[[], Measured]] = [
        partial(measure_training, estimator, X, y, trial, seed, target_loss, n_batches, batch_norm, max_samples, memory)
        for trial, seed in enumerate(seeds)
    ]
    found, interrupted = run(jobs, n_jobs=n_jobs, verbose=verbose, describe=_describe)
    if not found:
        raise KeyboardInterrupt
    return CriticalBatchSize(found, settings, interrupted)


def _describe(found: Measured) -> str:
    return f"critical batch size {found.record['critical_batch_size']:,.3g}"


class CriticalBatchSize(Result):
    """The critical batch size that `critical_batch_size` predicts from the noise of the gradients; ``print`` it.

    Attributes
    ----------
    estimate : Estimate
        The critical batch size in samples: the harmonic mean over the trials, with its 95 % interval by Student's t of
        the inverses. It is infinite if the noise hides the gradient at every measurement. The interval covers the seeds
        and the noise of the measurement, not the assumptions.
    records : list of dict
        One per finished training, by trial: ``n_updates`` (those that count), ``reached`` (whether the target loss was
        reached; None without a target), ``batch_size`` (the first one, if it varies), ``min_steps``, ``min_examples``,
        ``critical_batch_size``, ``lowest_loss``, ``n_updates_trained``.
    trials : list of dict of ndarrays
        The noise along these trainings, in the same order: ``n_updates``, ``loss``, ``trace``,
        ``squared_gradient_norm`` and ``noise_scale``. If noise prevails, the squared norm is negative and the noise
        scale is infinite.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(self, measured: list[Measured], settings: dict[str, Any], interrupted: bool = False) -> None:
        ordered = sorted(measured, key=lambda one: one.record["trial"])
        super().__init__([one.record for one in ordered], settings, interrupted)
        self.trials = [one.trajectory for one in ordered]
        self.estimate = _harmonic_mean(self.values("min_steps") / self.values("min_examples"))

    def values(self, name: str) -> np.ndarray:
        """Return one quantity of the finished trainings, an array of shape (n_finished,)."""
        return np.array([record[name] for record in self.records])

    @property
    def critical_batch_size(self) -> float:
        """The value of the estimate, in samples."""
        return self.estimate.value

    @property
    def low(self) -> float:
        """Lower end of the interval; 0 if the trials do not bound it."""
        return max(0.0, self.estimate.low)

    @property
    def high(self) -> float:
        """Upper end of the interval; infinite if the trials do not bound it."""
        return self.estimate.high

    @property
    def min_steps(self) -> float:
        """The smallest number of updates that the same training would take, on average over the trials."""
        return max(0.0, float(self.values("min_steps").mean()))

    @property
    def min_examples(self) -> float:
        """The smallest number of samples that the same training would take, on average over the trials."""
        return float(self.values("min_examples").mean())

    # -- printing --------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        return [
            *notes.interrupted(self.interrupted, len(self.records), self.settings["n_trials"], "training"),
            *self._missed(),
            *notes.no_interval({"the critical batch size": self.estimate}),
            "The prediction assumes equal curvature in all directions, plain gradient steps, and the best learning "
            "rate at every batch size. It is right within an order of magnitude, and no interval covers that error.",
            "The critical batch size is about the speed of training, not about test accuracy.",
        ]

    def _missed(self) -> list[str]:
        missed = [record for record in self.records if record["reached"] is False]
        if not missed:
            return []
        return [
            f"{len(missed)} of {count(len(self.records), 'training')} did not reach target_loss="
            f"{self.settings['target_loss']:g} before the stopping rule or max_epochs ended them. Their lowest loss is "
            f"{min(record['lowest_loss'] for record in missed):.3g}, and all of their updates count."
        ]

    def _verdict(self) -> list[str]:
        size, target = self.estimate, self.settings["target_loss"]
        until = "over the whole training" if target is None else f"to a training loss of {target:g}"
        if math.isinf(size.value):
            return [f"Gradients are lost in their noise {until}, so the critical batch size is above every batch size."]
        low, high = f"{self.low:,.3g}", f"{size.high:,.3g}"
        interval = f" [{low}, {high}]" if size.has_interval else ", without an interval"
        return [
            f"The critical batch size {until} is about {size.value:,.3g} samples{interval}: beyond it, larger batches "
            "save few updates."
        ]

    def _head(self) -> list[str]:
        s, size = self.settings, self.records[0]["batch_size"]
        return [
            f"{s['n_train']:,} training samples, {count(s['n_trials'], 'trial')}",
            f"gradient noise scale from {s['n_batches']} batches of {size:,} at each measurement along training",
            *describe_measuring(s),
        ]

    def _table(self) -> list[list[str]]:
        names = {
            "updates": "n_updates",
            "fewest updates": "min_steps",
            "fewest examples": "min_examples",
        }
        rows = [["trial", *names, "critical batch size"]]
        for record in self.records:
            cells = [f"{record[name]:,.4g}" for name in names.values()]
            rows.append([str(record["trial"]), *cells, f"{record['critical_batch_size']:,.4g}"])
        means = [mean_std(self.values(name), ",.4g") for name in names.values()]
        return [*rows, ["mean", *means, self._shown()]]

    def _shown(self) -> str:
        size = self.estimate
        value = f"{size.value:,.4g}"
        return f"{value} [{self.low:,.4g}, {size.high:,.4g}]" if size.has_interval else value

    def _reading(self) -> list[str]:
        size = self.estimate
        return [
            "updates: updates up to the target loss, or to the end; fewest updates, fewest examples: the smallest "
            "numbers of updates and of samples with any batch size; critical batch size: fewest examples divided by "
            "fewest updates, with its harmonic mean",
            *([f"in brackets: {size.about()}"] if size.has_interval else []),
        ]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        means = {"min_steps": self.min_steps, "min_examples": self.min_examples}
        return {"critical_batch_size": self.estimate.to_dict(), **means, "trials": self.trials}

    def plot(self, ax: Any = None) -> "CriticalBatchSizeDisplay":
        """Draw the noise scale along training; return a `CriticalBatchSizeDisplay`."""
        from sklgap.experiments._plot._critical_batch_size import CriticalBatchSizeDisplay

        return CriticalBatchSizeDisplay.from_result(self, ax=ax)


# -- one training ------------------------------------------------------------------------------------------------------


def measure_training(
    estimator: Any,
    X: Any,
    y: Any,
    trial: int,
    seed: int,
    target_loss: float | None,
    n_batches: int,
    batch_norm: BatchNormPolicy,
    max_samples: int | float | None,
    memory: str | Path | None = None,
) -> Measured:
    """Train, measure the noise along the way, and return the figures of the training."""
    X, y = in_memory(X), in_memory(y)
    noise = partial(
        measure_noise, X=X, y=y, n_batches=n_batches, max_samples=max_samples, batch_norm=batch_norm, seed=seed
    )
    at_updates = [0, *log_spaced_updates(_PER_DOUBLING)]
    found = train_recorded(
        estimator,
        X,
        y,
        {"random_state": seed},
        target_loss,
        batch_norm,
        max_samples,
        at_updates,
        {"noise": noise},
        memory,
    )
    last = float(found["n_updates"][-1])
    end = math.nan if target_loss is None else updates_to_loss(found, target_loss)
    reached = None if target_loss is None else not math.isnan(end)
    end = end if reached else last
    steps, examples = minimal_work(found, end)
    if not examples > 0:
        raise ValueError("X must have samples that differ; here all batches have the same gradient, without noise.")
    record = {
        "trial": trial,
        "seed": seed,
        "batch_size": int(found["noise_batch_size"][0]),
        "n_updates": end,
        "reached": reached,
        "min_steps": steps,
        "min_examples": examples,
        "critical_batch_size": examples / steps if steps > 0 else math.inf,
        "lowest_loss": lowest_loss(found),
        "n_updates_trained": int(last),
    }
    names = {"noise_trace": "trace", "noise_squared_gradient_norm": "squared_gradient_norm"}
    names = {"n_updates": "n_updates", "train_loss": "loss", **names, "noise_noise_scale": "noise_scale"}
    return Measured(record, {new: found[old] for old, new in names.items()})


def measure_noise(
    net: Any,
    X: Any,
    y: Any,
    n_batches: int,
    max_samples: int | float | None,
    batch_norm: BatchNormPolicy,
    seed: int,
) -> dict[str, float]:
    """Return the noise of a net's gradients at the batch size of its current epoch."""
    # Before the first epoch, the batch size is that of the regime.
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


def minimal_work(record: dict[str, np.ndarray], end: float) -> tuple[float, float]:
    """Return S_min and E_min of a recorded training up to ``end`` updates."""
    n_updates, size = record["n_updates"], record["noise_batch_size"]
    trace, square = record["noise_trace"], record["noise_squared_gradient_norm"]
    # 1 / (1 + trace / square / B), and trace / square times that; B square + trace is B E||g_B||^2, and positive.
    both = size * square + trace
    known = np.isfinite(both) & (both > 0)
    if not known.any():
        raise ValueError("The gradients must be finite along training, but no measured one is. Try a smaller lr.")
    points = np.append(n_updates[known & (n_updates < end)], end)
    steps, examples = (
        float(np.trapezoid(np.interp(points, n_updates[known], size[known] * part[known] / both[known]), points))
        for part in (square, trace)
    )
    return steps, examples


def _harmonic_mean(inverses: np.ndarray) -> Estimate:
    """Return the critical batch size whose inverse is the mean over the trials, and its interval.

    The inverse of a trial whose gradients are lost in their noise is finite, and may be negative.
    """
    found = mean_estimate(inverses)
    value = 1 / found.value if found.value > 0 else math.inf
    if not found.has_interval or found.high <= 0:
        return Estimate(value, -math.inf, math.inf, found.n)
    return Estimate(value, 1 / found.high, 1 / found.low if found.low > 0 else math.inf, found.n)
