"""Numbers with intervals: what they cover, and what few trials cannot show.

An experiment trains J trials (seeds) and measures each on the same n rows. A difference between two conditions varies
with the seeds and with the rows, and both are samples: `Components` holds what each contributes to the variance of the
mean difference, and `Components.estimate`, `Components.bound` and `Components.p_value` read it.
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
# From so many trials on, their variance is known well enough for Satterthwaite's degrees of freedom.
ENOUGH_TRIALS = 4
# A trial that loses more than so many margins has failed: no average of other trials makes up for it.
FAILED_MARGINS = 5
# A margin of fewer rows than this is decided by a handful of rows.
LEAST_ROWS_OF_A_MARGIN = 5
# Half a point of accuracy, or of another score from 0 to 1.
DEFAULT_MARGIN = 0.005
# Fewer rows of the smallest class, and resamples of the rows are too unlike new ones.
LEAST_ROWS_OF_A_CLASS = 10
# Scores are ratios of integers: what is computed of differences that are equal is off by less than this part of them.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, and what the interval covers.

    Attributes
    ----------
    value : float
        The estimate; NaN where there is none.
    low, high : float
        Ends of the interval. Infinite where the trials do not bound that end; NaN where the end is unknown.
    n : int
        Trials it rests on.
    covers : str
        Over what the interval holds at its level, such as "new seeds".
    level : float
        How often such intervals hold the true value.
    """

    value: float
    low: float
    high: float
    n: int
    covers: str = NEW_SEEDS
    level: float = CONFIDENCE

    @property
    def has_interval(self) -> bool:
        """Whether the trials say anything about where the true value lies."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    def excludes(self, value: float) -> bool:
        """Say whether ``value`` lies outside of the interval."""
        return value < self.low or value > self.high  # False for ends that are infinite or unknown

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit; a negative factor also changes its direction."""
        low, high = (self.high, self.low) if factor < 0 else (self.low, self.high)
        return Estimate(factor * self.value, factor * low, factor * high, self.n, self.covers, self.level)

    def text(self, spec: str = ".4g", unit: str = "") -> str:
        """Return value, unit and interval, such as "9.6 points [6.7, 12.5]"."""
        if math.isnan(self.value) and not self.has_interval:
            return "not defined"
        value = "unknown" if math.isnan(self.value) else f"{self.value:{spec}}{unit}"
        if not self.has_interval:
            return f"{value} (no interval)"
        return f"{value} [{_end(self.low, spec)}, {_end(self.high, spec)}]"

    def points(self, spec: str = "+z.2f") -> str:
        """Return a fraction in percentage points."""
        return self.scaled(100).text(spec, " points")

    def about(self) -> str:
        """Return what the interval is, such as "95 % interval, for new seeds"."""
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
    r"""A mean over trials and rows, and the parts of its variance: all that an interval needs.

    With :math:`D_{ij}` the value of trial j on row i, over J trials and n rows, the three parts are mean squares,

    .. math:: A = \frac{s^2(\bar D_{\cdot j})}{J}, \qquad B = \frac{s^2(\bar D_{i \cdot})}{n}, \qquad
        C = \frac{s^2_{\mathrm{residual}}}{n J}

    A and B each hold C once, so that A + B - C estimates the variance of the mean without bias; v = max(A + B - C, A,
    B) is never less than what either shows alone.

    Attributes
    ----------
    value : float
        The mean; NaN without a trial.
    seeds, rows, residual : float
        A, B and C. A is NaN for fewer than two trials; B and C are 0 where ``n_rows`` is None.
    trials : tuple of float
        The mean of each trial.
    n_rows : int or None
        Rows; None where they are not taken for a sample, so that only seeds vary.

    Notes
    -----
    The interval is value ± t sqrt(v). From four trials on, t is Student's with Satterthwaite's degrees of freedom,

    .. math:: \nu = \frac{v^2}{A^2 / (J - 1) + B^2 / (n - 1) + C^2 / ((n - 1)(J - 1))} \ge 1

    Two or three trials know their own variance too badly for that: at a nominal 5 % the one-sided level would be up to
    8.6 % with two and 6.2 % with three, and the 95 % interval would cover 87 and 92 %. They get Cochran's critical
    value t = w t(J - 1) + (1 - w) t(n - 1), w = A / v: those of the seeds and of the rows, weighted by their shares of
    the variance. With it the level is at most 5.5 %, and the coverage 93.5 to 99.5 %; all of these are from
    ``examples/benchmarks/intervals.py``.

    Trials that are equal on every row say nothing about other seeds: there is no interval, and no test shows anything.

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
        """Satterthwaite's degrees of freedom of the variance; those of the trials where only seeds vary."""
        of_trials = self.n_trials - 1
        if self.n_rows is None:
            return of_trials
        of_rows = self.n_rows - 1
        spread = self.seeds**2 / of_trials + self.rows**2 / of_rows + self.residual**2 / (of_trials * of_rows)
        return max(self.variance**2 / spread, 1.0)

    @property
    def shows(self) -> bool:
        """Whether there are two trials, and not all equal."""
        return self.n_trials > 1 and self.seeds + self.residual > _ROUNDING * self.rows

    @property
    def worst(self) -> float:
        """The largest value of a trial, which is the worst where values are losses; NaN without a trial."""
        return max(self.trials, default=math.nan)

    def estimate(self, covers: str | None = None, level: float = CONFIDENCE) -> Estimate:
        """Return the mean with its interval; without an end where nothing is shown."""
        if covers is None:
            covers = NEW_SEEDS if self.n_rows is None else NEW_SEEDS_AND_ROWS
        half = self._quantile((1 + level) / 2) * math.sqrt(self.variance) if self.shows else math.inf
        return Estimate(self.value, self.value - half, self.value + half, self.n_trials, covers, level)

    def bound(self, level: float = CONFIDENCE) -> float:
        """Return the upper one-sided confidence bound; infinite where nothing is shown."""
        return self.value + self._quantile(level) * math.sqrt(self.variance) if self.shows else math.inf

    def p_value(self, margin: float) -> float:
        """Return p of the hypothesis that the true value is ``margin`` or more; NaN where nothing is shown.

        It is at most 1 - level exactly where ``bound(level)`` is at most ``margin``.
        """
        if not self.shows:
            return math.nan
        t = (self.value - margin) / math.sqrt(self.variance)
        if self.n_rows is None or self.n_trials >= ENOUGH_TRIALS:
            return float(stats.t.cdf(t, self.degrees))
        # p solves quantile(p) = t, and lies between the p of the seeds and that of the rows; small p by its logarithm.
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
        """Return the attributes by name: what a record's file holds."""
        return asdict(self)


def trial_components(values: Any) -> Components:
    """Return the mean over trials, where only seeds vary; values that are NaN are left out."""
    values = _known(values)[0]
    return Components(_mean(values), _mean_square(values), 0.0, 0.0, tuple(values.tolist()))


def crossed_components(differences: Iterable[Any]) -> Components:
    """Return the components of differences over trials x rows.

    Parameters
    ----------
    differences : array-like of shape (n_trials, n_rows), or iterable of its rows
        Numbers, each row of the array one trial; the same rows of data, in one order, in all trials. An iterable is
        read once, one trial at a time: `row_differences` makes one of saved predictions without a second copy of them.

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
                "differences must have at least 2 rows of data, the same number in every trial; "
                f"got a trial of shape {values.shape}" + (f" after {len(sums)} rows." if trials else ".")
            )
        if not np.isfinite(values).all():
            raise ValueError("differences must be finite; leave a trial out that has no finite value.")
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
        Means over the rows.
    row_means : array-like of n_rows floats
        Means over the trials.
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
    """Yield reference minus other, trial by trial; a row that is right counts 1, so that True minus False is 1.

    ``np.unpackbits(bits, count=n_rows)`` of saved bits is a trial.
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

    One resample draws rows with replacement, and is the *same* in all trials and in both conditions. Over resamples,
    B is the variance of the mean difference, and, with W the mean over trials of the variance of a trial's difference,
    :math:`C = (W - B) / (J - 1)`. A is the variance of the trials' differences on the rows as they are, divided by J.

    Parameters
    ----------
    score : callable
        ``score(y, predictions)``, and ``score(y, predictions, sample_weight=...)`` where it takes weights, as the
        functions of `sklearn.metrics` do.
    y : array-like of shape (n_rows,)
        Classes.
    reference, other : sequences of n_trials array-likes of shape (n_rows, ...)
        Saved predictions by trial: labels, or what the score is of.
    n_resamples : int, default=200
        With 200 the square root of B is off by about 5 %.
    random_state : int, RandomState or None, default=0
        Draws the resamples.

    Returns
    -------
    Components
        Of reference minus other.
    """
    check_integer("n_resamples", n_resamples, least=20)
    y = np.asarray(y)
    if len(reference) != len(other):
        raise ValueError(f"other must have as many trials as reference, {len(reference)}; got {len(other)}.")
    conditions = [[np.asarray(predictions) for predictions in trials] for trials in (reference, other)]
    if any(len(predictions) != len(y) for trials in conditions for predictions in trials):
        raise ValueError(f"reference and other must have a prediction for each of the {len(y)} rows of y.")
    if any(p.dtype.kind == "f" and not np.isfinite(p).all() for trials in conditions for p in trials):
        raise ValueError("reference and other must be finite; leave a trial out whose predictions are not.")
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
        raise ValueError("score must be finite on the rows and on resamples of them.")
    rows, residual = float(drawn.mean(axis=0).var(ddof=1)), 0.0
    if len(trials) > 1:
        residual = max(float(drawn.var(axis=1, ddof=1).mean()) - rows, 0.0) / (len(trials) - 1)
    return Components(_mean(trials), _mean_square(trials), rows, residual, tuple(trials.tolist()), len(y))


def _resamples(y: np.ndarray, n_resamples: int, rng: np.random.RandomState) -> np.ndarray:
    """Return how often each row is in each resample, of shape (n_resamples, n_rows); every class is in all of them."""
    _, classes, sizes = np.unique(y, return_inverse=True, return_counts=True)
    if sizes.min() < LEAST_ROWS_OF_A_CLASS:
        raise ValueError(
            f"y must have at least {LEAST_ROWS_OF_A_CLASS} samples of every class for an interval of this score; the "
            f"smallest has {sizes.min()}: hold out more."
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
    """Return the score of every resample, whose rows are given by their counts."""
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
    if predictions.ndim == 1:  # rows that are equal count as one row with their weight: few, where these are labels
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


# Scores of two classes, 0 and 1, for all resamples at once: equal to scikit-learn's.


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
    # From one sort of the predictions. Only groups of equal predictions with a positive count: few, in rare classes.
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
    """Return the mean of the values that are not NaN, with Student's t interval over trials."""
    return trial_components(values).estimate(covers)


def paired_estimate(reference: Any, other: Any, covers: str = NEW_SEEDS) -> Estimate:
    """Return the mean of reference minus other over paired trials; pairs with a NaN are left out."""
    one, two = _known(reference, other)
    differences = one - two
    scale = max(np.abs([one, two]).max(), 0.0) if len(one) else 0.0
    if len(one) and np.ptp(differences) <= _ROUNDING * scale:  # equal, but for the rounding of the subtraction
        differences = np.full(len(one), differences[0])
    return mean_estimate(differences, covers)


def ratio_estimate(numerators: Any, denominators: Any, covers: str = NEW_SEEDS) -> Estimate:
    """Return the geometric mean of paired ratios, with Student's t interval of their logarithms.

    Pairs with a NaN are left out; not defined where a value is not above 0, or infinite.
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

    The training sets of the folds overlap: the variance is (1 / J + test_ratio) s^2, with ``test_ratio`` the rows of a
    test fold by those of its training set. Nadeau and Bengio, Inference for the Generalization Error, Machine Learning
    52 (2003), Section 3.
    """
    found = trial_components(differences)
    corrected = found.seeds * (1 + found.n_trials * test_ratio)
    found = Components(found.value, corrected, 0.0, 0.0, found.trials)
    return found.estimate("new training and test samples of these sizes, and new seeds")


def time_ratio(reference: Any, other: Any, reference_reached: Any, other_reached: Any) -> Estimate:
    """Return the median of the ratios other / reference of paired times, of which some may be censored.

    Parameters
    ----------
    reference, other : array-like of shape (n_trials,)
        When each trial reached the target or, where it did not, how long it was trained; NaN where that is not known.
    reference_reached, other_reached : array-like of shape (n_trials,), bool
        Whether it was reached.

    Returns
    -------
    Estimate
        The interval reaches from the k-th smallest ratio to the k-th largest, with the largest k of which the level is
        at least 95 %, else k = 1: the level is 1 - 2^(1 - n) for up to 5 trials, so 93.75 % at 5, and 50 % at 2.
        A ratio is only known to lie between two numbers where one of its times is censored: at least what was trained
        by the reference's time where the other is censored, so that its upper end is infinite; at most the other's
        time by what was trained where the reference is. Both censored, the ratio and the ends that would rest on it
        are unknown (NaN). The value is NaN where the median is not known.
    """
    one, two = np.asarray(reference, dtype=float), np.asarray(other, dtype=float)
    one_reached, two_reached = np.asarray(reference_reached, dtype=bool), np.asarray(other_reached, dtype=bool)
    n = len(one)
    if any(values.shape != (n,) for values in (two, one_reached, two_reached)):
        raise ValueError("reference, other and whether they were reached must have one value for each trial.")
    if (one <= 0).any() or (two <= 0).any() or np.isinf([one, two]).any():
        raise ValueError("reference and other must be finite times above 0, or NaN where they are not known.")
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
    """Return how often the k-th smallest and the k-th largest of n values have the median between them."""
    return 1 - 2 * float(stats.binom.cdf(k - 1, n, 0.5))


def rank_correlation(first: Any, second: Any) -> Estimate:
    """Return Spearman's rank correlation, with the interval of Bonett and Wright.

    Fisher's z has the standard error sqrt((1 + rho^2 / 2) / (n - 3)) for ranks: Bonett and Wright, Sample size
    requirements for estimating Pearson, Kendall and Spearman correlations, Psychometrika 65 (2000), equation 3. Pairs
    with a NaN are left out; not defined where one of the two is constant, or for fewer than 3 pairs. A perfect order
    has the inner end of the order next to it, two neighbours exchanged.
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
    """Return in which share of all pairs the value of ``first`` is the larger one, ties half: Mann and Whitney's U."""
    one, two = _known(first)[0], _known(second)[0]
    if not len(one) or not len(two):
        return math.nan
    return float(stats.mannwhitneyu(one, two).statistic) / (len(one) * len(two))


# -- non-inferiority ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LossTest:
    """A one-sided test that less than a margin is lost.

    Attributes
    ----------
    lost : float
        Mean of the reference minus the other.
    bound : float
        Its upper confidence bound; infinite where the trials show nothing.
    p_value : float
        Of the hypothesis that the margin or more is lost; NaN where the trials show nothing.
    n_trials : int
        Paired trials.
    worst : float
        The most that a trial lost.
    n_failed : int
        Trials that lost more than five margins.
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
    """Return the test of one size: whether its loss is shown to be below the margin."""
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
    """Return cases in a fixed order with their tests, up to the first of which not all are shown, which ends them.

    The chance that any case is shown that should not be is at most the level of one test, without a correction for
    several: Maurer, Hothorn and Lehmacher (1995).
    """
    found: list[tuple[T, Sequence[ShownT]]] = []
    for case in cases:
        found.append((case, tests_of(case)))
        if not all(test.shown for test in found[-1][1]):
            break
    return found


def smallest_margin(n_rows: int) -> float:
    """Return the smallest margin that so many rows can show: that of five rows."""
    return LEAST_ROWS_OF_A_MARGIN / n_rows


def round_up(margin: float) -> float:
    """Return a margin in four decimals that is not below it."""
    return math.ceil(1e4 * margin - 1e-9) / 1e4


def needed_rows(margin: float) -> int:
    """Return how many rows a margin needs to be of five rows."""
    return math.ceil(LEAST_ROWS_OF_A_MARGIN / margin - 1e-9)  # 5 / 0.005 may lie above 1,000 by rounding


def check_margin(margin: float, n_rows: int) -> None:
    """Raise a ValueError for a margin in a score from 0 to 1 that the held-out rows cannot resolve."""
    if not is_number(margin) or not 0 < margin < 1:
        raise ValueError(f"margin must be a number above 0 and below 1 (0.03 is 3 points); got {margin!r}.")
    if n_rows <= LEAST_ROWS_OF_A_MARGIN:
        raise ValueError(f"margin cannot be shown on {n_rows} validation samples: hold out {needed_rows(margin):,}.")
    if n_rows < needed_rows(margin):
        raise ValueError(
            f"margin must be at least {round_up(smallest_margin(n_rows)):g} with {n_rows:,} validation "
            f"samples, which is {LEAST_ROWS_OF_A_MARGIN} of them; {margin:g} needs a hold-out of "
            f"{needed_rows(margin):,}."
        )


def unseen_failure_rate(n_trials: int, level: float = CONFIDENCE) -> float:
    """Return the largest rate of failing trials that so many trials without a failure leave possible."""
    return 1 - (1 - level) ** (1 / n_trials) if n_trials else 1.0


# -- helpers -----------------------------------------------------------------------------------------------------------


def _known(*values: Any) -> np.ndarray:
    """Return the values as an array of shape (len(values), n), without the pairs of which one is NaN."""
    pairs = np.array(values, dtype=float)
    return pairs[:, ~np.isnan(pairs).any(axis=0)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _mean_square(values: np.ndarray) -> float:
    """Return the variance of the mean of independent values: exactly 0 where all are equal, NaN for fewer than 2."""
    if len(values) < 2:
        return math.nan
    if np.ptp(values) <= _ROUNDING * np.abs(values).max():
        return 0.0
    return float(values.var(ddof=1)) / len(values)
