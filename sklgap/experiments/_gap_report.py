"""``gap_report``: the train-test gap, the regime gap and the sharpness of the candidates of a finished search."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import accuracy_score

from sklgap._checks import check_positive, is_integer, is_one_of, shown
from sklgap.experiments import _notes as notes
from sklgap.experiments._candidates import (
    Candidate,
    TrainingLosses,
    candidates_of,
    check_same_folds,
    scorer_of,
    sharpness_sign,
    smallest_batch,
    test_to_train_ratio,
    training_losses,
)
from sklgap.experiments._estimate import Estimate, folds_estimate
from sklgap.experiments._result import Result, count, listed
from sklgap.experiments._scores import ACCURACY
from sklgap.objective._estimators import final_estimator

if TYPE_CHECKING:
    from sklgap.experiments._plot._gap_report import GapReportDisplay

# Largest number of candidates in the printed table. A search may have thousands.
_MOST_ROWS = 50
# A note reports candidates whose training accuracy is below that of the reference by more than this.
_LESS_FAR = 0.01


def gap_report(
    search: Any,
    *,
    reference: int | str | dict[str, Any] | None = None,
    scoring: str | None = None,
    test_ratio: float | None = None,
) -> "GapReport":
    r"""Read a finished search as a study of batch sizes.

    The report has scores, the train-test gap, the regime gap, the training loss and the sharpness of every candidate.

    Parameters
    ----------
    search : fitted search, or dict
        A `GridSearchCV`, `RandomizedSearchCV` or halving search, the result of `cross_validate`, or a dict from labels
        to results of `cross_validate` over the same folds. It needs ``return_train_score=True``. The folds of several
        results are compared if they have ``return_indices=True``; otherwise a note says that they may differ. To
        include sharpness, add it to the scorers: ``scoring={"accuracy": "accuracy", "neg_log_loss": "neg_log_loss",
        "sharpness": sharpness_score}, refit="accuracy"``.
    reference : int, str or dict, default=None
        The candidate that the others are compared with: its index in ``cv_results_``, its label, or parameters that
        only this candidate has (without prefixes of pipeline steps, if you like). None means the candidate with the
        smallest batch (the first of several), and for a dict of results the first one. Batch sizes are read from the
        estimator with the parameters of the candidate: ``batch_size``, or ``batch_regime`` where ``batch_size`` is
        None.
    scoring : str, default=None
        Name of the score in the search. None means accuracy, otherwise the only name that contains "accuracy",
        otherwise the only score other than sharpness and a log loss. Larger must be better, as for all scorers of
        scikit-learn. Accuracy is shown in percent and points, every other score in its own units.
    test_ratio : float, default=None
        Number of samples in a test fold divided by that in its training set, for the interval. None means the ratio of
        the splits if it is known, otherwise 1 / (n_folds - 1), which holds for k-fold, with a note. The ratio is not
        known for splits by groups, nor if the splitter has a number of samples as one of ``test_size`` and
        ``train_size``.

    Returns
    -------
    GapReport
        The report; ``print`` shows it as a table with notes.

    Raises
    ------
    ValueError
        If there are no training scores, if it is not clear which score to read, if results have different folds, if it
        is not clear which candidate has the smallest batch, or if the reference is not exactly one candidate.
    TypeError
        If ``search`` is not the result of a search.

    See Also
    --------
    compare_regimes : Runs paired trials that start from the same weights, on one training and test set.

    Notes
    -----
    The regime gap is paired over the folds. With J folds, differences of variance :math:`s^2`, and :math:`n_2 / n_1`
    test samples per training sample, its interval is

    .. math:: \bar d \pm t_{J-1} \sqrt{\Big(\frac{1}{J} + \frac{n_2}{n_1}\Big) s^2}

    The term 1/J alone would treat the folds as independent, although they share training samples. The folds of
    different iterations of a halving search use different samples, so that gaps are computed within an iteration.

    Sharpness is that of the training samples, as in the paper. A search holds its scorers, so that those of this
    package are recognised under any name. Other scores are sharpness if their name contains "sharpness". The sign of
    ``neg_sharpness_scorer``, and of other sharpness scores that are always negative, is reversed. Failed fits (NaN) are
    left out and reported.

    The sharpness of Keskar et al. compares minima. Far from a minimum it means little, and a note reports such
    candidates. This needs the training loss. It is the log loss among the training scores if there is one. Otherwise it
    is the loss of the last epoch of fitted estimators whose criterion is a cross-entropy: the estimators of all folds
    with ``cross_validate(..., return_estimator=True)``, or the one candidate that a search refits to all data. The
    number of classes, and with it the loss of guessing, is known from fitted estimators only.

    Batch-norm policies may differ: scores are those of ``predict``, and sharpness has its own ``batch_norm``. Times are
    comparable only if all fits used the machine in the same way.

    References
    ----------
    Keskar et al., ICLR 2017, Metric 2.1. Nadeau and Bengio, Inference for the Generalization Error, Machine Learning
    52, 2003, Section 3 (corrected resampled t-test).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklgap import LBGapClassifier, gap_report
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None, random_state=0)
    >>> search = GridSearchCV(model, {"batch_size": [20, 600]}, cv=3, return_train_score=True)
    >>> report = gap_report(search.fit(X / 16, y))
    >>> report.settings["reference"], bool(report.gap("batch_size=600").value > 0)
    ('batch_size=20', True)
    """
    candidates = candidates_of(search)
    key = _score_key(candidates, search, scoring)
    n_folds = _check_folds(candidates, key)
    compared = check_same_folds(search)
    chosen, sharing = _choose_reference(search, candidates, reference)
    if test_ratio is None:
        ratio, known = test_to_train_ratio(search, n_folds)
    else:
        check_positive("test_ratio", test_ratio)
        ratio, known = float(test_ratio), True
    sharpness = _sharpness_names(search, candidates)
    losses = training_losses(search, candidates)
    score = _shown_name(search, key)
    in_points = _is_accuracy(search, key)
    covers = _covers(search)
    records, gaps = [], {}
    references = _by_iteration(chosen, candidates)
    for candidate in candidates:
        beside = references[candidate.iteration]
        if beside is not None and beside is not candidate:
            differences = beside.scores[f"test_{key}"] - candidate.scores[f"test_{key}"]
            if np.isfinite(differences).any():
                known_ones = differences[np.isfinite(differences)]
                gaps[candidate.index] = replace(folds_estimate(known_ones, ratio), covers=covers)
        record = _record(candidate, key, score, sharpness, losses)
        if chosen is not None:
            record |= {"is_reference": beside is candidate, **_flat(gaps.get(candidate.index))}
        records.append(record | _times(candidate, n_folds))
    on_rows = {key for c in candidates for key in c.scores if sharpness_sign(search, _metric(key)) is not None}
    settings = {
        "search": type(search).__name__,
        "reference": None if chosen is None else chosen.label,
        "n_sharing_the_smallest_batch": sharing,
        "scoring": score,
        "in_points": in_points,
        "sharpness": list(sharpness),
        "sharpness_of_test_rows_alone": any(
            name.startswith("test_") and f"train_{name.removeprefix('test_')}" not in on_rows for name in on_rows
        ),
        "train_loss_from": losses.source,
        "n_classes": losses.n_classes,
        "n_folds": n_folds,
        "folds_compared": compared,
        "test_to_train_ratio": ratio,
        "test_to_train_ratio_known": known,
        "resource": _resource(search) if candidates[0].iteration is not None else None,
    }
    return GapReport(records, settings, gaps, losses.values)


class GapReport(Result):
    """Result of `gap_report`; ``print`` shows it.

    Attributes
    ----------
    records : list of dict
        One per candidate, in the order of ``cv_results_``: ``train_`` and ``test_`` with the name of the score (such as
        ``test_accuracy``), accuracies and gaps as fractions, ``training_loss`` if it is known, sharpness in percent,
        times in seconds. Values are means over the folds, with standard deviations as ``_std`` (divided by n - 1).
        ``regime_gap`` has the ends ``_low`` and ``_high``, which are infinite without an interval. Missing values are
        NaN.
    settings : dict
        The reference, the metrics and the folds.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(
        self,
        records: list[dict[str, Any]],
        settings: dict[str, Any],
        gaps: Mapping[int, Estimate],
        losses: Mapping[int, np.ndarray],
    ) -> None:
        super().__init__(records, settings)
        self._gaps = dict(gaps)
        self._losses = dict(losses)

    # -- statistics ------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> list[str]:
        """The labels of the candidates, in the order of the records; for a halving search with the iteration."""
        return [_named(record) for record in self.records]

    def gap(self, candidate: int | str) -> Estimate:
        """Return the regime gap: the test score of the reference minus that of a candidate, with its 95 % interval.

        Parameters
        ----------
        candidate : int or str
            Index of the candidate in the records, or its label.
        """
        labels = self.labels
        index = candidate if is_integer(candidate, 0) else labels.index(candidate) if candidate in labels else None
        if index not in self._gaps:
            with_gap = [labels[i] for i in self._gaps]
            raise ValueError(
                f"candidate must have a regime gap ({listed(with_gap) if with_gap else 'no candidate has one'}); got "
                f"{shown(candidate)}."
            )
        return self._gaps[index]

    def gaps(self) -> dict[str, Estimate]:
        """Return the regime gaps by label, for the candidates that have one."""
        labels = self.labels
        return {labels[index]: gap for index, gap in self._gaps.items()}

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s, gaps = self.settings, self.gaps()
        return [
            *self._on_fits(),
            *self._on_reference(),
            *self._on_sharpness(),
            *(self._on_folds() if gaps else []),
            *notes.no_interval(gaps),
            *notes.undecided(s["reference"], gaps, s["scoring"]),
            *notes.better(s["reference"], gaps, "accuracy" if s["in_points"] else s["scoring"]),
            *self._less_far(),
            *notes.several_intervals(sum(gap.has_interval for gap in gaps.values())),
        ]

    def _on_fits(self) -> list[str]:
        n = self.settings["n_folds"]
        failed = [f"{n - r['n_finished']} of {_named(r)}" for r in self.records if r["n_finished"] < n]
        return [f"Fits that failed or have NaN scores are left out: {listed(failed)}."] if failed else []

    def _on_reference(self) -> list[str]:
        s, found = self.settings, []
        if len(self.records) == 1:
            found.append("There is only one candidate, so there is no regime gap.")
        elif s["reference"] is None:
            found.append("All candidates have the same batch size. Give reference= to get a regime gap.")
        if s["n_sharing_the_smallest_batch"] > 1:
            found.append(
                f"{s['n_sharing_the_smallest_batch']} candidates have the smallest batch size; the first of them, "
                f"{s['reference']}, is the reference. To compare candidates that differ in one parameter only, give "
                "reference=."
            )
        if s["resource"]:
            found.append(
                f"The iterations of a halving search have different amounts of {s['resource']}, so compare candidates "
                "within an iteration only. The regime gaps do so; iterations without the reference have no regime gap."
            )
        return found

    def _on_sharpness(self) -> list[str]:
        s = self.settings
        found = []
        if s["sharpness_of_test_rows_alone"]:
            found.append(
                "Sharpness was measured on test samples only, and is left out. The paper measures it on the training "
                "loss: use return_train_score=True."
            )
        if not s["sharpness"]:
            return found
        labels = self.labels
        losses = {labels[i]: float(np.nanmean(v)) for i, v in self._losses.items() if not np.isnan(v).all()}
        if s["n_classes"] is not None:
            found += notes.far_from_a_minimum(losses, s["n_classes"])
        unknown = [label for label in labels if label not in losses]
        if s["n_classes"] is None or unknown:
            of = "any candidate" if s["n_classes"] is None else listed(unknown)
            found.append(
                f"Sharpness means little far from a minimum, and it is not known for {of} whether the models are near "
                "one. Add the score neg_log_loss and let the search refit, or use cross_validate(..., "
                "return_estimator=True)."
            )
        return found

    def _on_folds(self) -> list[str]:
        found = []
        if not self.settings["folds_compared"]:
            found.append(
                "The gaps are paired over the folds, and it is not known whether all results have the same folds. Use "
                "cross_validate(..., return_indices=True)."
            )
        if not self.settings["test_to_train_ratio_known"]:
            found.append(
                "The intervals assume folds of k-fold cross-validation that have equal sizes; for other folds, such as "
                "those of groups, give test_ratio=."
            )
        return found

    def _less_far(self) -> list[str]:
        """Report which candidates are trained less than the reference, by their losses or else by their accuracies."""
        reference = {r.get("iteration"): r for r in self.records if r.get("is_reference")}
        beside = {i: reference[self.records[i].get("iteration")] for i in self._gaps}
        labels = self.labels
        if all(i in self._losses and r["candidate"] in self._losses for i, r in beside.items()):
            pairs = {labels[i]: (self._losses[r["candidate"]], self._losses[i]) for i, r in beside.items()}
            return notes.unequal_losses(self.settings["reference"], pairs)
        if not self.settings["in_points"]:
            return []
        name = f"train_{self.settings['scoring']}"
        less = [labels[i] for i, r in beside.items() if self.records[i][name] < r[name] - _LESS_FAR]
        if not less:
            return []
        return [
            f"These have a training accuracy more than {100 * _LESS_FAR:g} point below that of "
            f"{self.settings['reference']}: {listed(less)}. Part of their gap may come from shorter training."
        ]

    # -- printing --------------------------------------------------------------------------------------------------

    def _verdict(self) -> list[str]:
        s, gaps = self.settings, self.gaps()
        if not gaps:
            best = max(self.records, key=lambda r: np.nan_to_num(r[f"test_{s['scoring']}"], nan=-np.inf))
            score = best[f"test_{s['scoring']}"]
            if math.isnan(score):
                return ["No candidate has a test score."]
            value = f"{100 * score:.2f} %" if s["in_points"] else f"{score:.4f}"
            return [f"{_named(best)} has the highest mean test {s['scoring']}, {value}."]
        label, gap = max(gaps.items(), key=lambda pair: pair[1].value)
        if gap.value <= 0 and not gap.excludes(0):
            return [f"No candidate loses to {s['reference']} in these folds."]
        what = "is" if gap.excludes(0) else "is, in these folds,"
        direction = "below" if gap.value > 0 else "above"
        sized = gap if gap.value > 0 else gap.scaled(-1)
        amount = sized.scaled(100).text(".2f", f" points of {s['scoring']}") if s["in_points"] else sized.text(".4f")
        if not gap.has_interval:
            amount, doubt = amount.removesuffix(" (no interval)"), ", without an interval"
        else:
            doubt = "" if gap.excludes(0) else ": the interval contains 0"
        return [f"{label} {what} {amount} {direction} {s['reference']} on test data{doubt}."]

    def _head(self) -> list[str]:
        s = self.settings
        head = [f"{count(len(self.records), 'candidate')}, {count(s['n_folds'], 'fold')}, mean ± std over the folds"]
        if s["sharpness"]:
            head.append("sharpness is in %, measured on the training samples of each fold")
        return head

    def _table(self) -> list[list[str]]:
        s = self.settings
        score, factor, spec = s["scoring"], *((100, ".2f") if s["in_points"] else (1, ".4f"))
        unit, points = (" (%)", " (points)") if s["in_points"] else ("", "")
        columns: list[tuple[str, Any]] = [("candidate", lambda r: r["label"])]
        if s["resource"]:
            columns.append(("iteration", lambda r: f"{r['iteration']} ({r['resources']:,} {s['resource']})"))
        columns += [
            (f"train {score}{unit}", lambda r: _mean_std(r, f"train_{score}", factor, spec)),
            (f"test {score}{unit}", lambda r: _mean_std(r, f"test_{score}", factor, spec)),
            (f"train-test gap{points}", lambda r: _mean_std(r, "train_test_gap", factor, spec)),
        ]
        if s["reference"] is not None:
            columns.append((f"regime gap{points}", lambda r: self._shown_gap(r, factor, "+" + spec)))
        if s["train_loss_from"]:
            columns.append(("train loss", lambda r: _mean_std(r, "training_loss", 1, ".2e")))
        columns += [(f"{name} (%)", lambda r, name=name: _mean_std(r, name, 1, ".3g")) for name in s["sharpness"]]
        columns.append(("seconds to fit", lambda r: _mean_std(r, "fit_seconds", 1, ".1f")))
        rows = [[name for name, _ in columns]]
        rows += [[show(record) for _, show in columns] for record in self.records[:_MOST_ROWS]]
        more = len(self.records) - _MOST_ROWS
        return [*rows, [f"... and {more:,} more", *[""] * (len(columns) - 1)]] if more > 0 else rows

    def _shown_gap(self, record: dict[str, Any], factor: float, spec: str) -> str:
        if record["is_reference"]:
            return "reference"
        gap = self._gaps.get(record["candidate"])
        if gap is None:
            return "-"
        return gap.scaled(factor).text(spec) if gap.has_interval else f"{factor * gap.value:{spec}}"

    def _reading(self) -> list[str]:
        s, lines = self.settings, []
        if len(self.records) > _MOST_ROWS:
            lines.append("to_frame() has all candidates")
        if s["train_loss_from"]:
            lines.append(f"train loss: {_LOSSES[s['train_loss_from']]}")
        if s["reference"] is None:
            return lines
        lines.append(f"regime gap: test {s['scoring']} of {s['reference']} minus the candidate's, over the same folds")
        intervals = [f"in brackets: {gap.about()}" for gap in self._gaps.values() if gap.has_interval]
        if intervals:
            lines += dict.fromkeys(intervals)
            lines.append(
                "The training sets of the folds overlap: this is the interval of the corrected resampled t-test, "
                f"an approximation itself (Nadeau and Bengio 2003; {s['test_to_train_ratio']:.3g} test to train rows)."
            )
        return lines

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        return {"gaps": [{"candidate": label, **gap.to_dict()} for label, gap in self.gaps().items()]}

    def plot(self, axes: Any = None) -> "GapReportDisplay":
        """Draw training and test scores and sharpness of every candidate; return a `GapReportDisplay`."""
        from sklgap.experiments._plot._gap_report import GapReportDisplay

        return GapReportDisplay.from_report(self, axes=axes)


_LOSSES = {
    "scores": "log loss of the training samples of each fold, as predict_proba sees them",
    "estimators": "of the last epoch, in training mode, of the estimator of each fold",
    "best_estimator_": "of the last epoch, in training mode, of the model that was fitted again to all the data",
}


# -- numbers -----------------------------------------------------------------------------------------------------------


def _record(
    candidate: Candidate, key: str, score: str, sharpness: dict[str, float], losses: TrainingLosses
) -> dict[str, Any]:
    train, test = (candidate.scores[f"{part}_{key}"] for part in ("train", "test"))
    finished = np.isfinite(train) & np.isfinite(test)
    record: dict[str, Any] = {
        "candidate": candidate.index,
        "label": candidate.label,
        **{f"param_{name}": value for name, value in candidate.parameters.items()},
    }
    if candidate.iteration is not None:
        record |= {"iteration": candidate.iteration, "resources": candidate.resources}
    record["n_finished"] = int(finished.sum())
    if losses.source:
        of_folds = losses.values.get(candidate.index, np.array([]))
        record |= _moments("training_loss", of_folds[~np.isnan(of_folds)])
    record |= _moments(f"train_{score}", train[finished]) | _moments(f"test_{score}", test[finished])
    record |= _moments("train_test_gap", (train - test)[finished])
    for name, sign in sharpness.items():
        values = sign * candidate.scores[f"train_{name}"]
        record |= _moments(name, values[np.isfinite(values)])
    return record


def _moments(name: str, values: np.ndarray) -> dict[str, float]:
    mean = float(values.mean()) if len(values) else math.nan
    return {name: mean, f"{name}_std": float(values.std(ddof=1)) if len(values) > 1 else math.nan}


def _flat(gap: Estimate | None) -> dict[str, float]:
    value, low, high, n = (math.nan, math.nan, math.nan, 0) if gap is None else (gap.value, gap.low, gap.high, gap.n)
    return {"regime_gap": value, "regime_gap_low": low, "regime_gap_high": high, "n_pairs": n}


def _times(candidate: Candidate, n_folds: int) -> dict[str, float]:
    by_n_minus_1 = math.sqrt(n_folds / (n_folds - 1)) if n_folds > 1 else math.nan
    return {"fit_seconds": candidate.fit_time, "fit_seconds_std": by_n_minus_1 * candidate.fit_time_std}


def _by_iteration(reference: Candidate | None, candidates: list[Candidate]) -> dict[int | None, Candidate | None]:
    """Return the reference of each iteration; None for an iteration of a halving search without it."""
    found: dict[int | None, Candidate | None] = {candidate.iteration: None for candidate in candidates}
    if reference is None:
        return found
    alike = [c for c in candidates if _same(c.parameters, reference.parameters)] if len(found) > 1 else []
    found |= {c.iteration: c for c in reversed(alike)}  # the first of several
    return found | {reference.iteration: reference}


# -- what is what ------------------------------------------------------------------------------------------------------


def _score_key(candidates: list[Candidate], search: Any, scoring: Any) -> str:
    """Return the name of the score in the results."""
    names = [key.removeprefix("test_") for key in candidates[0].scores if key.startswith("test_")]
    by_shown = {_shown_name(search, name): name for name in names}  # a search with one score calls it "score"
    others = [name for name in names if sharpness_sign(search, name) is None]
    if scoring is not None:
        found = [scoring] if is_one_of(scoring, names) else [by_shown[scoring]] if is_one_of(scoring, by_shown) else []
    else:
        choices = (
            [name for name in names if _is_accuracy(search, name)],
            [name for name in names if ACCURACY in name],
            others,
            [name for name in others if not name.endswith("log_loss")],  # measured beside another score
        )
        found = next((choice for choice in choices if len(choice) == 1), [])
    if (names and not others and scoring is None) or any(sharpness_sign(search, name) for name in found):
        raise ValueError(
            "scoring must name a score other than sharpness, because the gaps are those of a score of predictions; the "
            f"search has {', '.join(map(repr, by_shown))}. Add one, such as scoring={{'accuracy': 'accuracy', "
            "'sharpness': sharpness_score}."
        )
    if len(found) != 1:
        raise ValueError(
            f"scoring must name a score of the search, one of {', '.join(map(repr, by_shown)) or 'none'}; "
            f"got {shown(scoring)}."
        )
    if f"train_{found[0]}" not in candidates[0].scores:
        raise ValueError(
            "search must have training scores, because the gaps need them; got test scores alone. Use "
            "return_train_score=True."
        )
    return found[0]


def _shown_name(search: Any, key: str) -> str:
    """Return the printed name of a score. If the results call it "score", it is the scoring of the search."""
    scoring = getattr(search, "scoring", None)
    if key != "score":
        return key
    return scoring if isinstance(scoring, str) else ACCURACY if _is_accuracy(search, key) else key


def _is_accuracy(search: Any, key: str) -> bool:
    """Return whether a score is known to be accuracy, which is a share of samples."""
    scorer = scorer_of(search, key)
    if scorer is None:
        return key == ACCURACY
    if hasattr(scorer, "_score_func"):
        of_rows = getattr(scorer, "_sign", 1) == 1 and not getattr(scorer, "_kwargs", {})
        return scorer._score_func is accuracy_score and of_rows
    return getattr(search, "scoring", "") is None and is_classifier(search.estimator)  # its method score


def _covers(search: Any) -> str:
    """Return what an interval over the folds covers. Only a search says whether its fits had different seeds."""
    rows = "new training and test samples of these sizes"
    if not hasattr(search, "estimator"):
        return f"{rows}, and new seeds if the folds had different seeds"
    parameters = final_estimator(search.estimator).get_params(deep=False)
    return f"{rows}, and new seeds" if parameters.get("random_state") is None else f"{rows}, with the same seed"


def _check_folds(candidates: list[Candidate], key: str) -> int:
    """Return the number of folds, which must be the same for all candidates."""
    for candidate in candidates:
        for name in (f"train_{key}", f"test_{key}"):
            if name not in candidate.scores:
                raise ValueError(f"search must have {name!r} for every label; {candidate.label!r} does not have it.")
    counts = {len(candidate.scores[f"test_{key}"]) for candidate in candidates}
    if len(counts) > 1:
        raise ValueError(f"search must have results over the same folds; got {sorted(counts)} folds.")
    return counts.pop()


def _metric(key: str) -> str:
    """Return the name of the metric of a column, such as accuracy for test_accuracy."""
    return key.removeprefix("train_") if key.startswith("train_") else key.removeprefix("test_")


def _sharpness_names(search: Any, candidates: list[Candidate]) -> dict[str, float]:
    """Return the metrics that are sharpness, each with the sign that makes it positive."""
    signs: dict[str, float] = {}
    for key in candidates[0].scores:
        name, sign = _metric(key), sharpness_sign(search, _metric(key))
        if not key.startswith("train_") or sign is None or not all(key in c.scores for c in candidates):
            continue
        if sign:
            signs[name] = float(sign)
            continue
        values = np.concatenate([candidate.scores[key] for candidate in candidates])
        values = values[np.isfinite(values)]
        # Sharpness is never negative, so a negative score is a scorer that prefers flat minima.
        signs[name] = -1.0 if len(values) and values.max() <= 0 and values.min() < 0 else 1.0
    return signs


def _resource(search: Any) -> str:
    return "samples" if getattr(search, "resource", "n_samples") == "n_samples" else str(search.resource)


def _choose_reference(
    search: Any, candidates: list[Candidate], reference: int | str | dict[str, Any] | None
) -> tuple[Candidate | None, int]:
    """Return the reference, or None if it is not determined, and the number of candidates with its batch size."""
    first = [c for c in candidates if c.iteration in (None, candidates[0].iteration)]
    if reference is None:
        if len(first) == 1:
            return None, 0
        return (first[0], 1) if not hasattr(search, "cv_results_") else smallest_batch(search, first)
    if is_integer(reference, 0) and reference < len(candidates):
        return candidates[reference], 1
    if isinstance(reference, str):
        found = [c for c in first if c.label == reference]
    elif isinstance(reference, dict) and reference:
        found = [c for c in first if all(_has(c.parameters, key, value) for key, value in reference.items())]
    else:
        found = []
    if len(found) != 1:
        raise ValueError(
            f"reference must be the index, the label or the parameters of one of {len(candidates)} candidates, such as "
            f"{first[0].label!r}; got {reference!r}" + (f", which {len(found)} of them have." if found else ".")
        )
    return found[0], 1


def _has(parameters: dict[str, Any], key: str, value: Any) -> bool:
    keys = [own for own in parameters if own == key or own.endswith(f"__{key}")]
    return any(_equal(parameters[own], value) for own in keys)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)


def _equal(one: Any, other: Any) -> bool:
    return one is other or repr(one) == repr(other)  # regimes and remedies do not compare


def _named(record: dict[str, Any]) -> str:
    return record["label"] + (f" (iteration {record['iteration']})" if "iteration" in record else "")


def _mean_std(record: dict[str, Any], name: str, scale: float, spec: str) -> str:
    mean, std = scale * record[name], scale * record[f"{name}_std"]
    if math.isnan(mean):
        return "-"
    return format(mean, spec) + ("" if math.isnan(std) else f" ± {format(std, spec)}")
