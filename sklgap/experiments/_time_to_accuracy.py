"""The computational gap: what an accuracy costs in seconds, updates and epochs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sklgap._checks import check_fraction, check_text, is_one_of, shown
from sklgap.experiments._result import aligned, mean_std, to_frame, to_json
from sklgap.experiments._statistics import ratio_estimate
from sklgap.inspection._records import net_of, recorded, recorder_of

COSTS = ("seconds", "n_updates", "epochs")


@dataclass(frozen=True)
class TimeToAccuracy:
    """When trainings first reached an accuracy; ``print`` it.

    Attributes
    ----------
    target : float
        The accuracy, as a fraction.
    quantity : str
        What was recorded.
    reference : str
        The regime that the others are compared with.
    records : list of dict
        One per training: ``label``, ``trial``, ``reached``, then ``seconds``, ``n_updates`` and ``epochs`` at the first
        record at the target, NaN where there is none, and ``best``, the highest accuracy recorded.
    """

    target: float
    quantity: str
    reference: str
    records: list[dict[str, Any]]

    @property
    def labels(self) -> list[str]:
        """The regimes, in order."""
        return list(dict.fromkeys(record["label"] for record in self.records))

    def values(self, label: str, key: str) -> np.ndarray:
        """Return one quantity of one regime, an array of shape (n_trials,), NaN where the target was not reached."""
        return np.array([record[key] for record in self.records if record["label"] == label], dtype=float)

    def ratio(self, label: str, key: str = "seconds") -> tuple[float, float, float]:
        """Return a cost of a regime over the reference's: geometric mean over paired trials, and its 95 % interval.

        NaN where no pair of trials has both reached the target; the ends also with fewer than two pairs.
        """
        one, other = self.values(self.reference, key), self.values(label, key)
        n = min(len(one), len(other))
        both = (one[:n] > 0) & (other[:n] > 0)
        found = ratio_estimate(other[:n][both], one[:n][both])
        return found.value, found.low, found.high

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("", "reached", "seconds", "updates", "epochs", "best (%)")]
        notes = []
        for label in self.labels:
            reached = self.values(label, "reached") == 1
            n = len(reached)
            cells = [_shown(self.values(label, key)[reached], spec) for key, spec in zip(COSTS, _SPECS, strict=True)]
            best = 100 * self.values(label, "best")
            rows.append((label, f"{reached.sum()} of {n}", *cells, mean_std(best, ".2f")))
            if not reached.any():
                notes.append(
                    f"{label} never reached it: its time to this accuracy is unknown, and longer than trained."
                )
            elif not reached.all():
                notes.append(
                    f"{label} did not reach it in {n - reached.sum()} of {n} trainings: its figures are of the others."
                )
        others = [label for label in self.labels if label != self.reference]
        ratios = [self._ratio_line(label) for label in others]
        name = self.quantity.replace("_", " ")
        lines = [
            f"first record with a {name} of {100 * self.target:g} %",
            "",
            *aligned(rows),
            "",
            *filter(None, ratios),
        ]
        if not all(math.isnan(self.ratio(label, key)[1]) for label in others for key in COSTS):
            notes.append("Ratios are geometric means over paired trainings, in brackets their 95 % intervals.")
        if max(len(self.values(label, "best")) for label in self.labels) == 1:
            notes.append("One training each: the figures have no spread to judge a difference by.")
        notes.append(
            "Seconds are those of this machine as it was used: of fits run at once, or elsewhere, they differ."
        )
        return "\n".join([*lines, *(f"* {sentence}" for sentence in notes)])

    __repr__ = __str__

    def _ratio_line(self, label: str) -> str:
        found = [self.ratio(label, key) for key in COSTS]
        if all(math.isnan(ratio[0]) for ratio in found):
            return ""
        parts = []
        for (ratio, low, high), noun in zip(found, ("seconds", "updates", "epochs"), strict=True):
            interval = "" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]"
            parts.append("" if math.isnan(ratio) else f"{ratio:.3g}{interval} times the {noun}")
        return f"{label} against {self.reference}: {', '.join(filter(None, parts))}"

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per training; needs pandas."""
        return to_frame(self.records)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return target, records and ratios as JSON; write it to ``path`` if given."""
        others = [label for label in self.labels if label != self.reference]
        content = {
            "target": self.target,
            "quantity": self.quantity,
            "reference": self.reference,
            "ratios": {label: {key: self.ratio(label, key) for key in COSTS} for label in others},
            "records": self.records,
        }
        return to_json(content, path)


_SPECS = (".2f", ",.0f", ".1f")


def time_to_accuracy(
    models: dict[str, Any],
    target: float,
    *,
    quantity: str = "test_accuracy",
    reference: str | None = None,
    recorder: str | None = None,
) -> TimeToAccuracy:
    """Find when trainings first reached an accuracy, in seconds, updates and epochs.

    Parameters
    ----------
    models : dict of str to estimator, history, or list of them
        By regime, fitted with a `TrainingRecorder` that has the test data; or their histories (``history_``, a list of
        dicts), where ``quantity`` is in them. In lists trial i of every regime is a pair.
    target : float
        Accuracy to reach, a fraction of 1.
    quantity : str, default="test_accuracy"
        What must reach it: a name in the records, or in the histories (``valid_acc`` with a ``train_split``).
    reference : str, default=None
        The regime that the others are compared with. None: the first.
    recorder : str, default=None
        Name of the recorder; needed where there are several.

    Returns
    -------
    TimeToAccuracy
        Prints as a table with ratios to the reference; ``records``, ``to_frame()``, ``to_json()``.

    Raises
    ------
    ValueError
        For a target outside (0, 1], an unknown reference, or a training without such records.
    TypeError
        For models that are no dict.

    See Also
    --------
    parallel_model : What these updates mean on many processors.
    sklgap.TrainingRecorder : Records the accuracy.

    Notes
    -----
    Hoffer et al. argue that with enough updates large batches lose no accuracy, so that what is left is a question of
    time. Compare at equal accuracy, at a target that all reach.

    The first record at the target counts: the true moment is up to one record earlier, an epoch by default, and
    accuracy that goes up and down may fall below again. ``TrainingRecorder(at_updates=...)`` records more finely; its
    seconds within an epoch are interpolated. Seconds are sums of ``dur``: they leave out what was recorded at the ends
    of epochs, and contain what was recorded within.

    References
    ----------
    Hoffer, Hubara and Soudry, Train longer, generalize better, NeurIPS 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, TrainingRecorder
    >>> from sklgap.experiments import time_to_accuracy
    >>> X, y = load_digits(return_X_y=True)
    >>> models = {}
    >>> for regime in ("SB", "LB"):
    ...     recorder = TrainingRecorder({"test": (X[1000:] / 16, y[1000:])})
    ...     model = LBGapClassifier(batch_regime=regime, max_epochs=8, tol=None, random_state=0, module__width=32)
    ...     models[regime] = model.set_params(callbacks=[("recorder", recorder)]).fit(X[:1000] / 16, y[:1000])
    >>> found = time_to_accuracy(models, 0.7)
    >>> bool(found.ratio("LB", "epochs")[0] > 1)
    True
    """
    check_fraction("target", target, above=0)
    if not isinstance(models, Mapping) or not models:
        got = "an empty one" if isinstance(models, Mapping) else type(models).__name__
        raise TypeError(
            f"models must be a dict of names to fitted estimators or histories, or lists of them; got {got}."
        )
    labels = [str(label) for label in models]
    if reference is not None and not is_one_of(reference, labels):
        raise ValueError(f"reference must be one of {', '.join(map(repr, labels))}; got {shown(reference)}.")
    check_text("quantity", quantity)
    check_text("recorder", recorder, or_none=True)
    records = []
    for label, trainings in zip(labels, models.values(), strict=True):
        for trial, training in enumerate(_trials(label, trainings)):
            record = {"label": label, "trial": trial}
            records.append(record | _first(_columns(label, training, quantity, recorder), quantity, target))
    return TimeToAccuracy(float(target), quantity, labels[0] if reference is None else reference, records)


def _trials(label: str, trainings: Any) -> list[Any]:
    several = isinstance(trainings, list | tuple) and not _is_history(trainings)
    if several and not len(trainings):
        raise ValueError(f"models[{label!r}] must have at least one training; got none.")
    return list(trainings) if several else [trainings]


def _is_history(training: Any) -> bool:
    return isinstance(training, list) and len(training) > 0 and all(isinstance(row, Mapping) for row in training)


def _columns(label: str, training: Any, quantity: str, recorder: str | None) -> dict[str, np.ndarray]:
    """Return epoch, updates, seconds and the quantity, at every record."""
    if _is_history(training):
        rows = training
        columns = {
            "epoch": np.arange(1.0, len(rows) + 1),
            # A history of another skorch net than ours counts no updates.
            "n_updates": np.array([row.get("n_updates", math.nan) for row in rows], dtype=float),
        }
        if all(quantity in row for row in rows):
            columns[quantity] = np.array([row[quantity] for row in rows], dtype=float)
    else:
        recorder_of(training, recorder, "recorder")
        columns = recorded(training, recorder)
        rows = net_of(training).history
    if quantity not in columns:
        raise ValueError(
            f"models[{label!r}] must have records of {quantity!r}, which quantity asks for; got {', '.join(columns)}."
        )
    ends = np.cumsum([0.0, *(row["dur"] for row in rows)])
    return columns | {"seconds": np.interp(columns["epoch"], np.arange(len(ends)), ends)}


def _first(columns: dict[str, np.ndarray], quantity: str, target: float) -> dict[str, Any]:
    values = columns[quantity]
    there = np.flatnonzero(values >= target)
    known = values[np.isfinite(values)]
    best = float(known.max()) if len(known) else math.nan
    if not len(there):
        return {"reached": False, **dict.fromkeys(COSTS, math.nan), "best": best}
    i = there[0]
    costs = (float(columns[key][i]) for key in ("seconds", "n_updates", "epoch"))
    return {"reached": True, **dict(zip(COSTS, costs, strict=True)), "best": best}


def _shown(values: np.ndarray, spec: str) -> str:
    return mean_std(values, spec) if len(values) and not np.isnan(values).any() else "-"
