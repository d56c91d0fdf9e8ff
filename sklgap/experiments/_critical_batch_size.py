"""``critical_batch_size``: the batch size beyond which larger batches stop paying in the speed of optimisation."""

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

# Measurements of the noise for every doubling of the updates.
_PER_DOUBLING = 4


class Measured(NamedTuple):
    """One training: its figures, and the noise along it."""

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
    r"""Critical batch size of a training: beyond it, larger batches save few updates.

    The estimator is trained with its own, small, batches, and the gradient noise scale
    :math:`\mathcal B = \mathrm{tr}(\Sigma) / \|g\|^2` is measured along the way. A step on B samples does the work of
    :math:`ds = dt / (1 + \mathcal B / B)` steps without noise, so that the training would take at least

    .. math:: S_{min} = \int \frac{dt}{1 + \mathcal B / B} \;\text{ updates}, \qquad
        E_{min} = \int \frac{\mathcal B \, dt}{1 + \mathcal B / B} \;\text{ samples}, \qquad
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
    max_samples : int, float or None, default=10_000
        Training samples that mini-batches and losses are taken from: their number, or a fraction in (0, 1]. None: all.
    random_state, n_jobs, memory, verbose
        As in every experiment; `sklgap.experiments` explains them.

    Returns
    -------
    CriticalBatchSize
        Prints as a table with its assumptions. Interrupted by Ctrl-C it holds the trainings that had finished.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, or a target that the initial weights have reached.
    TypeError
        For an estimator that is not an `LBGapClassifier` and does not end in one.

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
    """What `critical_batch_size` found, predicted from the noise of the gradients; ``print`` it.

    Attributes
    ----------
    estimate : Estimate
        In samples: the harmonic mean over the trials, and its 95 % interval by Student's t of the inverses; infinite
        where gradients are lost in their noise throughout. The interval covers the seeds and the noise of the
        measurement, not the assumptions.
    records : list of dict
        One per finished training, by trial: ``n_updates`` that count, ``reached`` (whether the target loss was, None
        without one), ``batch_size`` (the first, where it varies), ``min_steps``, ``min_examples``,
        ``critical_batch_size``, ``lowest_loss``, ``n_updates_trained``.
    trials : list of dict of ndarrays
        The noise along these trainings, in the same order: ``n_updates``, ``loss``, and there ``trace``,
        ``squared_gradient_norm`` (negative where noise prevails) and ``noise_scale`` (then infinite).
    notes : list of str
        What a reader must know before believing the figures.
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
        """The estimate itself."""
        return self.estimate.value

    @property
    def low(self) -> float:
        """Lower end of the interval; 0 where the trials do not bound it."""
        return max(0.0, self.estimate.low)

    @property
    def high(self) -> float:
        """Upper end of the interval; infinite where the trials do not bound it."""
        return self.estimate.high

    @property
    def min_steps(self) -> float:
        """The fewest updates that the same training would take, on average over the trials."""
        return max(0.0, float(self.values("min_steps").mean()))

    @property
    def min_examples(self) -> float:
        """The fewest samples that the same training would take, on average over the trials."""
        return float(self.values("min_examples").mean())

    # -- printing --------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """What a reader must know before believing the figures, in plain sentences."""
        return [
            *notes.interrupted(self.interrupted, len(self.records), self.settings["n_trials"], "training"),
            *self._missed(),
            *notes.no_interval({"the critical batch size": self.estimate}),
            "The prediction assumes that curvature is the same in all directions, plain gradient steps and the best "
            "learning rate at every batch size: it is good for an order of magnitude, and no interval covers that.",
            "It is about the speed of optimisation, not about test accuracy.",
        ]

    def _missed(self) -> list[str]:
        missed = [record for record in self.records if record["reached"] is False]
        if not missed:
            return []
        return [
            f"{len(missed)} of {count(len(self.records), 'training')} did not reach target_loss="
            f"{self.settings['target_loss']:g} before the stopping rule or max_epochs ended it; the lowest loss is "
            f"{min(record['lowest_loss'] for record in missed):.3g}, and all updates of these count."
        ]

    def _verdict(self) -> list[str]:
        size, target = self.estimate, self.settings["target_loss"]
        until = "over the whole training" if target is None else f"to a training loss of {target:g}"
        if math.isinf(size.value):
            return [
                f"Gradients are lost in their noise {until}: every batch size tried would be below the critical one."
            ]
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
            f"gradient noise scale of {s['n_batches']} batches of {size:,} at each of its points along training",
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
            "updates: those that count; fewest updates: with batches of all sizes at least; fewest examples: samples, "
            "with batches of all sizes at least; critical batch size: their ratio, and its harmonic mean",
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
    """Train, measure the noise along the way, and add up what it says of the training."""
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
        raise ValueError("X must have samples that differ: all batches have the same gradient, which has no noise.")
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
    # Before the first epoch has begun: what it will be.
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
        raise ValueError("The gradients must be finite along training; none of those measured was: try a smaller lr.")
    points = np.append(n_updates[known & (n_updates < end)], end)
    steps, examples = (
        float(np.trapezoid(np.interp(points, n_updates[known], size[known] * part[known] / both[known]), points))
        for part in (square, trace)
    )
    return steps, examples


def _harmonic_mean(inverses: np.ndarray) -> Estimate:
    """Return the critical batch size whose inverse is the mean over the trials, and its interval.

    The inverse is finite, and may fall below 0, where a trial's gradients are lost in their noise.
    """
    found = mean_estimate(inverses)
    value = 1 / found.value if found.value > 0 else math.inf
    if not found.has_interval or found.high <= 0:
        return Estimate(value, -math.inf, math.inf, found.n)
    return Estimate(value, 1 / found.high, 1 / found.low if found.low > 0 else math.inf, found.n)
