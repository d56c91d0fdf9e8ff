"""What an experiment will cost, from steps measured on the real data."""

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

# Gradients are measured until so many seconds or so many of them.
_GRADIENT_SECONDS, _MOST_GRADIENTS = 0.3, 5
_MOST_ROWS = 1000
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
class Cost:
    """The cost of an experiment before it starts; ``print`` it.

    Attributes
    ----------
    labels : list of str
        What is trained.
    step_seconds : list of float
        Of an optimiser step, measured, by label.
    updates : list of int
        Of one fit, if no stopping rule ends it early, by label.
    n_fits : list of int
        By label.
    fit_seconds : float
        Of all fits, one after the other.
    measure_seconds : tuple of float
        Of all their evaluations and measurements of sharpness: from, to. A search for a maximum ends when it ends.
    n_jobs : int
        Fits at once.
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
        """Time until the end, from and to, if fits at once are as fast as one."""
        low, high = ((self.fit_seconds + measuring) / self.n_jobs for measuring in self.measure_seconds)
        return low, high

    def __str__(self) -> str:
        total = sum(n * updates for n, updates in zip(self.n_fits, self.updates, strict=True))
        at_once = "" if self.n_jobs == 1 else f", if {self.n_jobs} fits at once are as fast as one"
        lines = [
            f"cost: {count(sum(self.n_fits), 'fit')}, at most {total:,} updates, about {between(*self.seconds)}"
            f"{at_once} (training {duration(self.fit_seconds)}, measuring {between(*self.measure_seconds)}). It is "
            "less where training stops early, and for saved work."
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
    """Train a clone for some steps in every way, and add up what all fits will take.

    Parameters
    ----------
    estimator : estimator
        Cloned.
    parameters : dict
        Label to parameters of the classifier.
    n_fits, n_more_fits : int
        Fits of each label whose sharpness is measured, and further ones that are evaluated alone.
    train : tuple
        X and y.
    n_evaluated : int
        Samples beside the training data that each fit is evaluated on.
    measuring : Measuring or None
        What each fit is measured for; None: losses alone.
    n_records : int
        How often a fit is measured.
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
    # After a fit: batch-norm statistics, training accuracy, and the report's evaluation; a third of a gradient each.
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
    """Return "2.0 min to 5.6 h", or one duration where both are as good as equal."""
    return duration(high) if high < 1.2 * low else f"{duration(low)} to {duration(high)}"


def time_steps(classifier: Any, parameters: Mapping[str, Any], X: Any, y: Any) -> StepTimer:
    """Train a clone for some steps; the timer that is returned has the net too."""
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
    """Return the batches of a whole fit; of a regime that adapts, as if all epochs were like the first."""
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
