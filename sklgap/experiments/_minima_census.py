"""``minima_census``: flatness and test scores of the minima from many seeds, initialisations and learning rates."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from torch import nn

from sklgap._checks import WrongArgument, check_arguments, shown
from sklgap._tables import text_of
from sklgap._typing import BatchNormPolicy, Solver
from sklgap.experiments import _notes as notes
from sklgap.experiments._estimate import (
    CONFIDENCE,
    Components,
    Estimate,
    rank_correlation,
    ratio_estimate,
    share_larger,
)
from sklgap.experiments._inputs import (
    check_classifier,
    check_data,
    check_learning_rates,
    check_one_sharpness,
    check_regimes,
    check_target_loss,
    described,
)
from sklgap.experiments._paired_trials import run_paired_trials
from sklgap.experiments._protocol import Measurement, given_measurement
from sklgap.experiments._records import Records
from sklgap.experiments._result import count, listed, mean_std
from sklgap.experiments._run import interruptible
from sklgap.experiments._scores import ACCURACY, Score, Scoring
from sklgap.experiments._trials import OF_THE_FIT, Outcome
from sklgap.inspection._flatness import check_measures
from sklgap.nets._check import check_init

if TYPE_CHECKING:
    from sklgap.experiments._plot._minima_census import MinimaCensusDisplay

# The regime, the initialisation and, if several are tried, the learning rate, as text.
Group = tuple[str, ...]

QUANTILES = (0.1, 0.5, 0.9)


@interruptible
def minima_census(
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    regimes: Sequence[Any] | Mapping[str, Mapping[str, Any]] = ("SB", "LB"),
    inits: Sequence[Any] | Mapping[str, Any] = ("glorot_uniform", "torch"),
    learning_rates: Sequence[float] | None = None,
    measures: Sequence[str] | Mapping[str, Callable[..., Any]] | None = None,
    n_trials: int = 10,
    target_loss: float | None = None,
    epsilon: float = 1e-3,
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = 10_000,
    solver: Solver = "auto",
    scoring: Scoring = None,
    measurement: Measurement | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> "MinimaCensus":
    """Measure the minima that training finds from many seeds and initialisations.

    It answers questions that Keskar et al. (2017) leave open. How sharp are the minima of each batch regime, and how
    much do they vary? Does the initialisation matter? Do the sharper minima of one regime have lower test scores?

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Estimator that is cloned for every fit.
    X, y : array-like
        Training data.
    X_test, y_test : array-like
        Test data. Every fitted model is evaluated on them once; no choice uses them.
    regimes : sequence or dict, default=("SB", "LB")
        Values of ``batch_regime``, or a dict from label to parameter overrides, as for `compare_regimes`.
    inits : sequence or dict, default=("glorot_uniform", "torch")
        Values of ``init``, or a dict from label to value.
    learning_rates : sequence of float, default=None
        Values of ``lr`` to combine with every regime and every initialisation. With ``lr_scaling`` they are the rates
        at the base batch size. None means the learning rate of the estimator.
    measures : sequence of str or dict, default=None
        Measures of flatness in addition to the sharpness: names that `sklgap.inspection.flatness` knows, or a dict from
        your name to one of these names, or to a function ``measure(objective, *, random_state)`` that returns a number
        or a `sklgap.inspection.Flatness`. A larger value must mean a sharper minimum. They are measured on the same
        samples as the sharpness, and the records have them by their names. `rank_measures` shows which of them is
        related to the test score.
    n_trials : int, default=10
        Number of minima in each group, which is a combination of regime, initialisation and learning rate. Trial i has
        the same ``random_state`` in all groups.
    target_loss : float, default=None
        Stop every training when the training loss of an epoch (the mean over its batches) is at most this value, or at
        ``max_epochs``, so that the minima have similar losses. None means the stopping rule of the estimator.
    epsilon : float, default=1e-3
        Size of the box in which sharpness is measured (1e-3 and 5e-4 in the paper).
    batch_norm, max_samples, solver, scoring : see `Measurement`
        What is measured on every model.
    measurement : Measurement, default=None
        All of these parameters in one object, with one ``epsilon`` and one entry of ``subspace_dims``.
    random_state : int, RandomState or None, default=None
        Source of all random numbers. An int makes the result repeatable.
    n_jobs : int or None, default=None
        Number of fits that run at the same time, as in scikit-learn.
    memory : str, Path or None, default=None
        Folder in which finished work is saved, and from which it is loaded in the next run.
    verbose : int, default=1
        0 is silent; 1 prints the expected cost and shows a progress bar. `sklgap.experiments` explains these four
        parameters.

    Returns
    -------
    MinimaCensus
        The census. ``print`` shows its tables, and ``plot()`` draws the test score against sharpness. After Ctrl-C it
        holds the fits that finished.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values. This is raised before anything is trained.
    TypeError
        If the estimator is not an `LBGapClassifier` and does not end in one.

    See Also
    --------
    compare_regimes : Measures more quantities of fewer minima.
    rank_measures : Finds the measures of flatness that are related to the test score.

    Notes
    -----
    The census samples minima in the proportions in which training finds them. It says nothing about other minima of the
    loss surface. "Minimum" means the weights at the end of training. The cost is ``n_trials * len(regimes) * len(inits)
    * len(learning_rates)`` fits, and as many measurements of sharpness and of each further measure.

    References
    ----------
    Keskar et al., ICLR 2017, Section 5: the questions on initialisation and on the density of sharp minima.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, minima_census
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None)
    >>> census = minima_census(
    ...     model, X[:900] / 16, y[:900], X[900:] / 16, y[900:], n_trials=2, random_state=0, verbose=0)
    >>> census.groups
    [('SB', 'glorot_uniform'), ('SB', 'torch'), ('LB', 'glorot_uniform'), ('LB', 'torch')]
    >>> census.values(("LB", "torch"), "test_accuracy").shape
    (2,)
    """
    check_arguments(minima_census, locals())
    measurement = given_measurement(minima_census, locals())
    check_one_sharpness(measurement, "minima_census", epsilon)
    overrides = check_regimes(regimes)
    starts = _check_inits(inits)
    classifier = check_classifier(estimator)
    rates = check_learning_rates(learning_rates, classifier)
    if isinstance(classifier.net, nn.Module):
        raise ValueError("net must be a name, a class or a function, because a module instance ignores init.")
    if any("init" in parameters for parameters in overrides.values()):
        raise ValueError("regimes must not set init, because every regime is combined with all of inits.")
    if learning_rates is not None and any("lr" in parameters for parameters in overrides.values()):
        raise ValueError(
            "regimes must not set lr with learning_rates, because every regime is combined with all of them."
        )
    flatness = _check_measures(measures)
    if target_loss is not None:
        check_target_loss(target_loss)
    stop = {} if target_loss is None else {"target_loss": float(target_loss), "tol": None}
    cases = {
        (regime, init, *([str(rate)] if len(rates) > 1 else [])): {
            **overrides[regime],
            **stop,
            "init": starts[init],
            **({} if rate is None else {"lr": rate}),
        }
        for regime, init, rate in product(overrides, starts, rates)
    }
    groups: list[Group] = list(cases)
    if len({_name(group) for group in groups}) < len(groups):
        raise ValueError(
            "inits must have labels that give every pair of a regime and an init its own name, but two pairs have the "
            f"same name; got {list(starts)}; rename one of them."
        )
    found = run_paired_trials(
        estimator,
        {_name(group): parameters for group, parameters in cases.items()},
        check_data(X, y, X_test, y_test),
        measurement,
        n_trials=n_trials,
        random_state=random_state,
        n_jobs=n_jobs,
        memory=memory,
        verbose=verbose,
        keep_estimators=False,
        measures=flatness,
    )
    settings = {
        "reference": _name(groups[0]),
        "regimes": described(overrides),
        "inits": {label: value if isinstance(value, str) else text_of(value) for label, value in starts.items()},
        "learning_rates": [] if learning_rates is None else rates,
        "measures": list(flatness),
        "target_loss": None if target_loss is None else float(target_loss),
        **found.settings,
    }
    by_name = {
        _name(group): {
            **dict(zip(("regime", "init"), group, strict=False)),
            **({} if learning_rates is None else {"learning_rate": parameters["lr"]}),
        }
        for group, parameters in cases.items()
    }
    outcomes = [o._replace(record={**o.record, **by_name[o.record["regime"]]}) for o in found.outcomes]
    return MinimaCensus(outcomes, groups, settings, found.interrupted, targets=found.targets, scores=found.scores)


@dataclass(frozen=True)
class Contrast:
    """Two groups of minima that differ in one setting alone: the regime, the initialisation or the learning rate.

    Attributes
    ----------
    first, second : tuple of str
        The two groups: regime, initialisation and, if several are tried, learning rate.
    sharpness_ratio : Estimate
        Sharpness of the second group divided by that of the first: the geometric mean over paired trials.
    score_difference : Estimate
        Test score (accuracy, or the first of ``scoring``) of the second group minus that of the first, over paired
        trials.
    share_sharper : float
        Share of all pairs of one minimum from each group in which the one of the second group is sharper; ties count
        half.
    """

    first: Group
    second: Group
    sharpness_ratio: Estimate
    score_difference: Estimate
    share_sharper: float


class MinimaCensus(Records):
    """Result of `minima_census`; ``print`` shows it.

    Attributes
    ----------
    records : list of dict
        One per finished fit: the records of `compare_regimes`, ``init``, each measure by its name and, if learning
        rates are given, ``learning_rate``. Accuracies are fractions, sharpness is in percent, times are in seconds.
    groups : list of tuple of str
        The groups with a finished fit: regime, initialisation and, if several are tried, learning rate.
    labels : list of str
        All groups as text, such as "LB, torch". Every method also accepts a group in place of a label.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        groups: Sequence[Group],
        settings: dict[str, Any],
        interrupted: bool = False,
        *,
        targets: dict[str, np.ndarray] | None = None,
        scores: Sequence[Score] = (Score(ACCURACY),),
    ) -> None:
        labels = [_name(group) for group in groups]
        self._n_parts = max((len(group) for group in groups), default=2)
        super().__init__(outcomes, labels, settings, interrupted, targets=targets, scores=scores)
        self.groups: list[Group] = [group for group in groups if self._of(group)]

    def _label_of(self, record: dict[str, Any]) -> str:
        group = (record["regime"], record["init"])
        return _name(group if self._n_parts == 2 else (*group, str(record["learning_rate"])))

    def _text(self, label: Any) -> str:
        return _name(label) if isinstance(label, tuple) else str(label)

    # -- statistics ------------------------------------------------------------------------------------------------

    @property
    def sharpness_name(self) -> str:
        """The name of the sharpness in the records."""
        return next(iter(self.sharpness_names()))

    @property
    def measures(self) -> list[str]:
        """The names of the further measures in the records."""
        return list(self.settings.get("measures", []))

    def by_trial(self, label: Any, name: str) -> np.ndarray:
        """Return one quantity of a group, of shape (n_trials,), with NaN for fits that did not finish or diverged."""
        values = super().by_trial(label, name)
        # Weights that are not finite have an accuracy too, but they are not a minimum.
        values[~np.isfinite(super().by_trial(label, "train_loss"))] = np.nan
        return values

    def values(self, label: Any, name: str) -> np.ndarray:
        """Return one quantity of a group, for the fits that finished and did not diverge, without NaN values."""
        values = self.by_trial(label, name)
        return values[np.isfinite(values)]

    def rank_correlation(self, group: Any, name: str | None = None) -> Estimate:
        """Return Spearman's correlation of sharpness with the test score, or another quantity, within a group."""
        return rank_correlation(
            self.by_trial(group, self.sharpness_name), self.by_trial(group, name or self._score_name)
        )

    def contrasts(self) -> list[Contrast]:
        """Return all pairs of groups that differ only in the regime, the init or the learning rate."""
        return [self._contrast(*pair) for pair in self._pairs()]

    def _pairs(self) -> list[tuple[Group, Group]]:
        pairs = list(combinations(self.groups, 2))
        differ = [[i for i, parts in enumerate(zip(*pair, strict=True)) if len(set(parts)) > 1] for pair in pairs]
        return [pair for part in range(self._n_parts) for pair, d in zip(pairs, differ, strict=True) if d == [part]]

    def _contrast(self, first: Group, second: Group) -> Contrast:
        one, other = (self.by_trial(group, self.sharpness_name) for group in (first, second))
        difference = self._difference(first, second).estimate()
        return Contrast(first, second, ratio_estimate(other, one), difference, share_larger(other, one))

    def _difference(self, first: Group, second: Group) -> Components:
        return self.components(second, first, self._score_name)

    @property
    def _score_name(self) -> str:
        return f"test_{self.scores[0].name}"

    def detectable(self) -> float:
        """Return the smallest rank correlation of ``n_trials`` minima whose interval excludes 0; NaN below 4 trials."""
        n = self.settings["n_trials"]
        if n < 4:
            return math.nan
        grid = np.linspace(0, 1, 1001)[:-1]
        half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((1 + grid**2 / 2) / (n - 3))
        beyond = grid[np.arctanh(grid) > half]
        return float(beyond[0]) if len(beyond) else math.nan

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s, contrasts = self.settings, self.contrasts()
        by_label = {label: self._of(label) for label in self.done}
        converged = {label: [record["converged"] for record in records] for label, records in by_label.items()}
        losses = {label: np.array([record["train_loss"] for record in records]) for label, records in by_label.items()}
        differences = {_against(c): c.score_difference for c in contrasts}
        estimates = [self.rank_correlation(group) for group in self.groups]
        estimates += [estimate for c in contrasts for estimate in (c.sharpness_ratio, c.score_difference)]
        n_intervals = sum(estimate.has_interval for estimate in estimates)
        return [
            *notes.interrupted(self.interrupted, len(self.records), s["n_trials"] * len(self.labels)),
            *notes.not_converged(converged, target=s["target_loss"] is not None),
            *notes.diverged(losses),
            *self._sharpness_with_loss(),
            *notes.unequal_groups(
                [self.values(group, "train_loss") for group in self.groups], target=s["target_loss"] is not None
            ),
            *notes.majority(self),
            *notes.no_interval(differences),
            *notes.seeds_only(differences),
            "These are the minima that training finds, in the proportions in which it finds them. They say nothing "
            "about other minima of the loss surface.",
            *notes.several_intervals(n_intervals),
        ]

    def _sharpness_with_loss(self) -> list[str]:
        found = []
        for group in self.groups:
            with_loss = self.rank_correlation(group, "train_loss")
            if with_loss.excludes(0):
                found.append(
                    f"In {_name(group)}, sharpness is correlated with the training loss (rank correlation "
                    f"{with_loss.text('+.2f')}). Differences in sharpness may come from longer training there."
                )
        return found

    # -- printing --------------------------------------------------------------------------------------------------

    def _verdict(self) -> list[str]:
        """Return whether sharper minima have lower test scores, and which of the first two groups is sharper."""
        found = {group: self.rank_correlation(group) for group in self.groups}
        worse = [_name(group) for group, rho in found.items() if rho.high < 0]
        better = [_name(group) for group, rho in found.items() if rho.low > 0]
        said = [
            f"Sharper minima have {how} test scores in these groups: {listed(groups)}."
            for how, groups in (("lower", worse), ("higher", better))
            if groups
        ]
        said = said or ["No group shows a relation between sharpness and the test score."]
        return [*said, *(self._sentence(contrast) for contrast in self.contrasts()[:1])]

    def _sentence(self, contrast: Contrast) -> str:
        said = f"{_against(contrast)}: sharpness {contrast.sharpness_ratio.text('.3g', ' times')}"
        if not math.isnan(contrast.share_sharper):
            said += f", sharper in {100 * contrast.share_sharper:.0f} % of pairs"
        score, difference = self.scores[0], contrast.score_difference
        amount = difference.points() if score.in_points else difference.text("+.4f")
        return f"{said}; test {score.name} {amount}."

    def _head(self) -> list[str]:
        s = self.settings
        stop = "" if s["target_loss"] is None else f", trained to a loss of {s['target_loss']:g}"
        minima = count(s["n_trials"], "minimum").replace("minimums", "minima")
        group = "regime and initialisation" if self._n_parts == 2 else "regime, initialisation and learning rate"
        return [
            f"{minima} for each {group}{stop}: {s['n_train']:,} training and {s['n_test']:,} test samples, mean ± std",
            *self._measured_lines(),
        ]

    def _table(self) -> list[list[str]]:
        quantiles = ["median" if q == 0.5 else f"{100 * q:.0f} %" for q in QUANTILES]
        scores = self._score_columns(("test",))
        names = ["n", "train loss", *(name for name, *_ in scores)]
        names += [f"{self.sharpness_names()[self.sharpness_name]} (%)", *quantiles, "rank correlation", *self.measures]
        rows = [["regime, init" + (", learning rate" if self._n_parts > 2 else ""), *names]]
        for group in self.groups:
            sharpness = self.values(group, self.sharpness_name)
            rho = self.rank_correlation(group)
            interval = f" [{rho.low:+.2f}, {rho.high:+.2f}]" if rho.has_interval else ""
            rows.append(
                [
                    _name(group),
                    str(len(sharpness)),
                    mean_std(self.values(group, "train_loss"), ".1e"),
                    *(show(self.values(group, key)) for _, key, show in scores),
                    mean_std(sharpness, ".3g"),
                    *(f"{np.quantile(sharpness, q):.3g}" if len(sharpness) else "-" for q in QUANTILES),
                    "-" if math.isnan(rho.value) else f"{rho.value:+.2f}{interval}",
                    *(mean_std(self.values(group, name), ".3g") for name in self.measures),
                ]
            )
        return rows

    def _reading(self) -> list[str]:
        contrasts, score = self.contrasts(), self.scores[0].name
        correlations = [self.rank_correlation(group) for group in self.groups]
        first = f"rank correlation: Spearman's correlation of sharpness with test {score} within the group"
        detectable = self.detectable()
        if not math.isnan(detectable):
            first += f"; with {self.settings['n_trials']} trials, its interval excludes 0 beyond ±{detectable:.2f}"
        lines = [first]
        if self.measures:
            lines.append(f"rank_measures(census) shows which measures of flatness are related to test {score}")
        lines += [*(self._sentence(contrast) for contrast in contrasts)]
        of_sharpness = [*correlations, *(contrast.sharpness_ratio for contrast in contrasts)]
        lines += [f"of sharpness, {line}" for line in self._interval_lines(of_sharpness)]
        return lines + [f"of {score}, {line}" for line in self._interval_lines([c.score_difference for c in contrasts])]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        groups = [
            {
                **dict(zip(("regime", "init", "learning_rate"), group, strict=False)),
                "n": len(self.values(group, self.sharpness_name)),
                "rank_correlation": self.rank_correlation(group).to_dict(),
                "rank_correlation_with_train_loss": self.rank_correlation(group, "train_loss").to_dict(),
            }
            for group in self.groups
        ]
        contrasts = [
            {**asdict(contrast), "components": self._difference(contrast.first, contrast.second).to_dict()}
            for contrast in self.contrasts()
        ]
        return {"groups": groups, "contrasts": contrasts}

    def plot(self, ax: Any = None) -> "MinimaCensusDisplay":
        """Draw the test score against sharpness, with a dot for each minimum; return a `MinimaCensusDisplay`."""
        from sklgap.experiments._plot._minima_census import MinimaCensusDisplay

        return MinimaCensusDisplay.from_census(self, ax=ax)


def _name(group: Group) -> str:
    return ", ".join(group)


def _against(contrast: Contrast) -> str:
    return f"{_name(contrast.second)} against {_name(contrast.first)}"


def _check_inits(inits: Any) -> dict[str, Any]:
    """Return the initialisations by label."""
    if isinstance(inits, str) or not isinstance(inits, Mapping | Sequence) or not len(inits):
        raise ValueError(f"inits must be a sequence of initialisations or a dict label -> init; got {inits!r}.")
    if isinstance(inits, Mapping):
        starts = {str(label): value for label, value in inits.items()}
    else:
        starts = {
            value if isinstance(value, str) else getattr(value, "__name__", repr(value)): value for value in inits
        }
    for value in starts.values():
        check_init(value)
    if len(starts) < len(inits):
        raise ValueError(f"inits must have different labels; got {inits!r}.")
    return starts


def _check_measures(measures: Any) -> dict[str, Callable[..., Any]]:
    """Return the measures of flatness by their names in the records."""
    found = {} if measures is None else check_measures(measures)
    taken = {"regime", "init", "learning_rate", "trial", "seed", *OF_THE_FIT}
    for name in found:
        if name in taken or name.startswith(("train_", "test_", "sharpness_")):
            raise WrongArgument(f"measures must not use the name of another column of the records; got {shown(name)}.")
    return found
