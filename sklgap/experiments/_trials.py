"""One trial: fit one regime from one starting point, and measure what the papers report; and many of them."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from sklgap._checks import naming_data
from sklgap.estimator._parameters import check_device
from sklgap.inspection import sharpness
from sklgap.memory import Memory, key_of, plain, surroundings
from sklgap.objective import check_objective


@dataclass(frozen=True)
class Trial:
    """One fit to make: ``parameters`` of the classifier beside its ``random_state``, which is ``seed``."""

    label: str
    parameters: dict[str, Any]
    trial: int
    seed: int


@dataclass(frozen=True)
class Measuring:
    """What is measured, and how; equal for all regimes of a comparison.

    ``rows`` are the training rows that sharpness is measured on.
    """

    epsilons: tuple[float, ...]
    subspace_dims: tuple[int | None, ...]
    batch_norm: str
    solver: str
    rows: np.ndarray


def last_step(estimator: Any) -> Any:
    """Return the classifier at the end of a pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator


def with_parameters(estimator: Any, parameters: dict[str, Any]) -> Any:
    """Return a clone with the parameters of its classifier set, which may be the end of a pipeline."""
    prefix = f"{estimator.steps[-1][0]}__" if hasattr(estimator, "steps") else ""
    return clone(estimator).set_params(**{prefix + name: value for name, value in parameters.items()})


def run_trials(
    estimator: Any,
    trials: Sequence[Trial],
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    measuring: Measuring,
    *,
    n_jobs: int | None = None,
    verbose: int = 1,
    memory: str | Path | None = None,
    test_name: str = "test",
    keep_estimators: bool = True,
) -> tuple[list[tuple[dict[str, Any], Any]], bool]:
    """Run all trials under a progress bar.

    Parameters
    ----------
    estimator : estimator
        Cloned for every trial.
    trials : sequence of Trial
        What to fit, in this order.
    train, test : tuple
        X and y.
    measuring : Measuring
        What to measure on each.
    n_jobs : int, default=None
        Fits at once, as in joblib.
    verbose : int, default=1
        0: no bar.
    memory : str or Path, default=None
        Folder that keeps what has finished; see `LBGapClassifier`.
    test_name : str, default="test"
        What the bar calls the data of ``test``.
    keep_estimators : bool, default=True
        False: None in place of every fitted estimator, for experiments of hundreds of fits.

    Returns
    -------
    results : list of (record, fitted estimator)
        In no particular order.
    interrupted : bool
        Whether Ctrl-C ended it; the results are then those that had finished.
    """
    run = run_trial if keep_estimators else _run_for_record
    calls = [delayed(run)(estimator, trial, train, test, measuring, memory) for trial in trials]
    results = []
    try:
        with tqdm(total=len(calls), unit="fit", disable=not verbose) as bar:
            for record, model in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(calls):
                results.append((record, model))
                bar.set_postfix_str(f"{record['regime']}: {test_name} accuracy {100 * record['test_accuracy']:.2f} %")
                bar.update()
    except KeyboardInterrupt:
        if not results:
            raise
        return results, True
    return results, False


def run_trial(
    estimator: Any,
    trial: Trial,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    measuring: Measuring,
    memory: str | Path | None = None,
) -> tuple[dict[str, Any], Any]:
    """Return the figures of the trial as a flat record, and the fitted estimator."""
    parameters = {**trial.parameters, "random_state": trial.seed}
    model = with_parameters(estimator, parameters)
    store, key = None, None
    if memory is not None:
        store = Memory(memory, f"{trial.label}, trial {trial.trial}")
        if last_step(model).memory is None:
            model = with_parameters(model, {"memory": memory})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report says which trials had not converged
        model.fit(*train)
    if store is not None:
        plainly = with_parameters(model, {"memory": None, "verbose": 0, "device": "auto"})
        device = check_device(last_step(model).device)
        # The weights too: a fit that is not saved may have come to others.
        fitted = last_step(model).module_.state_dict()
        key = key_of("trial", plainly, fitted, train, test, measuring, surroundings(device))
    measured = None if store is None or key is None else store.read(key, "trial")
    if measured is not None and not _is_record(measured, measuring):
        assert store is not None
        assert key is not None
        store.distrust(key, "trial", "does not hold the figures of this trial")
        measured = None
    if measured is None:
        measured = _measure(model, train, test, measuring, trial.seed)
        if store is not None and key is not None:
            store.write(key, "trial", plain(measured))
    return {"regime": trial.label, "trial": trial.trial, "seed": trial.seed, **measured}, model


# What is measured of a trial beside its sharpness, which the measuring names.
_FIGURES = {
    *("batch_size", "train_accuracy", "test_accuracy", "train_loss", "test_loss", "weight_distance", "n_epochs"),
    *("n_updates", "converged", "fit_seconds", "measure_seconds"),
}


def _is_record(measured: Any, measuring: Measuring) -> bool:
    """Say whether a saved value holds the figures that a trial is measured for, and numbers only."""
    wanted = _FIGURES | {sharpness_key(e, dim) for dim in measuring.subspace_dims for e in measuring.epsilons}
    return isinstance(measured, dict) and measured.keys() == wanted and all(map(_is_figure, measured.values()))


def _is_figure(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float)


def _measure(
    model: Any, train: tuple[Any, Any], test: tuple[Any, Any], measuring: Measuring, seed: int
) -> dict[str, Any]:
    started = time.perf_counter()
    on_train = check_objective(model, *train, batch_norm=measuring.batch_norm).evaluate()
    with naming_data("X_test", "y_test"):
        on_test = check_objective(model, *test, batch_norm=measuring.batch_norm).evaluate()
    classifier = last_step(model)
    record = {
        "batch_size": classifier.history_[-1, "batch_size"],
        "train_accuracy": on_train.accuracy,
        "test_accuracy": on_test.accuracy,
        "train_loss": on_train.loss,
        "test_loss": on_test.loss,
        "weight_distance": classifier.history_[-1, "weight_distance"],
        "n_epochs": classifier.n_iter_,
        "n_updates": classifier.n_updates_,
        "converged": classifier.converged_ if _has_stopping_rule(classifier) else None,
        # Of the epochs themselves: a fit may have been stopped and gone on, or be loaded.
        "fit_seconds": sum(classifier.history_[:, "dur"]),
    }
    X, y = (take(part, measuring.rows) for part in train)
    objective = check_objective(model, X, y, batch_norm=measuring.batch_norm)
    for dim in measuring.subspace_dims:
        if not np.isfinite(objective.value()):  # a regime that diverged must not cost the others
            record.update({sharpness_key(epsilon, dim): np.nan for epsilon in measuring.epsilons})
            continue
        found = sharpness(
            objective, epsilon=measuring.epsilons, subspace_dim=dim, solver=measuring.solver, random_state=seed
        )
        for measured in found:
            record[sharpness_key(measured.epsilon, dim)] = measured.value
    record["measure_seconds"] = time.perf_counter() - started
    return record


def _run_for_record(*arguments: Any) -> tuple[dict[str, Any], None]:
    return run_trial(*arguments)[0], None


def sharpness_key(epsilon: float, subspace_dim: int | None) -> str:
    """Return the name of a sharpness in a record."""
    return f"sharpness_{epsilon:g}" + ("" if subspace_dim is None else f"_dim{subspace_dim}")


def _has_stopping_rule(classifier: Any) -> bool:
    return classifier.tol is not None or classifier.target_loss is not None


def take(data: Any, rows: np.ndarray) -> Any:
    """Return the rows of an array, a DataFrame, a Series, a tensor or a list."""
    if hasattr(data, "iloc"):
        return data.iloc[rows]
    return data[rows] if hasattr(data, "shape") else np.asarray(data)[rows]
