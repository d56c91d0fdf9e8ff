"""``compare_regimes``: the paper's tables for a user's own data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import check_arguments, check_random_state
from sklgap._typing import BatchNormPolicy, Solver
from sklgap.experiments import _notes as notes
from sklgap.experiments._cost import measure_cost
from sklgap.experiments._inputs import (
    check_candidate,
    check_data,
    check_keepable,
    check_regimes,
    common_settings,
    described,
)
from sklgap.experiments._protocol import Measurement, Trial, draw_seeds, given_measurement
from sklgap.experiments._records import Records, targets_of
from sklgap.experiments._result import count, mean_std
from sklgap.experiments._run import interruptible
from sklgap.experiments._scores import Scoring, try_scores
from sklgap.experiments._trials import run_trials

if TYPE_CHECKING:
    from sklgap.experiments._plot._compare_regimes import RegimeComparisonDisplay


@interruptible
def compare_regimes(
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    regimes: Sequence[Any] | Mapping[str, Mapping[str, Any]] = ("SB", "LB"),
    reference: str | int | float = "SB",
    n_trials: int = 5,
    epsilon: float | Sequence[float] = (1e-3, 5e-4),
    subspace_dims: Sequence[int | None] = (None,),
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = 10_000,
    solver: Solver = "auto",
    scoring: Scoring = None,
    measurement: Measurement | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> "RegimeComparison":
    """Compare small- and large-batch training, or any regimes and remedies, over paired trials.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Cloned for every fit.
    X, y : array-like
        Training data.
    X_test, y_test : array-like
        Test data: evaluated once per fitted model, never used for a choice.
    regimes : sequence or dict, default=("SB", "LB")
        Values of ``batch_regime``; or a dict from label to parameter overrides, such as
        ``{"SB": {}, "LB": {"batch_regime": "LB"}, "LB + proximal": {"batch_regime": "LB", "proximal_lambda": 1e-3}}``.
    reference : str or number, default="SB"
        Label of the regime that the others are compared with.
    n_trials : int, default=5
        Starting points (5: Keskar et al.). Trial i starts every regime from the same weights: their ``random_state`` is
        the trial's.
    epsilon, subspace_dims, batch_norm, max_samples, solver, scoring
        What is measured; `Measurement` explains them. Here both box sizes of the paper are the default.
    measurement : Measurement, default=None
        All of these at once.
    random_state, n_jobs, memory, verbose
        As in every experiment; `sklgap.experiments` explains them.

    Returns
    -------
    RegimeComparison
        Prints as tables. Interrupted by Ctrl-C it holds the fits that had finished.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, or one that a regime overrides and the estimator does not have;
        before anything is trained.
    TypeError
        For an estimator that is not an `LBGapClassifier` and does not end in one.

    Notes
    -----
    Costs ``n_trials * len(regimes)`` fits, and as many sharpness measurements per dimension and epsilon.

    References
    ----------
    Keskar et al., ICLR 2017, Section 2.2.1 and Tables 2 to 4.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, compare_regimes
    >>> X, y = load_digits(return_X_y=True)
    >>> report = compare_regimes(
    ...     LBGapClassifier(module__width=16, max_epochs=3), X[:900] / 16, y[:900], X[900:] / 16, y[900:],
    ...     n_trials=2, epsilon=1e-3, random_state=0, verbose=0)
    >>> report.labels
    ['SB', 'LB']
    >>> len(report.records)
    4
    """
    check_arguments(compare_regimes, locals())
    measurement = given_measurement(compare_regimes, locals())
    reference = str(reference)
    overrides = check_regimes(regimes)
    if reference not in overrides:
        raise ValueError(f"reference must be one of the regimes, {', '.join(overrides)}; got {reference!r}.")
    X, y, X_test, y_test = check_data(X, y, X_test, y_test)
    check_keepable(memory, random_state)
    for parameters in overrides.values():  # what is wrong is found before hours of training
        check_candidate(estimator, parameters, len(y))
    rng = check_random_state(random_state)
    seeds = draw_seeds(n_trials, rng)
    measuring = measurement.settle(len(y), rng)
    try_scores(measuring.scores, y_test, y)
    trials = [
        Trial(label, dict(parameters), trial, seed)
        for trial, seed in enumerate(seeds)
        for label, parameters in overrides.items()
    ]
    parts = {"train": (X, y), "test": (X_test, y_test)}
    settings = {
        "n_train": len(y),
        "n_test": len(y_test),
        "n_trials": int(n_trials),
        "reference": reference,
        "regimes": described(overrides),
        **measuring.settings(),
        **common_settings(estimator, random_state),
    }
    if verbose:
        cost = measure_cost(
            estimator, overrides, n_trials, (X, y), n_evaluated=len(y_test), measuring=measuring, n_jobs=n_jobs
        )
        settings["cost"] = asdict(cost)
        print(cost)
    outcomes, interrupted = run_trials(
        estimator, trials, parts, measuring, n_jobs=n_jobs, verbose=verbose, memory=memory
    )
    if not outcomes:
        raise KeyboardInterrupt
    return RegimeComparison(
        outcomes, list(overrides), settings, interrupted, targets=targets_of(parts), scores=measuring.scores
    )


class RegimeComparison(Records):
    """What `compare_regimes` found; ``print`` it.

    Attributes
    ----------
    records : list of dict
        One per finished fit: accuracies as fractions, sharpness in percent, seconds.
    labels : list of str
        The regimes, in order.
    estimators_ : dict of lists
        The fitted estimators by regime, in the order of the trials.
    notes : list of str
        What a reader must know before believing the figures.
    """

    # -- statistics ------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """What a reader must know before believing the figures, in plain sentences."""
        s, reference = self.settings, self.settings["reference"]
        gaps, name = self.gaps(), self.scores[0].name
        losses = {label: self.values(label, "train_loss") for label in self.done}
        return [
            *notes.interrupted(self.interrupted, len(self.records), s["n_trials"] * len(self.labels)),
            *notes.not_converged({label: self.values(label, "converged") for label in self.done}),
            *notes.diverged(losses),
            *notes.left_out({label: self.values(label, f"test_{name}") for label in self.done}, name),
            *notes.unequal_losses(reference, {label: self.paired(reference, label, "train_loss") for label in gaps}),
            *self._majority(),
            *notes.no_interval(gaps),
            *notes.undecided(reference, gaps, name),
            *notes.better(reference, gaps, name),
            *notes.seeds_only(gaps),
            *notes.flatter(self),
        ]

    def _majority(self) -> list[str]:
        if self.scores[0].name != "accuracy" or "test" not in self._targets:
            return []
        return notes.majority_class(notes.mean_accuracies(self), self._targets["test"])

    # -- printing --------------------------------------------------------------------------------------------------

    def _verdict(self) -> list[str]:
        reference = self.settings["reference"]
        gaps = {label: gap for label, gap in self.gaps().items() if not np.isnan(gap.value)}
        if not gaps:
            if len(self.labels) == 1:
                return [f"Only {reference} was trained: nothing is compared."]
            return [f"No regime has a trial with a score that {reference} has too: nothing can be compared."]
        label, gap = max(gaps.items(), key=lambda pair: pair[1].value)
        if gap.value <= 0 and not gap.excludes(0):
            return [f"No regime loses to {reference} in these trials."]
        what = "is" if gap.excludes(0) else "is, in these trials,"
        below = "below" if gap.value > 0 else "above"
        amount = self.gap_sentence(gap if gap.value > 0 else gap.scaled(-1))
        return [f"{label} {what} {amount} {below} {reference} on test data{self.doubt(gap)}."]

    def _head(self) -> list[str]:
        s = self.settings
        samples = f"{s['n_train']:,} training and {s['n_test']:,} test samples, {self.trials_line()}"
        return [samples, *self.measured_lines()]

    def _table(self) -> list[list[str]]:
        columns = self.done
        quantities = [
            ("batch size", "batch_size", lambda v: f"{v[0]:,.0f}" if np.ptp(v) == 0 else mean_std(v, ",.0f")),
            *self.score_columns(),
            ("train loss", "train_loss", lambda v: mean_std(v, ".2e")),
            ("test loss", "test_loss", lambda v: mean_std(v, ".4f")),
            *self.sharpness_columns(),
            ("distance from start", "weight_distance", lambda v: mean_std(v, ".2f")),
            ("epochs", "n_epochs", lambda v: mean_std(v, ".0f")),
            ("updates", "n_updates", lambda v: mean_std(v, ",.0f")),
            ("seconds to fit", "fit_seconds", lambda v: mean_std(v, ".1f")),
        ]
        rows = [["", *columns]]
        rows += [[name, *(show(self.values(label, key)) for label in columns)] for name, key, show in quantities]
        return [*rows, *self._gap_rows(columns)]

    def _gap_rows(self, columns: list[str]) -> list[list[str]]:
        """Return the rows that compare training with test data, and each regime with the reference."""
        reference, rows = self.settings["reference"], []
        for score in self.scores:
            factor, spec, unit = (100, ".2f", " (points)") if score.in_points else (1, ".4f", "")
            of = "" if len(self.scores) == 1 else f", {score.name}"
            apart = [self.values(c, f"train_{score.name}") - self.values(c, f"test_{score.name}") for c in columns]
            rows.append([f"train-test gap{of}{unit}", *(mean_std(factor * values, spec) for values in apart)])
            gaps = self.gaps(score.name)
            shown = [self.shown_gap(gaps[label], score) if label in gaps else "" for label in columns]
            rows.append([f"regime gap{of}{unit}", *shown])
            worst = [self.shown_worst(label, score) if label in gaps else "" for label in columns]
            rows.append([f"worst trial{of}{unit}", *worst])
        ratios = []
        for label in columns:
            one, other = self.paired(reference, label, "weight_distance")
            with np.errstate(divide="ignore", invalid="ignore"):  # a training may end where it began
                ratio = one / other
            ratios.append(mean_std(ratio, ".2f") if label != reference and len(one) else "")
        return [row for row in [*rows, ["distance ratio", *ratios]] if any(row[1:])]

    def _reading(self) -> list[str]:
        reference, gaps = self.settings["reference"], self.gaps()
        if not gaps:
            return []
        fewest, most = min(g.n for g in gaps.values()), max(g.n for g in gaps.values())
        trials = count(most, "paired trial") if fewest == most else f"{fewest} to {count(most, 'paired trial')}"
        return [
            f"regime gap: test score of {reference} minus that of the regime, over {trials}",
            *self.interval_lines([gap for score in self.scores for gap in self.gaps(score.name).values()]),
            "worst trial: the most that a trial lost to the reference",
            f"distance ratio: distance from start of {reference} divided by that of the regime",
        ]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def plot(self, axes: Any = None) -> "RegimeComparisonDisplay":
        """Draw the test score and sharpness of every trial; return a `RegimeComparisonDisplay`."""
        from sklgap.experiments._plot._compare_regimes import RegimeComparisonDisplay

        return RegimeComparisonDisplay.from_comparison(self, axes=axes)
