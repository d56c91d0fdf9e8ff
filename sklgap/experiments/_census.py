"""``minima_census``: sharpness and test accuracy of the minima that many seeds and initialisations lead to."""

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sklgap._checks import check_arguments, check_integer, check_random_state
from sklgap.experiments._census_result import MinimaCensus
from sklgap.experiments._experiment import (
    check_candidate,
    check_classifier,
    check_data,
    check_epsilon,
    check_keepable,
    check_measuring,
    check_regimes,
    described,
)
from sklgap.experiments._recorded_training import check_target_loss, draw_seeds
from sklgap.experiments._result import environment, text_of
from sklgap.experiments._trials import Trial, run_trials
from sklgap.nets._check import check_init


def minima_census(
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    regimes: Sequence[Any] | Mapping[str, Mapping[str, Any]] = ("SB", "LB"),
    inits: Sequence[Any] | Mapping[str, Any] = ("glorot_uniform", "torch"),
    n_seeds: int = 10,
    target_loss: float | None = None,
    epsilon: float = 1e-3,
    batch_norm: str = "batch",
    max_samples: int | None = 10_000,
    solver: str = "auto",
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> MinimaCensus:
    """Count and measure the minima that training finds from many seeds and initialisations.

    How sharp are the minima of either regime, how wide is the spread, does the initialisation matter, and do the
    sharper ones of one regime test worse? Keskar et al. (2017) leave these questions open.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Cloned for every fit.
    X, y : array-like
        Training data.
    X_test, y_test : array-like
        Test data: evaluated once per fitted model, never used for a choice.
    regimes : sequence or dict, default=("SB", "LB")
        Values of ``batch_regime``, or a dict from label to parameter overrides, as for `compare_regimes`.
    inits : sequence or dict, default=("glorot_uniform", "torch")
        Values of ``init``, or a dict from label to value.
    n_seeds : int, default=10
        Minima for each pair of a regime and an initialisation. Seed i is one ``random_state`` in all pairs.
    target_loss : float, default=None
        Stop every training once the training loss of an epoch (its mean over the epoch's batches) is at most this, and
        by nothing else before ``max_epochs``: minima of more nearly equal loss. None: the estimator's stopping rule.
    epsilon : float, default=1e-3
        Box size of the sharpness (the paper: 1e-3 and 5e-4), in the full space.
    batch_norm : {"batch", "population", "running"}, default="batch"
        The batch-norm policy of every loss, accuracy and sharpness; see `sklgap.objective.Objective`.
    max_samples : int or None, default=10_000
        Training rows that sharpness is measured on, the same for all minima; None: all.
    solver : {"auto", "lbfgsb", "lbfgsb-scaled", "power"}, default="auto"
        See `sklgap.inspection.sharpness`.
    random_state : int, RandomState or None, default=None
        An int makes it repeatable, whatever ``n_jobs``, at equal thread count.
    n_jobs : int, default=None
        Fits at once, as in scikit-learn. On one GPU keep it at 1.
    memory : str or Path, default=None
        Folder that keeps finished work: a finished fit is loaded instead of repeated, an unfinished one goes on from
        its last saved epoch; see `LBGapClassifier`. Needs ``random_state``.
    verbose : int, default=1
        0: silent; 1: a progress bar.

    Returns
    -------
    MinimaCensus
        Prints as tables; ``plot()`` draws test accuracy against sharpness. Interrupted by Ctrl-C it holds the fits that
        had finished.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, before anything is trained.
    TypeError
        For an estimator that is no `LBGapClassifier` and does not end in one.

    See Also
    --------
    compare_regimes : More measurements of fewer minima.

    Notes
    -----
    It samples the minima in the proportions in which training finds them: how many others the loss surface has is not
    seen by it. "Minimum" is where training ended. Costs ``n_seeds * len(regimes) * len(inits)`` fits and as many
    measurements of sharpness.

    References
    ----------
    Keskar et al., ICLR 2017, Section 5: the questions on initialisation and on the density of sharp minima.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, minima_census
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None)
    >>> census = minima_census(
    ...     model, X[:900] / 16, y[:900], X[900:] / 16, y[900:], n_seeds=2, random_state=0, verbose=0)
    >>> census.groups
    [('SB', 'glorot_uniform'), ('SB', 'torch'), ('LB', 'glorot_uniform'), ('LB', 'torch')]
    >>> census.values(("LB", "torch"), "test_accuracy").shape
    (2,)
    """
    check_arguments(minima_census, locals())
    overrides = check_regimes(regimes)
    starts = _check_inits(inits)
    if isinstance(check_classifier(estimator).net, nn.Module):
        raise ValueError("net must be a name, a class or a function: a module instance keeps its weights at any init.")
    if any("init" in parameters for parameters in overrides.values()):
        raise ValueError("regimes must not set init: every regime starts from all of inits.")
    check_integer("n_seeds", n_seeds)
    if target_loss is not None:
        check_target_loss(target_loss)
    epsilon = check_epsilon(epsilon)
    X, y, X_test, y_test = check_data(X, y, X_test, y_test)
    for parameters in overrides.values():
        check_candidate(estimator, parameters, len(y))
    stop = {} if target_loss is None else {"target_loss": float(target_loss), "tol": None}
    check_keepable(memory, random_state)
    rng = check_random_state(random_state)
    seeds = draw_seeds(n_seeds, rng)
    measuring = check_measuring([epsilon], (None,), batch_norm, solver, max_samples, len(y), rng)
    settings = {
        "n_train": len(y),
        "n_test": len(y_test),
        "n_seeds": int(n_seeds),
        "regimes": described(overrides),
        "inits": {label: value if isinstance(value, str) else text_of(value) for label, value in starts.items()},
        "target_loss": None if target_loss is None else float(target_loss),
        "estimator": text_of(estimator),
        "epsilon": measuring.epsilons[0],
        "batch_norm": batch_norm,
        "n_samples_sharpness": len(measuring.rows),
        "solver": solver,
        "random_state": random_state if isinstance(random_state, numbers.Integral) else None,
        "environment": environment(),
    }
    groups = {f"{regime}, {init}": (regime, init) for regime in overrides for init in starts}
    trials = [
        Trial(label, {**overrides[regime], **stop, "init": starts[init]}, number, seed)
        for number, seed in enumerate(seeds)
        for label, (regime, init) in groups.items()
    ]
    results, interrupted = run_trials(
        estimator,
        trials,
        (X, y),
        (X_test, y_test),
        measuring,
        n_jobs=n_jobs,
        verbose=verbose,
        memory=memory,
        keep_estimators=False,
    )
    records = [{**r, **dict(zip(("regime", "init"), groups[r["regime"]], strict=True))} for r, _ in results]
    return MinimaCensus(records, list(groups.values()), settings, interrupted)


def _check_inits(inits: Any) -> dict[str, Any]:
    """Return the initialisations by label."""
    if isinstance(inits, str) or not isinstance(inits, Mapping | Sequence) or not len(inits):
        raise ValueError(f"inits must be a sequence of initialisations or a dict label -> init; got {inits!r}.")
    if isinstance(inits, Mapping):
        starts = {str(label): value for label, value in inits.items()}
    else:
        starts = {
            value if isinstance(value, str) else getattr(value, "__name__", repr(value)): value for value in inits
        }
    for value in starts.values():
        check_init(value)
    if len(starts) < len(inits):
        raise ValueError(f"inits must have different labels; got {inits!r}.")
    return starts
