"""``time_to_accuracy``: the seconds, updates and epochs that trainings need to reach an accuracy."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import WrongArgument, check_fraction, check_text, is_number, is_one_of, shown
from sklgap.experiments import _notes as notes
from sklgap.experiments._estimate import CONFIDENCE, Estimate, time_ratio
from sklgap.experiments._result import Result, count, listed, mean_std
from sklgap.inspection._records import net_of, recorded, recorder_of

if TYPE_CHECKING:
    from sklgap.experiments._plot._time_to_accuracy import TimeToAccuracyDisplay

COSTS = ("seconds", "n_updates", "epochs")
NOUNS = dict(zip(COSTS, ("seconds", "updates", "epochs"), strict=True))
_SPECS = dict(zip(COSTS, (".2f", ",.0f", ".1f"), strict=True))


def time_to_accuracy(
    models: Mapping[Any, Any],
    target: float,
    *,
    quantity: str = "test_accuracy",
    greater_is_better: bool | None = None,
    reference: str | int | float | None = None,
    recorder: str | None = None,
) -> "TimeToAccuracy":
    """Find the seconds, updates and epochs at which trainings first reached an accuracy.

    Parameters
    ----------
    models : dict of str to estimator, history, or list of them
        Models by regime, fitted with a `TrainingRecorder` that has the test data. Or their histories (``history_``, a
        list of dicts), if these have ``quantity``. In lists, the trials with the same position are paired.
    target : float
        Value to reach: a fraction in (0, 1] for an accuracy, otherwise a number in the units of ``quantity``.
    quantity : str, default="test_accuracy"
        Name of the quantity in the records, or in the histories (``valid_acc`` with a ``train_split``).
    greater_is_better : bool, default=None
        Whether the quantity reaches the target from below. None means True unless its name ends in "loss".
    reference : str or number, default=None
        The regime that the others are compared with. None means the first one.
    recorder : str, default=None
        Name of the recorder, which is needed if there are several.

    Returns
    -------
    TimeToAccuracy
        The result; ``print`` shows a table with ratios to the reference.

    Raises
    ------
    ValueError
        If an accuracy is outside (0, 1], the target is not a number, the reference is unknown, or a training does not
        have the quantity in its records.
    TypeError
        If ``models`` is not a dict.

    See Also
    --------
    parallel_model : Converts updates into training time on many processors.
    sklgap.TrainingRecorder : Records the accuracy.

    Notes
    -----
    Hoffer et al. argue that large batches lose no accuracy with enough updates, so that only the time remains to
    compare. Compare it at a target accuracy that all trainings reach.

    A training that never reached the target is censored: its time is at least the time that it trained for. The ratio
    of two regimes is the median of the ratios of paired trainings, and its interval goes from the k-th smallest ratio
    to the k-th largest. The interval makes no assumption about the distribution of times. Its upper end is infinite if
    the regime is censored in too many pairs, and unknown if both regimes are. Its level is printed: 93.75 % with five
    trainings, and 95 % or more only from six on.

    The first record at the target counts. The true moment is up to one record earlier, which is an epoch by default,
    and the accuracy may later fall below the target again. ``TrainingRecorder(at_updates=...)`` records more often;
    seconds within an epoch are interpolated. Seconds are sums of ``dur``. They exclude measurements at the ends of
    epochs, and include measurements within epochs.

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
    >>> bool(found.ratio("LB", "epochs").value > 1)
    True
    """
    if not isinstance(models, Mapping) or not models:
        got = "an empty one" if isinstance(models, Mapping) else type(models).__name__
        raise TypeError(
            f"models must be a dict from names to fitted estimators or histories, or lists of them; got {got}."
        )
    labels = [str(label) for label in models]
    if len(set(labels)) < len(labels):
        raise ValueError(f"models must have different names; got {shown(list(models))}.")
    if reference is not None and not is_one_of(str(reference), labels):
        raise ValueError(f"reference must be one of {', '.join(map(repr, labels))}; got {shown(reference)}.")
    check_text("quantity", quantity)
    check_text("recorder", recorder, or_none=True)
    if greater_is_better is not None and not isinstance(greater_is_better, bool):
        raise WrongArgument(f"greater_is_better must be True, False or None; got {shown(greater_is_better)}.")
    if greater_is_better is None:
        greater_is_better = not quantity.endswith("loss")
    is_accuracy = quantity.endswith(("accuracy", "_acc"))
    if is_accuracy:
        check_fraction("target", target, above=0)
    elif not is_number(target):
        raise ValueError(f"target must be a number, in the units of {quantity}; got {shown(target)}.")
    records = []
    for label, trainings in zip(labels, models.values(), strict=True):
        for trial, training in enumerate(_trials(label, trainings)):
            columns = _columns(label, training, quantity, recorder)
            records.append({"label": label, "trial": trial, **_first(columns, quantity, target, greater_is_better)})
    settings = {
        "target": float(target),
        "quantity": quantity,
        "in_percent": is_accuracy,
        "greater_is_better": greater_is_better,
        "reference": labels[0] if reference is None else str(reference),
    }
    return TimeToAccuracy(records, settings)


class TimeToAccuracy(Result):
    """Result of `time_to_accuracy`; ``print`` shows it.

    Attributes
    ----------
    records : list of dict
        One per training: ``label``, ``trial``, ``reached``; ``seconds``, ``n_updates`` and ``epochs`` at the first
        record at the target (NaN if it was not reached); ``trained_seconds``, ``trained_n_updates`` and
        ``trained_epochs``, up to which the quantity is known; and ``best``, the best recorded value.
    settings : dict
        ``target``, ``quantity``, ``reference``, and the direction and unit of the quantity.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    # -- statistics ------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> list[str]:
        """The regimes, in order."""
        return list(dict.fromkeys(record["label"] for record in self.records))

    def values(self, label: Any, key: str) -> np.ndarray:
        """Return one quantity of a regime, an array of shape (n_trials,), with NaN if the target was not reached."""
        return np.array([record[key] for record in self.records if record["label"] == str(label)], dtype=float)

    def ratio(self, label: Any, cost: str = "seconds") -> Estimate:
        """Return the ratio of a cost to that of the reference: the median over paired trainings.

        Parameters
        ----------
        label : str or number
            The regime.
        cost : {"seconds", "n_updates", "epochs"}, default="seconds"
            What is counted.

        Returns
        -------
        Estimate
            The median ratio. Trainings that never reached the target are censored; see the notes of `time_to_accuracy`.
            The level of the interval depends on the number of trainings; it is 93.75 % for five.
        """
        if str(label) not in self.labels:
            raise ValueError(f"label must be one of {', '.join(map(repr, self.labels))}; got {shown(label)}.")
        if not is_one_of(cost, COSTS):
            raise ValueError(f"cost must be one of {', '.join(map(repr, COSTS))}; got {shown(cost)}.")
        one, other = self.settings["reference"], str(label)
        n = min(len(self.values(one, "trial")), len(self.values(other, "trial")))
        times, reached = [], []
        for own in (one, other):
            there = self.values(own, "reached")[:n] == 1
            costs = np.where(there, self.values(own, cost)[:n], self.values(own, f"trained_{cost}")[:n])
            times.append(np.where(costs > 0, costs, np.nan))  # a cost of 0 has no ratio
            reached.append(there)
        return time_ratio(*times, *reached)

    def _ratios(self) -> dict[str, dict[str, Estimate]]:
        others = [label for label in self.labels if label != self.settings["reference"]]
        return {label: {cost: self.ratio(label, cost) for cost in COSTS} for label in others}

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        reached = {label: self.values(label, "reached") == 1 for label in self.labels}
        sizes = [len(values) for values in reached.values()]
        found = notes.not_reached(reached)
        at_start = [label for label in self.labels if any((self.values(label, cost) == 0).any() for cost in COSTS)]
        if at_start:
            found.append(
                f"These reached the target at the start, without a cost, so that some ratios are not known: "
                f"{listed(at_start)}."
            )
        if max(sizes) == 1:
            found.append("There is one training for each regime, so the spread of the figures is not known.")
        elif len(set(sizes)) > 1:
            found.append(f"Ratios need pairs: of up to {max(sizes)} trainings, those without a partner are left out.")
        ratios = [ratio for by_cost in self._ratios().values() for ratio in by_cost.values() if ratio.has_interval]
        low = {(ratio.n, ratio.level) for ratio in ratios if ratio.level < CONFIDENCE}
        found += [
            f"With {count(n, 'pair')}, the interval of a ratio contains the true ratio in only {100 * level:.4g} % of "
            "cases; 95 % needs 6 pairs."
            for n, level in sorted(low)
        ]
        found.append(
            "Seconds depend on the machine and its load: they differ on other machines, and if fits run at the same "
            "time."
        )
        return found

    # -- printing --------------------------------------------------------------------------------------------------

    def _goal(self) -> str:
        s = self.settings
        value = f"{100 * s['target']:g} %" if s["in_percent"] else f"{s['target']:g}"
        return f"{s['quantity'].replace('_', ' ')} of {value}"

    def _verdict(self) -> list[str]:
        s = self.settings
        ratios = {label: by_cost["seconds"] for label, by_cost in self._ratios().items()}
        if not ratios:
            reached = self.values(s["reference"], "reached") == 1
            return [f"{s['reference']} reached a {self._goal()} in {reached.sum()} of {len(reached)} trainings."]
        parts = [f"{label} {_times(ratio)}" for label, ratio in ratios.items()]
        return [f"Seconds to a {self._goal()}, relative to {s['reference']}: {'; '.join(parts)}."]

    def _head(self) -> list[str]:
        n = max(len(self.values(label, "trial")) for label in self.labels)
        spread = "one training each" if n == 1 else f"up to {n} trainings each, mean ± std of those that reached it"
        return [f"first record with a {self._goal()}; {spread}"]

    def _table(self) -> list[list[str]]:
        factor, unit, spec = (100, " (%)", ".2f") if self.settings["in_percent"] else (1, "", ".4g")
        rows = [["", "reached", *NOUNS.values(), "epochs trained", f"best{unit}"]]
        for label in self.labels:
            reached = self.values(label, "reached") == 1
            cells = [_shown(self.values(label, cost)[reached], spec) for cost, spec in _SPECS.items()]
            trained, best = self.values(label, "trained_epochs"), factor * self.values(label, "best")
            last = [_shown(trained[~np.isnan(trained)], ".1f"), mean_std(best[~np.isnan(best)], spec)]
            rows.append([label, f"{reached.sum()} of {len(reached)}", *cells, *last])
        return rows

    def _reading(self) -> list[str]:
        lines, ratios = [], self._ratios()
        for label, by_cost in ratios.items():
            parts = [f"{NOUNS[cost]} {_times(ratio)}" for cost, ratio in by_cost.items() if _is_known(ratio)]
            if parts:
                lines.append(f"{label} relative to {self.settings['reference']}: {', '.join(parts)}")
        if lines:
            lines.append("ratios: medians over paired trainings")
        intervals = [f"in brackets: {r.about()}" for own in ratios.values() for r in own.values() if r.has_interval]
        if intervals:
            lines += [
                *dict.fromkeys(intervals),
                "intervals come from the order of the ratios; an end is infinite if too many ratios are only bounds",
            ]
        return lines

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        ratios = {label: {c: r.to_dict() for c, r in by_cost.items()} for label, by_cost in self._ratios().items()}
        return {"ratios": ratios}

    def plot(self, cost: str = "seconds", ax: Any = None) -> "TimeToAccuracyDisplay":
        """Draw a cost of every training; trainings that never reached the target are drawn as bounds.

        Parameters
        ----------
        cost : {"seconds", "n_updates", "epochs"}, default="seconds"
            What is counted.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        TimeToAccuracyDisplay
            The drawn figure.
        """
        from sklgap.experiments._plot._time_to_accuracy import TimeToAccuracyDisplay

        return TimeToAccuracyDisplay.from_times(self, cost=cost, ax=ax)


def _is_known(ratio: Estimate) -> bool:
    return ratio.has_interval or not math.isnan(ratio.value)


def _times(ratio: Estimate) -> str:
    """Return a ratio in words, such as "1.5 times [1.2, 1.9]" or "not known"."""
    if not math.isnan(ratio.value):
        return ratio.text(".3g", " times").removesuffix(" (no interval)")
    if not ratio.has_interval:
        return "not known"
    return f"median not known [{_end(ratio.low)}, {_end(ratio.high)}] times"


def _end(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3g}"


def _trials(label: str, trainings: Any) -> list[Any]:
    several = isinstance(trainings, list | tuple) and not _is_history(trainings)
    if several and not len(trainings):
        raise ValueError(f"models[{label!r}] must have at least one training; got none.")
    return list(trainings) if several else [trainings]


def _is_history(training: Any) -> bool:
    return isinstance(training, list) and len(training) > 0 and all(isinstance(row, Mapping) for row in training)


def _columns(label: str, training: Any, quantity: str, recorder: str | None) -> dict[str, np.ndarray]:
    """Return epoch, updates, seconds and the quantity at every record."""
    if _is_history(training):
        rows = training
        columns = {
            "epoch": np.arange(1.0, len(rows) + 1),
            # Histories of other skorch nets do not have the number of updates.
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


def _first(columns: dict[str, np.ndarray], quantity: str, target: float, greater_is_better: bool) -> dict[str, Any]:
    values = columns[quantity]
    there = np.flatnonzero(values >= target if greater_is_better else values <= target)
    known = np.flatnonzero(np.isfinite(values))
    best = math.nan
    if len(known):
        best = float(values[known].max() if greater_is_better else values[known].min())
    # The quantity is not known between its last record and the end of the training.
    at_target, at_end = (_costs_at(columns, own) for own in (there[:1], known[-1:]))
    trained = {f"trained_{cost}": value for cost, value in at_end.items()}
    return {"reached": bool(len(there)), **at_target, **trained, "best": best}


def _costs_at(columns: dict[str, np.ndarray], position: np.ndarray) -> dict[str, float]:
    """Return the costs at one position, or NaN at none."""
    keys = zip(COSTS, ("seconds", "n_updates", "epoch"), strict=True)
    return {cost: float(columns[key][position[0]]) if len(position) else math.nan for cost, key in keys}


def _shown(values: np.ndarray, spec: str) -> str:
    return mean_std(values, spec) if len(values) and not np.isnan(values).any() else "-"
