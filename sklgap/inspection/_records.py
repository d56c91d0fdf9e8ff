"""The records of a `TrainingRecorder`, as arrays."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sklgap._checks import check_arguments, shown
from sklgap._typing import BatchNormPolicy, Estimator
from sklgap.objective._estimators import net_of as net_of


def recorded(estimator: Estimator, name: str | None = None) -> dict[str, np.ndarray]:
    """Return the records that a `sklgap.TrainingRecorder` wrote while the estimator was trained.

    Parameters
    ----------
    estimator : estimator
        A fitted `LBGapClassifier` or skorch net with a recorder among its callbacks, or a pipeline or a search that
        ends in one.
    name : str, default=None
        Name of the callback. It is needed if there are several recorders.

    Returns
    -------
    dict of ndarrays of shape (n_records,)
        Arrays in the order of training: ``n_updates`` (int), ``epoch`` (float; 1.5 is the middle of the second epoch),
        ``weight_distance`` (Euclidean, from the initial weights), then the recorded values as floats. NaN stands for a
        missing value. The arrays are copies.

    Raises
    ------
    ValueError
        If the estimator has no recorder (of this name), or has several recorders and no name is given.
    sklearn.exceptions.NotFittedError
        If the estimator has not been fitted.

    See Also
    --------
    sklgap.TrainingRecorder : Writes the records.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, TrainingRecorder
    >>> from sklgap.inspection import recorded
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None, callbacks=[("recorder", TrainingRecorder())])
    >>> recorded(model.fit(X / 16, y))["epoch"]
    array([1., 2., 3.])
    """
    check_arguments(recorded, locals())
    records = recorder_of(estimator, name).records_
    keys = {"n_updates": None, "epoch": None, "weight_distance": None} | {key: None for r in records for key in r}
    columns = {key: np.array([r.get(key, math.nan) for r in records], dtype=float) for key in keys}
    return columns | {"n_updates": np.array([r["n_updates"] for r in records], dtype=int)}


def recorded_by_name(
    estimators: dict[str, Estimator], keys: Mapping[str, str], recorder: str | None
) -> tuple[dict[str, dict[str, np.ndarray]], BatchNormPolicy]:
    """Return columns of several estimators by their names, and the batch-norm policy that they share.

    ``keys`` maps each column to the parameter of the caller that asks for it.
    """
    if not isinstance(estimators, dict) or not estimators:
        got = type(estimators).__name__ if not isinstance(estimators, dict) else "an empty dict"
        raise TypeError(f"estimators must be a dict that maps names to fitted estimators; got {got}.")
    curves = {}
    for label, estimator in estimators.items():
        recorder_of(estimator, recorder, "recorder")
        columns = recorded(estimator, recorder)
        for key, parameter in keys.items():
            if key not in columns:
                raise ValueError(
                    f"estimators[{label!r}] must have records of {key!r}, which {parameter} asks for; "
                    f"got {', '.join(columns)}."
                )
        curves[label] = {key: columns[key] for key in keys}
    policies = {recorder_of(estimator, recorder).batch_norm for estimator in estimators.values()}
    if len(policies) > 1:
        raise ValueError(f"estimators must have records under the same batch-norm policy; got {sorted(policies)}.")
    return curves, policies.pop()


def recorder_of(estimator: Any, name: str | None, parameter: str = "name") -> Any:
    """Return the recorder among the callbacks of a fitted estimator. ``parameter`` is the user's name for its name."""
    net = net_of(estimator)
    if not hasattr(net, "callbacks_"):
        raise TypeError(
            "estimator must be a fitted LBGapClassifier or skorch net, or a pipeline or a search that ends in one; "
            f"got {shown(estimator)}."
        )
    found = {key: callback for key, callback in getattr(net, "callbacks_", ()) if hasattr(callback, "records_")}
    if name is None and len(found) == 1:
        name = next(iter(found))
    if not isinstance(name, str) or name not in found:
        raise ValueError(
            f"{parameter} must be the name of a TrainingRecorder among the callbacks of the fit "
            f"(recorders of this fit: {', '.join(map(repr, found)) or 'no recorder'}); got {shown(name)}."
        )
    return found[name]
