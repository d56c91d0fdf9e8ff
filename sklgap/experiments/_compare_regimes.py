"""``compare_regimes``: the tables of Keskar et al. (2017) for your own data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import check_arguments
from sklgap._typing import BatchNormPolicy, Solver
from sklgap.experiments import _notes as notes
from sklgap.experiments._inputs import (
    check_data,
    check_regimes,
    described,
)
from sklgap.experiments._paired_trials import run_paired_trials
from sklgap.experiments._protocol import Measurement, given_measurement
from sklgap.experiments._records import Records
from sklgap.experiments._result import count, mean_std
from sklgap.experiments._run import interruptible
from sklgap.experiments._scores import Scoring

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
    """Compare small-batch and large-batch training, or any regimes and remedies, over paired trials.

    A batch regime says how large the batches are: "SB" is the small batch, "LB" the large batch. In a paired trial, all
    regimes start from the same weights. The result shows accuracy, sharpness and distance from the starting weights,
    with confidence intervals for the differences.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Estimator that is cloned for every fit.
    X, y : array-like
        Training data.
    X_test, y_test : array-like
        Test data. Every fitted model is evaluated on them once; no choice uses them.
    regimes : sequence or dict, default=("SB", "LB")
        Values of ``batch_regime``; or a dict from label to parameter overrides, such as
        ``{"SB": {}, "LB": {"batch_regime": "LB"}, "LB + proximal": {"batch_regime": "LB", "proximal_lambda": 1e-3}}``.
    reference : str or number, default="SB"
        Label of the regime that the others are compared with.
    n_trials : int, default=5
        Number of paired trials (5 in Keskar et al.). In trial i, every regime has the same ``random_state`` and so
        starts from the same weights.
    epsilon, subspace_dims, batch_norm, max_samples, solver, scoring : see `Measurement`
        What is measured on every model. The default of ``epsilon`` here is both box sizes of the paper.
    measurement : Measurement, default=None
        All of these parameters in one object.
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
    RegimeComparison
        The comparison; ``print`` shows its tables. After Ctrl-C it holds the fits that finished.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if a regime overrides a parameter that the estimator does not
        have. This is raised before anything is trained.
    TypeError
        If the estimator is not an `LBGapClassifier` and does not end in one.

    Notes
    -----
    The cost is ``n_trials * len(regimes)`` fits. Every fit has one sharpness measurement for each dimension and
    epsilon.

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
    found = run_paired_trials(
        estimator,
        overrides,
        check_data(X, y, X_test, y_test),
        measurement,
        n_trials=n_trials,
        random_state=random_state,
        n_jobs=n_jobs,
        memory=memory,
        verbose=verbose,
    )
    settings = {"reference": reference, "regimes": described(overrides), **found.settings}
    return RegimeComparison(
        found.outcomes, list(overrides), settings, found.interrupted, targets=found.targets, scores=found.scores
    )


class RegimeComparison(Records):
    """Result of `compare_regimes`; ``print`` shows its tables.

    Attributes
    ----------
    records : list of dict
        One per finished fit: accuracies as fractions, sharpness in percent, times in seconds.
    labels : list of str
        The regimes, in order.
    estimators_ : dict of lists
        Fitted estimators by regime, in the order of the trials.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    # -- statistics ------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s, reference = self.settings, self.settings["reference"]
        gaps, name = self.gaps(), self.scores[0].name
        losses = {label: self.values(label, "train_loss") for label in self.done}
        return [
            *notes.interrupted(self.interrupted, len(self.records), s["n_trials"] * len(self.labels)),
            *notes.not_converged({label: self.values(label, "converged") for label in self.done}),
            *notes.diverged(losses),
            *notes.left_out({label: self.values(label, f"test_{name}") for label in self.done}, name),
            *notes.unequal_losses(reference, {label: self.paired(reference, label, "train_loss") for label in gaps}),
            *notes.majority(self),
            *notes.no_interval(gaps),
            *notes.undecided(reference, gaps, name),
            *notes.better(reference, gaps, name),
            *notes.seeds_only(gaps),
            *notes.flatter(self),
        ]

    # -- printing --------------------------------------------------------------------------------------------------

    def _verdict(self) -> list[str]:
        reference = self.settings["reference"]
        gaps = {label: gap for label, gap in self.gaps().items() if not np.isnan(gap.value)}
        if not gaps:
            if len(self.labels) == 1:
                return [f"Only {reference} was trained, so there is nothing to compare."]
            return [f"No trial has a score for {reference} and for another regime, so nothing can be compared."]
        label, gap = max(gaps.items(), key=lambda pair: pair[1].value)
        if gap.value <= 0 and not gap.excludes(0):
            return [f"No regime loses to {reference} in these trials."]
        what = "is" if gap.excludes(0) else "is, in these trials,"
        return [f"{label} {what} {self._apart(gap)} {reference} on test data{self._doubt(gap)}."]

    def _head(self) -> list[str]:
        s = self.settings
        samples = f"{s['n_train']:,} training and {s['n_test']:,} test samples, {self.trials_line()}"
        return [samples, *self._measured_lines()]

    def _table(self) -> list[list[str]]:
        columns = self.done
        quantities = [
            ("batch size", "batch_size", lambda v: f"{v[0]:,.0f}" if np.ptp(v) == 0 else mean_std(v, ",.0f")),
            *self._score_columns(),
            ("train loss", "train_loss", lambda v: mean_std(v, ".2e")),
            ("test loss", "test_loss", lambda v: mean_std(v, ".4f")),
            *self._sharpness_columns(),
            ("distance from start", "weight_distance", lambda v: mean_std(v, ".2f")),
            ("epochs", "n_epochs", lambda v: mean_std(v, ".0f")),
            ("updates", "n_updates", lambda v: mean_std(v, ",.0f")),
            ("seconds to fit", "fit_seconds", lambda v: mean_std(v, ".1f")),
        ]
        rows = [["", *columns]]
        rows += [[name, *(show(self.values(label, key)) for label in columns)] for name, key, show in quantities]
        return [*rows, *self._gap_rows(columns)]

    def _gap_rows(self, columns: list[str]) -> list[list[str]]:
        """Return the table rows that compare training with test data, and each regime with the reference."""
        reference, rows = self.settings["reference"], []
        for score in self.scores:
            factor, spec, unit = (100, ".2f", " (points)") if score.in_points else (1, ".4f", "")
            of = "" if len(self.scores) == 1 else f", {score.name}"
            apart = [self.values(c, f"train_{score.name}") - self.values(c, f"test_{score.name}") for c in columns]
            rows.append([f"train-test gap{of}{unit}", *(mean_std(factor * values, spec) for values in apart)])
            gaps = self.gaps(score.name)
            shown = [self._shown_gap(gaps[label], score) if label in gaps else "" for label in columns]
            rows.append([f"regime gap{of}{unit}", *shown])
            worst = [self._shown_worst(label, score) if label in gaps else "" for label in columns]
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
            *self._interval_lines([gap for score in self.scores for gap in self.gaps(score.name).values()]),
            "worst trial: the largest loss against the reference in a single trial",
            f"distance ratio: distance from start of {reference} divided by that of the regime",
        ]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def plot(self, axes: Any = None) -> "RegimeComparisonDisplay":
        """Draw the test score and sharpness of every trial; return a `RegimeComparisonDisplay`."""
        from sklgap.experiments._plot._compare_regimes import RegimeComparisonDisplay

        return RegimeComparisonDisplay.from_comparison(self, axes=axes)
