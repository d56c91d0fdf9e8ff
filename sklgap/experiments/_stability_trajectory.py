"""``stability_trajectory``: the edge of stability for small and large batches."""

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sklgap._checks import check_arguments, check_random_state
from sklgap._typing import BatchNormPolicy
from sklgap.experiments import _notes as notes
from sklgap.experiments._cost import Cost, measure_cost, time_steps
from sklgap.experiments._inputs import (
    check_candidate,
    check_keepable,
    check_regimes,
    check_rows,
    common_settings,
    described,
    without_head,
)
from sklgap.experiments._protocol import Trial, draw_seeds, take, with_parameters
from sklgap.experiments._result import count, describe_measuring, listed, mean_std
from sklgap.experiments._run import interruptible, run
from sklgap.experiments._trajectory import Moments, Trajectory, Updates, regime_trials, train_along
from sklgap.inspection import StabilityMeasurement, StabilityTrajectoryDisplay, stability_threshold
from sklgap.inspection._edge import AT_EDGE, far_above, late_records, median_of, place_of, share_at_edge
from sklgap.inspection._krylov import NotFinite
from sklgap.inspection._plot._stability_trajectory import StabilityCurve, stability_curve
from sklgap.inspection._stability import (
    REASONS,
    Threshold,
    check_number,
    check_search,
    check_updates_are_plain,
)
from sklgap.inspection._stability_threshold import NotStableNow, formula_of
from sklgap.objective._batch_norm import batch_norm_layers
from sklgap.objective._check import drawn_samples

_NAME = "stability"
# The first updates are left out: initial weights may be sharp, and Adam's preconditioner rests on few gradients.
_BEGINNING = 10
# Least and largest cost of a search for eigenvalues, in gradients: 12 to 40 products of two to three gradients each.
_GRADIENTS = (25, 120)
# The reason of a record whose measurement raised an error.
_FAILED = "the measurement failed, and the fit warned with its error"


@interruptible
def stability_trajectory(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    regimes: Sequence[Any] | Mapping[str, Mapping[str, Any]] = ("SB", "LB"),
    n_trials: int = 1,
    every: int | None = 5,
    at_updates: Updates = "log",
    n_eigenvalues: int = 1,
    threshold: Threshold = "optimizer",
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = 5000,
    tol: float = 1e-3,
    max_iter: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> "StabilityTrajectory":
    """Measure the largest eigenvalues of the Hessian along trainings with several batch regimes.

    It shows whether training with large batches stays at the edge of stability, and training with small batches below
    it.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Estimator that is cloned for every fit. It needs ``train_split=None``, and an optimiser that
        `sklgap.inspection.stability_threshold` knows unless ``threshold`` has another value.
    X, y : array-like
        Training data.
    regimes : sequence or dict, default=("SB", "LB")
        Values of ``batch_regime``; or a dict from label to parameter overrides, such as
        ``{"SB": {"batch_regime": "SB"}, "all": {"batch_size": -1}}``.
    n_trials : int, default=1
        Number of paired trials. In trial i, every regime has the same ``random_state`` and so starts from the same
        weights.
    every : int or None, default=5
        Measure at the end of every ``every``-th epoch and of the last one. None means no measurements at the ends of
        epochs.
    at_updates : "log", sequence of int or None, default="log"
        Measure also after these numbers of updates; see `sklgap.TrainingRecorder`.
    n_eigenvalues : int, default=1
        Number of largest eigenvalues to measure.
    threshold : "optimizer", float or None, default="optimizer"
        ``"optimizer"`` means the threshold of the optimiser at its learning rates at each record, and eigenvalues of
        the Hessian as preconditioned by the optimiser. With a number, or with None for no threshold, they are
        eigenvalues of the plain Hessian.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy of loss and eigenvalues; see `sklgap.Objective`.
    max_samples : int, float or None, default=5000
        Training samples on which loss and eigenvalues are measured, the same in all trials: their number, or a fraction
        in (0, 1]. None means all.
    tol : float, default=1e-3
        Largest residual of an eigenpair relative to the eigenvalue, which bounds the relative error of the eigenvalue.
    max_iter : int, default=None
        Largest number of Hessian-vector products for a record. None means 200 plus 20 per eigenvalue.
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
    StabilityTrajectory
        The result. ``print`` shows the position of each regime relative to its threshold, and ``plot()`` draws the
        figure. After Ctrl-C it holds the fits that finished.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, if the estimator holds out samples (``train_split``), if the
        threshold of the optimiser is not known, or if remedies or callbacks change the gradient, such as gradient
        clipping. This is raised before anything is trained. ``threshold=None`` accepts any optimiser, remedy and
        callback.
    TypeError
        If the estimator is not an `LBGapClassifier` and does not end in one.

    See Also
    --------
    sklgap.inspection.StabilityMeasurement : The measurement, for a recorder of any training.
    sklgap.monitor.StabilityMonitor : The same measurement in your own training loop.
    sklgap.inspection.StabilityTrajectoryDisplay : Draws the figure.

    Notes
    -----
    Cohen et al. (2021) report that gradient descent on all samples makes the loss sharper until the largest eigenvalue
    is at the threshold, which is 2 / lr for plain SGD. It stays there, while the loss continues to fall, but not at
    every step. They report the same for Adam with its preconditioned Hessian (Cohen et al. 2022), and that the noise of
    small batches ends the sharpening earlier. This function measures whether your training does so.

    A search starts with the eigenvectors of the previous record. It costs some 12 to 40 products with the Hessian, of
    two to three gradients each, on ``max_samples`` samples. The steps of a pipeline before the classifier are fitted
    once.

    References
    ----------
    Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability, ICLR 2021,
    arXiv:2103.00065. Cohen et al., Adaptive Gradient Methods at the Edge of Stability, arXiv:2207.14484.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, stability_trajectory
    >>> from torch.optim import SGD
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, optimizer=SGD, lr=0.1, max_epochs=4, tol=None)
    >>> found = stability_trajectory(model, X / 16, y, every=2, max_samples=200, random_state=0, verbose=0)
    >>> found.labels
    ['SB', 'LB']
    >>> found.curves("LB")[0].threshold[-1]
    np.float64(20.0)
    """
    check_arguments(stability_trajectory, locals())
    overrides = check_regimes(regimes)
    moments = Moments(every, at_updates)
    moments.check()
    check_search(n_eigenvalues, threshold, batch_norm, max_samples, tol, max_iter)
    X, y = check_rows(X, y)
    for parameters in overrides.values():
        check_candidate(estimator, parameters, len(y))
    check_keepable(memory, random_state)
    rng = check_random_state(random_state)
    seeds = draw_seeds(n_trials, rng)
    rows = drawn_samples(len(y), max_samples, rng)
    settings = {
        "n_train": len(y),
        "n_trials": int(n_trials),
        "regimes": described(overrides),
        "n_eigenvalues": int(n_eigenvalues),
        "threshold": threshold if threshold is None or isinstance(threshold, str) else float(threshold),
        "batch_norm": batch_norm,
        "n_samples": len(rows),
        "tol": float(tol),
        **common_settings(estimator, random_state),
    }
    classifier, X = without_head(estimator, X, y)
    measure = StabilityMeasurement(
        take(X, rows),
        take(y, rows),
        n_eigenvalues=n_eigenvalues,
        threshold=threshold,
        batch_norm=batch_norm,
        tol=tol,
        max_iter=max_iter,
    )
    settings |= _looked_at(
        {label: _probe(classifier, own, X, y, threshold, n_eigenvalues) for label, own in overrides.items()}
    )
    if verbose:
        cost = measure_cost(classifier, overrides, n_trials, (X, y), n_jobs=n_jobs)
        epochs = [with_parameters(classifier, parameters).max_epochs for parameters in overrides.values()]
        cost = _with_searches(cost, epochs, moments, len(rows) / len(y), n_trials)
        settings["cost"] = asdict(cost)
        print(cost)
    trials = regime_trials(overrides, seeds, classifier, memory)
    jobs = [partial(_train, classifier, trial, (X, y), measure, moments) for trial in trials]
    found, interrupted = run(jobs, n_jobs=n_jobs, verbose=verbose)
    if not found:
        raise KeyboardInterrupt
    return StabilityTrajectory(
        [record for of_fit in found for record in of_fit], list(overrides), settings, interrupted
    )


def _probe(
    classifier: Any, parameters: Mapping[str, Any], X: Any, y: Any, threshold: Threshold, n_eigenvalues: int
) -> dict[str, Any]:
    """Train for a few steps; return facts about a regime for the report, or raise the errors of the measurement."""
    net = time_steps(classifier, parameters, X, y).net_
    if net.train_split:
        raise ValueError(
            "estimator must have train_split=None, because all training samples are measured; got a train_split."
        )
    check_number(n_eigenvalues, net.module_)
    known: dict[str, Any] = {
        "batch_size": int(net.size_),
        "has_batch_norm": bool(batch_norm_layers(net.module_)),
        "criterion": type(net.criterion_).__name__,
        "other_batches": [type(remedy).__name__ for remedy in net.remedies if not remedy.changes_gradient],
        "formula": None,
        "preconditioned": False,
    }
    if threshold == "optimizer":
        check_updates_are_plain(net)
        known["preconditioned"] = _is_preconditioned(net)
        formula, given = formula_of(net.optimizer_)
        numbers = ", ".join(f"{name} {number:g}" for name, number in given.items() if name != "lr")
        known["formula"] = formula + (f" ({numbers})" if numbers else "")
    return known


def _is_preconditioned(net: Any) -> bool:
    """Say whether the optimiser preconditions the Hessian; raise the errors of a threshold that is not known."""
    try:
        return stability_threshold(net.optimizer_, net.module_).preconditioner is not None
    except (NotStableNow, NotFinite):  # an adaptive optimiser, whose later updates may have a threshold
        return True


def _looked_at(known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the known facts about the regimes, by the name of the fact and then by label."""
    names = next(iter(known.values()))
    return {name: {label: of_label[name] for label, of_label in known.items()} for name in names}


def _with_searches(cost: Cost, epochs: Sequence[int], moments: Moments, share: float, n_trials: int) -> Cost:
    """Return the cost including the records, which use this share of the training samples."""
    n_fits = n_trials * len(epochs)
    gradient = share * cost.measure_seconds[0] / n_fits  # all samples are evaluated three times after a fit
    n_records = sum(moments.number(*pair) for pair in zip(cost.updates, epochs, strict=True)) * n_trials
    low, high = (
        seconds + n_records * (1 / 3 + gradients) * gradient
        for seconds, gradients in zip(cost.measure_seconds, _GRADIENTS, strict=True)
    )
    return replace(cost, measure_seconds=(low, high))


def _train(
    classifier: Any, trial: Trial, train: tuple[Any, Any], measure: StabilityMeasurement, moments: Moments
) -> list[dict[str, Any]]:
    """Return the records of one training."""
    own = copy.copy(measure)
    own.random_state = trial.seed
    evaluated, policy = (measure.X, measure.y), measure.batch_norm
    records = train_along(classifier, trial, train, evaluated, {_NAME: own}, moments, policy, "stability_trajectory")
    return [_with_reason(record, measure.n_eigenvalues) for record in records]


def _with_reason(record: Mapping[str, Any], n_eigenvalues: int) -> dict[str, Any]:
    """Return a record with the reason why it has no eigenvalue, in words; empty if it has one."""
    own = {key.removeprefix(f"{_NAME}_"): value for key, value in record.items()}
    own.pop(_NAME, None)  # written if the first measurements raise an error
    number = own.pop("not_measured", math.nan)
    more = [f"eigenvalue_{i}" for i in range(2, n_eigenvalues + 1)]
    names = ["eigenvalue", *more, "threshold", "relative", "learning_rate", "converged", "n_products"]
    missing = {name: math.nan for name in names if name not in own}
    reason = "" if math.isfinite(own.get("eigenvalue", math.nan)) else REASONS.get(number, _FAILED)
    return {**own, **missing, "reason": reason}


def _reasons(missing: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence with the reasons why records have no eigenvalue, and their numbers if there are several."""
    reasons = Counter(record["reason"] for record in missing)
    if len(reasons) == 1:
        return f"The reason: {next(iter(reasons))}."
    return f"The reasons: {'; '.join(f'{reason} ({n})' for reason, n in reasons.items())}."


class StabilityTrajectory(Trajectory):
    """Result of `stability_trajectory`; ``print`` shows it.

    Attributes
    ----------
    records : list of dict
        One per measurement along a training: regime, trial, updates, epoch, training loss and accuracy, ``eigenvalue``
        (the largest), ``eigenvalue_2`` and so on, ``threshold``, ``relative`` (the largest eigenvalue divided by the
        threshold: 1 is the edge), ``learning_rate``, ``converged``, ``n_products``, Euclidean distance from the start,
        and ``reason``, which says why the record has no eigenvalue, or is empty. Sorted by trial, regime and updates.
        Values that could not be measured are NaN.
    labels : list of str
        The regimes with a finished training.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    # -- statistics ------------------------------------------------------------------------------------------------

    def curves(self, label: Any) -> dict[int, StabilityCurve]:
        """Return updates, eigenvalues and thresholds of a regime, by finished trial."""
        names = ["n_updates", "eigenvalue", "threshold"]
        names += [f"eigenvalue_{i}" for i in range(2, self.settings["n_eigenvalues"] + 1)]
        return {
            trial: stability_curve({name: self._column(label, trial, name) for name in names})
            for trial in self.trials_of(label)
        }

    def relative(self, label: Any) -> dict[int, np.ndarray]:
        """Return the largest eigenvalue divided by the threshold at every measured record, by finished trial."""
        return {trial: curve.eigenvalues[:, 0] / curve.threshold for trial, curve in self.curves(label).items()}

    def share_at_edge(self, label: Any) -> np.ndarray:
        """Return, for each trial, the share of the records after half of the updates that are at or above the edge.

        A record is at the edge if the largest eigenvalue is at least 0.9 of the threshold. Records without an
        eigenvalue are left out. The share is NaN if they are more than half of the records after half of the updates.
        """
        return np.array([share_at_edge(late) for late in self._late(label)])

    def first_at_edge(self, label: Any) -> np.ndarray:
        """Return, for each trial, the updates at the first record at the edge; NaN if there is no such record.

        The first 10 updates are left out, because initial weights may be sharp, and the preconditioner of Adam then
        rests on few gradients.
        """
        found = []
        for curve in self.curves(label).values():
            at_edge = curve.eigenvalues[:, 0] >= AT_EDGE * curve.threshold
            there = curve.n_updates[at_edge & (curve.n_updates > _BEGINNING)]
            found.append(float(there[0]) if len(there) else math.nan)
        return np.array(found)

    def _late(self, label: Any) -> list[np.ndarray]:
        """Return, for each trial, the eigenvalues divided by the threshold at the records after half of the updates.

        Records that could not be measured are NaN.
        """
        found = []
        for trial in self.trials_of(label):
            n_updates, eigenvalues, thresholds = (
                self._column(label, trial, name) for name in ("n_updates", "eigenvalue", "threshold")
            )
            found.append(late_records(n_updates, eigenvalues / thresholds))
        return found

    def _has_threshold(self) -> bool:
        return self.settings["threshold"] is not None

    # -- notes -----------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s = self.settings
        n_done = sum(len(self.trials_of(label)) for label in self.labels)
        found = notes.interrupted(self.interrupted, n_done, self.n_regimes * s["n_trials"])
        found += self._notes_on_records()
        if not self._has_threshold():
            return found
        small = [label for label in self.labels if s["batch_size"][label] < s["n_train"]]
        if small:
            found.append(
                "The threshold holds for training on all samples at once. With smaller batches, noise can end the "
                f"sharpening below the threshold: {listed(small)}."
            )
        if s["n_samples"] < s["n_train"]:
            found.append(
                f"Eigenvalues are measured on {s['n_samples']:,} of the {s['n_train']:,} training samples. On fewer "
                "samples the largest eigenvalue is commonly larger; max_samples=None measures on all samples."
            )
        if any(s["has_batch_norm"][label] for label in self.labels):
            found.append(
                f"The nets have batch norm. Eigenvalues are measured with batch_norm={s['batch_norm']!r}, but training "
                "uses the statistics of each batch. The two losses are the same only if a batch has all samples."
            )
        others = sorted({name for label in self.labels for name in s["other_batches"][label]})
        if others:
            found.append(
                f"The loss is measured on the original samples, but the net trains on samples that {listed(others)} "
                "changed."
            )
        fell = [label for label in self.labels if self._class_of(label) == "left"]
        if fell and any("CrossEntropy" in s["criterion"][label] for label in fell):
            found.append(
                "The cross entropy becomes flatter as the outputs grow, so that its eigenvalues fall late in training. "
                f"This alone may be the reason why {listed(fell)} left the edge."
            )
        return found

    def _notes_on_records(self) -> list[str]:
        measured = [record for record in self.records if math.isfinite(record["eigenvalue"])]
        missing = [record for label in self.labels for record in self._missing(label)]
        found = []
        if missing:
            have = "has" if len(missing) == 1 else "have"
            found.append(
                f"{count(len(missing), 'record')} of {len(self.records)} {have} no eigenvalue. {_reasons(missing)}"
            )
        loose = sum(not record["converged"] for record in measured)
        if loose:
            found.append(
                f"In {loose} of {count(len(measured), 'record')}, the search for eigenvalues did not converge within "
                "max_iter products. The true eigenvalues are larger: raise max_iter."
            )
        return found

    # -- printing --------------------------------------------------------------------------------------------------

    def _class_of(self, label: str) -> str:
        """Return the position of a regime: "far above", "at", "below" the edge, "left" the edge, or "unknown"."""
        place = place_of(np.concatenate(self._late(label)))
        return "left" if place == "below" and np.isfinite(self.first_at_edge(label)).any() else place

    def _verdict(self) -> list[str]:
        if not self._has_threshold():
            return ["There is no threshold to compare with. The table shows the largest eigenvalues alone."]
        return [self._sentence(label) for label in self.labels]

    def _sentence(self, label: str) -> str:
        late, kind = np.concatenate(self._late(label)), self._class_of(label)
        n_lost = int(np.isnan(late).sum())
        if kind == "unknown":
            return self._unknown(label, n_lost, len(late))
        which = f"the {len(late) - n_lost} measured records" if n_lost else "the records"
        share = f"{100 * share_at_edge(late):.0f} % of {which} after half of its updates"
        median = f"the median there is {median_of(late):.2f} of the threshold"
        within = f"within {100 * (1 - AT_EDGE):.0f} % of the threshold or above it"
        if kind == "far above":
            return f"{far_above(label)} Its largest eigenvalue is {within} in {share}; {median}."
        if kind == "at":
            return f"{label} trains at the edge of stability: its largest eigenvalue is {within} in {share}; {median}."
        if kind == "left":
            first = np.nanmin(self.first_at_edge(label))
            return (
                f"{label} was at the edge of stability from update {first:,.0f}, and is mostly below it later: its "
                f"largest eigenvalue is {within} in {share}; {median}."
            )
        if any(record["n_updates"] > _BEGINNING for record in self._missing(label)):
            return (
                f"{label} is below the edge of stability where it could be measured: after its first {_BEGINNING} "
                f"updates its largest eigenvalue is not {within} in any measured record; {median}."
            )
        return (
            f"{label} stays below the edge of stability: after its first {_BEGINNING} updates its largest eigenvalue "
            f"is never {within}; {median}."
        )

    def _unknown(self, label: str, n_lost: int, n_late: int) -> str:
        """Return the sentence about a regime of whose late records more than half have no eigenvalue."""
        missing = self._missing(label)
        if len(missing) == sum(record["regime"] == label for record in self.records):
            return f"{label}: nothing could be measured. {_reasons(missing)}"
        return (
            f"{label}: its place relative to the edge of stability is not known, because {count(n_lost, 'record')} "
            f"of {n_late} after half of its updates could not be measured. {_reasons(missing)}"
        )

    def _missing(self, label: str) -> list[dict[str, Any]]:
        """Return the records of a regime that have no eigenvalue."""
        return [r for r in self.records if r["regime"] == label and not math.isfinite(r["eigenvalue"])]

    def _head(self) -> list[str]:
        s = self.settings
        trials = "one trial" if s["n_trials"] == 1 else f"{s['n_trials']} paired trials, mean ± std"
        lines = [f"{s['n_train']:,} training samples, {trials}", *describe_measuring(s)]
        lines.append(f"largest eigenvalues of the Hessian on {s['n_samples']:,} of the samples, tol {s['tol']:g}")
        if s["threshold"] == "optimizer":
            which = {label: s["formula"][label] for label in self.labels}
            same = len(set(which.values())) == 1
            said = next(iter(which.values())) if same else ", ".join(f"{label}: {f}" for label, f in which.items())
            lines.append(f"threshold {said}, at the learning rate of the record")
            if any(s["preconditioned"][label] for label in self.labels):
                lines.append("the Hessian is preconditioned by the optimiser: P^-1/2 H P^-1/2")
        elif s["threshold"] is not None:
            lines.append(f"threshold {s['threshold']:g}, as given")
        return lines

    def _table(self) -> list[list[str]]:
        ends = {
            "batch size": lambda label: f"{self.settings['batch_size'][label]:,}",
            "training loss at the end": lambda label: mean_std(self._ends(label, "train_loss"), ".2g"),
            "largest eigenvalue at the start": lambda label: mean_std(self._ends(label, "eigenvalue", 0), ".3g"),
            "its largest value": lambda label: mean_std(self._peaks(label), ".3g"),
            "at the end": lambda label: mean_std(self._ends(label, "eigenvalue"), ".3g"),
        }
        if self._has_threshold():
            ends |= {
                "threshold at the end": lambda label: mean_std(self._ends(label, "threshold"), ".3g"),
                "first record at the edge (updates)": lambda label: mean_std(self.first_at_edge(label), ".0f"),
                "at the edge in the second half (% of records)": lambda label: mean_std(
                    100 * self.share_at_edge(label), ".0f"
                ),
                "median of eigenvalue / threshold there": lambda label: mean_std(
                    np.array([median_of(late) for late in self._late(label)]), ".2f"
                ),
            }
        rows = [["", *self.labels]]
        return rows + [[name, *(cell(label) for label in self.labels)] for name, cell in ends.items()]

    def _ends(self, label: str, key: str, place: int = -1) -> np.ndarray:
        """Return, for each trial, the value of the first or the last record; NaN if it is missing there.

        An adaptive optimiser has no first value before its first update. So the first one within the first updates
        counts as well.
        """
        found = []
        for trial in self.trials_of(label):
            values, n_updates = self._column(label, trial, key), self._column(label, trial, "n_updates")
            if place == 0:
                values = values[np.isfinite(values) & (n_updates <= max(_BEGINNING, n_updates[0]))]
            found.append(values[place] if len(values) else math.nan)
        return np.array(found)

    def _peaks(self, label: str) -> np.ndarray:
        curves = self.curves(label).values()
        return np.array([c.eigenvalues[:, 0].max() if len(c.eigenvalues) else math.nan for c in curves])

    def _reading(self) -> list[str]:
        if not self._has_threshold():
            return []
        return [
            f"at the edge: the largest eigenvalue is at least {AT_EDGE:g} of the threshold at the record",
            f"first record at the edge: the first {_BEGINNING} updates are left out; second half: records after half "
            "of the updates",
        ]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "share_at_edge": {label: self.share_at_edge(label) for label in self.labels},
            "first_at_edge": {label: self.first_at_edge(label) for label in self.labels},
        }

    def plot(self, ax: Any = None, **kwargs: Any) -> StabilityTrajectoryDisplay:
        """Draw eigenvalues and thresholds against the updates; return a `StabilityTrajectoryDisplay`."""
        s = self.settings
        display = StabilityTrajectoryDisplay(
            {label: list(self.curves(label).values()) for label in self.labels},
            preconditioned=any(s["preconditioned"][label] for label in self.labels),
            batch_norm=s["batch_norm"] if any(s["has_batch_norm"][label] for label in self.labels) else None,
        )
        return display.plot(ax=ax, **kwargs)
