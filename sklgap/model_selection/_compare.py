"""``compare_regimes``: the paper's tables for a user's own data."""

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sklgap._checks import check_integer, check_random_state
from sklgap.model_selection._experiment import check_data, check_keepable, check_measuring, measuring_settings
from sklgap.model_selection._report import RegimeComparison
from sklgap.model_selection._trial_records import environment
from sklgap.model_selection._trials import Trial, last_step, run_trials, with_parameters
from sklgap.regimes import check_batch_regime


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
    reference = str(reference)
    overrides = _check_regimes(regimes, reference)
    check_integer("n_trials", n_trials)
    X, y, X_test, y_test = check_data(X, y, X_test, y_test)
    check_keepable(memory, random_state)
    for parameters in overrides.values():  # what is wrong is found before hours of training
        candidate = last_step(with_parameters(estimator, dict(parameters)))
        check_batch_regime(candidate.batch_regime, len(y)).batch_size(0, len(y))
    rng = check_random_state(random_state)
    seeds = [int(seed) for seed in rng.randint(2**31 - 1, size=n_trials)]
    measuring = check_measuring(len(y), epsilons, subspace_dims, batch_norm, max_samples, solver, rng)
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
        "regimes": {label: {k: _plain(v) for k, v in parameters.items()} for label, parameters in overrides.items()},
        "estimator": repr(estimator),
        **measuring_settings(measuring),
        "random_state": random_state if isinstance(random_state, numbers.Integral) else None,
        "environment": environment(),
    }
    results, interrupted = run_trials(
        estimator, trials, (X, y), (X_test, y_test), measuring, n_jobs=n_jobs, verbose=verbose, memory=memory
    )
    return RegimeComparison(results, labels=list(overrides), settings=settings, interrupted=interrupted)


def _plain(value: Any) -> Any:
    """Return what JSON knows as it is, anything else as its text."""
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)


def _check_regimes(regimes: Any, reference: str) -> dict[str, Mapping[str, Any]]:
    if isinstance(regimes, str) or not isinstance(regimes, Mapping | Sequence) or not len(regimes):
        raise ValueError(f"regimes must be a sequence of batch regimes or a dict label -> parameters; got {regimes!r}.")
    if isinstance(regimes, Mapping):
        overrides = {str(label): parameters for label, parameters in regimes.items()}
        for label, parameters in overrides.items():
            if not isinstance(parameters, Mapping):
                raise ValueError(f"regimes[{label!r}] must be a dict of parameters; got {parameters!r}.")
    else:
        overrides = {str(regime): {"batch_regime": regime} for regime in regimes}
    # An estimator's own batch_size would override every regime.
    overrides = {
        label: {"batch_size": None, **parameters} if "batch_regime" in parameters else parameters
        for label, parameters in overrides.items()
    }
    if len(overrides) < len(regimes):
        raise ValueError(f"regimes must have different labels; got {regimes!r}.")
    if any("random_state" in parameters for parameters in overrides.values()):
        raise ValueError("regimes must not set random_state: each trial starts all of them from its own.")
    if reference not in overrides:
        raise ValueError(f"reference must be one of the regimes, {', '.join(overrides)}; got {reference!r}.")
    return overrides
