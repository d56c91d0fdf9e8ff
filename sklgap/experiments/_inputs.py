"""Checks of the inputs of experiments, so that errors are found before anything is trained."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import indexable

from sklgap._checks import WrongArgument, is_flat, naming_data, shown
from sklgap._tables import text_of
from sklgap.estimator import LBGapClassifier
from sklgap.experiments._protocol import Measurement, with_parameters
from sklgap.experiments._result import environment
from sklgap.memory import check_memory
from sklgap.objective._estimators import final_estimator
from sklgap.regimes import check_batch_regime


def check_data(
    X: Any, y: Any, X_test: Any, y_test: Any, X_name: str = "X_test", y_name: str = "y_test"
) -> tuple[Any, Any, Any, Any]:
    """Return training and test data, checked to be indexable and consistent; the names are those of the test data."""
    X, y = check_rows(X, y)
    X_test, y_test = check_rows(X_test, y_test, X_name, y_name)
    with naming_data("y", y_name):
        unseen = np.setdiff1d(np.asarray(y_test), np.asarray(y))
    if len(unseen):
        raise ValueError(f"{y_name} must not have labels that y does not have; got {unseen}.")
    if np.shape(X)[1:] != np.shape(X_test)[1:]:
        raise ValueError(
            f"{X_name} must have samples of the same shape as X, {np.shape(X)[1:]}; got {np.shape(X_test)[1:]}."
        )
    return X, y, X_test, y_test


def check_rows(X: Any, y: Any, *names: str) -> tuple[Any, Any]:
    """Return data, checked to be indexable and consistent; ``names`` are the user's names if not X and y."""
    names = names or ("X", "y")
    for name, value in zip(names, (X, y), strict=True):
        if value is None:
            raise WrongArgument(f"{name} must be an array with one row per sample; got None.")
    with naming_data(*names):
        X, y = indexable(X, y)
    return X, y


def check_keepable(memory: Any, random_state: Any) -> None:
    """Raise a ValueError if work is to be saved that is not repeatable."""
    if memory is None:
        return
    check_memory(memory)
    if random_state is None:
        raise ValueError(
            "memory must be None while random_state is None, because no other run could have the same results."
        )


def check_classifier(estimator: Any) -> LBGapClassifier:
    """Return the classifier that an experiment trains; raise a TypeError for an estimator without one."""
    # A clone is used because a fitted search would count as its best estimator.
    classifier = estimator if isinstance(estimator, type) else final_estimator(_unfitted(estimator))
    if not isinstance(classifier, LBGapClassifier):
        got = f"the class {estimator.__name__}" if isinstance(estimator, type) else type(classifier).__name__
        raise TypeError(f"estimator must be an LBGapClassifier or a pipeline that ends in one; got {got}.")
    return classifier


def _unfitted(estimator: Any) -> Any:
    return clone(estimator) if hasattr(estimator, "get_params") else estimator


def check_candidate(estimator: Any, parameters: Mapping[str, Any], n_samples: int) -> None:
    """Raise an error if the estimator lacks these parameters, or if a regime does not fit this number of samples."""
    check_classifier(estimator)
    candidate = final_estimator(with_parameters(estimator, dict(parameters)))
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
        raise ValueError("regimes must not set random_state, because each trial has one random_state for all regimes.")
    return overrides


def check_one_sharpness(measurement: Measurement, experiment: str, given: Any) -> None:
    """Raise a ValueError if an experiment that measures one sharpness is asked for several or for none.

    ``given`` is the ``epsilon`` of the experiment itself, a number. The one of a measurement may be a sequence of one
    number.
    """
    epsilon, dims = measurement.epsilon, measurement.subspace_dims
    if is_flat(given):
        raise ValueError(f"epsilon must be one number for {experiment}; got {shown(given)}.")
    if is_flat(epsilon) and np.size(epsilon) != 1:
        raise ValueError(f"epsilon must be one number for {experiment}; got {shown(epsilon)}.")
    if len(dims) != 1:
        raise ValueError(f"subspace_dims must have one entry for {experiment}; got {shown(dims)}.")


def check_target_loss(target_loss: Any) -> None:
    """Raise a ValueError for a target loss that no training can reach."""
    number = isinstance(target_loss, numbers.Real) and not isinstance(target_loss, bool)
    if not number or not 0 < target_loss < math.inf:
        raise ValueError(f"target_loss must be a number above 0; got {target_loss!r}.")


def check_learning_rates(learning_rates: Any, classifier: LBGapClassifier) -> list[float | None]:
    """Return the learning rates to train with; None stands for the learning rate of the estimator."""
    if learning_rates is None:
        return [None]
    if "optimizer__lr" in classifier.get_params():
        raise ValueError(
            "learning_rates must be None if the estimator has optimizer__lr, which would override them. Set lr instead."
        )
    try:
        rates = np.asarray(learning_rates, dtype=float)
    except (TypeError, ValueError):
        rates = np.empty(0)
    if rates.ndim != 1 or not len(rates) or not ((rates > 0) & np.isfinite(rates)).all():
        raise ValueError(f"learning_rates must be None or a sequence of numbers above 0; got {learning_rates!r}.")
    if len(np.unique(rates)) < len(rates):
        raise ValueError(f"learning_rates must all be different; got {learning_rates!r}.")
    return rates.tolist()


def without_head(estimator: Any, X: Any, y: Any, *others: Any) -> tuple[Any, ...]:
    """Return the classifier at the end of a pipeline, and X and other inputs as this classifier receives them."""
    if not hasattr(estimator, "steps"):
        return estimator, X, *others
    if len(estimator.steps) > 1:
        head = clone(estimator[:-1])
        X, others = head.fit_transform(X, y), tuple(head.transform(other) for other in others)
    return without_head(estimator.steps[-1][1], X, y, *others)  # a pipeline may end in another one


def common_settings(estimator: Any, random_state: Any) -> dict[str, Any]:
    """Return the settings that every result has: what was trained, and where."""
    classifier = check_classifier(estimator)
    return {
        "estimator": text_of(estimator),
        "precision": classifier.precision,
        "predict_batch_norm": "population" if classifier.recompute_batch_norm else "running",
        "random_state": int(random_state) if isinstance(random_state, numbers.Integral) else None,
        "environment": environment(),
    }


def described(overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the parameters of each label in types that JSON has; other objects become their text."""
    return {label: {name: _plain(value) for name, value in values.items()} for label, values in overrides.items()}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else text_of(value)
