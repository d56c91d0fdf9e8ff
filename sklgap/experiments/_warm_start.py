"""``warm_start_curve``: large batches started from small-batch weights, Figure 5 of Keskar et al. (2017)."""

import numbers
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from torch import nn
from tqdm.auto import tqdm

from sklgap._checks import check_arguments, check_integer, check_random_state
from sklgap.experiments._experiment import check_candidate, check_data, check_keepable, check_measuring, described
from sklgap.experiments._recorded_training import draw_seeds, without_head
from sklgap.experiments._result import environment, text_of
from sklgap.experiments._trials import Trial, run_trials
from sklgap.experiments._warm_start_result import WarmStartCurve
from sklgap.inspection import recorded
from sklgap.training import TrainingRecorder
from sklgap.training._weights_keeper import KeptWeights, WeightsKeeper

_RECORDER, _KEEPER = "warm_start_recorder", "warm_start_keeper"
# What the small-batch training is recorded by, and its names in the records.
_SMALL = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "n_updates", "weight_distance")

Weights = dict[str, np.ndarray]


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
    epsilons: Sequence[float] = (1e-3,),
    batch_norm: str = "batch",
    max_samples: int | None = 10_000,
    solver: str = "auto",
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> WarmStartCurve:
    """Train with small batches, and from the weights after every k-th epoch anew with large ones.

    When has the small batch left the region of sharp minima: after how many of its epochs does a large batch that goes
    on from there end as flat, and as accurate on test data? A trial trains the small batch once and keeps its weights;
    each of them, and the starting point itself (0 epochs: large batch from scratch), is where a training with the large
    batch starts.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Cloned for every fit. The large-batch trainings follow its stopping rule; the small-batch trainings make all
        their epochs.
    X, y : array-like
        Training data.
    X_test, y_test : array-like
        Test data: evaluated once per fitted model and kept epoch, never used for a choice.
    small, large : "SB", "LB", int, float or BatchRegime, default="SB", "LB"
        The ``batch_regime`` of either training.
    max_small_epochs : int, default=20
        Epochs of the small-batch training (100: Keskar et al.).
    every : int, default=1
        Start a large-batch training after every so many of them (1: Keskar et al.).
    large_epochs : int, default=None
        ``max_epochs`` of the large-batch trainings (100: Keskar et al.); None: the estimator's.
    n_trials : int, default=5
        Starting points. In a trial all trainings have one ``random_state``.
    epsilons : sequence of float, default=(1e-3,)
        Box sizes of the sharpness, in the full space; an empty sequence measures none.
    batch_norm : {"batch", "population", "running"}, default="batch"
        The batch-norm policy of every loss, accuracy and sharpness; see `sklgap.objective.Objective`.
    max_samples : int or None, default=10_000
        Training rows that sharpness is measured on, the same in all trials; None: all.
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
        0: silent; 1: progress bars, one of the small-batch and one of the large-batch trainings.

    Returns
    -------
    WarmStartCurve
        Prints as a table; ``plot()`` draws the figure. Interrupted by Ctrl-C it holds the large-batch trainings that
        had finished.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, before anything is trained.
    TypeError
        For an estimator that is no `LBGapClassifier` and does not end in one.

    See Also
    --------
    sklgap.SwitchBatch : Goes from small to large batches within one training, and keeps the optimiser's state.

    Notes
    -----
    As in the paper's "piggyback", a large-batch training starts from weights alone: the state of the optimiser, the
    number of updates and the schedule of the learning rate start anew. Its ``weight_distance`` is from where it
    started. It has had the small-batch epochs besides, which is why the table has plain small-batch training too. With
    ``batch_norm="running"`` the small batch is measured with the averages as its training left them, the large batch
    with those that ``fit`` recomputes at its end.

    Costs ``n_trials`` small-batch trainings of ``max_small_epochs`` epochs and
    ``n_trials * (1 + max_small_epochs // every)`` large-batch ones; all kept weights are in memory at once. The
    steps of a pipeline before the classifier are fitted once.

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
    >>> curve.small_epochs
    array([0, 2, 4])
    >>> curve.by_trial("test_accuracy").shape
    (2, 3)
    """
    check_arguments(warm_start_curve, locals())
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
    measuring = check_measuring(epsilons, (None,), batch_norm, solver, max_samples, len(y), rng)
    settings = {
        "n_train": len(y),
        "n_test": len(y_test),
        "n_trials": int(n_trials),
        "regimes": described({"small": of_small, "large": of_large}),
        "small": small if isinstance(small, str) else f"small batch ({small})",
        "large": large if isinstance(large, str) else f"large batch ({large})",
        "small_epochs": [0, *range(every, max_small_epochs + 1, every)],
        "estimator": text_of(estimator),
        "epsilons": list(measuring.epsilons),
        "batch_norm": batch_norm,
        "n_samples_sharpness": len(measuring.rows),
        "solver": solver,
        "random_state": random_state if isinstance(random_state, numbers.Integral) else None,
        "environment": environment(),
    }
    classifier, X, X_test = without_head(estimator, X, y, X_test)
    train, test = (X, y), (X_test, y_test)
    kept = {} if memory is None else {"memory": memory}
    of_trials = [{**of_small, **kept, "random_state": seed} for seed in seeds]
    calls = [delayed(_train_small)(classifier, train, test, of_trial, every, batch_norm) for of_trial in of_trials]
    trained = Parallel(n_jobs=n_jobs, return_as="generator")(calls)
    small_fits = list(tqdm(trained, total=len(calls), unit=" small-batch fits", disable=not verbose))
    trials, starts = _large_trials(classifier, small_fits, of_large, settings, seeds)
    results, interrupted = run_trials(
        classifier,
        trials,
        train,
        test,
        measuring,
        n_jobs=n_jobs,
        verbose=verbose,
        memory=memory,
        keep_estimators=False,
    )
    records = [{**record, **starts[record["trial"], record["regime"]]} for record, _ in results]
    return WarmStartCurve(records, settings, interrupted)


def _check_regime(name: str, estimator: Any, parameters: dict[str, Any], n_samples: int) -> None:
    try:
        check_candidate(estimator, parameters, n_samples)
    except ValueError as error:
        raise ValueError(str(error).replace("batch_regime must", f"{name} must", 1)) from None


def _train_small(
    classifier: Any,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    parameters: dict[str, Any],
    every: int,
    batch_norm: str,
) -> tuple[dict[str, np.ndarray], dict[int, Weights]]:
    """Return the records of a small-batch training, from before its first epoch on, and the weights it passed."""
    recorder = TrainingRecorder({"train": train, "test": test}, every=every, at_updates=[0], batch_norm=batch_norm)
    model = clone(classifier).set_params(**parameters)
    own = [(_RECORDER, recorder), (_KEEPER, WeightsKeeper(every))]
    model.set_params(callbacks=[*(model.callbacks or []), *own])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result says where the loss was not finite
        model.fit(*train)
    kept = dict(model.net_.callbacks_)[_KEEPER].weights_
    finite = {epoch: w for epoch, w in kept.items() if all(np.isfinite(values).all() for values in w.values())}
    return recorded(model, _RECORDER), finite


def _large_trials(
    classifier: Any,
    small_fits: Sequence[tuple[dict[str, np.ndarray], dict[int, Weights]]],
    of_large: dict[str, Any],
    settings: dict[str, Any],
    seeds: Sequence[int],
) -> tuple[list[Trial], dict[tuple[int, str], dict[str, Any]]]:
    """Return the large-batch trainings, and what is known of where each starts, by trial and label."""
    trials, starts = [], {}
    for number, ((columns, kept), seed) in enumerate(zip(small_fits, seeds, strict=True)):
        for epoch in settings["small_epochs"]:
            row = np.flatnonzero(columns["epoch"] == epoch)
            if epoch and (epoch not in kept or not len(row)):  # the training had diverged, or a callback ended it
                continue
            label = f"{settings['large']} after {epoch} epochs"
            parameters = {**of_large, **(_start_from(classifier, kept[epoch], epoch) if epoch else {})}
            trials.append(Trial(label, parameters, number, seed))
            known = {f"small_{name}": columns[name][row[0]].item() for name in _SMALL}
            starts[number, label] = {"small_epochs": epoch, **known}
    return trials, starts


def _start_from(classifier: Any, weights: Weights, epoch: int) -> dict[str, Any]:
    """Return the parameters that start a training from these weights."""
    start = KeptWeights(weights, epoch)
    if not isinstance(classifier.net, nn.Module):
        return {"init": start}
    module = clone(classifier.net, safe=False)  # an instance keeps its weights, whatever ``init`` says
    start(module)
    return {"net": module}
