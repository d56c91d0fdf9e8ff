"""Trainings with several regimes and measurements along them: the common part of the trajectories."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklgap._checks import check_integer
from sklgap._typing import BatchNormPolicy
from sklgap.experiments._protocol import Trial, with_parameters
from sklgap.experiments._result import Result
from sklgap.inspection import recorded
from sklgap.training import TrainingRecorder
from sklgap.training._recorder import check_updates, log_spaced_updates

Updates = Literal["log"] | Sequence[int] | None


@dataclass(frozen=True)
class Moments:
    """The moments at which a training is measured: the end of every ``every``-th epoch, and these updates."""

    every: int | None
    at_updates: Updates

    def check(self) -> None:
        """Raise a ValueError for parameters outside their allowed values."""
        check_integer("every", self.every, or_none=True)
        check_updates(self.at_updates)
        if self.every is None and self.at_updates is None:
            raise ValueError("every and at_updates must not both be None, because there would be no record.")

    def number(self, n_updates: int, n_epochs: int) -> int:
        """Return the number of records of a training with ``n_updates`` updates and ``n_epochs`` epochs."""
        asked = log_spaced_updates(per_doubling=2) if isinstance(self.at_updates, str) else self.at_updates or ()
        ends = 0 if self.every is None else math.ceil(n_epochs / self.every)
        return sum(update <= n_updates for update in asked) + ends


def regime_trials(
    overrides: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], classifier: Any, memory: str | Path | None
) -> list[Trial]:
    """Return the trainings of every regime from every seed. ``memory`` is used if the classifier has none."""
    saved = {} if memory is None or classifier.memory is not None else {"memory": memory}
    return [
        Trial(label, {**parameters, **saved}, trial, seed)
        for trial, seed in enumerate(seeds)
        for label, parameters in overrides.items()
    ]


def train_along(
    classifier: Any,
    trial: Trial,
    train: tuple[Any, Any],
    evaluated: tuple[Any, Any],
    measurements: Mapping[str, Callable[[Any], Any]],
    moments: Moments,
    batch_norm: BatchNormPolicy,
    name: str,
) -> list[dict[str, Any]]:
    """Return the records of one training.

    Parameters
    ----------
    classifier : LBGapClassifier
        Classifier that is cloned.
    trial : Trial
        Parameters and seed of the training.
    train, evaluated : tuple
        X and y to train on, and X and y on which the training loss is measured.
    measurements : dict
        As in `TrainingRecorder`.
    moments : Moments
        When to measure.
    batch_norm : str
        Batch-norm policy of the training loss.
    name : str
        Name of the recorder among the callbacks.
    """
    recorder = TrainingRecorder(
        {"train": evaluated},
        measurements,
        every=moments.every,
        at_updates=moments.at_updates,
        batch_norm=batch_norm,
        random_state=trial.seed,
    )
    model = with_parameters(classifier, {**trial.parameters, "random_state": trial.seed})
    model.set_params(callbacks=[*(model.callbacks or []), (name, recorder)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result reports it
        model.fit(*train)
    columns = recorded(model, name)
    fit = {"regime": trial.label, "trial": trial.trial, "seed": trial.seed}
    n_records = len(columns["n_updates"])
    return [{**fit, **{key: values[i].item() for key, values in columns.items()}} for i in range(n_records)]


class Trajectory(Result):
    """The sorted records of trainings; a subclass explains them.

    Attributes
    ----------
    records : list of dict
        Sorted by trial, regime and updates.
    labels : list of str
        The regimes with a finished training.
    n_regimes : int
        Number of all regimes, finished or not.
    """

    def __init__(
        self,
        records: list[dict[str, Any]],
        labels: Sequence[str],
        settings: dict[str, Any],
        interrupted: bool = False,
    ) -> None:
        records = sorted(records, key=lambda r: (r["trial"], labels.index(r["regime"]), r["n_updates"]))
        super().__init__(records, settings, interrupted)
        self.n_regimes = len(labels)
        self.labels = [label for label in labels if any(record["regime"] == label for record in records)]

    def trials_of(self, label: Any) -> list[int]:
        """Return the finished trials of a regime."""
        return sorted({r["trial"] for r in self.records if r["regime"] == str(label)})

    def _column(self, label: Any, trial: int, key: str) -> np.ndarray:
        return np.array([r[key] for r in self.records if r["regime"] == str(label) and r["trial"] == trial])
