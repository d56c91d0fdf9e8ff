"""Several settings of one estimator, trained from the same starting points and scored on the same data."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sklgap._checks import check_random_state
from sklgap.experiments._cost import measure_cost
from sklgap.experiments._inputs import check_candidate, check_keepable, common_settings
from sklgap.experiments._protocol import Measurement, Trial, draw_seeds
from sklgap.experiments._records import targets_of
from sklgap.experiments._scores import Score, try_scores
from sklgap.experiments._trials import Outcome, run_trials


class PairedTrials(NamedTuple):
    """The arguments of `Records`, except the labels."""

    outcomes: list[Outcome]
    settings: dict[str, Any]
    interrupted: bool
    targets: dict[str, np.ndarray]
    scores: tuple[Score, ...]


def run_paired_trials(
    estimator: Any,
    arms: Mapping[str, Mapping[str, Any]],
    data: tuple[Any, Any, Any, Any],
    measurement: Measurement,
    *,
    n_trials: int,
    random_state: int | np.random.RandomState | None,
    n_jobs: int | None,
    memory: str | Path | None,
    verbose: int,
    keep_estimators: bool = True,
    measures: Mapping[str, Callable[..., Any]] | None = None,
) -> PairedTrials:
    """Check the arguments, print the expected cost, and run the trials; raise KeyboardInterrupt if nothing finished.

    Parameters
    ----------
    estimator : estimator
        Estimator that is cloned for every fit.
    arms : dict of str to dict
        Parameters of the classifier for each setting, by label. In a trial, all settings start from the same seed.
    data : tuple
        Checked X, y, X_test and y_test.
    measurement : Measurement
        What is measured on every model.
    n_trials, random_state, n_jobs, memory, verbose
        As in the experiments.
    keep_estimators : bool, default=True
        As in `run_trials`.
    measures : dict of str to callable, default=None
        Further measures of flatness, by their names in the records.
    """
    X, y, X_test, y_test = data
    check_keepable(memory, random_state)
    for parameters in arms.values():  # errors are found before hours of training
        check_candidate(estimator, parameters, len(y))
    rng = check_random_state(random_state)
    seeds = draw_seeds(n_trials, rng)
    measuring = replace(measurement.settle(len(y), rng), measures=measures or {})
    try_scores(measuring.scores, y_test, y)
    settings = {
        "n_train": len(y),
        "n_test": len(y_test),
        "n_trials": int(n_trials),
        **measuring.settings(),
        **common_settings(estimator, random_state),
    }
    if verbose:
        cost = measure_cost(
            estimator, arms, n_trials, (X, y), n_evaluated=len(y_test), measuring=measuring, n_jobs=n_jobs
        )
        settings["cost"] = asdict(cost)
        print(cost)
        if measuring.measures:
            print(f"  The cost of these measures is not known beforehand: {', '.join(measuring.measures)}.")
    trials = [
        Trial(label, dict(parameters), trial, seed)
        for trial, seed in enumerate(seeds)
        for label, parameters in arms.items()
    ]
    parts = {"train": (X, y), "test": (X_test, y_test)}
    outcomes, interrupted = run_trials(
        estimator,
        trials,
        parts,
        measuring,
        n_jobs=n_jobs,
        verbose=verbose,
        memory=memory,
        keep_estimators=keep_estimators,
    )
    if not outcomes:
        raise KeyboardInterrupt
    return PairedTrials(outcomes, settings, interrupted, targets_of(parts), measuring.scores)
