"""The records of many trials: their pairing, their differences with intervals, and the common parts of reports."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sklgap import _tables
from sklgap.experiments._estimate import Components, Estimate, trial_components
from sklgap.experiments._protocol import sharpness_key
from sklgap.experiments._result import Result, describe_measuring, mean_std
from sklgap.experiments._scores import ACCURACY, Samples, Score, difference
from sklgap.experiments._trial_data import Parts
from sklgap.experiments._trials import Outcome

Column = tuple[str, str, Callable[[np.ndarray], str]]


class ByLabel(dict[str, Any]):
    """A dict from labels to values, in which a batch size may be given as a number."""

    def __missing__(self, key: Any) -> Any:
        text = str(key)
        if isinstance(key, str) or text not in self:
            raise KeyError(key)
        return self[text]


class Records(Result):
    """One flat record per finished fit of an experiment with paired trials, and the samples behind its scores.

    Parameters
    ----------
    outcomes : sequence of Outcome
        The finished fits, in any order.
    labels : sequence of str
        Names of what is compared, in order. Every method also accepts a label as a number.
    settings : dict
        What was trained and measured. ``n_trials`` is the number of trials, and ``reference`` the label that the others
        are compared with.
    interrupted : bool, default=False
        Whether Ctrl-C or SIGTERM ended it early.
    targets : dict of str to ndarray, default=None
        Labels of the samples of each part except the training data, for scores that are not means over samples.
    scores : sequence of Score, default=(accuracy,)
        Scores that were measured; the first one is compared.

    Attributes
    ----------
    records : list of dict
        One per finished fit, sorted by trial and label: accuracies as fractions, sharpness in percent, times in
        seconds.
    estimators_ : dict of lists
        Fitted estimators by label, in the order of the trials. For a training function, the models that it returned, or
        None.
    """

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        labels: Sequence[str],
        settings: dict[str, Any],
        interrupted: bool = False,
        *,
        targets: dict[str, np.ndarray] | None = None,
        scores: Sequence[Score] = (Score(ACCURACY),),
    ) -> None:
        self.labels = [str(label) for label in labels]
        place = {label: i for i, label in enumerate(self.labels)}
        found = [(self._label_of(outcome.record), outcome) for outcome in outcomes]
        found.sort(key=lambda pair: (pair[1].record["trial"], place[pair[0]]))
        super().__init__([outcome.record for _, outcome in found], settings, interrupted)
        self.scores = tuple(scores)
        self.estimators_ = ByLabel({label: [] for label in self.labels})
        # The records by label. Searching all records for every quantity would take quadratic time.
        self._records_of: dict[str, list[dict[str, Any]]] = {label: [] for label in self.labels}
        for label, outcome in found:
            self.estimators_[label].append(outcome.model)
            self._records_of[label].append(outcome.record)
        self._samples = {(label, o.record["trial"]): o.samples for label, o in found}
        self.targets = targets or {}
        self._found: dict[tuple[str, str, str, str, tuple[int, ...]], Components] = {}

    # -- values ----------------------------------------------------------------------------------------------------

    def values(self, label: Any, name: str) -> np.ndarray:
        """Return one quantity of a label in its finished trials, an array of shape (n_finished,)."""
        return self.by_trial(label, name)[self.finished(label)]

    def paired(
        self, reference: Any, label: Any, name: str, *, reference_name: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return one quantity of two labels in the trials that both labels finished."""
        both = self.finished(reference) & self.finished(label)
        return self.by_trial(reference, reference_name or name)[both], self.by_trial(label, name)[both]

    def by_trial(self, label: Any, name: str) -> np.ndarray:
        """Return one quantity of a label, an array of shape (n_trials,), with NaN for fits that did not finish."""
        values = np.full(self.settings["n_trials"], np.nan)
        for record in self._of(label):
            value = record[name]
            values[record["trial"]] = np.nan if value is None else value
        return values

    def finished(self, label: Any) -> np.ndarray:
        """Return which trials of a label finished, a boolean array of shape (n_trials,)."""
        done = np.zeros(self.settings["n_trials"], dtype=bool)
        done[[record["trial"] for record in self._of(label)]] = True
        return done

    @property
    def done(self) -> list[str]:
        """The labels with a finished fit, in order."""
        return [label for label in self.labels if self._of(label)]

    def _of(self, label: Any) -> list[dict[str, Any]]:
        return self._records_of.get(self._text(label), [])

    def _label_of(self, record: dict[str, Any]) -> str:
        """Return the label that a record belongs to."""
        return str(record["regime"])

    def _text(self, label: Any) -> str:
        """Return a label as text."""
        return str(label)

    def has(self, name: str) -> bool:
        """Return whether every record has this quantity. Records of a training function may lack some quantities."""
        return all(name in record for record in self.records)

    def _by_label(self, name: str, called: str = "{}") -> dict[str, np.ndarray]:
        """Return a quantity of every label with a finished fit, by its printed name; empty if it is not known."""
        return {called.format(label): self.values(label, name) for label in self.done} if self.has(name) else {}

    @property
    def of_training_function(self) -> bool:
        """Whether a function of the user trained, so that only its returned values are known."""
        return "training_function" in self.settings

    @property
    def judged(self) -> str:
        """The part of the data on which labels are compared: "test", or "valid" for a training function."""
        return "valid" if self.of_training_function else "test"

    @property
    def judged_part(self) -> str:
        """The name of this part in printed sentences."""
        return {"test": "test", "valid": "validation"}[self.judged]

    @property
    def measured(self) -> tuple[Score, ...]:
        """The scores that every record has. Accuracy is measured for every estimator."""
        return self.scores if self.of_training_function else (*self.scores, Score(ACCURACY))

    def score(self, name: str | None = None) -> Score:
        """Return the score with this name; None means the first score."""
        if name is None:
            return self.scores[0]
        for score in self.measured:
            if score.name == name:
                return score
        raise ValueError(f"score must be one of {', '.join(repr(s.name) for s in self.scores)}; got {name!r}.")

    # -- differences -----------------------------------------------------------------------------------------------

    def components(
        self,
        reference: Any,
        label: Any,
        name: str = "test_accuracy",
        *,
        reference_name: str | None = None,
        strict: bool = False,
        among: np.ndarray | None = None,
    ) -> Components:
        """Return a difference, reference minus label, over paired trials, with the parts of its variance.

        Parameters
        ----------
        reference, label : str or number
            Labels.
        name : str, default="test_accuracy"
            A quantity of the records. Scores of test and validation data vary with trials and samples, all other
            quantities with trials alone.
        reference_name : str, default=None
            Name of the quantity of the reference, if it differs from ``name``.
        strict : bool, default=False
            Whether to raise a ValueError if there are too few samples for an interval of the score. False returns an
            interval for new seeds alone.
        among : ndarray of shape (n_trials,), bool, default=None
            The trials to use. None means all trials that both labels finished.

        Returns
        -------
        Components
        """
        reference, label = self._text(reference), self._text(label)
        reference_name = reference_name or name
        one, two = self.by_trial(reference, reference_name), self.by_trial(label, name)
        counted = np.isfinite(one) & np.isfinite(two)
        counted &= True if among is None else among
        trials = np.flatnonzero(counted)
        key = (reference, label, reference_name, name, tuple(trials.tolist()))
        if key in self._found:
            return self._found[key]
        one, two = one[trials], two[trials]
        samples = (
            [self._samples[reference, t].get(reference_name) for t in trials],
            [self._samples[label, t].get(name) for t in trials],
        )
        part, _, score = name.partition("_")
        found = trial_components(one - two)
        if len(trials) and (part in self.targets or (self.of_training_function and part == self.judged)):
            # The labels are not known for a training function, which returns the correct samples itself.
            y, classes = (self.targets.get(key, np.empty(0)) for key in (part, "classes"))
            try:
                found = difference(self.score(score), y, classes, (one, two), samples)
            except ValueError:
                if strict:
                    raise
                return found
        self._found[key] = found
        return found

    def difference(self, reference: Any, label: Any, name: str = "test_accuracy") -> Estimate:
        """Return the difference in a quantity, reference minus label, over paired trials, with its 95 % interval."""
        return self.estimate_of(self.components(reference, label, name), name)

    def estimate_of(self, components: Components, name: str) -> Estimate:
        """Return the estimate of a difference in a quantity, with the samples that its interval covers."""
        found = components.estimate()
        if name.startswith("valid_"):
            return replace(found, covers=found.covers.replace("test samples", "validation samples"))
        return found

    def gap(self, label: Any, score: str | None = None) -> Estimate:
        """Return the regime gap: the test score of the reference minus that of a label, with its 95 % interval.

        For a training function, it is the gap in the validation score.
        """
        return self.difference(self.settings["reference"], label, f"{self.judged}_{self.score(score).name}")

    def gaps(self, score: str | None = None) -> dict[str, Estimate]:
        """Return the regime gap of every label that finished at least one trial which the reference finished too."""
        reference = self.settings["reference"]
        others = [label for label in self.labels if label != reference]
        return {label: self.gap(label, score) for label in others if len(self.paired(reference, label, "trial")[0])}

    # -- printing --------------------------------------------------------------------------------------------------

    def policy(self, score: Score) -> str:
        """Return the batch-norm policy of a score; "" for a training function, whose policy is not known."""
        if self.of_training_function:
            return ""
        if score.scorer is not None and "predict_batch_norm" in self.settings:
            return str(self.settings["predict_batch_norm"])
        models = [model for label in self.labels for model in self.estimators_[label] if model is not None]
        last = models[0].steps[-1][1] if models and hasattr(models[0], "steps") else (models or [None])[0]
        return score.policy(self.settings["batch_norm"], last)

    def _score_columns(self, parts: Sequence[str] = ("train", "test")) -> list[Column]:
        """Return the columns of all scores: name with the batch-norm policy, key, and format of the values."""
        shown = {"train": "train", "valid": "valid.", "test": "test"}
        columns: list[Column] = []
        for score in self.scores:
            for part in parts:
                unit = " (%)" if score.in_points else ""
                policy = self.policy(score)
                name = f"{shown[part]} {score.name}{unit}" + (f", {policy}" if policy else "")
                columns.append((name, f"{part}_{score.name}", in_percent if score.in_points else in_units))
        return [column for column in columns if self.has(column[1])]

    def sharpness_names(self) -> dict[str, str]:
        """Return the measured sharpnesses: keys of the records, with their printed names."""
        return {
            sharpness_key(epsilon, dim): f"sharpness {epsilon:g}" + ("" if dim is None else f", {dim} dims")
            for dim in self.settings.get("subspace_dims", [None])
            for epsilon in self.settings["epsilon"]
        }

    def _sharpness_columns(self) -> list[Column]:
        """Return the columns of the sharpness."""
        return [(f"{name} (%)", key, lambda v: mean_std(v, ".3g")) for key, name in self.sharpness_names().items()]

    def _shown_gap(self, gap: Estimate, score: Score | None = None) -> str:
        """Return a difference of a score with its interval, for a cell of a table."""
        score = self.scores[0] if score is None else score
        if np.isnan(gap.value):
            return "-"
        spec, factor = ("+z.2f", 100) if score.in_points else ("+z.4f", 1)
        return gap.scaled(factor).text(spec) if gap.has_interval else f"{factor * gap.value:{spec}}"

    def _shown_worst(self, label: Any, score: Score) -> str:
        """Return the most that a trial lost to the reference, for a cell of a table."""
        worst = self.components(self.settings["reference"], label, f"{self.judged}_{score.name}").worst
        if np.isnan(worst):
            return "-"
        return f"{100 * worst:+z.2f}" if score.in_points else f"{worst:+z.4f}"

    def _gap_sentence(self, gap: Estimate, score: Score | None = None) -> str:
        """Return a difference in words: "9.60 points of accuracy [6.70, 12.50]"."""
        score = self.scores[0] if score is None else score
        scaled, spec = (gap.scaled(100), "z.2f") if score.in_points else (gap, "z.4f")
        interval = f" [{scaled.low:{spec}}, {scaled.high:{spec}}]" if gap.has_interval else ""
        unit = f"points of {score.name}" if score.in_points else f"of {score.name}"
        return f"{scaled.value:{spec}} {unit}{interval}"

    def _apart(self, gap: Estimate) -> str:
        """Return a difference in words: "9.60 points of accuracy [6.70, 12.50] below" or "above" the reference."""
        return f"{self._gap_sentence(gap)} below" if gap.value > 0 else f"{self._gap_sentence(gap.scaled(-1))} above"

    def _doubt(self, gap: Estimate) -> str:
        """Return the end of a sentence about a difference that its interval does not show."""
        if not gap.has_interval:
            return ", without an interval"
        return "" if gap.excludes(0) else ": the interval contains 0"

    def trials_line(self) -> str:
        """Return "5 paired trials, mean ± std"."""
        n_trials = self.settings["n_trials"]
        return "one trial" if n_trials == 1 else f"{n_trials} paired trials, mean ± std"

    def _data_line(self) -> str:
        """Return "1,000 training and 200 test samples, 5 paired trials, mean ± std", or the source of the scores."""
        s = self.settings
        if self.of_training_function:
            n_valid = "" if s["n_valid"] is None else f" of {s['n_valid']:,} validation samples"
            return f"scores that {s['training_function']} returns{n_valid}, {self.trials_line()}"
        parts = {"training": s["n_train"], "validation": s.get("n_valid"), "test": s["n_test"]}
        *first, last = [f"{n:,} {part}" for part, n in parts.items() if n is not None]
        return f"{', '.join(first)} and {last} samples, {self.trials_line()}"

    def _measured_lines(self) -> list[str]:
        """Return the lines of a report about batch norm and sharpness."""
        s = self.settings
        lines = [] if self.of_training_function else describe_measuring(s)
        if s["epsilon"]:
            samples = count_of(s["n_samples_sharpness"])
            lines.append(f"sharpness is in %, measured on {samples} training samples with solver {s['solver']!r}")
        return lines

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        gaps = []
        for score in self.scores:
            for label, gap in self.gaps(score.name).items():
                parts = self.components(self.settings["reference"], label, f"{self.judged}_{score.name}").to_dict()
                gaps.append({"regime": label, "score": score.name, **gap.to_dict(), "components": parts})
        return {"gaps": gaps}

    def samples_of(self, label: Any, trial: int, name: str = "test_accuracy") -> Samples | None:
        """Return the values behind the score of one trial, sample by sample; None if they were not recorded."""
        return self._samples.get((self._text(label), trial), {}).get(name)

    def to_json(self, path: Any = None, *, samples: bool = False) -> str:
        """Return settings, statistics, notes and records as JSON.

        Parameters
        ----------
        path : str or Path, default=None
            File to which the JSON is also written.
        samples : bool, default=False
            Whether to add the values behind every score: which samples are predicted correctly, as the hexadecimal
            digits of ``numpy.packbits``; the scores of the samples; or the outputs.
        """
        return super().to_json(path) if not samples else self._with_samples(path)

    def _with_samples(self, path: Any) -> str:
        import json

        content = json.loads(super().to_json())
        content["samples"] = [
            {"regime": label, "trial": trial, "name": name, **_written_samples(own)}
            for (label, trial), by_name in self._samples.items()
            for name, own in by_name.items()
        ]
        return _tables.to_json(content, path)


def targets_of(parts: Parts) -> dict[str, np.ndarray]:
    """Return the labels of the samples of each part but the training data, and ``classes``."""
    found = {part: np.asarray(y) for part, (_, y) in parts.items() if part != "train"}
    return {**found, "classes": np.unique(np.asarray(parts["train"][1]))}


def count_of(n: int) -> str:
    """Return a number of samples with a separator between thousands."""
    return f"{n:,}"


def in_percent(values: np.ndarray) -> str:
    """Return the mean ± standard deviation of fractions, in percent."""
    return mean_std(100 * values, ".2f")


def in_units(values: np.ndarray) -> str:
    """Return the mean ± standard deviation of a score."""
    return mean_std(values, ".4f")


def _written_samples(samples: Samples) -> dict[str, Any]:
    if samples.values.dtype == bool:
        return {"n": len(samples.values), "right": np.packbits(samples.values).tobytes().hex()}
    return {"n": len(samples.values), "method": samples.method, "values": samples.values.tolist()}
