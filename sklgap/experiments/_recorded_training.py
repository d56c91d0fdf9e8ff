"""A training whose loss is recorded at logarithmically spaced updates, until it has reached a target."""

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sklgap.inspection import recorded
from sklgap.training import TrainingRecorder

# An epoch's training loss is a mean over the epoch, of batches in training mode. Training goes on until it is so far
# below the target that the loss recorded must have reached it.
BELOW = 0.8
_RECORDER = "recorded_training"


def train_recorded(
    estimator: Any,
    X: Any,
    y: Any,
    parameters: dict[str, Any],
    target_loss: float | None,
    batch_norm: str,
    max_samples: int | float | None,
    at_updates: list[int],
    measurements: dict[str, Callable[[Any], Any]] | None = None,
) -> dict[str, np.ndarray]:
    """Train a clone, until it is safely below the target, and return what was recorded on the way."""
    recorder = TrainingRecorder(
        {"train": (X, y)},
        measurements,
        every=sys.maxsize,  # the last state is recorded
        at_updates=at_updates,
        batch_norm=batch_norm,
        max_samples=max_samples,
        random_state=parameters["random_state"],
    )
    if target_loss is not None:
        parameters = {**parameters, "target_loss": BELOW * target_loss}
    model = clone(estimator).set_params(**parameters)
    model.set_params(callbacks=[*(model.callbacks or []), (_RECORDER, recorder)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what was not reached is reported
        model.fit(X, y)
    return recorded(model, _RECORDER)


def first_reached(n_updates: np.ndarray, loss: np.ndarray, target_loss: float) -> float:
    """Return when the loss was first at the target, interpolated between records; NaN where it never was."""
    there = np.flatnonzero(loss <= target_loss)
    if not len(there):
        return math.nan
    i = int(there[0])
    if i == 0 or not math.isfinite(loss[i - 1]):
        return float(n_updates[i])
    share = (loss[i - 1] - target_loss) / (loss[i - 1] - loss[i])
    return float(n_updates[i - 1] + share * (n_updates[i] - n_updates[i - 1]))
