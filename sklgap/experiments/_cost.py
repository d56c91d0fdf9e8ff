"""What a sweep over batch sizes will cost, from steps measured on the real data."""

import time
from dataclasses import dataclass
from typing import Any

import joblib

from sklgap.experiments._recorded_training import without_head
from sklgap.experiments._result import count
from sklgap.experiments._trials import Measuring, take, with_parameters
from sklgap.inspection._sharpness import usual_gradients
from sklgap.objective import check_objective
from sklgap.regimes import n_batches, updates_of_epochs
from sklgap.training._step_timer import StepTimer

# Gradients are measured until so many seconds or so many of them.
_GRADIENT_SECONDS, _MOST_GRADIENTS = 0.3, 5
# What a training step is not changed by; the sweep sets the rest.
_TIMED = {
    "max_epochs": 1,
    "memory": None,
    "tol": None,
    "target_loss": None,
    "regime_adaptation": False,
    "lr_scaling": None,
    "lr_warmup_epochs": 0,
    "random_state": None,
    "warm_start": False,
    "verbose": 0,
}


@dataclass(frozen=True)
class SweepCost:
    """The cost of a sweep before it starts; ``print`` it.

    Attributes
    ----------
    batch_sizes : list of int
        Rows of a batch.
    step_seconds : list of float
        Of an optimiser step, measured, by batch size.
    updates : list of int
        Of one fit, if no stopping rule ends it early, by batch size.
    n_fits : list of int
        Fits of each batch size.
    fit_seconds : float
        Of all fits, one after the other.
    measure_seconds : tuple of float
        Of all their evaluations and measurements of sharpness: from, to. A search for a maximum ends when it ends.
    n_jobs : int
        Fits at once.
    """

    batch_sizes: list[int]
    step_seconds: list[float]
    updates: list[int]
    n_fits: list[int]
    fit_seconds: float
    measure_seconds: tuple[float, float]
    n_jobs: int

    @property
    def seconds(self) -> tuple[float, float]:
        """Time until the end, from and to, if fits at once are as fast as one."""
        low, high = ((self.fit_seconds + measuring) / self.n_jobs for measuring in self.measure_seconds)
        return low, high

    def __str__(self) -> str:
        total = sum(n * updates for n, updates in zip(self.n_fits, self.updates, strict=True))
        at_once = "" if self.n_jobs == 1 else f", if {self.n_jobs} fits at once are as fast as one"
        lines = [
            f"cost: {count(sum(self.n_fits), 'fit')}, at most {total:,} updates, about {between(*self.seconds)}"
            f"{at_once} (training {duration(self.fit_seconds)}, measuring {between(*self.measure_seconds)}); less "
            "where training stops early, and for what memory has kept"
        ]
        for size, n, updates, seconds in zip(
            self.batch_sizes, self.n_fits, self.updates, self.step_seconds, strict=True
        ):
            lines.append(
                f"  batches of {size:>6,}: {count(n, 'fit')} of {updates:,} updates, {1000 * seconds:.3g} ms each "
                "as measured now"
            )
        return "\n".join(lines)


def measure_cost(
    estimator: Any,
    parameters: dict[int, dict[str, Any]],
    n_fits: int,
    n_tuning_fits: int,
    train: tuple[Any, Any],
    n_evaluated: int,
    measuring: Measuring,
    n_jobs: int | None,
) -> SweepCost:
    """Train a clone for some steps with every batch size, and add up what all fits will take.

    Parameters
    ----------
    estimator : estimator
        Cloned.
    parameters : dict
        Batch size to parameters of the classifier.
    n_fits, n_tuning_fits : int
        Fits of each size that are measured on, and that are not.
    train : tuple
        X and y.
    n_evaluated : int
        Rows beside the training data that each fit is evaluated on.
    measuring : Measuring
        What each fit is measured for.
    n_jobs : int or None
        As in joblib.
    """
    classifier, X = without_head(estimator, *train)
    timers = {size: _time_steps(classifier, own, X, train[1]) for size, own in parameters.items()}
    updates, fit_seconds = [], 0.0
    for size, timer in timers.items():
        batches = _n_batches(with_parameters(classifier, parameters[size]), size, timer.n_samples_)
        updates.append(batches * timer.updates_per_batch_)
        fit_seconds += (n_fits + n_tuning_fits) * batches * timer.seconds_
    row_seconds = _gradient_seconds(next(iter(timers.values())).net_, X, train[1], measuring) / len(measuring.rows)
    searches = [usual_gradients(measuring.solver, dim is not None) for dim in measuring.subspace_dims]
    # After a fit: batch-norm statistics, training accuracy, and the report's evaluation; a third of a gradient each.
    evaluation = (3 * len(train[1]) + n_evaluated) * row_seconds / 3
    n_rows = len(measuring.epsilons) * len(measuring.rows)
    low, high = (
        len(timers) * (n_fits * (evaluation + n_rows * sum(ends) * row_seconds) + n_tuning_fits * evaluation)
        for ends in ([search[i] for search in searches] for i in (0, 1))
    )
    return SweepCost(
        batch_sizes=list(timers),
        step_seconds=[timer.seconds_ / timer.updates_per_batch_ for timer in timers.values()],
        updates=updates,
        n_fits=[n_fits + n_tuning_fits] * len(timers),
        fit_seconds=fit_seconds,
        measure_seconds=(low, high),
        n_jobs=joblib.effective_n_jobs(n_jobs),
    )


def duration(seconds: float) -> str:
    """Return "12 s", "3.4 min" or "5.6 h"."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.{0 if seconds >= 20 * unit else 1}f} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def between(low: float, high: float) -> str:
    """Return "2.0 min to 5.6 h", or one duration where both are as good as equal."""
    return duration(high) if high < 1.2 * low else f"{duration(low)} to {duration(high)}"


def _time_steps(classifier: Any, parameters: dict[str, Any], X: Any, y: Any) -> StepTimer:
    timer = StepTimer()
    model = with_parameters(classifier, {**parameters, **_TIMED})
    model.set_params(callbacks=[*(model.callbacks or []), ("step_timer", timer)])
    try:
        model.fit(X, y)
    except KeyboardInterrupt:
        if not timer.stopped_:
            raise
    return timer


def _n_batches(model: Any, size: int, n_samples: int) -> int:
    """Return the batches of a whole fit."""
    if model.regime_adaptation:
        return updates_of_epochs(model.max_epochs, min(model.base_batch_size, n_samples), n_samples)
    return model.max_epochs * n_batches(n_samples, min(size, n_samples))


def _gradient_seconds(net: Any, X: Any, y: Any, measuring: Measuring) -> float:
    rows = measuring.rows
    objective = check_objective(net, take(X, rows), take(y, rows), batch_norm=measuring.batch_norm)
    seconds: list[float] = []
    while sum(seconds) < _GRADIENT_SECONDS and len(seconds) < _MOST_GRADIENTS:
        started = time.perf_counter()
        objective.gradient()
        seconds.append(time.perf_counter() - started)
    return min(seconds)  # the first one warms up
