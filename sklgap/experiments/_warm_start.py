"""``warm_start_curve``: large batches started from small-batch weights (Keskar et al. 2017, Figure 5)."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklgap._checks import check_arguments, check_integer, check_random_state
from sklgap._threads import using_threads
from sklgap._typing import BatchNormPolicy, Solver
from sklgap.estimator._evaluation import recompute_batch_norm
from sklgap.experiments import _notes as notes
from sklgap.experiments._cost import measure_cost
from sklgap.experiments._estimate import Components, Estimate, ratio_estimate
from sklgap.experiments._inputs import (
    check_candidate,
    check_data,
    check_keepable,
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
    sharpness_key,
    with_parameters,
)
from sklgap.experiments._records import Records, targets_of
from sklgap.experiments._result import count, mean_std
from sklgap.experiments._run import interruptible, run
from sklgap.experiments._scores import ACCURACY, Samples, Score, Scoring, try_scores
from sklgap.experiments._trial_data import Parts, TrialData
from sklgap.experiments._trials import Outcome, measure_scores, run_trials
from sklgap.training._recorder import snapshot
from sklgap.training._weights_keeper import KeptWeights, WeightsKeeper

if TYPE_CHECKING:
    from sklgap.experiments._plot._warm_start import WarmStartDisplay

_KEEPER = "warm_start_keeper"

Weights = dict[str, np.ndarray]


@interruptible
def warm_start_curve(
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    small: Any = "SB",
    large: Any = "LB",
    max_small_epochs: int = 20,
    every: int = 1,
    large_epochs: int | None = None,
    n_trials: int = 5,
    epsilon: float | Sequence[float] = (1e-3,),
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
) -> "WarmStartCurve":
    """Train with small batches, and from the weights after every k-th epoch with large batches.

    It shows after how many small-batch epochs a large-batch training ends as flat, and as accurate on test data, as the
    small batch. A trial trains with the small batch once and saves the weights along the way. A large-batch training
    starts from each of these weights, and from the starting point itself (0 epochs, which is large-batch training from
    scratch).

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Estimator that is cloned for every fit. Large-batch trainings follow its stopping rule; small-batch trainings
        make all their epochs.
    X, y : array-like
        Training data.
    X_test, y_test : array-like
        Test data. Every large-batch model and every saved small-batch epoch is evaluated on them once; no choice uses
        them.
    small, large : "SB", "LB", int, float or BatchRegime, default="SB", "LB"
        The ``batch_regime`` of the small-batch and of the large-batch training.
    max_small_epochs : int, default=20
        Number of epochs of the small-batch training (100 in Keskar et al.).
    every : int, default=1
        A large-batch training starts after every ``every``-th of these epochs (1 in Keskar et al.).
    large_epochs : int, default=None
        ``max_epochs`` of the large-batch trainings (100 in Keskar et al.). None means that of the estimator.
    n_trials : int, default=5
        Number of paired trials. In a trial, all trainings have the same ``random_state``.
    epsilon, subspace_dims, batch_norm, max_samples, solver, scoring : see `Measurement`
        What is measured on every model. Sharpness is measured after the large batch.
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
    WarmStartCurve
        The curve. ``print`` shows it as a table, and ``plot()`` draws the figure. After Ctrl-C it holds the large-batch
        trainings that finished, and ``small_records`` the small-batch trainings.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values. This is raised before anything is trained.
    TypeError
        If the estimator is not an `LBGapClassifier` and does not end in one.

    See Also
    --------
    sklgap.SwitchBatch : Switches from small to large batches within one training, with the same optimiser state.

    Notes
    -----
    As in the paper's "piggyback" experiment, a large-batch training starts from the weights alone. The state of the
    optimiser, the number of updates and the schedule of the learning rate start from zero, and ``weight_distance`` is
    the distance from these weights. A warm-started training also benefits from the small-batch epochs; the table
    therefore shows the small-batch training itself, too. The small batch is measured after an epoch as if its training
    had ended there. With ``recompute_batch_norm``, the batch-norm statistics are those of the training data at these
    weights.

    The cost is ``n_trials`` small-batch trainings of ``max_small_epochs`` epochs, and ``n_trials * (1 +
    max_small_epochs // every)`` large-batch trainings. All saved weights are in memory at the same time. The steps of a
    pipeline before the classifier are fitted once.

    References
    ----------
    Keskar et al., ICLR 2017, Section 4 and Figure 5.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, warm_start_curve
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None)
    >>> curve = warm_start_curve(
    ...     model, X[:900] / 16, y[:900], X[900:] / 16, y[900:],
    ...     max_small_epochs=4, every=2, n_trials=2, random_state=0, verbose=0)
    >>> curve.labels
    ['0', '2', '4']
    >>> curve.values(4, "test_accuracy").shape
    (2,)
    """
    check_arguments(warm_start_curve, locals())
    measurement = given_measurement(warm_start_curve, locals())
    for name, value in (("max_small_epochs", max_small_epochs), ("every", every)):
        check_integer(name, value)
    if every > max_small_epochs:
        raise ValueError(f"every must be at most max_small_epochs={max_small_epochs}; got {every!r}.")
    check_integer("large_epochs", large_epochs, or_none=True)
    X, y, X_test, y_test = check_data(X, y, X_test, y_test)
    whole = {"regime_adaptation": False, "tol": None, "target_loss": None, "max_epochs": int(max_small_epochs)}
    of_small = {"batch_regime": small, "batch_size": None, **whole}
    of_large = {"batch_regime": large, "batch_size": None}
    of_large |= {} if large_epochs is None else {"max_epochs": int(large_epochs)}
    for name, parameters in (("small", of_small), ("large", of_large)):
        _check_regime(name, estimator, parameters, len(y))
    check_keepable(memory, random_state)
    rng = check_random_state(random_state)
    seeds = draw_seeds(n_trials, rng)
    measuring = measurement.settle(len(y), rng)
    try_scores(measuring.scores, y_test, y)
    settings = {
        "n_train": len(y),
        "n_test": len(y_test),
        "n_trials": int(n_trials),
        "reference": "0",
        "regimes": described({"small": of_small, "large": of_large}),
        "small": small if isinstance(small, str) else f"small batch ({small})",
        "large": large if isinstance(large, str) else f"large batch ({large})",
        "small_epochs": [0, *range(every, max_small_epochs + 1, every)],
        **measuring.settings(),
        **common_settings(estimator, random_state),
    }
    classifier, X, X_test = without_head(estimator, X, y, X_test)
    parts = {"train": (X, y), "test": (X_test, y_test)}
    if verbose:
        settings["cost"] = _tell_cost(classifier, of_small, of_large, parts, measuring, settings, n_jobs)
    if memory is not None and classifier.memory is None:
        of_small["memory"] = memory
    data = TrialData.prepared(
        parts,
        classifier,
        {"init", "net", *of_small, *of_large},
        hashed=memory is not None,
        scored=any(score.scorer is not None for score in measuring.scores),
    )
    jobs = [
        partial(_train_small, classifier, Trial("small", of_small, trial, seed), data, measuring, every)
        for trial, seed in enumerate(seeds)
    ]
    small_fits, interrupted = run(jobs, n_jobs=n_jobs, verbose=verbose, unit=" small-batch fits")
    if not small_fits:
        raise KeyboardInterrupt
    small_fits = sorted(small_fits, key=lambda fit: fit.trial)
    outcomes: list[Outcome] = []
    if not interrupted:
        trials, starts = _large_trials(classifier, small_fits, of_large, settings, seeds)
        outcomes, interrupted = run_trials(
            classifier, trials, data, measuring, n_jobs=n_jobs, verbose=verbose, memory=memory, keep_estimators=False
        )
        outcomes = [
            _with_start(outcome, *starts[outcome.record["trial"], outcome.record["regime"]]) for outcome in outcomes
        ]
    return WarmStartCurve(
        outcomes,
        settings,
        interrupted,
        small_records=[record for fit in small_fits for record in fit.records.values()],
        targets=targets_of(parts),
        scores=measuring.scores,
    )


class WarmStartCurve(Records):
    """Result of `warm_start_curve`; ``print`` shows it.

    Attributes
    ----------
    records : list of dict
        One per finished large-batch training: the records of `compare_regimes`; ``small_epochs``, the number of
        small-batch epochs before it; and, with the prefix ``small_``, losses, scores, updates and distance from the
        start of the small-batch training at that point. Accuracies are fractions, sharpness is in percent, times are in
        seconds.
    small_records : list of dict
        One for each saved epoch of each finished small-batch training, with the same entries as in ``records``.
    small_epochs : ndarray of shape (n_points,)
        Numbers of small-batch epochs after which large-batch trainings started; the first is 0.
    labels : list of str
        The same numbers as text. Every method also accepts a label as a number: ``curve.values(5, "test_accuracy")``.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        settings: dict[str, Any],
        interrupted: bool = False,
        *,
        small_records: list[dict[str, Any]],
        targets: dict[str, np.ndarray] | None = None,
        scores: Sequence[Score] = (Score(ACCURACY),),
    ) -> None:
        self.small_epochs = np.array(settings["small_epochs"])
        self.small_records = sorted(small_records, key=lambda record: (record["trial"], record["small_epochs"]))
        labels = [str(epochs) for epochs in self.small_epochs]
        super().__init__(outcomes, labels, settings, interrupted, targets=targets, scores=scores)

    def _label_of(self, record: dict[str, Any]) -> str:
        return str(record["small_epochs"])

    # -- statistics ------------------------------------------------------------------------------------------------

    def quantity(self, name: str) -> np.ndarray:
        """Return one quantity, an array of shape (n_points, n_trials), with NaN for fits that did not finish."""
        values = np.full((len(self.small_epochs), self.settings["n_trials"]), np.nan)
        for record in self.small_records if name.startswith("small_") else self.records:
            value = record[name]
            values[self.small_epochs == record["small_epochs"], record["trial"]] = np.nan if value is None else value
        return values

    def gain(self, score: str | None = None) -> list[Estimate]:
        """Return, for each point, the test score of the large batch minus that of the large batch from scratch."""
        return [self._gain(label, self.score(score)).estimate() for label in self.labels]

    def cost(self, score: str | None = None) -> list[Estimate]:
        """Return, for each point, the test score of the small batch minus that of the large batch started from it."""
        return [self._cost(label, self.score(score)).estimate() for label in self.labels]

    def sharpness_ratio(self, epsilon: float, subspace_dim: int | None = None) -> list[Estimate]:
        """Return, for each point, the sharpness of the large batch divided by that of the large batch from scratch."""
        values = self.quantity(sharpness_key(epsilon, subspace_dim))
        return [ratio_estimate(of_point, values[0]) for of_point in values]

    def _gain(self, label: str, score: Score) -> Components:
        return self.components(label, self.labels[0], f"test_{score.name}")

    def _cost(self, label: str, score: Score) -> Components:
        name = f"test_{score.name}"
        return self.components(label, label, name, reference_name=f"small_{name}")

    def _last(self) -> int | None:
        """Return the last point that can be compared with point 0 in at least one trial, or None."""
        paired = [i for i, gain in enumerate(self.gain()) if i and gain.n]
        return paired[-1] if paired else None

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s, last = self.settings, self._last()
        small, large, scratch = s["small"], s["large"], f"{s['large']} from scratch"
        names = {label: f"{large} after {count(int(label), f'{small} epoch')}" for label in self.done}
        found = [
            *self._missing(),
            *notes.not_converged({large: [record["converged"] for record in self.records]}),
            *notes.diverged({name: self.values(label, "train_loss") for label, name in names.items()}),
            *notes.majority(self, self._small_accuracies()),
        ]
        if last is None:
            return found
        label = self.labels[last]
        gains = {names[self.labels[i]]: gain for i, gain in enumerate(self.gain()) if i and gain.n}
        at_last = {names[label]: gains[names[label]]}
        losses = {names[label]: self.paired(0, label, "train_loss")} if s["epsilon"] else {}
        return [
            *found,
            *notes.unequal_losses(scratch, losses, ", and sharpness falls with the training loss"),
            *notes.no_interval(gains),
            *notes.undecided(scratch, at_last, self.scores[0].name),
            *notes.seeds_only(gains),
            *notes.several_intervals(sum(gain.has_interval for gain in gains.values())),
            f"A warm-started {large} has also made the updates of {small}, so a gain over {scratch} includes their "
            f"effect. Compare it with {small} itself.",
        ]

    def _missing(self) -> list[str]:
        n_trials, n_all = self.settings["n_trials"], self.settings["n_trials"] * len(self.labels)
        n_small, n_done = len({record["trial"] for record in self.small_records}), len(self.records)
        if self.interrupted and n_small < n_trials:
            return [
                f"Interrupted during the small-batch trainings: {n_small} of {n_trials} finished and are in "
                "small_records, and no large-batch training started."
            ]
        if self.interrupted or n_done == n_all:
            return notes.interrupted(self.interrupted, n_done, n_all, "large-batch fit")
        return [
            f"{n_all - n_done} of {n_all} starting points are missing, because the small-batch training ended before "
            "them or diverged."
        ]

    def _small_accuracies(self) -> dict[str, float]:
        """Return the mean test accuracies of the small batch."""
        of_small = [_there(values) for values in self.quantity(f"small_test_{ACCURACY}")]
        return {f"small, {i}": float(values.mean()) for i, values in enumerate(of_small) if len(values)}

    # -- printing --------------------------------------------------------------------------------------------------

    def _verdict(self) -> list[str]:
        s, i = self.settings, self._last()
        if i is None:
            return [
                f"Nothing can be compared, because no trial finished {s['large']} both from scratch and after "
                f"{s['small']} epochs."
            ]
        gain, cost = self.gain()[i], self.cost()[i]
        there, itself = (self._apart(difference.scaled(-1)) for difference in (gain, cost))
        return [
            f"On test data, {s['large']} started after {self._epochs(i)} is {there} {s['large']} from scratch"
            f"{self._doubt(gain)}.",
            f"{s['small']} itself is {itself} the {s['large']} that starts from it{self._doubt(cost)}.",
        ]

    def _epochs(self, i: int) -> str:
        return count(int(self.small_epochs[i]), f"{self.settings['small']} epoch")

    def _head(self) -> list[str]:
        s = self.settings
        return [
            f"{s['large']} started from the weights of {s['small']}, with a new state of the optimiser: "
            f"{s['n_train']:,} training and {s['n_test']:,} test samples, {self.trials_line()}",
            *self._measured_lines(),
        ]

    def _table(self) -> list[list[str]]:
        small, large = self.settings["small"], self.settings["large"]
        columns = []
        for name, key, show in self._score_columns(("test",)):
            columns += [(f"{small}, {name}", f"small_{key}", show), (f"{large}, {name}", key, show)]
        columns += [
            (f"{small}, train loss", "small_train_loss", _loss),
            (f"{large}, train loss", "train_loss", _loss),
            *((f"{large}, {name}", key, show) for name, key, show in self._sharpness_columns()),
        ]
        units = [" (points)" if score.in_points else f", {score.name}" for score in self.scores]
        rows = [[f"{small} epochs", *(name for name, *_ in columns), *(f"gain{unit}" for unit in units)]]
        values = {key: self.quantity(key) for _, key, _ in columns if self.records or key.startswith("small_")}
        gains = [self.gain(score.name) for score in self.scores]
        for i, label in enumerate(self.labels):
            cells = [show(_there(values[key][i])) if key in values else "-" for _, key, show in columns]
            found = [
                self._shown_gap(of_score[i], score) if i and of_score[i].n else "-"
                for score, of_score in zip(self.scores, gains, strict=True)
            ]
            rows.append([label, *cells, *found])
        return rows

    def _reading(self) -> list[str]:
        s, i = self.settings, self._last()
        lines = [f"gain: test score of {s['large']} minus that of {s['large']} from scratch, over paired trials"]
        if i is None:
            return lines
        ratios = []
        for key, name in self.sharpness_names().items():
            values = self.quantity(key)
            ratio = ratio_estimate(values[i], values[0])
            ratios.append(ratio)
            relative = ratio.text(".2g", " times")
            lines.append(f"after {self._epochs(i)}, {name} of {s['large']} relative to that from scratch: {relative}")
        scores = [e for score in self.scores for e in (*self.gain(score.name), *self.cost(score.name))]
        of_ratios = [f"of sharpness, {line}" for line in self._interval_lines(ratios)]
        return [*lines, *self._interval_lines(scores), *of_ratios]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        points = []
        for i, label in enumerate(self.labels):
            scores = {
                score.name: {
                    name: {**parts.estimate().to_dict(), "components": parts.to_dict()}
                    for name, parts in (("gain", self._gain(label, score)), ("cost", self._cost(label, score)))
                }
                for score in self.scores
            }
            ratios = {}
            for key in self.sharpness_names() if self.records else ():
                values = self.quantity(key)
                ratios[key] = ratio_estimate(values[i], values[0]).to_dict()
            points.append({"small_epochs": int(label), "scores": scores, "sharpness_ratio": ratios})
        return {"points": points, "small_records": self.small_records}

    def plot(self, axes: Any = None) -> "WarmStartDisplay":
        """Draw a test score and sharpness against the small-batch epochs; return a `WarmStartDisplay`."""
        from sklgap.experiments._plot._warm_start import WarmStartDisplay

        return WarmStartDisplay.from_curve(self, axes=axes)


def _there(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _loss(values: np.ndarray) -> str:
    return mean_std(values, ".1e")


# -- before training ---------------------------------------------------------------------------------------------------


def _check_regime(name: str, estimator: Any, parameters: dict[str, Any], n_samples: int) -> None:
    try:
        check_candidate(estimator, parameters, n_samples)
    except ValueError as error:
        raise ValueError(str(error).replace("batch_regime must", f"{name} must", 1)) from None


def _tell_cost(
    classifier: Any,
    of_small: dict[str, Any],
    of_large: dict[str, Any],
    parts: Parts,
    measuring: Measuring,
    settings: dict[str, Any],
    n_jobs: int | None,
) -> dict[str, Any]:
    """Print and return the expected cost of both phases."""
    n_trials, n_points, train = settings["n_trials"], len(settings["small_epochs"]), parts["train"]
    common: dict[str, Any] = {"n_evaluated": settings["n_test"], "n_jobs": n_jobs}
    costs = {
        "small": measure_cost(classifier, {settings["small"]: of_small}, n_trials, train, n_records=n_points, **common),
        "large": measure_cost(
            classifier, {settings["large"]: of_large}, n_trials * n_points, train, measuring=measuring, **common
        ),
    }
    print(*costs.values(), sep="\n")
    return {phase: asdict(cost) for phase, cost in costs.items()}


# -- training ----------------------------------------------------------------------------------------------------------


class SmallFit(NamedTuple):
    """A small-batch training: weights, records and the values behind the scores, by the number of epochs."""

    trial: int
    weights: dict[int, Weights]
    records: dict[int, dict[str, Any]]
    samples: dict[int, dict[str, Samples]]


def _train_small(classifier: Any, trial: Trial, data: TrialData, measuring: Measuring, every: int) -> SmallFit:
    model = with_parameters(classifier, {**trial.parameters, "random_state": trial.seed})
    model.set_params(callbacks=[*(model.callbacks or []), (_KEEPER, WeightsKeeper(every))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result reports losses that are not finite
        data.fit(model)
    found = SmallFit(trial.trial, {}, {}, {})
    with using_threads(model.n_threads_):  # as `run_trial` measures
        for epoch, weights in dict(model.net_.callbacks_)[_KEEPER].weights_.items():
            if not all(np.isfinite(values).all() for values in weights.values()):
                continue  # diverged
            scores, samples = measure_scores(_model_at(model, weights, epoch, data), data, measuring)
            done = model.history_[epoch - 1] if epoch else {"n_updates": 0, "weight_distance": 0.0}
            figures = {**scores, "n_updates": done["n_updates"], "weight_distance": done["weight_distance"]}
            start = {"trial": trial.trial, "seed": trial.seed, "small_epochs": epoch}
            found.weights[epoch] = weights
            found.records[epoch] = {**start, **{f"small_{name}": value for name, value in figures.items()}}
            found.samples[epoch] = {f"small_{name}": value for name, value in samples.items()}
    return found


def _model_at(model: Any, weights: Weights, epoch: int, data: TrialData) -> Any:
    """Return a copy of a fitted model in the state after an epoch, as if its training had ended there."""
    copied = copy.copy(model)
    copied.net_ = snapshot(model.net_)
    KeptWeights(weights, epoch)(copied.module_)
    if model.recompute_batch_norm:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # fit has warned about a module that normalises itself
            recompute_batch_norm(copied.module_, *data.encoded(model, "train"))
    return copied


def _large_trials(
    classifier: Any,
    small_fits: Sequence[SmallFit],
    of_large: dict[str, Any],
    settings: dict[str, Any],
    seeds: Sequence[int],
) -> tuple[list[Trial], dict[tuple[int, str], tuple[dict[str, Any], dict[str, Samples]]]]:
    """Return the large-batch trainings, and the records and samples of their starting points, by trial and label."""
    trials, starts = [], {}
    for fit in small_fits:
        # The small-batch training may have diverged, or a callback may have ended it.
        for epoch in (epoch for epoch in settings["small_epochs"] if epoch in fit.weights):
            label = f"{settings['large']} after {epoch} epochs"
            parameters = {**of_large, **(_start_from(classifier, fit.weights[epoch], epoch) if epoch else {})}
            trials.append(Trial(label, parameters, fit.trial, seeds[fit.trial]))
            starts[fit.trial, label] = (fit.records[epoch], fit.samples[epoch])
    return trials, starts


def _start_from(classifier: Any, weights: Weights, epoch: int) -> dict[str, Any]:
    """Return the parameters that start a training from these weights."""
    start = KeptWeights(weights, epoch)
    if not isinstance(classifier.net, nn.Module):
        return {"init": start}
    module = clone(classifier.net, safe=False)  # an instance has its own weights, whatever ``init`` says
    start(module)
    return {"net": module}


def _with_start(outcome: Outcome, record: dict[str, Any], samples: dict[str, Samples]) -> Outcome:
    return outcome._replace(record={**outcome.record, **record}, samples={**outcome.samples, **samples})
