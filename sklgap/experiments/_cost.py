"""The expected cost of an experiment, from training steps that are measured on the real data."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np

from sklgap._checks import check_integer
from sklgap._threads import using_threads
from sklgap._typing import BatchNormPolicy
from sklgap.experiments._inputs import without_head
from sklgap.experiments._protocol import Measuring, take, with_parameters
from sklgap.experiments._result import count
from sklgap.inspection._sharpness import usual_gradients
from sklgap.objective import check_objective
from sklgap.objective._estimators import final_estimator
from sklgap.regimes import default_base_batch_size, n_batches, updates_of_epochs
from sklgap.training._step_timer import StepTimer

# Gradients are timed until this many seconds have passed, or this many gradients are measured.
_GRADIENT_SECONDS, _MOST_GRADIENTS = 0.3, 5
_MOST_ROWS = 1000
# Parameters that do not change a training step; the experiment sets the others.
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
class Cost:
    """The expected cost of an experiment; ``print`` shows it.

    Attributes
    ----------
    labels : list of str
        Names of the settings that are trained.
    step_seconds : list of float
        Measured seconds of one optimiser step, by label.
    updates : list of int
        Updates of one fit if no stopping rule ends it early, by label.
    n_fits : list of int
        Number of fits, by label.
    fit_seconds : float
        Seconds of all fits, one after the other.
    measure_seconds : tuple of float
        Least and largest seconds of all evaluations and measurements of sharpness. The duration of a search for a
        maximum is not known beforehand.
    n_jobs : int
        Number of fits that run at the same time.
    """

    labels: list[str]
    step_seconds: list[float]
    updates: list[int]
    n_fits: list[int]
    fit_seconds: float
    measure_seconds: tuple[float, float]
    n_jobs: int

    @property
    def seconds(self) -> tuple[float, float]:
        """Least and largest time until the end, if fits that run at the same time are as fast as a single fit."""
        low, high = ((self.fit_seconds + measuring) / self.n_jobs for measuring in self.measure_seconds)
        return low, high

    def __str__(self) -> str:
        total = sum(n * updates for n, updates in zip(self.n_fits, self.updates, strict=True))
        at_once = "" if self.n_jobs == 1 else f", if {self.n_jobs} fits at the same time are as fast as one"
        lines = [
            f"cost: {count(sum(self.n_fits), 'fit')}, at most {total:,} updates, about {between(*self.seconds)}"
            f"{at_once} (training {duration(self.fit_seconds)}, measuring {between(*self.measure_seconds)}). Early "
            "stopping and saved work make it less."
        ]
        width = max(len(label) for label in self.labels)
        for label, n, updates, seconds in zip(self.labels, self.n_fits, self.updates, self.step_seconds, strict=True):
            each = f"{1000 * seconds:.3g} ms each as measured now"
            lines.append(f"  {label:<{width}}: {count(n, 'fit')} of {updates:,} updates, {each}")
        return "\n".join(lines)


def measure_cost(
    estimator: Any,
    parameters: Mapping[str, Mapping[str, Any]],
    n_fits: int,
    train: tuple[Any, Any],
    *,
    n_evaluated: int = 0,
    measuring: Measuring | None = None,
    n_records: int = 1,
    n_more_fits: int = 0,
    n_jobs: int | None = None,
) -> Cost:
    """Train a clone for some steps with every setting, and add up the time of all fits.

    Parameters
    ----------
    estimator : estimator
        Estimator that is cloned.
    parameters : dict
        Parameters of the classifier, by label.
    n_fits, n_more_fits : int
        Number of fits of each label whose sharpness is measured, and of further fits that are only evaluated.
    train : tuple
        X and y.
    n_evaluated : int
        Number of samples, besides the training data, that each fit is evaluated on.
    measuring : Measuring or None
        Measurements of each fit. None means losses alone.
    n_records : int
        How often each fit is measured.
    n_jobs : int or None
        As in joblib.
    """
    check_integer("max_epochs", final_estimator(estimator).max_epochs)
    classifier, X = without_head(estimator, *train)
    timers = {label: time_steps(classifier, own, X, train[1]) for label, own in parameters.items()}
    updates, fit_seconds = [], 0.0
    for label, timer in timers.items():
        batches = _n_batches(with_parameters(classifier, parameters[label]), timer)
        updates.append(batches * timer.updates_per_batch_)
        fit_seconds += (n_fits + n_more_fits) * batches * timer.seconds_
    n_train, timed = len(train[1]), next(iter(timers.values()))
    rows = np.arange(min(n_train, _MOST_ROWS)) if measuring is None else measuring.rows
    policy = "batch" if measuring is None else measuring.batch_norm
    with using_threads(timed.n_threads_):  # as trials are measured
        row_seconds = _gradient_seconds(timed.net_, X, train[1], rows, policy) / len(rows)
    dims, solver = ((), "auto") if measuring is None else (measuring.subspace_dims, measuring.solver)
    searches = [usual_gradients(solver, dim) for dim in dims]
    # After a fit: batch-norm statistics, training accuracy and the evaluation for the report, each about a third of a
    # gradient.
    evaluation = (3 * n_train + n_evaluated) * row_seconds / 3
    n_rows = 0 if measuring is None else len(measuring.epsilons) * len(rows)
    low, high = (
        len(timers) * (n_fits * n_records * (evaluation + n_rows * sum(ends) * row_seconds) + n_more_fits * evaluation)
        for ends in ([search[i] for search in searches] for i in (0, 1))
    )
    return Cost(
        labels=list(timers),
        step_seconds=[timer.seconds_ / timer.updates_per_batch_ for timer in timers.values()],
        updates=updates,
        n_fits=[n_fits + n_more_fits] * len(timers),
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
    """Return "2.0 min to 5.6 h", or one duration if both are nearly equal."""
    return duration(high) if high < 1.2 * low else f"{duration(low)} to {duration(high)}"


def time_steps(classifier: Any, parameters: Mapping[str, Any], X: Any, y: Any) -> StepTimer:
    """Train a clone for some steps, and return the timer, which also holds the net."""
    timer = StepTimer()
    model = with_parameters(classifier, {**parameters, **_TIMED})
    model.set_params(callbacks=[*(model.callbacks or []), ("step_timer", timer)])
    try:
        model.fit(X, y)
    except KeyboardInterrupt:
        if not timer.stopped_:
            raise
    return timer


def _n_batches(model: Any, timer: StepTimer) -> int:
    """Return the number of batches of a whole fit. For an adaptive regime, all epochs count like the first."""
    n, regime = timer.n_samples_, timer.net_.regime
    if model.regime_adaptation:
        base = default_base_batch_size(n) if model.base_batch_size is None else model.base_batch_size
        return updates_of_epochs(model.max_epochs, min(base, n), n)
    if regime.adaptive or not regime.varies:
        return model.max_epochs * n_batches(n, min(regime.batch_size(0, n), n))
    return sum(n_batches(n, min(regime.batch_size(epoch, n), n)) for epoch in range(model.max_epochs))


def _gradient_seconds(net: Any, X: Any, y: Any, rows: np.ndarray, batch_norm: BatchNormPolicy) -> float:
    objective = check_objective(net, take(X, rows), take(y, rows), batch_norm=batch_norm)
    seconds: list[float] = []
    while sum(seconds) < _GRADIENT_SECONDS and len(seconds) < _MOST_GRADIENTS:
        started = time.perf_counter()
        objective.gradient()
        seconds.append(time.perf_counter() - started)
    return min(seconds)  # the first one warms up
