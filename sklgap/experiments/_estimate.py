"""Numbers with intervals: what the intervals cover, and what few trials cannot show.

An experiment trains J trials (seeds) and measures each of them on the same n samples, which are called rows here. A
difference between two conditions varies with the seeds and with the rows. `Components` holds the contribution of each
to the variance of the mean difference. `Components.estimate`, `Components.bound` and `Components.p_value` are computed
from it.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from scipy import optimize, stats
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score

from sklgap._checks import check_integer, check_random_state, is_number

CONFIDENCE = 0.95
NEW_SEEDS = "new seeds"
NEW_SEEDS_AND_ROWS = "new seeds and new test samples, for this training set"
# From this number of trials on, their variance is known well enough for Satterthwaite's degrees of freedom.
ENOUGH_TRIALS = 4
# A trial that loses more than this number of margins has failed. The mean over other trials does not make up for it.
FAILED_MARGINS = 5
# A margin must correspond to at least this number of rows, so that single rows do not decide.
LEAST_ROWS_OF_A_MARGIN = 5
# Half a point of accuracy, or of another score from 0 to 1.
DEFAULT_MARGIN = 0.005
# The smallest class must have at least this number of rows, so that resamples of the rows resemble new rows.
LEAST_ROWS_OF_A_CLASS = 10
# Scores are ratios of integers. Rounding changes equal differences by less than this relative amount.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, and what the interval covers.

    Attributes
    ----------
    value : float
        The estimate; NaN if it is not defined.
    low, high : float
        Ends of the interval. An end is infinite if the trials do not bound it, and NaN if it is unknown.
    n : int
        Number of trials behind the estimate.
    covers : str
        The variation that the interval covers, such as "new seeds".
    level : float
        Share of such intervals that contain the true value.
    """

    value: float
    low: float
    high: float
    n: int
    covers: str = NEW_SEEDS
    level: float = CONFIDENCE

    @property
    def has_interval(self) -> bool:
        """Whether at least one end of the interval is finite."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    def excludes(self, value: float) -> bool:
        """Return whether ``value`` lies outside the interval."""
        return value < self.low or value > self.high  # False for ends that are infinite or unknown

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit; a negative factor also changes its direction."""
        low, high = (self.high, self.low) if factor < 0 else (self.low, self.high)
        return Estimate(factor * self.value, factor * low, factor * high, self.n, self.covers, self.level)

    def text(self, spec: str = ".4g", unit: str = "") -> str:
        """Return the value, its unit and its interval, such as "9.6 points [6.7, 12.5]"."""
        if math.isnan(self.value) and not self.has_interval:
            return "not defined"
        value = "unknown" if math.isnan(self.value) else f"{self.value:{spec}}{unit}"
        if not self.has_interval:
            return f"{value} (no interval)"
        return f"{value} [{_end(self.low, spec)}, {_end(self.high, spec)}]"

    def points(self, spec: str = "+z.2f") -> str:
        """Return the text of a fraction in percentage points."""
        return self.scaled(100).text(spec, " points")

    def about(self) -> str:
        """Return the description of the interval, such as "95 % interval, for new seeds"."""
        return f"{100 * self.level:.4g} % interval, for {self.covers}"

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return asdict(self)

    def __str__(self) -> str:
        return self.text()


def _end(value: float, spec: str) -> str:
    return "unknown" if math.isnan(value) else f"{value:{spec}}"


# -- variance components -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    r"""A mean over trials and rows, with the parts of its variance from which an interval is computed.

    A row is a sample. Let :math:`D_{ij}` be the value of trial j on row i, over J trials and n rows. The three parts
    are the mean squares

    .. math:: A = \frac{s^2(\bar D_{\cdot j})}{J}, \qquad B = \frac{s^2(\bar D_{i \cdot})}{n}, \qquad
        C = \frac{s^2_{\mathrm{residual}}}{n J}

    A and B each contain C once, so that A + B - C is an unbiased estimate of the variance of the mean. The variance
    used is v = max(A + B - C, A, B), which is never smaller than A or B alone.

    Attributes
    ----------
    value : float
        The mean; NaN without a trial.
    seeds, rows, residual : float
        A, B and C. A is NaN for fewer than two trials; B and C are 0 if ``n_rows`` is None.
    trials : tuple of float
        The mean of each trial.
    n_rows : int or None
        Number of rows; None if the rows do not count as a sample, so that only seeds vary.

    Notes
    -----
    The interval is value ± t sqrt(v). From four trials on, t is Student's with Satterthwaite's degrees of freedom,

    .. math:: \nu = \frac{v^2}{A^2 / (J - 1) + B^2 / (n - 1) + C^2 / ((n - 1)(J - 1))} \ge 1

    With two or three trials, the variance is too uncertain for that: at a nominal 5 %, the one-sided level would be up
    to 8.6 % with two trials and 6.2 % with three, and the 95 % interval would cover 87 and 92 %. They use Cochran's
    critical value t = w t(J - 1) + (1 - w) t(n - 1) with w = A / v, which weights the critical values of the seeds and
    of the rows by their shares of the variance. The level is then at most 5.5 %, and the coverage 93.5 to 99.5 %. All
    of these numbers are from ``examples/benchmarks/intervals.py``.

    Trials that are equal on every row say nothing about other seeds. Then there is no interval, and no test shows
    anything.

    References
    ----------
    Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 2, 1946.
    Cochran, Approximate significance levels of the Behrens-Fisher test, Biometrics 20, 1964.
    """

    value: float
    seeds: float
    rows: float
    residual: float
    trials: tuple[float, ...]
    n_rows: int | None = None

    @property
    def n_trials(self) -> int:
        """Number of trials."""
        return len(self.trials)

    @property
    def variance(self) -> float:
        """Variance of the mean: v."""
        return max(self.seeds + self.rows - self.residual, self.seeds, self.rows)

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom of the variance; J - 1 if only seeds vary."""
        of_trials = self.n_trials - 1
        if self.n_rows is None:
            return of_trials
        of_rows = self.n_rows - 1
        spread = self.seeds**2 / of_trials + self.rows**2 / of_rows + self.residual**2 / (of_trials * of_rows)
        return max(self.variance**2 / spread, 1.0)

    @property
    def shows(self) -> bool:
        """Whether there are at least two trials that are not all equal."""
        return self.n_trials > 1 and self.seeds + self.residual > _ROUNDING * self.rows

    @property
    def worst(self) -> float:
        """The largest value of a trial, which is the worst one if values are losses; NaN without a trial."""
        return max(self.trials, default=math.nan)

    def estimate(self, covers: str | None = None, level: float = CONFIDENCE) -> Estimate:
        """Return the mean with its interval; the ends are infinite if the trials show nothing."""
        if covers is None:
            covers = NEW_SEEDS if self.n_rows is None else NEW_SEEDS_AND_ROWS
        half = self._quantile((1 + level) / 2) * math.sqrt(self.variance) if self.shows else math.inf
        return Estimate(self.value, self.value - half, self.value + half, self.n_trials, covers, level)

    def bound(self, level: float = CONFIDENCE) -> float:
        """Return the upper one-sided confidence bound; infinite if the trials show nothing."""
        return self.value + self._quantile(level) * math.sqrt(self.variance) if self.shows else math.inf

    def p_value(self, margin: float) -> float:
        """Return the p value of a true value of ``margin`` or more; NaN if the trials show nothing.

        It is at most 1 - level exactly if ``bound(level)`` is at most ``margin``.
        """
        if not self.shows:
            return math.nan
        t = (self.value - margin) / math.sqrt(self.variance)
        if self.n_rows is None or self.n_trials >= ENOUGH_TRIALS:
            return float(stats.t.cdf(t, self.degrees))
        # p solves quantile(p) = t, and lies between the p of the seeds and that of the rows. The search uses log p.
        ends = sorted(max(stats.t.logcdf(t, df), -700.0) for df in (self.n_trials - 1, self.n_rows - 1))
        if self._quantile(math.exp(ends[0])) >= t:
            return math.exp(ends[0])
        if self._quantile(math.exp(ends[1])) <= t:
            return math.exp(ends[1])
        return math.exp(optimize.brentq(lambda x: self._quantile(math.exp(x)) - t, *ends, xtol=1e-12))

    def _quantile(self, p: float) -> float:
        """Return the critical value of (mean - true mean) / sqrt(variance)."""
        if self.n_rows is None or self.n_trials >= ENOUGH_TRIALS:
            return float(stats.t.ppf(p, self.degrees))
        share = self.seeds / self.variance
        of_seeds, of_rows = (float(stats.t.ppf(p, df)) for df in (self.n_trials - 1, self.n_rows - 1))
        return share * of_seeds + (1 - share) * of_rows

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name, for the JSON file."""
        return asdict(self)


def trial_components(values: Any) -> Components:
    """Return the components of a mean over trials in which only seeds vary. NaN values are left out."""
    values = _known(values)[0]
    return Components(_mean(values), _mean_square(values), 0.0, 0.0, tuple(values.tolist()))


def crossed_components(differences: Iterable[Any]) -> Components:
    """Return the components of differences over trials x rows.

    Parameters
    ----------
    differences : array-like of shape (n_trials, n_rows), or iterable of its rows
        Differences, one trial per row of the array. All trials have the same samples in the same order. An iterable is
        read once, trial by trial; `row_differences` yields the trials from saved predictions without a second copy.

    Returns
    -------
    Components
    """
    trials: list[float] = []
    squares, sums = 0.0, np.zeros(0)
    for trial in differences:
        values = np.asarray(trial, dtype=float)
        if values.ndim != 1 or len(values) < 2 or (trials and len(values) != len(sums)):
            raise ValueError(
                "differences must have at least 2 samples, the same number in every trial; "
                f"got a trial of shape {values.shape}" + (f" after {len(sums)} rows." if trials else ".")
            )
        if not np.isfinite(values).all():
            raise ValueError("differences must be finite; leave out trials that have no finite value.")
        trials.append(float(values.mean()))
        squares += float(np.square(values - trials[-1]).sum())
        sums = values if len(trials) == 1 else sums + values
    if not trials:
        return Components(math.nan, math.nan, 0.0, 0.0, (), None)
    return components_from_means(trials, sums / len(trials), squares / (len(trials) * len(sums)))


def components_from_means(trial_means: Sequence[float], row_means: Any, within: float) -> Components:
    """Return the components from sufficient statistics.

    Parameters
    ----------
    trial_means : sequence of n_trials floats
        Means of the trials over the rows.
    row_means : array-like of n_rows floats
        Means of the rows over the trials.
    within : float
        Mean over trials of the variance of the rows within a trial (divided by n_rows, not by n_rows - 1).

    Returns
    -------
    Components
    """
    trials, rows = np.asarray(trial_means, dtype=float), np.asarray(row_means, dtype=float)
    n_trials, n_rows = len(trials), len(rows)
    residual = 0.0
    if n_trials > 1:
        left = max(within - float(rows.var()), 0.0)  # sum of the squared residuals, by n_trials * n_rows
        residual = left / ((n_trials - 1) * (n_rows - 1))
    return Components(_mean(trials), _mean_square(trials), _mean_square(rows), residual, tuple(trials.tolist()), n_rows)


def row_differences(reference: Iterable[Any], other: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yield reference minus other, trial by trial. A correct row counts 1, so that True minus False is 1.

    A trial may come from saved bits by ``np.unpackbits(bits, count=n_rows)``.
    """
    for one, two in zip(reference, other, strict=True):
        yield np.asarray(one, dtype=float) - np.asarray(two, dtype=float)


# -- scores without rows -----------------------------------------------------------------------------------------------

Score = Callable[..., float]


def bootstrap_components(
    score: Score,
    y: Any,
    reference: Sequence[Any],
    other: Sequence[Any],
    *,
    n_resamples: int = 200,
    random_state: int | np.random.RandomState | None = 0,
) -> Components:
    r"""Return the components of the difference of a score that is not a mean over rows, such as average precision.

    Each resample draws rows with replacement, and is the *same* in all trials and in both conditions. B is the variance
    of the mean difference over the resamples. W is the variance of a trial's difference over the resamples, averaged
    over the trials, and :math:`C = (W - B) / (J - 1)`. A is the variance of the trials' differences on the original
    rows, divided by J.

    Parameters
    ----------
    score : callable
        Function ``score(y, predictions)``, or ``score(y, predictions, sample_weight=...)`` if it accepts weights, like
        the functions of `sklearn.metrics`.
    y : array-like of shape (n_rows,)
        Class labels.
    reference, other : sequences of n_trials array-likes of shape (n_rows, ...)
        Saved predictions of each trial: labels, or other inputs of the score.
    n_resamples : int, default=200
        Number of resamples. With 200, the square root of B has an error of about 5 %.
    random_state : int, RandomState or None, default=0
        Source of the random numbers for the resamples.

    Returns
    -------
    Components
        Components of reference minus other.
    """
    check_integer("n_resamples", n_resamples, least=20)
    y = np.asarray(y)
    if len(reference) != len(other):
        raise ValueError(f"other must have as many trials as reference, {len(reference)}; got {len(other)}.")
    conditions = [[np.asarray(predictions) for predictions in trials] for trials in (reference, other)]
    if any(len(predictions) != len(y) for trials in conditions for predictions in trials):
        raise ValueError(f"reference and other must have a prediction for each of the {len(y)} samples of y.")
    if any(p.dtype.kind == "f" and not np.isfinite(p).all() for trials in conditions for p in trials):
        raise ValueError("reference and other must be finite; leave out trials whose predictions are not.")
    if not len(reference):
        return Components(math.nan, math.nan, 0.0, 0.0, (), None)
    counts = _resamples(y, n_resamples, check_random_state(random_state))
    whole = np.ones((1, len(y)), dtype=counts.dtype)
    scores = [
        [_scores(score, y, predictions, np.concatenate([whole, counts])) for predictions in trials]
        for trials in conditions
    ]
    differences = np.array(scores[0]) - np.array(scores[1])  # (n_trials, 1 + n_resamples)
    trials, drawn = differences[:, 0], differences[:, 1:]
    if not np.isfinite(differences).all():
        raise ValueError("score must be finite on the samples and on resamples of them.")
    rows, residual = float(drawn.mean(axis=0).var(ddof=1)), 0.0
    if len(trials) > 1:
        residual = max(float(drawn.var(axis=1, ddof=1).mean()) - rows, 0.0) / (len(trials) - 1)
    return Components(_mean(trials), _mean_square(trials), rows, residual, tuple(trials.tolist()), len(y))


def _resamples(y: np.ndarray, n_resamples: int, rng: np.random.RandomState) -> np.ndarray:
    """Return how often each row is in each resample, of shape (n_resamples, n_rows). Each resample has every class."""
    _, classes, sizes = np.unique(y, return_inverse=True, return_counts=True)
    if sizes.min() < LEAST_ROWS_OF_A_CLASS:
        raise ValueError(
            f"y must have at least {LEAST_ROWS_OF_A_CLASS} samples of every class for an interval of this score; the "
            f"smallest class has {sizes.min()}. Hold out more samples."
        )
    counts = np.empty((n_resamples, len(y)), dtype=np.uint16)
    for i in range(n_resamples):
        while True:
            drawn = rng.randint(len(y), size=len(y))
            if np.bincount(classes[drawn], minlength=len(sizes)).all():
                break
        counts[i] = np.bincount(drawn, minlength=len(y))
    return counts


def _scores(score: Score, y: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the score of every resample. ``counts`` says how often each row is in a resample."""
    fast = next((function for known, function in FROM_COUNTS.items() if known is score), None)
    labels_or_scores = fast is _average_precisions or _are_zero_one(predictions)
    if fast is not None and predictions.ndim == 1 and _are_zero_one(y) and labels_or_scores:
        return fast(y, predictions, counts)
    try:
        weighted = "sample_weight" in inspect.signature(score).parameters
    except (TypeError, ValueError):  # a callable without a signature
        weighted = False
    if not weighted:
        rows = np.arange(len(y))
        return np.array([score(y[r], predictions[r]) for r in (np.repeat(rows, c) for c in counts)], dtype=float)
    if predictions.ndim == 1:  # equal rows become one row with a weight; labels have few different rows
        pairs = np.stack([np.unique(values, return_inverse=True)[1] for values in (y, predictions)])
        _, first, cell = np.unique(pairs, axis=1, return_index=True, return_inverse=True)
        if 4 * len(first) < len(y):
            order = np.argsort(cell.ravel(), kind="stable")
            starts = np.flatnonzero(np.diff(cell.ravel()[order], prepend=-1))
            counts = np.add.reduceat(counts[:, order], starts, axis=1, dtype=np.int64)
            y, predictions = y[first], predictions[first]
    found = []
    for count in counts:
        there = count > 0  # a class of weight 0 would still be a class
        found.append(score(y[there], predictions[there], sample_weight=count[there].astype(float)))
    return np.array(found, dtype=float)


def _are_zero_one(values: np.ndarray) -> bool:
    return set(np.unique(values).tolist()) == {0, 1}


# Scores for two classes, 0 and 1, of all resamples at once. They equal those of scikit-learn.


def _balanced_accuracies(y: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    of_class = [counts[:, y == label] for label in (0, 1)]
    recalls = [
        own[:, predictions[y == label] == label].sum(axis=1) / own.sum(axis=1) for label, own in enumerate(of_class)
    ]
    return (recalls[0] + recalls[1]) / 2


def _f1s(y: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    hits = counts[:, (y == 1) & (predictions == 1)].sum(axis=1)
    return 2 * hits / (counts[:, y == 1].sum(axis=1) + counts[:, predictions == 1].sum(axis=1))


def _average_precisions(y: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    # The predictions are sorted once. Only groups of equal predictions with a positive sample count, which are few for
    # rare classes.
    order = np.argsort(-predictions, kind="stable")
    last = np.append(np.flatnonzero(np.diff(predictions[order])), len(y) - 1)
    positive = y[order] == 1
    last = last[np.add.reduceat(positive, np.append(0, last[:-1] + 1), dtype=np.int64) > 0]
    starts = np.append(0, last[:-1] + 1)
    ordered = counts[:, order[: last[-1] + 1]]
    total = np.cumsum(np.add.reduceat(ordered, starts, axis=1, dtype=np.int64), axis=1)
    gained = np.add.reduceat(ordered * positive[: last[-1] + 1], starts, axis=1, dtype=np.int64)
    hits = np.cumsum(gained, axis=1)
    return (gained * (hits / np.maximum(total, 1))).sum(axis=1) / hits[:, -1]


FROM_COUNTS: dict[Any, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    average_precision_score: _average_precisions,
    balanced_accuracy_score: _balanced_accuracies,
    f1_score: _f1s,
}


# -- intervals over trials ---------------------------------------------------------------------------------------------


def mean_estimate(values: Any, covers: str = NEW_SEEDS) -> Estimate:
    """Return the mean of the values that are not NaN, with Student's t interval over the trials."""
    return trial_components(values).estimate(covers)


def paired_estimate(reference: Any, other: Any, covers: str = NEW_SEEDS) -> Estimate:
    """Return the mean of reference minus other over paired trials, without pairs that have a NaN."""
    one, two = _known(reference, other)
    differences = one - two
    scale = max(np.abs([one, two]).max(), 0.0) if len(one) else 0.0
    if len(one) and np.ptp(differences) <= _ROUNDING * scale:  # equal, but for the rounding of the subtraction
        differences = np.full(len(one), differences[0])
    return mean_estimate(differences, covers)


def ratio_estimate(numerators: Any, denominators: Any, covers: str = NEW_SEEDS) -> Estimate:
    """Return the geometric mean of paired ratios, with Student's t interval of their logarithms.

    Pairs with a NaN are left out. The estimate is not defined if a value is infinite or not above 0.
    """
    above, below = _known(numerators, denominators)
    if not all(((values > 0) & np.isfinite(values)).all() for values in (above, below)):
        return Estimate(math.nan, math.nan, math.nan, len(above), covers)
    logs = paired_estimate(np.log(above), np.log(below), covers)
    if not logs.has_interval:
        return Estimate(math.exp(logs.value), -math.inf, math.inf, logs.n, covers)
    high = math.exp(logs.high) if logs.high < 700 else math.inf
    return Estimate(math.exp(logs.value), math.exp(logs.low), high, logs.n, covers)


def folds_estimate(differences: Any, test_ratio: float) -> Estimate:
    """Return the mean difference over folds, with the interval of the corrected resampled t-test.

    The training sets of the folds overlap. The variance is therefore (1 / J + test_ratio) s^2, where ``test_ratio`` is
    the number of samples in a test fold divided by that in its training set. Nadeau and Bengio, Inference for the
    Generalization Error, Machine Learning 52 (2003), Section 3.
    """
    found = trial_components(differences)
    corrected = found.seeds * (1 + found.n_trials * test_ratio)
    found = Components(found.value, corrected, 0.0, 0.0, found.trials)
    return found.estimate("new training and test samples of these sizes, and new seeds")


def time_ratio(reference: Any, other: Any, reference_reached: Any, other_reached: Any) -> Estimate:
    """Return the median of the ratios other / reference of paired times, some of which may be censored.

    Parameters
    ----------
    reference, other : array-like of shape (n_trials,)
        The time at which each trial reached the target or, if it did not reach it, how long it trained; NaN if that is
        not known.
    reference_reached, other_reached : array-like of shape (n_trials,), bool
        Whether each trial reached the target.

    Returns
    -------
    Estimate
        The median ratio, NaN if it is not known. The interval goes from the k-th smallest ratio to the k-th largest,
        with the largest k for which the level is at least 95 %, or k = 1 if there is no such k. For up to 5 trials the
        level is 1 - 2^(1 - n), which is 93.75 % for 5 trials and 50 % for 2. If one of the two times is censored, only
        a bound of the ratio is known. If the other time is censored, the ratio is at least its training time divided by
        the time of the reference, and the upper end is infinite. If the reference is censored, the ratio is at most the
        other time divided by the training time of the reference. If both are censored, the ratio and the ends that
        depend on it are unknown (NaN).
    """
    one, two = np.asarray(reference, dtype=float), np.asarray(other, dtype=float)
    one_reached, two_reached = np.asarray(reference_reached, dtype=bool), np.asarray(other_reached, dtype=bool)
    n = len(one)
    if any(values.shape != (n,) for values in (two, one_reached, two_reached)):
        raise ValueError("reference, other, reference_reached and other_reached must have one value for each trial.")
    if (one <= 0).any() or (two <= 0).any() or np.isinf([one, two]).any():
        raise ValueError("reference and other must be finite times above 0, or NaN if they are not known.")
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0)
    unknown = np.isnan(one) | np.isnan(two) | ~(one_reached | two_reached)
    ratio = two / one
    low = np.sort(np.where(unknown, -math.inf, np.where(one_reached, ratio, 0.0)))
    high = np.where(two_reached, ratio, math.inf)[~unknown]
    high = np.concatenate([np.sort(high), np.full(unknown.sum(), math.nan)])  # unknown is above all
    low[np.isinf(low)] = math.nan
    k = 1
    while k + 1 <= n // 2 and _order_level(n, k + 1) >= CONFIDENCE:
        k += 1
    middle = [math.sqrt(ends[(n - 1) // 2] * ends[n // 2]) for ends in (low, high)]
    value = float(middle[0]) if middle[0] == middle[1] else math.nan
    if n < 2:
        return Estimate(value, math.nan, math.nan, n, level=0.0)
    return Estimate(value, float(low[k - 1]), float(high[n - k]), n, level=_order_level(n, k))


def _order_level(n: int, k: int) -> float:
    """Return the probability that the median lies between the k-th smallest and the k-th largest of n values."""
    return 1 - 2 * float(stats.binom.cdf(k - 1, n, 0.5))


def rank_correlation(first: Any, second: Any) -> Estimate:
    """Return Spearman's rank correlation, with the interval of Bonett and Wright.

    For ranks, Fisher's z has the standard error sqrt((1 + rho^2 / 2) / (n - 3)): Bonett and Wright, Sample size
    requirements for estimating Pearson, Kendall and Spearman correlations, Psychometrika 65 (2000), equation 3. Pairs
    with a NaN are left out. The correlation is not defined if one of the two is constant, or for fewer than 3 pairs.
    The interval of a perfect order has the inner end of the next order, in which two neighbours are exchanged.
    """
    pairs = _known(first, second)
    n = pairs.shape[1]
    if n < 3 or (np.ptp(pairs, axis=1) == 0).any():
        return Estimate(math.nan, math.nan, math.nan, n)
    rho = round(float(stats.spearmanr(*pairs).statistic), 12)  # a perfect order is 1 but for rounding
    if n < 4:
        return Estimate(rho, math.nan, math.nan, n)
    inner = math.copysign(min(abs(rho), 1 - 12 / (n**3 - n)), rho)
    z = math.atanh(inner)
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    return Estimate(rho, -1.0 if rho == -1 else low, 1.0 if rho == 1 else high, n)


def share_larger(first: Any, second: Any) -> float:
    """Return the share of all pairs in which ``first`` is larger (Mann and Whitney's U); ties count half."""
    one, two = _known(first)[0], _known(second)[0]
    if not len(one) or not len(two):
        return math.nan
    return float(stats.mannwhitneyu(one, two).statistic) / (len(one) * len(two))


# -- non-inferiority ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LossTest:
    """A one-sided test that the loss of a score is below a margin.

    Attributes
    ----------
    lost : float
        Mean of the reference minus the other.
    bound : float
        Upper confidence bound of ``lost``; infinite if the trials show nothing.
    p_value : float
        p value of the hypothesis that the margin or more is lost; NaN if the trials show nothing.
    n_trials : int
        Number of paired trials.
    worst : float
        The largest loss of a single trial.
    n_failed : int
        Number of trials that lost more than five margins.
    shown : bool
        Whether the bound is below the margin and no trial failed.
    """

    lost: float
    bound: float
    p_value: float
    n_trials: int
    worst: float
    n_failed: int
    shown: bool


def loss_test(losses: Components, margin: float, level: float = CONFIDENCE) -> LossTest:
    """Return the test of one batch size: whether its loss is shown to be below the margin."""
    failed = sum(loss > FAILED_MARGINS * margin for loss in losses.trials)
    bound = losses.bound(level)
    shown = bound < margin - _ROUNDING and not failed
    p_value = losses.p_value(margin)
    return LossTest(losses.value, bound, p_value, losses.n_trials, losses.worst, failed, shown)


class Shown(Protocol):
    """A test that shows something or does not."""

    @property
    def shown(self) -> bool:
        """Whether it is shown."""


T = TypeVar("T")
ShownT = TypeVar("ShownT", bound=Shown)


def fixed_sequence(cases: Iterable[T], tests_of: Callable[[T], Sequence[ShownT]]) -> list[tuple[T, Sequence[ShownT]]]:
    """Return cases in a fixed order with their tests, up to and including the first case with a test that is not shown.

    The chance that any case is shown wrongly is at most the level of a single test, without a correction for several
    tests: Maurer, Hothorn and Lehmacher (1995).
    """
    found: list[tuple[T, Sequence[ShownT]]] = []
    for case in cases:
        found.append((case, tests_of(case)))
        if not all(test.shown for test in found[-1][1]):
            break
    return found


def smallest_margin(n_rows: int) -> float:
    """Return the smallest margin that this number of rows can show, which corresponds to five rows."""
    return LEAST_ROWS_OF_A_MARGIN / n_rows


def round_up(margin: float) -> float:
    """Return the margin, rounded up to four decimals."""
    return math.ceil(1e4 * margin - 1e-9) / 1e4


def needed_rows(margin: float) -> int:
    """Return the number of rows for which a margin corresponds to five rows."""
    return math.ceil(LEAST_ROWS_OF_A_MARGIN / margin - 1e-9)  # 5 / 0.005 may lie above 1,000 by rounding


def check_margin(margin: float, n_rows: int) -> None:
    """Raise a ValueError for a margin, in a score from 0 to 1, that the held-out samples cannot resolve."""
    if not is_number(margin) or not 0 < margin < 1:
        raise ValueError(f"margin must be a number above 0 and below 1 (0.03 is 3 points); got {margin!r}.")
    if n_rows <= LEAST_ROWS_OF_A_MARGIN:
        raise ValueError(
            f"margin cannot be shown on {n_rows} validation samples; hold out {needed_rows(margin):,} samples."
        )
    if n_rows < needed_rows(margin):
        raise ValueError(
            f"margin must be at least {round_up(smallest_margin(n_rows)):g} with {n_rows:,} validation "
            f"samples, which is {LEAST_ROWS_OF_A_MARGIN} of them; {margin:g} needs a hold-out of "
            f"{needed_rows(margin):,} samples. Hold out more validation samples for the curve, or give a larger margin."
        )


def unseen_failure_rate(n_trials: int, level: float = CONFIDENCE) -> float:
    """Return the largest rate of failing trials that remains possible after this number of trials without a failure."""
    return 1 - (1 - level) ** (1 / n_trials) if n_trials else 1.0


# -- helpers -----------------------------------------------------------------------------------------------------------


def _known(*values: Any) -> np.ndarray:
    """Return the values as an array of shape (len(values), n), without the pairs that have a NaN."""
    pairs = np.array(values, dtype=float)
    return pairs[:, ~np.isnan(pairs).any(axis=0)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _mean_square(values: np.ndarray) -> float:
    """Return the variance of the mean of independent values: exactly 0 if all are equal, NaN for fewer than 2."""
    if len(values) < 2:
        return math.nan
    if np.ptp(values) <= _ROUNDING * np.abs(values).max():
        return 0.0
    return float(values.var(ddof=1)) / len(values)
