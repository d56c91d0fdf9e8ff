"""``sharpness_trajectory``: sharpness against the loss along training, Figure 6 of Keskar et al. (2017)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sklgap._checks import check_arguments, check_random_state, shown
from sklgap._typing import BatchNormPolicy, Solver
from sklgap.experiments import _notes as notes
from sklgap.experiments._cost import Cost, measure_cost
from sklgap.experiments._estimate import Estimate, ratio_estimate
from sklgap.experiments._inputs import (
    check_candidate,
    check_keepable,
    check_one_sharpness,
    check_regimes,
    check_rows,
    common_settings,
    described,
    without_head,
)
from sklgap.experiments._protocol import (
    Measurement,
    Measuring,
    Trial,
    draw_seeds,
    given_measurement,
    take,
    with_parameters,
)
from sklgap.experiments._records import ByLabel
from sklgap.experiments._result import count, describe_measuring, listed, mean_std
from sklgap.experiments._run import interruptible, run
from sklgap.experiments._trajectory import Moments, Trajectory, Updates, regime_trials, train_along
from sklgap.inspection import SharpnessTrajectoryDisplay, sharpness

# Training losses of the table: two per power of ten, from 10 down to 1e-8.
_LEVELS = [10 ** (k / 2) for k in range(2, -17, -1)]

Curve = tuple[np.ndarray, np.ndarray]


@interruptible
def sharpness_trajectory(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    regimes: Sequence[Any] | Mapping[str, Mapping[str, Any]] = ("SB", "LB"),
    n_trials: int = 1,
    every: int | None = 5,
    at_updates: Updates = "log",
    epsilon: float = 1e-3,
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = 1000,
    solver: Solver = "auto",
    measurement: Measurement | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> "SharpnessTrajectory":
    """Measure sharpness and training loss along trainings with several batch regimes.

    It shows at which loss small and large batches separate: whether the large batch is sharp from the start, or becomes
    sharp later.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Estimator that is cloned for every fit.
    X, y : array-like
        Training data.
    regimes : sequence or dict, default=("SB", "LB")
        Values of ``batch_regime``; or a dict from label to parameter overrides, such as
        ``{"SB": {"batch_regime": "SB", "max_epochs": 12}, "LB": {"batch_regime": "LB", "max_epochs": 30}}``. The others
        are compared with the first regime.
    n_trials : int, default=1
        Number of paired trials. In trial i, every regime has the same ``random_state`` and so starts from the same
        weights.
    every : int or None, default=5
        Measure at the end of every ``every``-th epoch and of the last one. None means no measurements at the ends of
        epochs.
    at_updates : "log", sequence of int or None, default="log"
        Measure also after these numbers of updates; see `sklgap.TrainingRecorder`.
    epsilon : float, default=1e-3
        Size of the box in which sharpness is measured (1e-3 and 5e-4 in the paper).
    batch_norm, max_samples, solver : see `Measurement`
        What is measured on every model. The loss is measured on the same samples as sharpness, by default on 1,000.
    measurement : Measurement, default=None
        All of these parameters in one object, with one ``epsilon``, one entry of ``subspace_dims`` and without
        ``scoring``.
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
    SharpnessTrajectory
        The result. ``print`` shows the sharpness at equal losses, and ``plot()`` draws the figure. After Ctrl-C it
        holds the fits that finished.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values. This is raised before anything is trained.
    TypeError
        If the estimator is not an `LBGapClassifier` and does not end in one.

    See Also
    --------
    sklgap.TrainingRecorder : Records any measurement along one training.
    sklgap.inspection.SharpnessTrajectoryDisplay : Draws the figure.

    Notes
    -----
    Sharpness falls and rises with the loss, so compare it at equal losses only. The cost is ``n_trials * len(regimes)``
    fits, with a measurement of sharpness at each record (by default two per doubling of the updates, and one every five
    epochs). The steps of a pipeline before the classifier are fitted once.

    References
    ----------
    Keskar et al., ICLR 2017, Section 4 and Figure 6.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, sharpness_trajectory
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=4, tol=None)
    >>> found = sharpness_trajectory(model, X / 16, y, every=2, max_samples=200, random_state=0, verbose=0)
    >>> found.labels
    ['SB', 'LB']
    >>> sorted(found.at_loss(1.5))
    ['LB', 'SB']
    """
    check_arguments(sharpness_trajectory, locals())
    measurement = given_measurement(sharpness_trajectory, locals())
    check_one_sharpness(measurement, "sharpness_trajectory", epsilon)
    if measurement.scoring is not None:
        raise ValueError(
            "scoring must be None, because sharpness_trajectory compares sharpness at equal losses; got "
            f"{shown(measurement.scoring)}."
        )
    overrides = check_regimes(regimes)
    moments = Moments(every, at_updates)
    moments.check()
    X, y = check_rows(X, y)
    for parameters in overrides.values():
        check_candidate(estimator, parameters, len(y))
    check_keepable(memory, random_state)
    rng = check_random_state(random_state)
    seeds = draw_seeds(n_trials, rng)
    measuring = measurement.settle(len(y), rng)
    settings = {
        "n_train": len(y),
        "n_trials": int(n_trials),
        "regimes": described(overrides),
        **measuring.settings(),
        **common_settings(estimator, random_state),
    }
    classifier, X = without_head(estimator, X, y)
    if verbose:
        cost = measure_cost(classifier, overrides, n_trials, (X, y), measuring=measuring, n_jobs=n_jobs)
        epochs = [with_parameters(classifier, parameters).max_epochs for parameters in overrides.values()]
        cost = _of_all_records(cost, epochs, moments)
        settings["cost"] = asdict(cost)
        print(cost)
    trials = regime_trials(overrides, seeds, classifier, memory)
    jobs = [partial(_train, classifier, trial, (X, y), measuring, moments) for trial in trials]
    found, interrupted = run(jobs, n_jobs=n_jobs, verbose=verbose)
    if not found:
        raise KeyboardInterrupt
    return SharpnessTrajectory(
        [record for of_fit in found for record in of_fit], list(overrides), settings, interrupted
    )


def _of_all_records(cost: Cost, epochs: Sequence[int], moments: Moments) -> Cost:
    """Return the cost with measurements at every record, from the cost with one measurement per fit."""
    n_records = [moments.number(*pair) for pair in zip(cost.updates, epochs, strict=True)]
    low, high = (seconds * sum(n_records) / len(n_records) for seconds in cost.measure_seconds)
    return replace(cost, measure_seconds=(low, high))


def _train(
    classifier: Any, trial: Trial, train: tuple[Any, Any], measuring: Measuring, moments: Moments
) -> list[dict[str, Any]]:
    """Return the records of one training."""
    X, y = (take(part, measuring.rows) for part in train)

    def measure(net: Any) -> float:
        found = sharpness(
            net,
            X,
            y,
            epsilon=measuring.epsilons[0],
            subspace_dim=measuring.subspace_dims[0],
            solver=measuring.solver,
            batch_norm=measuring.batch_norm,
            random_state=trial.seed,
        )
        return found.value

    measurements = {"sharpness": measure}
    policy = measuring.batch_norm
    return train_along(classifier, trial, train, (X, y), measurements, moments, policy, "sharpness_trajectory")


class SharpnessTrajectory(Trajectory):
    """Result of `sharpness_trajectory`; ``print`` shows it.

    Attributes
    ----------
    records : list of dict
        One per measurement along a training: regime, trial, updates, epoch, training loss and accuracy, sharpness in
        percent, Euclidean distance from the start. Sorted by trial, regime and updates.
    labels : list of str
        The regimes with a finished training. The others are compared with the first one.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    # -- statistics ------------------------------------------------------------------------------------------------

    def curves(self, label: Any) -> dict[int, Curve]:
        """Return training loss and sharpness of a regime, in the order of training, by finished trial."""
        return {
            trial: (self._column(label, trial, "train_loss"), self._column(label, trial, "sharpness"))
            for trial in self.trials_of(label)
        }

    def mean_curve(self, label: Any) -> Curve:
        """Return the geometric means over the trials, at the numbers of updates that all trials have."""
        trials = self.curves(label)
        updates = [self._column(label, trial, "n_updates") for trial in trials]
        common = np.array(sorted(set.intersection(*(set(steps) for steps in updates))))
        rows = [np.searchsorted(steps, common) for steps in updates]
        with np.errstate(divide="ignore"):
            stacked = [
                np.log([c[i][at] for c, at in zip(trials.values(), rows, strict=True)]).mean(axis=0) for i in (0, 1)
            ]
        return np.exp(stacked[0]), np.exp(stacked[1])

    def at_loss(self, loss: float) -> dict[str, np.ndarray]:
        """Return the sharpness at the first time that the training loss is ``loss``, by regime.

        The values are arrays of shape (n_trials,), interpolated between records on logarithmic scales. They are NaN if
        the loss was not reached, or if the first record is already below it.
        """
        found = ByLabel()
        for label in self.labels:
            found[label] = np.full(self.settings["n_trials"], np.nan)
            for trial, curve in self.curves(label).items():
                found[label][trial] = _value_at(*curve, loss)
        return found

    def levels(self) -> list[float]:
        """Return the losses, two per power of ten, that at least one trial reached with all regimes."""
        return [level for level in _LEVELS if (~np.isnan(list(self.at_loss(level).values()))).all(axis=0).any()]

    def ratio(self, label: Any, loss: float) -> Estimate:
        """Return the sharpness of a regime divided by that of the first regime at a loss, over paired trials."""
        values = self.at_loss(loss)
        return ratio_estimate(values[label], values[self.labels[0]])

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s, levels = self.settings, self.levels() if len(self.labels) > 1 else []
        n_done = sum(len(self.curves(label)) for label in self.labels)
        found = notes.interrupted(self.interrupted, n_done, self.n_regimes * s["n_trials"])
        failed = sum(not 0 < record["sharpness"] < math.inf for record in self.records)
        if failed:
            found.append(
                f"{failed} of {len(self.records)} measurements of sharpness failed, or found no larger loss in the "
                "box, and are left out."
            )
        ratios = [{label: self.ratio(label, level) for label in self.labels[1:]} for level in levels]
        if not ratios:
            return found
        found += notes.no_interval(ratios[-1])
        found += notes.several_intervals(sum(ratio.has_interval for at in ratios for ratio in at.values()))
        flat = [label for label, ratio in ratios[-1].items() if ratio.value < 1]
        if flat:
            found.append(
                f"These are not sharper than {self.labels[0]} at the smallest common loss: {listed(flat)}. In the "
                "paper, the large batch is sharper."
            )
        return found

    # -- printing --------------------------------------------------------------------------------------------------

    def _verdict(self) -> list[str]:
        reference, *others = self.labels
        if not others:
            return [f"Only {reference} has a finished training, so nothing can be compared."]
        levels = self.levels()
        if not levels:
            return ["No loss lies between the records of all regimes, so they cannot be compared."]
        said = []
        for label in others:
            at = [
                f"at a training loss of {level:.2g} {self.ratio(label, level).text('.3g', ' times')}"
                for level in dict.fromkeys([levels[0], levels[-1]])
            ]
            said.append(f"Sharpness of {label} relative to {reference}: {', '.join(at)}.")
        return said

    def _head(self) -> list[str]:
        s = self.settings
        trials = "one trial" if s["n_trials"] == 1 else f"{s['n_trials']} paired trials, mean ± std"
        dims = "" if s["subspace_dims"][0] is None else f", {s['subspace_dims'][0]} dims"
        return [
            f"{s['n_train']:,} training samples, {trials}",
            *describe_measuring(s),
            f"sharpness {s['epsilon'][0]:g}{dims} is in %, measured on {s['n_samples_sharpness']:,} of the training "
            f"samples when their loss first reaches the value, with solver {s['solver']!r}",
        ]

    def _table(self) -> list[list[str]]:
        reference, *others = self.labels
        rows = [["training loss", *self.labels, *(f"{label} / {reference}" for label in others)]]
        for level in self.levels():
            values = self.at_loss(level)
            ratios = [self.ratio(label, level) for label in others]
            cells = [ratio.text(".2g") if ratio.has_interval else f"{ratio.value:.2g}" for ratio in ratios]
            rows.append([f"{level:.2g}", *(mean_std(v[~np.isnan(v)], ".3g") for v in values.values()), *cells])
        for name, i in (("loss at the end", 0), ("sharpness at the end", 1)):
            ends = [np.array([curve[i][-1] for curve in self.curves(label).values()]) for label in self.labels]
            rows.append([name, *(mean_std(values, ".2g") for values in ends), *("" for _ in others)])
        return rows

    def _reading(self) -> list[str]:
        _, *others = self.labels
        ratios = [self.ratio(label, level) for level in self.levels() for label in others]
        if not ratios:
            return []
        fewest, most = min(ratio.n for ratio in ratios), max(ratio.n for ratio in ratios)
        trials = count(most, "paired trial") if fewest == most else f"{fewest} to {count(most, 'paired trial')}"
        return [f"ratios: geometric means over {trials}", *self._interval_lines(ratios)]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        others = self.labels[1:]
        ratios = [
            {"loss": loss, **{label: self.ratio(label, loss).to_dict() for label in others}} for loss in self.levels()
        ]
        return {"labels": self.labels, "ratios": ratios}

    def plot(self, ax: Any = None, **kwargs: Any) -> SharpnessTrajectoryDisplay:
        """Draw the mean curves, and every trial if there are several; return a `SharpnessTrajectoryDisplay`."""
        curves = {label: self.mean_curve(label) for label in self.labels}
        trials = {label: list(self.curves(label).values()) for label in self.labels}
        display = SharpnessTrajectoryDisplay(curves, batch_norm=self.settings["batch_norm"], trials=trials)
        return display.plot(ax=ax, **kwargs)


def _value_at(loss: np.ndarray, values: np.ndarray, level: float) -> float:
    """Return the value when the loss first reaches the level, interpolated between records in logarithms."""
    there = np.flatnonzero(loss <= level)
    if not len(there) or there[0] == 0:
        return math.nan
    i = int(there[0])
    tiny = np.finfo(float).tiny
    before, after = (math.log(max(loss[j], tiny)) for j in (i - 1, i))
    share = (before - math.log(level)) / (before - after)
    low, high = (math.log(values[j]) if values[j] > 0 else math.nan for j in (i - 1, i))
    return math.exp(low + share * (high - low))
