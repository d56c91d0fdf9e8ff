"""``largest_safe_batch_size``: the largest batch that is shown to cost no more accuracy than a margin."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sklgap._checks import is_number
from sklgap.experiments._batch_size_report import BatchSizeCurve
from sklgap.experiments._result import aligned, count, to_frame, to_json

# Accuracies are ratios of integers: what is computed of differences that equal the margin is off by less.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class NonInferiority:
    """A one-sided paired test that a batch size costs less than the margin.

    Attributes
    ----------
    batch_size : int
        The size tested against the reference.
    accuracy_lost : float
        Mean accuracy of the reference minus that of the size, as a fraction.
    bound : float
        Its upper confidence bound; infinite with fewer than two paired trials.
    p_value : float
        Of the hypothesis that the margin or more is lost; NaN with fewer than two paired trials.
    n_trials : int
        Paired trials.
    shown : bool
        Whether the bound is below the margin.
    """

    batch_size: int
    accuracy_lost: float
    bound: float
    p_value: float
    n_trials: int
    shown: bool


@dataclass(frozen=True, repr=False)
class SafeBatchSize:
    """The largest batch size shown to be safe; ``print`` it, and ``int`` it.

    Attributes
    ----------
    batch_size : int
        In rows; the reference itself where no larger size was shown to be safe.
    reference : int
        The size that it is not worse than by more than the margin.
    margin : float
        In accuracy, as a fraction.
    confidence : float
        Of the bounds, one-sided.
    tests : list of NonInferiority
        On validation accuracy, from the smallest size above the reference up to the first that failed.
    untested : list of int
        Sizes above that one, which the fixed sequence leaves untested.
    confirmation : NonInferiority or None
        The test of the size chosen on the test accuracy of trials with other seeds.
    n_valid : int
        Validation samples.
    valid_accuracy : float
        Mean validation accuracy of the reference.
    tuned : bool
        Whether the learning rates were chosen on the same validation data.
    notes : list of str
        What the curve warns of: unequal training losses, fits that had not converged or finished.
    """

    batch_size: int
    reference: int
    margin: float
    confidence: float
    tests: list[NonInferiority]
    untested: list[int]
    confirmation: NonInferiority | None
    n_valid: int
    valid_accuracy: float
    tuned: bool
    notes: list[str]

    def __int__(self) -> int:
        return self.batch_size

    __index__ = __int__

    @property
    def confirmed(self) -> bool | None:
        """Whether the second curve shows the same; None without one, or where the reference was chosen."""
        return None if self.confirmation is None else self.confirmation.shown

    @property
    def sampling_error(self) -> float:
        """Standard error of one validation accuracy over draws of the validation data, as a fraction."""
        return (self.valid_accuracy * (1 - self.valid_accuracy) / self.n_valid) ** 0.5

    def __str__(self) -> str:
        head = f"largest batch size shown to be safe: {self.batch_size:,} rows (reference {self.reference:,})"
        notes = ["Please note of the curve:", *(f"* {note}" for note in self.notes), ""] if self.notes else []
        body = [*self._table(), "", *self._reading(), "", *notes, "Assumptions:", *self._assumptions()]
        return "\n".join([head, "", *body])

    __repr__ = __str__

    def _table(self) -> list[str]:
        level = f"{100 * self.confidence:g} % bound"
        rows = [["batch size", "accuracy lost (points)", level, "p", "trials", f"below {_points(self.margin)}"]]
        for test in self.tests:
            numbers = [f"{100 * test.accuracy_lost:+.2f}", f"{100 * test.bound:+.2f}", f"{test.p_value:.2g}"]
            if test.n_trials < 2:
                numbers = ["" if test.n_trials == 0 else numbers[0], "none", "none"]
            rows.append([f"{test.batch_size:,}", *numbers, str(test.n_trials), "shown" if test.shown else "not shown"])
        rows += [[f"{size:,}", "", "", "", "", "not tested"] for size in self.untested]
        return aligned(rows)

    def _reading(self) -> list[str]:
        margin, lines = _points(self.margin), []
        if not self.tests:
            lines.append("The curve has no size above the reference: nothing was tested.")
        elif self.batch_size == self.reference:
            lines.append(
                f"No larger size is shown to lose less than {margin} of validation accuracy. That is no proof that "
                "they lose more: more trials may show it."
            )
        elif self.tests[-1].shown:
            lines.append(
                f"All sizes are shown to lose less than {margin} of validation accuracy: a larger one may be safe too."
            )
        else:
            lines.append(
                f"Batches of {self.tests[-1].batch_size:,} are not shown to lose less than {margin} of validation "
                "accuracy. That is no proof that they lose more: more trials may show it."
            )
        test = self.confirmation
        if test is not None:
            bound = (
                "no bound from fewer than 2 trials" if test.n_trials < 2 else f"bound {100 * test.bound:+.2f} points"
            )
            found = "confirmed" if test.shown else "NOT confirmed"
            lines.append(
                f"Batches of {test.batch_size:,} are {found} by the test accuracy of {count(test.n_trials, 'trial')} "
                f"with other seeds: {100 * test.accuracy_lost:+.2f} points lost, {bound}."
            )
        elif self.batch_size != self.reference:
            lines.append("Not confirmed on other seeds: see the parameter confirm.")
        if self.sampling_error > self.margin / 2:
            lines.append(
                f"The margin is small for {self.n_valid:,} validation samples: on other data more may well be lost. "
                "Hold out more."
            )
        return lines

    def _assumptions(self) -> list[str]:
        lines = [
            f"* One-sided paired tests by Student's t over trials, each at level {100 * (1 - self.confidence):.3g} %: "
            "differences between paired trials are independent and normal.",
            "* The order of the tests is fixed beforehand, upwards from the reference, and the first failure ends "
            "them: the chance to call any size safe that loses the margin or more is at most that level, without a "
            "correction for several tests.",
            "* The trials differ in their seeds, not in their data: the result is about this training set and these "
            f"{self.n_valid:,} validation samples. Another draw of them would move a single accuracy by about "
            f"{100 * self.sampling_error:.2g} points (one standard error), a difference between sizes usually by less.",
            "* The margin is one of accuracy: nothing is said of loss, calibration or single classes.",
        ]
        if self.tuned:
            lines.append("* The learning rates were chosen on the same validation samples, by other seeds.")
        return lines

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per test; needs pandas."""
        return to_frame([asdict(test) for test in self.tests])

    def to_json(self, path: str | Path | None = None) -> str:
        """Return everything as JSON; write it to ``path`` if given."""
        return to_json({**asdict(self), "confirmed": self.confirmed, "assumptions": self._assumptions()}, path)


def largest_safe_batch_size(
    curve: BatchSizeCurve, margin: float = 0.005, *, confidence: float = 0.95, confirm: BatchSizeCurve | None = None
) -> SafeBatchSize:
    r"""Return the largest batch size that is shown to lose less validation accuracy than a margin.

    For each size above the reference, in ascending order, a one-sided paired test asks whether its loss of accuracy,
    with differences :math:`d_i` over :math:`n` paired trials, is below the margin:

    .. math:: \bar d + t_{n - 1,\, \mathrm{confidence}} \; s_d / \sqrt n < \mathrm{margin}

    The first size of which that is not shown ends the search.

    Parameters
    ----------
    curve : BatchSizeCurve
        From `batch_size_curve`, with at least two trials. Sizes below its reference are not considered.
    margin : float, default=0.005
        The loss of accuracy that is put up with, as a fraction: half a point.
    confidence : float, default=0.95
        One-sided confidence of the bounds, above 0.5 and below 1.
    confirm : BatchSizeCurve, default=None
        A second curve over at least the reference and the size chosen, made with another ``random_state``, and with the
        same ``lr``, ``budget`` and ``max_epochs``, at the same learning rate, on as many rows. The same test is
        repeated there, on test accuracy; the choice stays, and whether it is confirmed is told.

    Returns
    -------
    SafeBatchSize
        Prints as a table with its assumptions; ``int`` of it is the number of rows.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, and for a second curve that shares seeds with the first.

    See Also
    --------
    batch_size_curve : Makes the curve.

    Notes
    -----
    A non-inferiority test: that a difference is not significant shows nothing, that its bound is below the margin does.
    Few or noisy trials make the answer smaller, not wrong. The tests form a fixed sequence, so that the chance to call
    *any* size safe that loses the margin or more is at most 1 - confidence. It follows that a size above one that
    failed is never called safe, even if it is.

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
    ...     batch_sizes=[20, 200], n_trials=3, epsilons=[], random_state=0, verbose=0)
    >>> safe = largest_safe_batch_size(curve, margin=0.01)
    >>> int(safe)
    20
    """
    if not isinstance(curve, BatchSizeCurve):
        raise TypeError(f"curve must be a BatchSizeCurve; got {type(curve).__name__}.")
    if not is_number(margin) or not 0 < margin < 1:
        raise ValueError(f"margin must be a number above 0 and below 1; got {margin!r}.")
    if not is_number(confidence) or not 0.5 < confidence < 1:
        raise ValueError(f"confidence must be a number above 0.5 and below 1; got {confidence!r}.")
    if curve.settings["n_trials"] < 2:
        raise ValueError("curve must have at least 2 trials: one has no bound.")
    reference_accuracy = curve.values(curve.reference, "valid_accuracy")
    if not len(reference_accuracy):
        raise ValueError("curve must have a finished fit of its reference; it was interrupted before.")
    larger = [size for size in curve.batch_sizes if size > curve.reference]
    chosen, tests = curve.reference, []
    for size in larger:
        tests.append(_test(curve, size, "valid_accuracy", margin, confidence))
        if not tests[-1].shown:
            break
        chosen = size
    if confirm is not None:
        _check_second(curve, confirm, chosen)
    return SafeBatchSize(
        batch_size=chosen,
        reference=curve.reference,
        margin=float(margin),
        confidence=float(confidence),
        tests=tests,
        untested=larger[len(tests) :],
        confirmation=None
        if confirm is None or chosen == curve.reference
        else _test(confirm, chosen, "test_accuracy", margin, confidence),
        n_valid=curve.settings["n_valid"],
        valid_accuracy=float(reference_accuracy.mean()),
        tuned=curve.settings["lr"] == "tuned",
        notes=curve.warnings(),
    )


def _test(curve: BatchSizeCurve, size: int, key: str, margin: float, confidence: float) -> NonInferiority:
    reference, other = curve.paired(str(size), key)
    losses, n = reference - other, len(reference)
    if n < 2:
        return NonInferiority(size, float(losses.mean()) if n else np.nan, np.inf, np.nan, n, False)
    lost, error = float(losses.mean()), float(losses.std(ddof=1) / n**0.5)
    bound = lost + float(stats.t.ppf(confidence, n - 1)) * error
    if error > _ROUNDING:
        p_value = float(stats.t.cdf((lost - margin) / error, n - 1))
    else:
        p_value = float(lost > margin - _ROUNDING)
    return NonInferiority(size, lost, bound, p_value, n, bound < margin - _ROUNDING)


def _points(fraction: float) -> str:
    return f"{100 * fraction:g} {'point' if round(100 * fraction, 9) == 1 else 'points'}"


def _check_second(curve: BatchSizeCurve, second: Any, chosen: int) -> None:
    if not isinstance(second, BatchSizeCurve):
        raise TypeError(f"confirm must be None or a BatchSizeCurve; got {type(second).__name__}.")
    shared = _seeds(curve) & _seeds(second)
    if shared:
        raise ValueError(
            f"confirm must be a curve of other seeds, by another random_state; {count(len(shared), 'seed')} of it "
            "were used by the first curve."
        )
    if second.reference != curve.reference or chosen not in second.batch_sizes:
        raise ValueError(
            f"confirm must have the reference {curve.reference} and the batch size chosen, {chosen}; got the reference "
            f"{second.reference} and batch sizes {second.batch_sizes}."
        )
    for name in ("lr", "budget", "max_epochs", "target_loss", "n_train", "batch_norm"):
        if second.settings[name] != curve.settings[name]:
            raise ValueError(
                f"confirm must have the {name} of the first curve, {curve.settings[name]!r}; "
                f"got {second.settings[name]!r}."
            )
    rates = [c.values(c.reference, "lr")[:1].tolist() for c in (curve, second)]
    if curve.settings["lr"] != "tuned" and all(rates) and rates[0] != rates[1]:
        raise ValueError(
            f"confirm must have the learning rate of the first curve, {rates[0][0]:g} at batches of "
            f"{curve.reference}; got {rates[1][0]:g}."
        )


def _seeds(curve: BatchSizeCurve) -> set[int]:
    return {record["seed"] for record in curve.records} | set(curve.settings["tuning_seeds"])
