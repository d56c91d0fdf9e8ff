"""``compare_regimes``: the paper's tables for a user's own data."""

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import indexable

from sklgap._checks import check_random_state
from sklgap.inspection._sharpness import SOLVERS, check_epsilons
from sklgap.model_selection._report import RegimeComparison, environment
from sklgap.model_selection._trials import Measuring, Trial, last_step, run_trials, with_parameters
from sklgap.objective._batch_norm import check_batch_norm
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
    if isinstance(n_trials, bool) or not isinstance(n_trials, numbers.Integral) or n_trials < 1:
        raise ValueError(f"n_trials must be an integer of at least 1; got {n_trials!r}.")
    check_batch_norm(batch_norm)
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(map(repr, SOLVERS))}; got {solver!r}.")
    if memory is not None and random_state is None:
        raise ValueError("memory must be None while random_state is None: no other comparison could be the same.")
    X, y = indexable(X, y)
    X_test, y_test = indexable(X_test, y_test)
    unseen = np.setdiff1d(np.asarray(y_test), np.asarray(y))
    if len(unseen):
        raise ValueError(f"y_test must have labels that y has; got {unseen} beside them.")
    if np.shape(X)[1:] != np.shape(X_test)[1:]:
        raise ValueError(f"X_test must have rows like those of X, {np.shape(X)[1:]}; got {np.shape(X_test)[1:]}.")
    for parameters in overrides.values():  # what is wrong is found before hours of training
        candidate = last_step(with_parameters(estimator, dict(parameters)))
        check_batch_regime(candidate.batch_regime, len(y)).batch_size(0, len(y))
    rng = check_random_state(random_state)
    seeds = [int(seed) for seed in rng.randint(2**31 - 1, size=n_trials)]
    measuring = Measuring(
        _check_epsilons(epsilons),
        _check_dims(subspace_dims) if len(epsilons) else (),
        batch_norm,
        solver,
        _sample_rows(len(y), max_samples, rng),
    )
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
        "epsilons": list(measuring.epsilons),
        "subspace_dims": list(measuring.subspace_dims),
        "batch_norm": batch_norm,
        "n_samples_sharpness": len(measuring.rows),
        "solver": solver,
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


def _check_epsilons(epsilons: Any) -> tuple[float, ...]:
    if np.ndim(epsilons) != 1:
        raise ValueError(f"epsilons must be a sequence of numbers above 0; got {epsilons!r}.")
    return tuple(check_epsilons(epsilons)) if len(epsilons) else ()


def _check_dims(dims: Any) -> tuple[int | None, ...]:
    allowed = isinstance(dims, Sequence) and all(
        dim is None or (isinstance(dim, int | np.integer) and not isinstance(dim, bool) and dim >= 1) for dim in dims
    )
    if not allowed:
        raise ValueError(f"subspace_dims must be a sequence of None and integers of at least 1; got {dims!r}.")
    return tuple(dims)


def _sample_rows(n_samples: int, max_samples: int | None, rng: np.random.RandomState) -> np.ndarray:
    if max_samples is not None and (
        isinstance(max_samples, bool) or not isinstance(max_samples, numbers.Integral) or max_samples < 1
    ):
        raise ValueError(f"max_samples must be None or an integer of at least 1; got {max_samples!r}.")
    if max_samples is None or max_samples >= n_samples:
        return np.arange(n_samples)
    return np.sort(rng.choice(n_samples, int(max_samples), replace=False))
