"""``sharpness_trajectory``: sharpness against the loss along training, Figure 6 of Keskar et al. (2017)."""

import numbers
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from sklgap._checks import check_arguments, check_integer, check_random_state
from sklgap.experiments._experiment import (
    check_candidate,
    check_epsilon,
    check_keepable,
    check_measuring,
    check_regimes,
    check_rows,
    described,
)
from sklgap.experiments._recorded_training import draw_seeds, without_head
from sklgap.experiments._result import environment, text_of
from sklgap.experiments._sharpness_trajectory_result import SharpnessTrajectory
from sklgap.experiments._trials import Measuring, Trial, take
from sklgap.inspection import recorded, sharpness
from sklgap.training import TrainingRecorder

_RECORDER = "sharpness_trajectory"


def sharpness_trajectory(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    regimes: Sequence[Any] | Mapping[str, Mapping[str, Any]] = ("SB", "LB"),
    n_trials: int = 1,
    every: int | None = 5,
    at_updates: str | Sequence[int] | None = "log",
    epsilon: float = 1e-3,
    batch_norm: str = "batch",
    max_samples: int | None = 1000,
    solver: str = "auto",
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> SharpnessTrajectory:
    """Measure sharpness and training loss along trainings with several regimes.

    At which loss do small and large batches part: does the large batch start out sharp, or become so?

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Cloned for every fit.
    X, y : array-like
        Training data.
    regimes : sequence or dict, default=("SB", "LB")
        Values of ``batch_regime``; or a dict from label to parameter overrides, such as
        ``{"SB": {"batch_regime": "SB", "max_epochs": 12}, "LB": {"batch_regime": "LB", "max_epochs": 30}}``. The others
        are compared with the first.
    n_trials : int, default=1
        Starting points. Trial i starts every regime from the same weights: their ``random_state`` is the trial's.
    every : int or None, default=5
        Measure at the end of every so many epochs, and of the last one; None: not at the ends of epochs.
    at_updates : "log", sequence of int or None, default="log"
        Measure also when so many updates have been made; see `sklgap.TrainingRecorder`.
    epsilon : float, default=1e-3
        Box size of the sharpness (the paper: 1e-3 and 5e-4), in the full space.
    batch_norm : {"batch", "population", "running"}, default="batch"
        The batch-norm policy of loss and sharpness; see `sklgap.objective.Objective`.
    max_samples : int or None, default=1000
        Training rows that loss and sharpness are measured on, the same always; None: all.
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
    SharpnessTrajectory
        Prints sharpness at equal losses; ``plot()`` draws the figure. Interrupted by Ctrl-C it holds the fits that had
        finished.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, before anything is trained.
    TypeError
        For an estimator that is no `LBGapClassifier` and does not end in one.

    See Also
    --------
    sklgap.TrainingRecorder : Records any measurement along one training.
    sklgap.inspection.SharpnessTrajectoryDisplay : Draws the figure.

    Notes
    -----
    Sharpness falls and rises with the loss: compare it at equal losses only. Costs ``n_trials * len(regimes)`` fits,
    and a measurement of sharpness at each of their records (with the defaults two for every doubling of the updates,
    and one for every five epochs). The steps of a pipeline before the classifier are fitted once.

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
    overrides = check_regimes(regimes)
    check_integer("every", every, or_none=True)
    epsilon = check_epsilon(epsilon)
    X, y = check_rows(X, y)
    for parameters in overrides.values():
        check_candidate(estimator, parameters, len(y))
    check_keepable(memory, random_state)
    rng = check_random_state(random_state)
    seeds = draw_seeds(n_trials, rng)
    measuring = check_measuring([epsilon], (None,), batch_norm, solver, max_samples, len(y), rng)
    settings = {
        "n_train": len(y),
        "n_trials": int(n_trials),
        "regimes": described(overrides),
        "estimator": text_of(estimator),
        "epsilon": measuring.epsilons[0],
        "batch_norm": batch_norm,
        "n_samples_sharpness": len(measuring.rows),
        "solver": solver,
        "random_state": random_state if isinstance(random_state, numbers.Integral) else None,
        "environment": environment(),
    }
    classifier, X = without_head(estimator, X, y)
    kept = {} if memory is None else {"memory": memory}
    trials = [
        Trial(label, {**parameters, **kept}, trial, seed)
        for trial, seed in enumerate(seeds)
        for label, parameters in overrides.items()
    ]
    calls = [delayed(_train)(classifier, trial, (X, y), measuring, every, at_updates) for trial in trials]
    records: list[dict[str, Any]] = []
    interrupted = False
    try:
        with tqdm(total=len(calls), unit="fit", disable=not verbose) as bar:
            for of_fit in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(calls):
                records += of_fit
                bar.update()
    except KeyboardInterrupt:
        if not records:
            raise
        interrupted = True
    return SharpnessTrajectory(records, list(overrides), settings, interrupted)


def _train(
    classifier: Any,
    trial: Trial,
    train: tuple[Any, Any],
    measuring: Measuring,
    every: int | None,
    at_updates: str | Sequence[int] | None,
) -> list[dict[str, Any]]:
    """Return what was recorded along one training."""
    X, y = (take(part, measuring.rows) for part in train)

    def measure(net: Any) -> float:
        found = sharpness(
            net,
            X,
            y,
            epsilon=measuring.epsilons[0],
            solver=measuring.solver,
            batch_norm=measuring.batch_norm,
            random_state=trial.seed,
        )
        return found.value

    recorder = TrainingRecorder(
        {"train": (X, y)},
        {"sharpness": measure},
        every=every,
        at_updates=at_updates,
        batch_norm=measuring.batch_norm,
        random_state=trial.seed,
    )
    model = clone(classifier).set_params(**{**trial.parameters, "random_state": trial.seed})
    model.set_params(callbacks=[*(model.callbacks or []), (_RECORDER, recorder)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what was not reached is reported
        model.fit(*train)
    columns = recorded(model, _RECORDER)
    fit = {"regime": trial.label, "trial": trial.trial, "seed": trial.seed}
    n_records = len(columns["n_updates"])
    return [{**fit, **{name: values[i].item() for name, values in columns.items()}} for i in range(n_records)]
