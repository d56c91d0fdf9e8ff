"""``largest_safe_batch_size``: the largest batch size that is shown to lose less of a score than a margin."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import is_number, shown
from sklgap.experiments import _notes as notes
from sklgap.experiments._batch_size_curve import BatchSizeCurve
from sklgap.experiments._estimate import (
    DEFAULT_MARGIN,
    FAILED_MARGINS,
    NEW_SEEDS_AND_ROWS,
    Components,
    LossTest,
    check_margin,
    fixed_sequence,
    loss_test,
    needed_rows,
)
from sklgap.experiments._result import Result, count, listed
from sklgap.experiments._scores import Score, Scoring, check_scoring
from sklgap.experiments._training_function import is_training_function, name_of

if TYPE_CHECKING:
    from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay


@dataclass(frozen=True)
class NonInferiority:
    """A one-sided paired test that a batch size loses less than the margin.

    Attributes
    ----------
    batch_size : int
        The batch size that is tested against the reference.
    score : str
        Name of the score.
    lost : float
        Mean score of the reference minus mean score of the batch size, in the units of the score.
    bound : float
        Upper confidence bound of ``lost``; infinite with fewer than two paired trials, or if all trials are identical.
    p_value : float
        p value of the hypothesis that the margin or more is lost; NaN if there is no bound.
    n_trials : int
        Number of paired trials.
    worst : float
        The largest loss of a single trial; infinite if a trial has no finite score.
    n_failed : int
        Number of trials that lost more than five margins, or have no finite score.
    shown : bool
        Whether the bound is below the margin and no trial failed.
    """

    batch_size: int
    score: str
    lost: float
    bound: float
    p_value: float
    n_trials: int
    worst: float
    n_failed: int
    shown: bool


class SafeBatchSize(Result):
    """Result of `largest_safe_batch_size`; ``print`` shows the tests, and ``int`` is the batch size.

    Attributes
    ----------
    batch_size : int
        The largest batch size shown to be safe, in samples; the reference if no larger one was shown to be safe.
    reference : int
        The batch size that the others are compared with.
    margins : dict of str to float
        The acceptable loss of each score, in its units.
    confidence : float
        One-sided confidence of the bounds.
    tests : list of NonInferiority
        Tests on validation data, from the smallest batch size above the reference up to the first one that is not shown
        to be safe.
    untested : list of int
        Larger batch sizes, which the fixed sequence leaves untested.
    confirmations : list of NonInferiority
        Tests of the chosen batch size on the test data of a second curve with other seeds; empty without a second
        curve.
    confirmed : bool or None
        Whether all confirmations show that the batch size is safe; None without confirmations.
    notes : list of str
        Sentences that a reader must know before believing the answer, including the notes of the curve.
    """

    def __init__(
        self,
        curve: BatchSizeCurve,
        margins: dict[str, float],
        confidence: float,
        tests: Sequence[NonInferiority],
        chosen: int,
        confirmations: Sequence[NonInferiority] = (),
    ) -> None:
        self._curve = curve
        self.batch_size, self.reference = chosen, curve.reference
        self.margins, self.confidence = margins, confidence
        self.tests, self.confirmations = list(tests), list(confirmations)
        tested = {test.batch_size for test in tests}
        self.untested = [size for size in curve.batch_sizes if size > curve.reference and size not in tested]
        self.confirmed = all(test.shown for test in self.confirmations) if self.confirmations else None
        settings = {"margins": margins, "confidence": confidence, "reference": curve.reference, "curve": curve.settings}
        super().__init__([asdict(test) for test in self.tests], settings, curve.interrupted)

    def __int__(self) -> int:
        return self.batch_size

    __index__ = __int__

    # -- printing --------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the answer."""
        found = [f"The curve: {note}" for note in self._curve.notes if "hold-out of" not in note]
        failed = [test for test in self.tests if test.n_failed]
        for test in failed:
            found.append(
                f"Batches of {test.batch_size:,} failed in {test.n_failed} of {count(test.n_trials, 'trial')}: they "
                f"lost more than {FAILED_MARGINS} margins there, or have no finite {test.score}. This batch size is "
                "not safe, whatever the other trials show."
            )
        if not failed and self.tests:
            found += notes.unseen_failures(min(test.n_trials for test in self.tests))
        return found

    def _verdict(self) -> list[str]:
        first = f"largest batch size shown to be safe: {self.batch_size:,} (reference {self.reference:,})"
        return [first, *self._conclusion()]

    def _conclusion(self) -> list[str]:
        if not self.tests:
            return ["The curve has no batch size above the reference, so nothing was tested."]
        margin = self._margins_in_words()
        last = [test for test in self.tests if test.batch_size == self.tests[-1].batch_size]
        if all(test.shown for test in last):
            lines = [f"All batch sizes are shown to lose less than {margin}. A larger one may be safe too."]
        else:
            first = f"Batches of {last[0].batch_size:,} are not shown to lose less than {margin}."
            more = " That does not prove that they lose more. More trials or more validation samples may decide it."
            if any(test.p_value > self.confidence for test in last):  # the opposite test, at the same level
                more = " They are shown to lose more."
            lines = [first if any(test.n_failed for test in last) else first + more]
        if not self.confirmations and self.batch_size != self.reference:
            lines.append("The answer is not confirmed with other seeds; see the parameter confirm.")
        return lines + [self._confirmation(test) for test in self.confirmations]

    def _confirmation(self, test: NonInferiority) -> str:
        found = "confirmed" if test.shown else "NOT confirmed"
        bound = f"bound {self._units(test.bound, test.score)}" if np.isfinite(test.bound) else "no bound"
        data = "the test data and " if self._curve.judged == "test" else ""
        return (
            f"Batches of {test.batch_size:,} are {found} by {data}{count(test.n_trials, 'trial')} with other seeds: "
            f"{self._units(test.lost, test.score)} lost, {bound}."
        )

    def _head(self) -> list[str]:
        s = self._curve.settings
        samples = "" if s["n_valid"] is None else f"{s['n_valid']:,} validation samples, "
        return [samples + count(s["n_trials"], "trial")]

    def _table(self) -> list[list[str]]:
        level = f"{100 * self.confidence:g} % bound"
        rows = [["batch size", "score", "lost", level, "p", "trials", "worst trial", "less than", "shown"]]
        for test in self.tests:
            bound, p_value = "none", "none"
            if np.isfinite(test.bound):
                bound, p_value = self._number(test.bound, test.score), f"{test.p_value:.2g}"
            lost, worst = ("-" if np.isnan(v) else self._number(v, test.score) for v in (test.lost, test.worst))
            margin = self._units(self.margins[test.score], test.score, sign=False)
            answer = "shown" if test.shown else "not shown"
            rows.append(
                [f"{test.batch_size:,}", test.score, lost, bound, p_value, str(test.n_trials), worst, margin, answer]
            )
        return rows + [[f"{size:,}", "", "", "", "", "", "", "", "not tested"] for size in self.untested]

    def _reading(self) -> list[str]:
        points = "; accuracy in points" if any(self._curve.score(name).in_points for name in self.margins) else ""
        return [
            f"lost: score of the reference minus that of the batch size{points}",
            "Assumptions:",
            *self._assumptions(),
        ]

    def _assumptions(self) -> list[str]:
        """Return the assumptions of the answer."""
        s = self._curve.settings
        level = f"{100 * (1 - self.confidence):.3g} %"
        lines = [
            f"* Each test is one-sided at level {level} and uses differences between paired trials. It covers "
            f"{self._covers()}.",
            "* The order of the tests is fixed beforehand, upwards from the reference, and the first test that does "
            "not show safety is the last. The chance to call a batch size safe that loses the margin or more is "
            f"therefore at most about {level}, without a correction for several tests.",
            f"* The margin is a loss of {listed(list(self.margins))}. Nothing is shown for other scores or for single "
            "classes.",
        ]
        if s["n_valid"] is None:
            lines.append(
                "* The number of validation samples is not known. If there are few, a single sample may change the "
                "score by as much as the margin."
            )
        if s["lr"] == "tuned":
            lines.append("* The learning rates were chosen on the same validation samples, with other seeds.")
        return lines

    def _covers(self) -> str:
        covers = []
        for test in self.tests:
            covers.append(self._curve.difference(self.reference, test.batch_size, f"valid_{test.score}").covers)
        return " or ".join(dict.fromkeys(covers)) or NEW_SEEDS_AND_ROWS.replace("test", "validation")

    def _number(self, value: float, score: str) -> str:
        return f"{100 * value:+.2f}" if self._curve.score(score).in_points else f"{value:+.4f}"

    def _units(self, value: float, score: str, *, sign: bool = True) -> str:
        in_points = self._curve.score(score).in_points
        number = f"{100 * value:{'+' if sign else ''}.4g}" if in_points else f"{value:{'+' if sign else ''}.4g}"
        return f"{number} {'point' if number.lstrip('+-') == '1' else 'points'}" if in_points else number

    def _margins_in_words(self) -> str:
        words = [f"{self._units(margin, name, sign=False)} of {name}" for name, margin in self.margins.items()]
        return " and ".join(words) + " on validation data"

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        own = {"batch_size": self.batch_size, "confirmed": self.confirmed, "assumptions": self._assumptions()}
        sizes = dict.fromkeys((test.batch_size, test.score) for test in self.tests)
        components = {
            f"{size}, {score}": self._curve.components(self.reference, size, f"valid_{score}").to_dict()
            for size, score in sizes
        }
        return {**own, "components": components, "confirmations": [asdict(test) for test in self.confirmations]}

    def plot(self, ax: Any = None) -> "BatchSizeCurveDisplay":
        """Draw the curve with the safe batch size marked; return a `BatchSizeCurveDisplay`."""
        return self._curve.plot(ax=ax, safe=self)


def largest_safe_batch_size(
    curve: BatchSizeCurve,
    margin: float | Mapping[str, float] | None = None,
    *,
    scoring: Scoring = None,
    confidence: float = 0.95,
    confirm: BatchSizeCurve | None = None,
) -> SafeBatchSize:
    r"""Return the largest batch size that is shown to lose less of a validation score than a margin.

    For each batch size above the reference, in ascending order, a one-sided paired test asks whether its loss is below
    the margin. :math:`D_{ij}` is the score of the reference minus that of the batch size, in trial j on sample i. The
    loss is shown to be below the margin if

    .. math:: \bar D + t_{\mathrm{confidence}} \sqrt v < \mathrm{margin}

    and no single trial loses more than five margins. Here v is the variance of the mean over new seeds *and* new
    samples (`Components`). The search ends at the first batch size whose loss is not shown to be below the margin.

    Parameters
    ----------
    curve : BatchSizeCurve
        Result of `batch_size_curve` for an estimator or a training function, with at least two trials. Batch sizes
        below its reference are not considered.
    margin : float or dict of str to float, default=None
        The acceptable loss, in the units of the score, or a dict from names of scores to such losses. None means 0.005,
        half a point, for scores that lie in [0, 1]; other scores need a margin.
    scoring : str, scorer, or dict of these, default=None
        Scores to test, among those that the curve has measured. With several scores, a batch size is safe only if it is
        shown to be safe for each of them. None means the first score.
    confidence : float, default=0.95
        One-sided confidence of the bounds, above 0.5 and below 1.
    confirm : BatchSizeCurve, default=None
        A second curve that confirms the choice. It needs the reference and the chosen batch size, another
        ``random_state``, the same ``lr``, ``budget``, ``max_epochs`` and learning rate, and as many samples. The same
        test is repeated on its test data. The choice does not change, and the result says whether it is confirmed. For
        training functions, the test uses the scores that the second function returns, which should be scores on test
        data.

    Returns
    -------
    SafeBatchSize
        The answer; ``print`` shows a table with the assumptions, and ``int`` is the batch size.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, if the margin needs more validation samples, or if the second
        curve shares seeds with the first.

    See Also
    --------
    batch_size_curve : Computes the curve.

    Notes
    -----
    This is a non-inferiority test. A difference that is not significant shows nothing; a bound below the margin shows
    that the loss is small. Few or noisy trials make the answer smaller, not wrong. The tests form a fixed sequence, so
    that the chance to call *any* batch size safe that loses the margin or more is at most 1 - confidence. With several
    scores, all must be shown, which needs no correction either. As a consequence, a batch size above one that is not
    shown to be safe is never called safe, even if it is.

    Few trials do not reveal a batch size that fails for few seeds. The result reports the largest rate of failures that
    these trials may have missed.

    References
    ----------
    Maurer, Hothorn and Lehmacher, Multiple comparisons in drug clinical trials and preclinical assays: a-priori ordered
    hypotheses, Biometrie in der chemisch-pharmazeutischen Industrie 6, 1995: the fixed sequence.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, batch_size_curve, largest_safe_batch_size
    >>> X, y = load_digits(return_X_y=True)
    >>> curve = batch_size_curve(
    ...     LBGapClassifier(module__width=16, max_epochs=3, tol=None), X[:900] / 16, y[:900], X[900:] / 16, y[900:],
    ...     batch_sizes=[20, 200], validation_fraction=0.5, n_trials=3, epsilon=[], random_state=0, verbose=0)
    >>> safe = largest_safe_batch_size(curve, margin=0.02)
    >>> int(safe)
    20
    """
    if is_training_function(curve):
        raise TypeError(
            "curve must be a BatchSizeCurve; got a function. Compute the curve first by "
            f"batch_size_curve({name_of(curve)}, batch_sizes=..., n_trials=...); it can be tested with any margin."
        )
    if not isinstance(curve, BatchSizeCurve):
        raise TypeError(f"curve must be a BatchSizeCurve; got {type(curve).__name__}.")
    if not is_number(confidence) or not 0.5 < confidence < 1:
        raise ValueError(f"confidence must be a number above 0.5 and below 1; got {shown(confidence)}.")
    if curve.settings["n_trials"] < 2:
        raise ValueError("curve must have at least 2 trials, because one trial gives no bound.")
    if not len(curve.values(curve.reference, "trial")):
        raise ValueError("curve must have a finished fit of its reference, but it was interrupted before that.")
    scores = _scores_of(curve, scoring)
    margins = _check_margins(margin, scores, curve.settings["n_valid"])
    larger = [size for size in curve.batch_sizes if size > curve.reference]
    tested = fixed_sequence(
        larger,
        lambda size: [_test(curve, size, "valid", score.name, margins[score.name], confidence) for score in scores],
    )
    tests = [test for _, of_size in tested for test in of_size]
    chosen = max([curve.reference, *(size for size, of_size in tested if all(test.shown for test in of_size))])
    confirmations = []
    if confirm is not None:
        _check_second(curve, confirm, chosen)
        if chosen != curve.reference:
            _check_confirming(confirm, scores, margins)
            confirmations = [
                _test(confirm, chosen, confirm.judged, score.name, margins[score.name], confidence) for score in scores
            ]
    return SafeBatchSize(curve, margins, float(confidence), tests, chosen, confirmations)


def _test(curve: BatchSizeCurve, size: int, part: str, score: str, margin: float, confidence: float) -> NonInferiority:
    losses: Components = curve.components(curve.reference, size, f"{part}_{score}", strict=True)
    found: LossTest = loss_test(losses, margin, confidence)
    lost = int((~np.isfinite(curve.paired(curve.reference, size, f"{part}_{score}")[1])).sum())
    if lost:  # these trainings diverged, and a missing score counts as the worst
        n_failed, n_trials = found.n_failed + lost, found.n_trials + lost
        found = replace(found, worst=math.inf, n_failed=n_failed, n_trials=n_trials, shown=False)
    return NonInferiority(size, score, **asdict(found))


def _scores_of(curve: BatchSizeCurve, scoring: Any) -> list[Score]:
    """Return the scores of the curve that ``scoring`` names."""
    if scoring is None:
        return [curve.scores[0]]
    if isinstance(scoring, Mapping) and scoring:
        asked = [(name, check_scoring({name: one})[0].scorer) for name, one in scoring.items()]
    else:
        asked = [(one, None) for one in (scoring if isinstance(scoring, list | tuple) and scoring else [scoring])]
    by_name = {score.name: score for score in curve.measured}
    found = []
    for one, scorer in asked:
        if isinstance(one, str) and one in by_name:
            same = [curve.score(one)] if scorer is None or _equal(curve.score(one).scorer, scorer) else []
        else:
            same = [score for score in curve.scores if not isinstance(one, str) and _equal(score.scorer, one)]
        if not same:
            raise ValueError(
                f"scoring must name scores that the curve has measured, {', '.join(map(repr, by_name))}; got "
                f"{shown(one)}. Measure it with batch_size_curve(..., scoring=...)."
            )
        found += same[:1]
    return found


def _equal(measured: Any, asked: Any) -> bool:
    """Return whether two scorers compute the same score. This is known for scikit-learn's own scorers only."""
    functions = [getattr(scorer, "_score_func", None) for scorer in (measured, asked)]
    same_function = functions[0] is not None and functions[0] is functions[1]
    return measured is asked or (same_function and repr(measured) == repr(asked))


def _check_margins(margin: Any, scores: Sequence[Score], n_valid: int) -> dict[str, float]:
    """Return the margin of each score."""
    if isinstance(margin, Mapping):
        unknown = [name for name in margin if name not in {score.name for score in scores}]
        if unknown:
            raise ValueError(f"margin must have the names of the scores tested; got {shown(unknown[0])}.")
    margins = {}
    for score in scores:
        own = margin.get(score.name) if isinstance(margin, Mapping) else margin
        if own is None:
            if not score.is_fraction:
                raise ValueError(
                    f"margin must be given for {score.name}, in its units, because it may not lie in [0, 1]; got None."
                )
            own = DEFAULT_MARGIN
        if score.is_fraction:
            check_margin(own, n_valid)
        elif not is_number(own) or own <= 0:
            raise ValueError(f"margin must be a number above 0, in the units of {score.name}; got {shown(own)}.")
        margins[score.name] = float(own)
    return margins


def _check_confirming(second: BatchSizeCurve, scores: Sequence[Score], margins: Mapping[str, float]) -> None:
    """Raise a ValueError for a second curve whose test data cannot confirm the choice."""
    n_test = second.settings[f"n_{second.judged}"]
    for score in scores:
        if not any(own.name == score.name and _equal(own.scorer, score.scorer) for own in second.measured):
            raise ValueError(
                f"confirm must have measured {score.name!r} too; it has measured {second.settings['scores']}."
            )
        if score.is_fraction != second.score(score.name).is_fraction:
            raise ValueError(
                f"confirm must return 'correct' for {score.name!r} if the first curve does, and only then."
            )
        if score.is_fraction and n_test < needed_rows(margins[score.name]):
            raise ValueError(
                f"confirm must have at least {needed_rows(margins[score.name]):,} {second.judged_part} samples for a "
                f"margin of {margins[score.name]:g}; it has {n_test:,}."
            )


def _check_second(curve: BatchSizeCurve, second: Any, chosen: int) -> None:
    if not isinstance(second, BatchSizeCurve):
        raise TypeError(f"confirm must be None or a BatchSizeCurve; got {type(second).__name__}.")
    if second.judged != curve.judged:
        raise ValueError("confirm and curve must both be curves of estimators, or both of training functions.")
    shared = _seeds(curve) & _seeds(second)
    if shared:
        raise ValueError(
            f"confirm must be a curve with other seeds, from another random_state; the first curve used "
            f"{count(len(shared), 'seed')} of it."
        )
    if second.reference != curve.reference or chosen not in second.batch_sizes:
        raise ValueError(
            f"confirm must have the reference {curve.reference} and the chosen batch size, {chosen}; got the reference "
            f"{second.reference} and the batch sizes {second.batch_sizes}."
        )
    for name in ("lr", "budget", "max_epochs", "target_loss", "n_train", "batch_norm"):
        if second.settings[name] != curve.settings[name]:
            raise ValueError(
                f"confirm must have the {name} of the first curve, {curve.settings[name]!r}; "
                f"got {second.settings[name]!r}."
            )
    if curve.has("lr") != second.has("lr"):
        raise ValueError("confirm must have been given a learning_rate if the first curve was, and only then.")
    rates = [c.values(c.reference, "lr")[:1].tolist() if c.has("lr") else [] for c in (curve, second)]
    if curve.settings["lr"] != "tuned" and all(rates) and rates[0] != rates[1]:
        raise ValueError(
            f"confirm must have the learning rate of the first curve, {rates[0][0]:g} at batches of "
            f"{curve.reference}; got {rates[1][0]:g}."
        )


def _seeds(curve: BatchSizeCurve) -> set[int]:
    return {record["seed"] for record in curve.records} | set(curve.settings["tuning_seeds"])
