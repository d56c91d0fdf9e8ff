"""The job of most experiments: fit one model from one starting point, and measure what the papers report."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from sklgap._checks import WrongArgument, naming_data
from sklgap._threads import using_threads
from sklgap.estimator._parameters import check_device
from sklgap.experiments._protocol import Measuring, Trial, as_saved, sharpness_key, with_parameters
from sklgap.experiments._run import Finished, run
from sklgap.experiments._scores import ACCURACY, Samples, Score, measure_score
from sklgap.experiments._trial_data import Parts, TrialData
from sklgap.inspection import sharpness
from sklgap.memory import Memory, key_of, plain, surroundings, unplain
from sklgap.objective import Objective
from sklgap.objective._estimators import final_estimator

# The user's names of the arrays of each part.
_NAMES = {"train": ("X", "y"), "valid": ("X", "y"), "test": ("X_test", "y_test")}


class Outcome(NamedTuple):
    """The result of a trial.

    ``record`` is a flat dict with the trial and its figures as numbers. ``samples`` holds the values behind the scores
    of all parts except the training data, by the names of the scores in the record. ``model`` is the fitted estimator,
    or None. ``scores`` are the scores, the compared one first.
    """

    record: dict[str, Any]
    samples: dict[str, Samples]
    model: Any
    scores: tuple[Score, ...] = ()


def run_trials(
    estimator: Any,
    trials: Sequence[Trial],
    parts: Parts,
    measuring: Measuring,
    *,
    n_jobs: int | None = None,
    verbose: int = 1,
    memory: str | Path | None = None,
    keep_estimators: bool = True,
) -> Finished[Outcome]:
    """Run all trials.

    Parameters
    ----------
    estimator : estimator
        Estimator that is cloned for every trial.
    trials : sequence of Trial
        Trials to fit, in this order.
    parts : dict of str to (X, y)
        "train", and further data that models are evaluated on; `TrialData` if several runs share them.
    measuring : Measuring
        What to measure on each model.
    n_jobs, verbose, memory
        As in the experiments.
    keep_estimators : bool, default=True
        Whether to return the fitted estimators. False returns None for each, for experiments with hundreds of fits.
    """
    data = trial_data(estimator, trials, parts, measuring, memory)
    jobs: list[Callable[[], Outcome]] = [
        partial(run_trial, estimator, trial, data, measuring, memory, keep_estimators) for trial in trials
    ]
    part, name = list(parts)[-1], measuring.scores[0].name

    def describe(outcome: Outcome) -> str:
        value = outcome.record[f"{part}_{name}"]
        shown = f"{100 * value:.2f} %" if name == ACCURACY else f"{value:.4g}"
        return f"{outcome.record['regime']}: {'validation' if part == 'valid' else part} {name} {shown}"

    return run(jobs, n_jobs=n_jobs, verbose=verbose, describe=describe)


def trial_data(
    estimator: Any, trials: Sequence[Trial], parts: Parts, measuring: Measuring, memory: str | Path | None
) -> TrialData:
    """Return the data of these trials, prepared once for all of them if possible."""
    return TrialData.prepared(
        parts,
        estimator,
        {name for trial in trials for name in trial.parameters},
        hashed=memory is not None or any(trial.parameters.get("memory") is not None for trial in trials),
        scored=any(score.scorer is not None for score in measuring.scores),
    )


def run_trial(
    estimator: Any,
    trial: Trial,
    parts: Parts,
    measuring: Measuring,
    memory: str | Path | None = None,
    keep_estimator: bool = True,
) -> Outcome:
    """Fit and measure. A fit and measurements that ``memory`` holds are loaded."""
    data = parts if isinstance(parts, TrialData) else TrialData(parts)
    model = with_parameters(estimator, {**trial.parameters, "random_state": trial.seed})
    store, key = None, None
    if memory is not None:
        store = Memory(memory, f"{trial.label}, trial {trial.trial}")
        if final_estimator(model).memory is None:
            model = with_parameters(model, {"memory": memory})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report says which trials did not converge
        data.fit(model)
    with using_threads(final_estimator(model).n_threads_):  # measurements use the threads of the training
        if store is not None:
            plainly = as_saved(model, {"memory": None, "verbose": 0, "device": "auto"})
            device = check_device(final_estimator(model).device)
            # The key includes the weights, because a fit that is not saved may have reached other weights.
            fitted = final_estimator(model).module_.state_dict()
            seen = dict(data) if data.fingerprint is None else data.fingerprint
            key = key_of("trial", plainly, fitted, seen, measuring, surroundings(device))
        found = None if store is None or key is None else _loaded(store, key, data, measuring)
        if found is None:
            found = measure(model, data, measuring, trial.seed)
            if store is not None and key is not None:
                figures, samples = found
                saved = {name: {"values": own.values, "method": own.method} for name, own in samples.items()}
                store.write(key, "trial", plain({"figures": figures, "samples": saved}))
    figures, samples = found
    record = {"regime": trial.label, "trial": trial.trial, "seed": trial.seed, **figures}
    return Outcome(record, samples, model if keep_estimator else None, measuring.scores)


# -- measuring ---------------------------------------------------------------------------------------------------------

# Figures of every trial, which do not depend on the parts, the scores and the measures.
OF_THE_FIT = ("batch_size", "weight_distance", "n_epochs", "n_updates", "converged", "fit_seconds", "measure_seconds")


def measure(model: Any, data: TrialData, measuring: Measuring, seed: int) -> tuple[dict[str, Any], dict[str, Samples]]:
    """Return the figures of a fitted model, and the values behind its scores."""
    started = time.perf_counter()
    classifier = final_estimator(model)
    figures: dict[str, Any] = {"batch_size": classifier.history_[-1, "batch_size"]}
    # Sharpness on all training samples uses the same objective as loss and accuracy.
    whole = len(measuring.rows) == len(data["train"][1]) and bool(measuring.flatness_keys())
    with naming_data(*_NAMES["train"]):
        train = data.objective(model, "train", measuring.batch_norm, passes="many" if whole else "few")
    scores, samples = measure_scores(model, data, measuring, train)
    figures |= scores
    figures |= {
        "weight_distance": classifier.history_[-1, "weight_distance"],
        "n_epochs": classifier.n_iter_,
        "n_updates": classifier.n_updates_,
        "converged": classifier.converged_ if _has_stopping_rule(classifier) else None,
        # The sum over the epochs, because a fit may have been interrupted and continued, or loaded.
        "fit_seconds": sum(classifier.history_[:, "dur"]),
    }
    figures |= _flatness(model, data, measuring, seed, train if whole else None)
    figures["measure_seconds"] = time.perf_counter() - started
    return figures, samples


def measure_scores(
    model: Any, data: TrialData, measuring: Measuring, train: Objective | None = None
) -> tuple[dict[str, float], dict[str, Samples]]:
    """Return losses and scores of a fitted model on all parts, and the values behind the scores.

    The values are returned for all parts except the training data. ``train`` is the objective of the training data, if
    it exists already. The scores of a model that has diverged are NaN, because it predicts no class.
    """
    figures: dict[str, float] = {}
    samples: dict[str, Samples] = {}
    for part, (X, y) in data.items():
        with naming_data(*_NAMES.get(part, ("X", "y"))):
            given = train if part == "train" else None
            objective = data.objective(model, part, measuring.batch_norm) if given is None else given
            found, right = objective.evaluate_samples()
            diverged = math.isnan(found.loss) or not bool(torch.isfinite(objective.theta0).all())
            figures |= {f"{part}_{ACCURACY}": math.nan if diverged else found.accuracy, f"{part}_loss": found.loss}
        if diverged:
            figures |= {f"{part}_{score.name}": math.nan for score in measuring.scores}
            continue
        own: dict[str, Samples | None] = {ACCURACY: None if right is None else Samples(right)}
        for score in measuring.scores:
            if score.scorer is not None:
                figures[f"{part}_{score.name}"], own[score.name] = measure_score(score, model, X, y)
        if part != "train":
            samples |= {f"{part}_{name}": value for name, value in own.items() if value is not None}
    return figures, samples


def _flatness(
    model: Any, data: TrialData, measuring: Measuring, seed: int, train: Objective | None
) -> dict[str, float]:
    found = dict.fromkeys(measuring.flatness_keys(), float("nan"))
    if not found:
        return found
    objective = train
    if objective is None:
        objective = data.objective(model, "train", measuring.batch_norm, measuring.rows, passes="many")
    if not np.isfinite(objective.value()):  # a regime that diverged must not end the others
        return found
    for dim in measuring.subspace_dims:
        for one in sharpness(
            objective, epsilon=measuring.epsilons, subspace_dim=dim, solver=measuring.solver, random_state=seed
        ):
            found[sharpness_key(one.epsilon, dim)] = one.value
    for name, measure in measuring.measures.items():
        found[name] = _measured(name, measure, objective, seed)
    return found


def _measured(name: str, measure: Callable[..., Any], objective: Objective, seed: int) -> float:
    """Return the value of a measure of flatness at a minimum."""
    try:
        return float(measure(objective, random_state=seed).value)
    except Exception as error:  # a measure of the user may raise anything
        raise WrongArgument(
            f"measures must be defined at every minimum; {name} raised {type(error).__name__}: {error}"
        ) from error


def _has_stopping_rule(classifier: Any) -> bool:
    return classifier.tol is not None or classifier.target_loss is not None


# -- saved work --------------------------------------------------------------------------------------------------------


def _loaded(
    store: Memory, key: str, parts: Parts, measuring: Measuring
) -> tuple[dict[str, Any], dict[str, Samples]] | None:
    """Return the result of `measure` from an earlier run; None if there is none, or if it has other figures."""
    saved = unplain(store.read(key, "trial"))
    if saved is None:
        return None
    scores = [ACCURACY, "loss", *(score.name for score in measuring.scores if score.scorer is not None)]
    wanted = {*OF_THE_FIT, *measuring.flatness_keys(), *(f"{part}_{name}" for part in parts for name in scores)}
    try:
        figures = saved["figures"]
        samples = {name: Samples(own["values"], own["method"]) for name, own in saved["samples"].items()}
        sizes = {f"{part}_{name}": len(y) for part, (_, y) in parts.items() for name in scores}
        right = figures.keys() == wanted and all(map(_is_figure, figures.values()))
        right = right and all(len(own.values) == sizes[name] for name, own in samples.items())
        # Earlier checkouts saved scores of models that had diverged.
        right = right and not any(
            math.isnan(figures[f"{part}_loss"]) and math.isfinite(figures[f"{part}_{ACCURACY}"]) for part in parts
        )
    except (TypeError, KeyError, AttributeError):
        right = False
    if not right:
        store.distrust(key, "trial", "does not hold the figures of this trial")
        return None
    return figures, samples


def _is_figure(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float)
