"""``compare_regimes``: the paper's tables for a user's own data."""

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sklgap._checks import check_arguments, check_random_state
from sklgap.experiments._experiment import (
    check_candidate,
    check_data,
    check_keepable,
    check_measuring,
    check_regimes,
    described,
    measuring_settings,
)
from sklgap.experiments._recorded_training import draw_seeds
from sklgap.experiments._report import RegimeComparison
from sklgap.experiments._result import environment, text_of
from sklgap.experiments._trials import Trial, run_trials


def compare_regimes(
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    regimes: Sequence[Any] | Mapping[str, Mapping[str, Any]] = ("SB", "LB"),
    reference: Any = "SB",
    n_trials: int = 5,
    epsilons: Sequence[float] = (1e-3, 5e-4),
    subspace_dims: Sequence[int | None] = (None,),
    batch_norm: str = "batch",
    max_samples: int | None = 10_000,
    solver: str = "auto",
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> RegimeComparison:
    """Train every regime from the same starting points, and report what batch size does.

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
    reference : str, default="SB"
        Label of the regime that the others are compared with.
    n_trials : int, default=5
        Starting points (5: Keskar et al.). Trial i starts every regime from the same weights: their ``random_state`` is
        the trial's.
    epsilons : sequence of float, default=(1e-3, 5e-4)
        Box sizes of the sharpness (both of the paper's); an empty sequence measures none.
    subspace_dims : sequence of int or None, default=(None,)
        Dimensions in which sharpness is measured; None: the full space. The paper: ``(None, 100)``. In trial i all
        regimes are measured in the same random subspace.
    batch_norm : {"batch", "population", "running"}, default="batch"
        The batch-norm policy of every loss, accuracy and sharpness in the report; see
        `sklgap.objective.Objective`.
    max_samples : int or None, default=10_000
        Training rows that sharpness is measured on, the same in all trials; None: all.
    solver : {"auto", "lbfgsb", "lbfgsb-scaled", "power"}, default="auto"
        See `sklgap.inspection.sharpness`.
    random_state : int, RandomState or None, default=None
        An int makes the whole comparison repeatable, whatever ``n_jobs``, at equal thread count.
    n_jobs : int, default=None
        Fits at once, as in scikit-learn. On one GPU keep it at 1.
    memory : str or Path, default=None
        Folder that keeps finished work: a finished fit, or what was measured on it, is loaded instead of repeated, an
        unfinished fit goes on from its last saved epoch; see `LBGapClassifier`. Needs ``random_state``.
    verbose : int, default=1
        0: silent; 1: a progress bar.

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
        For an estimator that is no `LBGapClassifier` and does not end in one.

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
    ...     n_trials=2, epsilons=[1e-3], random_state=0, verbose=0)
    >>> sorted(report.labels)
    ['LB', 'SB']
    >>> len(report.records)
    4
    """
    check_arguments(compare_regimes, locals())
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
    measuring = check_measuring(epsilons, subspace_dims, batch_norm, solver, max_samples, len(y), rng)
    trials = [
        Trial(label, dict(parameters), trial, seed)
        for trial, seed in enumerate(seeds)
        for label, parameters in overrides.items()
    ]
    settings = {
        "n_train": len(y),
        "n_test": len(y_test),
        "n_trials": int(n_trials),
        "reference": reference,
        "regimes": described(overrides),
        "estimator": text_of(estimator),
        **measuring_settings(measuring),
        "random_state": random_state if isinstance(random_state, numbers.Integral) else None,
        "environment": environment(),
    }
    results, interrupted = run_trials(
        estimator, trials, (X, y), (X_test, y_test), measuring, n_jobs=n_jobs, verbose=verbose, memory=memory
    )
    return RegimeComparison(results, labels=list(overrides), settings=settings, interrupted=interrupted)
