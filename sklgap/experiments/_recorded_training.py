"""A training whose loss is recorded at logarithmically spaced updates until it reaches a target."""

import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklgap._typing import BatchNormPolicy
from sklgap.experiments._cost import Cost, measure_cost
from sklgap.experiments._protocol import with_parameters
from sklgap.inspection import recorded
from sklgap.objective._check import drawn_samples
from sklgap.training import TrainingRecorder

# An epoch's training loss is a mean over batches in training mode. Training continues until it is below this fraction
# of the target, so that the recorded loss has reached the target.
BELOW = 0.8
_RECORDER = "recorded_training"


def train_recorded(
    estimator: Any,
    X: Any,
    y: Any,
    parameters: dict[str, Any],
    target_loss: float | None,
    batch_norm: BatchNormPolicy,
    max_samples: int | float | None,
    at_updates: list[int],
    measurements: dict[str, Callable[[Any], Any]] | None = None,
    memory: str | Path | None = None,
) -> dict[str, np.ndarray]:
    """Train a clone until its loss is safely below the target, and return the records of the training.

    A training that ``memory`` holds is loaded with its records. This needs ``measurements`` that are functions defined
    in a module, or partial functions of these.
    """
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
    model = with_parameters(estimator, parameters)
    if memory is not None and model.memory is None:
        model.set_params(memory=memory)
    model.set_params(callbacks=[*(model.callbacks or []), (_RECORDER, recorder)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result reports targets that were not reached
        model.fit(X, y)
    return recorded(model, _RECORDER)


def in_memory(values: Any) -> Any:
    """Return an array that joblib has memory-mapped as a plain array again, because saved work has it in its key."""
    return np.asarray(values) if isinstance(values, np.memmap) else values


def first_reached(n_updates: np.ndarray, loss: np.ndarray, target_loss: float) -> float:
    """Return when the loss first reached the target, interpolated between records; NaN if it never did."""
    there = np.flatnonzero(loss <= target_loss)
    if not len(there):
        return math.nan
    i = int(there[0])
    if i == 0 or not math.isfinite(loss[i - 1]):
        return float(n_updates[i])
    share = (loss[i - 1] - target_loss) / (loss[i - 1] - loss[i])
    return float(n_updates[i - 1] + share * (n_updates[i] - n_updates[i - 1]))


def updates_to_loss(record: Mapping[str, np.ndarray], target_loss: float) -> float:
    """Return `first_reached` of a recorded training; raise an error if the initial weights have reached the target."""
    found = first_reached(record["n_updates"], record["train_loss"], target_loss)
    if found == 0:
        raise ValueError(
            f"target_loss must be below the loss at the start, {record['train_loss'][0]:.3g}; got {target_loss}."
        )
    return found


def lowest_loss(record: Mapping[str, np.ndarray]) -> float:
    """Return the lowest recorded loss; NaN if no loss was finite."""
    losses = record["train_loss"][np.isfinite(record["train_loss"])]
    return float(losses.min()) if len(losses) else math.nan


def recorded_cost(
    estimator: Any,
    parameters: Mapping[str, Mapping[str, Any]],
    n_fits: int,
    train: tuple[Any, Any],
    at_updates: Sequence[int],
    max_samples: int | float | None,
    *,
    n_batches: int = 0,
    n_jobs: int | None = None,
) -> Cost:
    """Return `measure_cost` of recorded trainings.

    At each of ``at_updates`` the loss of ``max_samples`` samples is evaluated, and the gradients of ``n_batches``
    batches are computed.
    """
    cost = measure_cost(estimator, parameters, n_fits, train, n_jobs=n_jobs)
    n_train = len(train[1])
    n_rows = len(drawn_samples(n_train, max_samples, np.random.RandomState(0)))
    after = cost.measure_seconds[0] / (n_fits * len(parameters))  # three evaluations of all training samples
    evaluation = after / 3 * n_rows / n_train
    seconds = sum(
        n_fits * sum(at <= updates for at in at_updates) * (evaluation + n_batches * step)
        for updates, step in zip(cost.updates, cost.step_seconds, strict=True)
    )
    low, high = cost.measure_seconds
    return replace(cost, measure_seconds=(low + seconds, high + seconds))
