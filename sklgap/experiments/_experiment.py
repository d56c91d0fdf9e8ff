"""Checks that experiments share: what is wrong is found before anything is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils import indexable

from sklgap._checks import WrongArgument, check_integer, is_flat, is_one_of, naming_data, shown
from sklgap.estimator import LBGapClassifier
from sklgap.experiments._result import text_of
from sklgap.experiments._trials import Measuring, last_step, with_parameters
from sklgap.inspection._sharpness import SOLVERS, check_epsilons
from sklgap.memory import check_memory
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.regimes import check_batch_regime


def check_data(X: Any, y: Any, X_test: Any, y_test: Any) -> tuple[Any, Any, Any, Any]:
    """Return training and test data that can be indexed and belong together."""
    X, y = check_rows(X, y)
    X_test, y_test = check_rows(X_test, y_test, "X_test", "y_test")
    with naming_data("y", "y_test"):
        unseen = np.setdiff1d(np.asarray(y_test), np.asarray(y))
    if len(unseen):
        raise ValueError(f"y_test must have labels that y has; got {unseen} beside them.")
    if np.shape(X)[1:] != np.shape(X_test)[1:]:
        raise ValueError(f"X_test must have rows like those of X, {np.shape(X)[1:]}; got {np.shape(X_test)[1:]}.")
    return X, y, X_test, y_test


def check_rows(X: Any, y: Any, *names: str) -> tuple[Any, Any]:
    """Return data that can be indexed and belong together; ``names`` are what the user calls them if not X and y."""
    names = names or ("X", "y")
    for name, value in zip(names, (X, y), strict=True):
        if value is None:
            raise WrongArgument(f"{name} must be an array with a row per sample; got None.")
    with naming_data(*names):
        X, y = indexable(X, y)
    return X, y


def check_keepable(memory: Any, random_state: Any) -> None:
    """Raise a ValueError for a memory of work that cannot be the same twice."""
    if memory is None:
        return
    check_memory(memory)
    if random_state is None:
        raise ValueError("memory must be None while random_state is None: no other run could be the same.")


def check_classifier(estimator: Any) -> LBGapClassifier:
    """Return the classifier that an experiment trains; TypeError for what has none to set a batch size of."""
    classifier = last_step(estimator)
    if not isinstance(classifier, LBGapClassifier):
        got = f"the class {estimator.__name__}" if isinstance(estimator, type) else type(classifier).__name__
        raise TypeError(f"estimator must be an LBGapClassifier or a pipeline that ends in one; got {got}.")
    return classifier


def check_candidate(estimator: Any, parameters: Mapping[str, Any], n_samples: int) -> None:
    """Raise where the estimator has not these parameters, or a regime is none for so many rows."""
    check_classifier(estimator)
    candidate = last_step(with_parameters(estimator, dict(parameters)))
    check_batch_regime(candidate.batch_regime, n_samples).batch_size(0, n_samples)


def check_regimes(regimes: Any) -> dict[str, Mapping[str, Any]]:
    """Return the parameters of each regime by its label."""
    if isinstance(regimes, str) or not isinstance(regimes, Mapping | Sequence) or not len(regimes):
        raise ValueError(f"regimes must be a sequence of batch regimes or a dict label -> parameters; got {regimes!r}.")
    if isinstance(regimes, Mapping):
        overrides = {str(label): parameters for label, parameters in regimes.items()}
        for label, parameters in overrides.items():
            if not isinstance(parameters, Mapping):
                raise ValueError(f"regimes[{label!r}] must be a dict of parameters; got {parameters!r}.")
    else:
        overrides = {str(regime): {"batch_regime": regime} for regime in regimes}
    # An estimator's own batch_size would override every regime.
    overrides = {
        label: {"batch_size": None, **parameters} if "batch_regime" in parameters else parameters
        for label, parameters in overrides.items()
    }
    if len(overrides) < len(regimes):
        raise ValueError(f"regimes must have different labels; got {regimes!r}.")
    if any("random_state" in parameters for parameters in overrides.values()):
        raise ValueError("regimes must not set random_state: each trial starts all of them from its own.")
    return overrides


def described(overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the parameters of each label as JSON knows them: what it does not know as its text."""
    return {label: {name: _plain(value) for name, value in values.items()} for label, values in overrides.items()}


def check_measuring(
    epsilons: Any,
    subspace_dims: Any,
    batch_norm: str,
    solver: str,
    max_samples: int | None,
    n_samples: int,
    rng: np.random.RandomState,
) -> Measuring:
    """Return what is measured, on rows that are drawn here."""
    check_batch_norm(batch_norm)
    if not is_one_of(solver, SOLVERS):
        raise ValueError(f"solver must be one of {', '.join(map(repr, SOLVERS))}; got {solver!r}.")
    return Measuring(
        _check_epsilons(epsilons),
        _check_dims(subspace_dims) if len(epsilons) else (),
        batch_norm,
        solver,
        _sample_rows(n_samples, max_samples, rng),
    )


def measuring_settings(measuring: Measuring) -> dict[str, Any]:
    """Return what a report says about the measurements."""
    return {
        "epsilons": list(measuring.epsilons),
        "subspace_dims": list(measuring.subspace_dims),
        "batch_norm": measuring.batch_norm,
        "n_samples_sharpness": len(measuring.rows),
        "solver": measuring.solver,
    }


def check_epsilon(epsilon: Any) -> float:
    """Return the one epsilon of an experiment."""
    if isinstance(epsilon, Sequence) or np.ndim(epsilon):
        raise ValueError(f"epsilon must be a number above 0; got {shown(epsilon)}.")
    return check_epsilons(epsilon)[0]


def _check_epsilons(epsilons: Any) -> tuple[float, ...]:
    try:
        if is_flat(epsilons):
            return tuple(check_epsilons(list(epsilons))) if len(epsilons) else ()
    except ValueError as error:  # of one epsilon
        raise ValueError(f"epsilons must hold allowed values: {error}") from error
    raise ValueError(f"epsilons must be a sequence of numbers above 0; got {shown(epsilons)}.")


def _check_dims(dims: Any) -> tuple[int | None, ...]:
    allowed = (
        isinstance(dims, Sequence)
        and len(dims)
        and all(
            dim is None or (isinstance(dim, int | np.integer) and not isinstance(dim, bool) and dim >= 1)
            for dim in dims
        )
    )
    if not allowed:
        raise ValueError(
            f"subspace_dims must be a sequence of None and integers of at least 1, not empty; got {dims!r}."
        )
    return tuple(dims)


def _sample_rows(n_samples: int, max_samples: int | None, rng: np.random.RandomState) -> np.ndarray:
    check_integer("max_samples", max_samples, or_none=True)
    if max_samples is None or max_samples >= n_samples:
        return np.arange(n_samples)
    return np.sort(rng.choice(n_samples, int(max_samples), replace=False))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else text_of(value)
