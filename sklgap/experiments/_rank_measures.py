"""``rank_measures``: which measures of flatness are related to the test score, overall and at equal settings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import WrongArgument, check_arguments, check_random_state, is_integer, is_one_of, shown
from sklgap.experiments import _notes as notes
from sklgap.experiments._estimate import Estimate
from sklgap.experiments._granulated_tau import Taus, draw_resamples, granulated_taus
from sklgap.experiments._minima_census import MinimaCensus
from sklgap.experiments._result import Result, count, environment, listed

if TYPE_CHECKING:
    from typing import Literal

    from sklgap.experiments._plot._rank_measures import MeasureRankingDisplay

# The columns of a census that hold the settings of the training, with their printed names.
_SETTINGS = {"learning_rate": "learning rate", "regime": "batch regime", "init": "initialisation"}
_MOST_RESAMPLES = 100_000
# A note reports the share of tied pairs if it exceeds this number.
_MANY_TIES = 0.1


def rank_measures(
    census: Any,
    *,
    measures: Sequence[str] | None = None,
    target: "Literal['test', 'gap']" = "test",
    score: str | None = None,
    hyperparameters: Sequence[str] | None = None,
    n_resamples: int = 2000,
    random_state: int | np.random.RandomState | None = 0,
) -> "MeasureRanking":
    r"""Rank measures of flatness by their relation to generalisation, over all minima and at equal settings.

    The relation is Kendall's tau of each measure with the test error. It is +1 if the flatter one of any two minima
    generalises better, and -1 if it generalises worse. Over all minima, tau may only show that one learning rate is
    better than another. It is therefore also computed over pairs that differ in one setting alone (the granulated tau
    of Jiang et al., 2020), and over pairs that differ in the seed alone.

    Parameters
    ----------
    census : MinimaCensus, pandas DataFrame, or sequence of dict
        The result of `minima_census`. Or records of your own models, one per model: the measures as numbers, ``trial``
        (a number or a name that the models of one seed share), the scores and the hyper-parameters.
    measures : sequence of str, default=None
        Columns of the records in which a larger value means a sharper minimum. Any numbers in the records can be
        ranked, such as ``"train_loss"`` or ``"weight_distance"``. None means the sharpness and all measures of the
        census.
    target : {"test", "gap"}, default="test"
        The quantity that a measure should predict: ``"test"`` is the test score (smaller is worse), and ``"gap"`` the
        train-test gap (training score minus test score; larger is worse).
    score : str, default=None
        Name of the score, which the records have as ``test_<score>`` and ``train_<score>``. Larger must be better. None
        means the first score of the census, or ``"accuracy"``.
    hyperparameters : sequence of str, default=None
        The columns of the settings, such as ``["batch_size", "learning_rate"]``. None means those of ``learning_rate``,
        ``regime`` and ``init`` that the records have. The models of one trial must differ in at least one of them.
    n_resamples : int, default=2000
        Number of resamples of the trials for the intervals, from 20 to 100,000.
    random_state : int, RandomState or None, default=0
        Source of the random numbers for the resamples.

    Returns
    -------
    MeasureRanking
        The ranking; ``print`` shows it as a table, and ``plot()`` draws it.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if the records lack a column.
    TypeError
        If ``census`` is not a census, a DataFrame or a sequence of dicts.

    See Also
    --------
    minima_census : Trains the minima and measures them.

    Notes
    -----
    The plain tau and the tau within settings are tau-b, as in ``scipy.stats.kendalltau``. The granulated tau is
    :math:`\Psi` of Jiang et al. For each hyper-parameter, it is the mean tau over groups of minima that are equal in
    all other hyper-parameters, where a tie counts as 0; then the mean over the hyper-parameters is taken. All minima of
    a group belong to one trial and start from the same seed.

    Intervals come from resamples of whole trials: value ± t s. Here s is the standard deviation over the resamples
    times :math:`\sqrt{J / (J - 1)}`, and t is Student's with J - 1 degrees of freedom, for J trials. A simulation had
    nine settings, correlations between 0 and 0.7, with and without ties. These intervals contained the true value in 93
    to 99.8 % of 400 repetitions for 3 to 20 trials (with 3 and 5 trials, those within settings are wider than
    necessary). The interval between percentiles of the same resamples contained it in 62 to 97 %
    (``examples/benchmarks/tau_intervals.py``). A granulated tau of 1 in all J trials has the interval [2 x 0.05^(1/J) -
    1, 1], which contains the mean in at least 95 % of cases for any distribution; for five trials it is [0.10, 1].
    There is no interval for other taus that are the same in all trials.

    Intervals cover new seeds. They do not cover other settings, training sets or test samples, because all minima are
    scored on the same test samples.

    Each measure is compared across minima. Minima with unequal training losses differ in most measures for that reason
    alone.

    References
    ----------
    Jiang et al., Fantastic Generalization Measures and Where to Find Them, ICLR 2020, arXiv:1912.02178.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, minima_census, rank_measures
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None)
    >>> census = minima_census(
    ...     model, X[:600] / 16, y[:600], X[600:] / 16, y[600:], regimes=[20, 60], inits=["torch"],
    ...     learning_rates=[1e-3, 3e-3], n_trials=2, measures=["largest_eigenvalue"], random_state=0, verbose=0)
    >>> ranking = rank_measures(census, measures=["largest_eigenvalue", "train_loss"])
    >>> list(ranking.measures)
    ['largest_eigenvalue', 'train_loss']
    >>> -1 <= ranking.measures["train_loss"].granulated.value <= 1
    True

    Records of your own models:

    >>> records = [
    ...     {"trial": seed, "batch_size": size, "width_of_minimum": size + seed, "test_accuracy": 1 - size / 1000}
    ...     for seed in range(3) for size in (32, 64, 128)]
    >>> rank_measures(records, measures=["width_of_minimum"], hyperparameters=["batch_size"]).measures[
    ...     "width_of_minimum"].granulated.value
    1.0
    """
    check_arguments(rank_measures, locals())
    if not is_integer(n_resamples, 20) or n_resamples > _MOST_RESAMPLES:
        raise ValueError(
            f"n_resamples must be an integer from 20 to {_MOST_RESAMPLES}, because all resamples are in memory; got "
            f"{shown(n_resamples)}."
        )
    rng = check_random_state(random_state)
    if target is None or not is_one_of(target, ("test", "gap")):
        raise ValueError(f"target must be 'test' or 'gap'; got {shown(target)}.")
    minima = _check_records(census)
    score = _check_score(score, census)
    names = _check_measures(measures, census)
    axes = _check_hyperparameters(hyperparameters, minima)
    columns = {name: _numbers(minima, name, "measures") for name in names}
    tested = _numbers(minima, f"test_{score}", "score")
    worse = _numbers(minima, f"train_{score}", "score") - tested if target == "gap" else -tested
    if "train_loss" in minima[0]:  # weights that are not finite have an accuracy too, but they are not a minimum
        worse[~np.isfinite(_numbers(minima, "train_loss", "census"))] = math.nan
    trials = _codes(minima, "trial", "census")
    varied = {axis: codes for axis in axes if (codes := _codes(minima, axis, "hyperparameters")).any()}
    settings = np.column_stack([*varied.values()]) if varied else np.empty((len(minima), 0), dtype=int)
    _check_settings_differ(minima, np.column_stack([trials, settings]), axes, names)
    resamples = draw_resamples(int(trials.max()) + 1, n_resamples, rng)
    found = {}
    for name, values in columns.items():
        n_minima = int((np.isfinite(values) & np.isfinite(worse)).sum())
        found[name] = _ranked(name, n_minima, granulated_taus(values, worse, trials, settings, resamples), list(varied))
    about = {
        "target": target,
        "score": score,
        "hyperparameters": axes,
        "varied": list(varied),
        "n_minima": len(minima),
        "n_trials": len(resamples[0]),
        "n_resamples": int(n_resamples),
        "tied": _share_tied(worse),
        "census": census.settings if isinstance(census, MinimaCensus) else None,
        "environment": environment(),
    }
    return MeasureRanking(found, minima, about, interrupted=isinstance(census, MinimaCensus) and census.interrupted)


@dataclass(frozen=True)
class RankedMeasure:
    """The relation of a measure of flatness to the test error: Kendall's tau, +1 if flatter is always better.

    Attributes
    ----------
    name : str
        Name of the measure.
    n_minima : int
        Number of minima with a finite measure and a finite test score.
    plain : Estimate
        Tau over all pairs of minima.
    granulated : Estimate
        Tau over pairs of one trial that differ in one hyper-parameter alone: the mean of ``axes``.
    axes : dict of str to Estimate
        Tau over pairs that differ in this hyper-parameter alone, for each hyper-parameter with several values.
    within : Estimate
        Tau over pairs with equal hyper-parameters, which differ in the seed alone: the mean over settings.
    """

    name: str
    n_minima: int
    plain: Estimate
    granulated: Estimate
    axes: dict[str, Estimate]
    within: Estimate

    def taus(self) -> dict[str, Estimate]:
        """Return all taus by name; the parts of the granulated tau have the names of the hyper-parameters."""
        return {"plain": self.plain, "granulated": self.granulated, **self.axes, "within": self.within}


class MeasureRanking(Result):
    """Result of `rank_measures`; ``print`` shows it.

    Attributes
    ----------
    measures : dict of str to RankedMeasure
        The ranked measures by name, in the given order.
    minima : list of dict
        The records of the models that were ranked.
    records : list of dict
        One per measure and kind of pairs: ``measure``, ``pairs`` ("plain", "granulated", the name of a hyper-parameter,
        or "within"), ``tau``, ``low``, ``high``, ``n_minima`` and ``n_trials``.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(
        self,
        measures: dict[str, RankedMeasure],
        minima: list[dict[str, Any]],
        settings: dict[str, Any],
        interrupted: bool = False,
    ) -> None:
        records = [
            {
                "measure": measure.name,
                "pairs": pairs,
                "tau": tau.value,
                "low": tau.low,
                "high": tau.high,
                "n_minima": measure.n_minima,
                "n_trials": tau.n,
            }
            for measure in measures.values()
            for pairs, tau in measure.taus().items()
        ]
        super().__init__(records, settings, interrupted)
        self.measures = measures
        self.minima = minima

    # -- printing --------------------------------------------------------------------------------------------------

    @property
    def target_name(self) -> str:
        """The quantity that a measure should predict, in words."""
        score = self.settings["score"]
        return f"test {score}" if self.settings["target"] == "test" else f"the train-test gap in {score}"

    @property
    def _conditioned(self) -> str:
        """The pairs of the verdict: those of the granulated tau, if there are any."""
        return "granulated" if any(not math.isnan(m.granulated.value) for m in self.measures.values()) else "within"

    def _verdict(self) -> list[str]:
        """Return which measures are related to the target at equal settings, and over all minima."""
        pairs = self._conditioned
        taus = {name: getattr(measure, pairs) for name, measure in self.measures.items()}
        defined = {name: tau for name, tau in taus.items() if not math.isnan(tau.value)}
        if not defined:
            return ["No tau is defined, because measures or scores are constant, or no two minima can be compared."]
        if pairs == "within":
            condition = "Between seeds at equal settings"
        else:
            axes = [_called(axis) for axis in self.settings["varied"]]
            condition = f"If only {'the' if len(axes) == 1 else 'one of'} {listed(axes)} differs"
        if not any(tau.has_interval for tau in defined.values()):
            best = max(defined, key=lambda name: defined[name].value)
            return [
                f"There is no interval, so nothing is shown for other seeds. {condition}, the largest tau is that of "
                f"{best}, {defined[best].value:+.2f}."
            ]
        return [
            self._said(taus, condition),
            self._said({n: m.plain for n, m in self.measures.items()}, "Over all minima"),
        ]

    def _said(self, taus: Mapping[str, Estimate], condition: str) -> str:
        """Return the measures by which flatter minima are better, and those by which they are worse."""
        with_interval = {name: tau for name, tau in taus.items() if tau.has_interval}
        order = sorted(with_interval, key=lambda name: -abs(with_interval[name].value))
        better = [f"{name} ({taus[name].value:+.2f})" for name in order if taus[name].low > 0]
        worse = [f"{name} ({taus[name].value:+.2f})" for name in order if taus[name].high < 0]
        n_rest = len(order) - len(better) - len(worse)
        equal = [f"{n} ({t.value:+.2f})" for n, t in taus.items() if not t.has_interval and not math.isnan(t.value)]
        # The strongest relation may have no interval, such as a tau of 1 in every trial.
        also = f"; these have no interval, because all trials have the same tau: {listed(equal)}" if equal else ""
        if not better and not worse:
            return (
                f"{condition}, no measure is shown to be related to {self.target_name}: no interval of tau excludes 0"
                f"{also}."
            )
        good, bad = (
            ("the better test", "the worse test")
            if self.settings["target"] == "test"
            else ("the smaller", "the larger")
        )
        noun = self.settings["score"] if self.settings["target"] == "test" else "train-test gap"
        said = [f"{good} {noun} by {listed(better)}"] if better else []
        said += [f"{bad} {noun} by {listed(worse)}"] if worse else []
        rest = (
            f"; {n_rest} of {count(len(order), 'interval')} {'contains' if n_rest == 1 else 'contain'} 0"
            if n_rest
            else ""
        )
        return f"{condition}, flatter minima have {', and '.join(said)}{rest}{also}."

    def _head(self) -> list[str]:
        s = self.settings
        trials = count(s["n_trials"], "trial")
        lines = [f"{s['n_minima']} minima of {trials}: Kendall's tau of each measure with {self._error}"]
        census = s["census"]
        if census is not None:
            lines.append(f"{census['n_train']:,} training and {census['n_test']:,} test samples")
        return lines

    @property
    def _error(self) -> str:
        if self.settings["target"] == "gap":
            return self.target_name
        return "the test error" + ("" if self.settings["score"] == "accuracy" else f" in {self.settings['score']}")

    def _columns(self) -> dict[str, str]:
        """Return the names of the printed pairs with their headers."""
        axes = self.settings["varied"]
        columns = {"plain": "all minima"}
        if axes:
            columns["granulated"] = "granulated" if len(axes) > 1 else f"only the {_called(axes[0])} differs"
        if len(axes) > 1:
            columns |= {axis: f"only the {_called(axis)} differs" for axis in axes}
        return {**columns, "within": "only the seed differs"}

    def _table(self) -> list[list[str]]:
        columns = self._columns()
        rows = [["measure", "n", *columns.values()]]
        for name, measure in self.measures.items():
            taus = measure.taus()
            rows.append([name, str(measure.n_minima), *(_shown(taus[pairs]) for pairs in columns)])
        return rows

    def _reading(self) -> list[str]:
        good = "better test score" if self.settings["target"] == "test" else "smaller gap"
        lines = [
            f"tau: +1 if the flatter one of any two minima has the {good}, -1 if the sharper one has it, 0 if there is "
            "no relation",
        ]
        if len(self.settings["varied"]) > 1:
            lines.append(
                "granulated: the mean of the columns in which only one setting differs, between minima of one trial "
                "(Jiang et al., 2020)"
            )
        return [*lines, *self._interval_lines(self._printed())]

    def _printed(self) -> list[Estimate]:
        return [measure.taus()[pairs] for measure in self.measures.values() for pairs in self._columns()]

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        conditioned = {name: getattr(measure, self._conditioned) for name, measure in self.measures.items()}
        return [
            *(["The census was interrupted; the ranking uses its finished minima."] if self.interrupted else []),
            *self._missing(),
            *self._axes_left_out(),
            *self._not_trained_equally(),
            *notes.no_interval({name: tau for name, tau in conditioned.items() if not math.isnan(tau.value)}),
            *self._opposite(),
            *self._ties(),
            *notes.several_intervals(sum(tau.has_interval for tau in self._printed())),
            "All minima are scored on the same samples. No interval covers other samples, training data or settings.",
        ]

    def _missing(self) -> list[str]:
        n = self.settings["n_minima"]
        fewer = [f"{name} ({n - measure.n_minima} of {n})" for name, measure in self.measures.items()]
        fewer = [text for text, measure in zip(fewer, self.measures.values(), strict=True) if measure.n_minima < n]
        undefined = [name for name, measure in self.measures.items() if math.isnan(measure.plain.value)]
        found = []
        if fewer:
            found.append(f"Minima without a finite measure, score or training loss are left out: {listed(fewer)}.")
        if undefined:
            found.append(f"There is no tau for {listed(undefined)}, because the measure or the score is constant.")
        return found

    def _axes_left_out(self) -> list[str]:
        """Report which settings the granulated tau does not include, because no two minima differ in them alone."""
        s = self.settings
        asked = dict.fromkeys([*(["learning_rate"] if s["census"] is not None else []), *s["hyperparameters"]])
        defined = [measure for measure in self.measures.values() if not math.isnan(measure.plain.value)]
        alone = [axis for axis in s["varied"] if any(not math.isnan(m.axes[axis].value) for m in defined)]
        missing = [_called(axis) for axis in asked if axis not in alone]
        if not defined or not missing:
            return []
        return [
            f"No two minima of one trial differ in the {listed(missing)} alone, so the granulated tau does not include "
            f"{'it' if len(missing) == 1 else 'them'}."
        ]

    def _not_trained_equally(self) -> list[str]:
        """Report which minima did not reach the target loss or converge, and how unequal the training losses are."""
        census, found = self.settings["census"], []
        target = census is not None and census.get("target_loss") is not None
        groups: dict[str, list[dict[str, Any]]] = {}
        for record in self.minima:
            label = ", ".join(str(record[axis]) for axis in self.settings["hyperparameters"]) or "all minima"
            groups.setdefault(label, []).append(record)
        if "converged" in self.minima[0]:
            converged = {label: [record["converged"] for record in own] for label, own in groups.items()}
            found += notes.not_converged(converged, target=target)
        if "train_loss" in self.minima[0]:
            losses = [_numbers(own, "train_loss", "census") for own in groups.values()]
            found += notes.unequal_groups([values[np.isfinite(values)] for values in losses], target=target)
        return found

    def _opposite(self) -> list[str]:
        """Report measures whose sign over all minima is the opposite of the sign at equal settings."""
        pairs = self._conditioned
        opposite = [
            name
            for name, measure in self.measures.items()
            if (measure.plain.low > 0 and getattr(measure, pairs).high < 0)
            or (measure.plain.high < 0 and getattr(measure, pairs).low > 0)
        ]
        if not opposite:
            return []
        return [
            f"The sign over all minima is the opposite of the sign at equal settings: {listed(opposite)}. Over all "
            "minima, tau shows which settings are better, not which minima."
        ]

    def _ties(self) -> list[str]:
        tied = self.settings["tied"]
        if not tied > _MANY_TIES:
            return []
        return [
            f"In {100 * tied:.0f} % of all pairs, {self.target_name} is equal. The granulated tau counts a tie as 0, "
            "and cannot reach 1."
        ]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        return {"measures": [asdict(measure) for measure in self.measures.values()]}

    def plot(self, ax: Any = None) -> "MeasureRankingDisplay":
        """Draw the taus of each measure with their intervals; return a `MeasureRankingDisplay`."""
        from sklgap.experiments._plot._rank_measures import MeasureRankingDisplay

        return MeasureRankingDisplay.from_ranking(self, ax=ax)


# -- the records -------------------------------------------------------------------------------------------------------


def _check_records(census: Any) -> list[dict[str, Any]]:
    """Return one dict per model."""
    if isinstance(census, MinimaCensus):
        return census.records
    if hasattr(census, "columns") and hasattr(census, "to_dict"):
        census = census.to_dict("records")
    if isinstance(census, str) or not isinstance(census, Sequence) or not len(census):
        raise WrongArgument(
            "census must be a MinimaCensus, or records as a DataFrame or a non-empty sequence of dicts; got "
            f"{shown(census)}."
        )
    if not all(isinstance(record, Mapping) for record in census):
        raise WrongArgument(f"census must have dicts as its records; got {shown(census)}.")
    return [dict(record) for record in census]


def _check_score(score: Any, census: Any) -> str:
    if not (score is None or (isinstance(score, str) and score)):
        raise WrongArgument(f"score must be None or the name of a score; got {shown(score)}.")
    if isinstance(census, MinimaCensus):
        return census.score(score).name
    if score is not None and ("loss" in score or "error" in score) and not score.startswith("neg_"):
        raise ValueError(
            f"score must name a score of which larger is better; got {score!r}. Store the negative values as "
            f"'test_neg_{score}' and pass 'neg_{score}'."
        )
    return "accuracy" if score is None else score


def _check_measures(measures: Any, census: Any) -> list[str]:
    """Return the columns to rank."""
    if measures is None:
        if not isinstance(census, MinimaCensus):
            raise WrongArgument("measures must be names of columns for records that are not a MinimaCensus; got None.")
        return [census.sharpness_name, *census.measures]
    return _check_names("measures", measures)


def _check_names(name: str, names: Any, *, empty: bool = False) -> list[str]:
    right = isinstance(names, Sequence) and not isinstance(names, str) and (len(names) > 0 or empty)
    if not right or not all(isinstance(one, str) for one in names):
        raise WrongArgument(f"{name} must be None or a sequence of names of columns; got {shown(names)}.")
    if len(set(names)) < len(names):
        raise WrongArgument(f"{name} must not have the same column twice; got {shown(names)}.")
    return list(names)


def _check_hyperparameters(hyperparameters: Any, minima: list[dict[str, Any]]) -> list[str]:
    """Return the columns of the settings."""
    if hyperparameters is None:
        return [name for name in _SETTINGS if all(name in record for record in minima)]
    found = _check_names("hyperparameters", hyperparameters, empty=True)
    if "trial" in found or any(name in ("plain", "granulated", "within") for name in found):
        raise WrongArgument(
            f"hyperparameters must not be the trial, nor be called plain, granulated or within; got {shown(found)}."
        )
    return found


def _check_settings_differ(
    minima: list[dict[str, Any]], keys: np.ndarray, axes: Sequence[str], measures: Sequence[str]
) -> None:
    """Refuse two models of one trial with equal settings: they would count as models that differ in the seed alone."""
    first: dict[tuple[int, ...], int] = {}
    for i, key in enumerate(map(tuple, keys.tolist())):
        if key not in first:
            first[key] = i
            continue
        one, other = minima[first[key]], minima[i]
        results = ("test_", "train_", *measures)
        differ = [c for c in one if c in other and not c.startswith(results) and one[c] != other[c]]
        raise ValueError(
            f"hyperparameters must name all settings in which the models of one trial differ; got {shown(list(axes))}, "
            f"by which two models of trial {one['trial']!r} are equal. "
            + (f"They differ in {listed(differ)}." if differ else "Leave one of them out, or give it another trial.")
        )


def _values(minima: list[dict[str, Any]], column: str, argument: str) -> list[Any]:
    if not all(column in record for record in minima):
        raise WrongArgument(
            f"{argument} must name columns that all records have; got {column!r}, but they have "
            f"{listed(sorted(map(str, set(minima[0]).intersection(*minima))), most=20) or 'none'}."
        )
    return [record[column] for record in minima]


def _numbers(minima: list[dict[str, Any]], column: str, argument: str) -> np.ndarray:
    """Return a column of numbers, with NaN for missing ones."""
    values = _values(minima, column, argument)
    try:
        return np.array([math.nan if value is None else float(value) for value in values])
    except (TypeError, ValueError):
        raise WrongArgument(f"{argument} must name columns of numbers; {column!r} is not one.") from None


def _codes(minima: list[dict[str, Any]], column: str, argument: str) -> np.ndarray:
    """Return the values of a column as codes from 0, in the order of their first occurrence."""
    values = _values(minima, column, argument)
    if any(value is None or value != value for value in values):
        raise WrongArgument(f"{argument} must be known for every record: {column!r} is missing in one.")
    try:
        place = {value: i for i, value in enumerate(dict.fromkeys(values))}
    except TypeError:
        raise WrongArgument(f"{argument} must name columns of numbers or texts; {column!r} is not one.") from None
    return np.array([place[value] for value in values])


# -- helpers -----------------------------------------------------------------------------------------------------------


def _ranked(name: str, n_minima: int, taus: Taus, axes: Sequence[str]) -> RankedMeasure:
    parts = dict(zip(axes, taus.axes, strict=True))
    return RankedMeasure(name, n_minima, taus.plain, taus.granulated, parts, taus.within)


def _share_tied(values: np.ndarray) -> float:
    """Return the share of all pairs whose values are equal; NaN without a pair."""
    known = values[np.isfinite(values)]
    counts = np.unique(known, return_counts=True)[1]
    n_pairs = len(known) * (len(known) - 1) / 2
    return float((counts * (counts - 1) / 2).sum() / n_pairs) if n_pairs else math.nan


def _called(axis: str) -> str:
    return _SETTINGS.get(axis, axis)


def _shown(tau: Estimate) -> str:
    if math.isnan(tau.value):
        return "-"
    return f"{tau.value:+.2f}" + (f" [{tau.low:+.2f}, {tau.high:+.2f}]" if tau.has_interval else "")
