"""``batch_size_curve``: test accuracy and sharpness against batch size (Keskar et al. 2017, Figure 4)."""

import numbers
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sklgap._checks import (
    check_arguments,
    check_integer,
    check_positive,
    check_random_state,
    is_flat,
    is_number,
    is_one_of,
    shown,
)
from sklgap.experiments._batch_size_report import BatchSizeCurve
from sklgap.experiments._cost import measure_cost
from sklgap.experiments._experiment import (
    check_classifier,
    check_data,
    check_keepable,
    check_measuring,
    measuring_settings,
)
from sklgap.experiments._result import environment, text_of
from sklgap.experiments._trials import Measuring, Trial, last_step, run_trials, take, with_parameters
from sklgap.objective import check_objective
from sklgap.regimes import check_batch_size, default_base_batch_size
from sklgap.regimes._base import LARGE_BATCH_FRACTION
from sklgap.regimes._lr_scaling import lr_factor

LR_RULES = ("fixed", "sqrt", "linear", "tuned")
BUDGETS = ("epochs", "updates", "loss")
# Trials of each learning rate beside those of the curve.
TUNING_TRIALS = 2


def batch_size_curve(
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    batch_sizes: Sequence[int | float] | None = None,
    reference: int | float | None = None,
    lr: str = "fixed",
    lrs: Sequence[float] = (3e-4, 1e-3, 3e-3, 1e-2),
    budget: str = "epochs",
    n_trials: int = 5,
    validation_fraction: float = 0.1,
    epsilons: Sequence[float] = (1e-3,),
    subspace_dims: Sequence[int | None] = (None,),
    batch_norm: str = "batch",
    max_samples: int | None = 10_000,
    solver: str = "auto",
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> BatchSizeCurve:
    """Train with batches of several sizes from the same starting points: accuracy and sharpness against batch size.

    A part of the training data is held out once, and whatever is chosen is chosen on it: the learning rates here, and
    the batch size by `largest_safe_batch_size`. X_test is reported only.

    Parameters
    ----------
    estimator : LBGapClassifier, or a pipeline that ends in one
        Cloned for every fit. Its ``batch_size``, ``batch_regime``, ``base_batch_size``, ``lr_scaling`` and
        ``regime_adaptation`` are set by the parameters below.
    X, y : array-like
        Training data, of which ``validation_fraction`` is held out.
    X_test, y_test : array-like
        Test data: evaluated once per fitted model, never used for a choice.
    batch_sizes : sequence of int or float, default=None
        Rows, at most those trained on, or fractions of them. None: ``"SB"`` (256 rows, or n // 40 for few data),
        doubled up to twice ``"LB"``, that is at most 20 % of the rows.
    reference : int or float, default=None
        The size that the others are compared with, one of ``batch_sizes``; None: the smallest.
    lr : {"fixed", "sqrt", "linear", "tuned"}, default="fixed"
        ``"fixed"``: the estimator's ``lr`` for all sizes (Keskar et al.). ``"sqrt"``, ``"linear"``: that rate at the
        reference, and ``lr_scaling`` for the others. ``"tuned"``: for each size that one of ``lrs`` with the best
        validation accuracy, on average over two seeds that the curve does not use.
    lrs : sequence of float, default=(3e-4, 1e-3, 3e-3, 1e-2)
        Learning rates to choose from with ``lr="tuned"`` (the default is made for ADAM).
    budget : {"epochs", "updates", "loss"}, default="epochs"
        How long each size trains: ``max_epochs`` epochs; as many updates as the reference makes in them
        (``regime_adaptation``: Hoffer et al., Section 5); or to the estimator's ``target_loss``, within ``max_epochs``
        and without ``tol``.
    n_trials : int, default=5
        Starting points (5: Keskar et al.). Trial i starts all sizes from the same weights.
    validation_fraction : float, default=0.1
        Part of the training data that is held out, stratified by class; one row of every class stays.
    epsilons : sequence of float, default=(1e-3,)
        Box sizes of the sharpness; an empty sequence measures none.
    subspace_dims : sequence of int or None, default=(None,)
        Dimensions in which sharpness is measured; None: the full space.
    batch_norm : {"batch", "population", "running"}, default="batch"
        The batch-norm policy of every loss, accuracy and sharpness; see `sklgap.objective.Objective`.
    max_samples : int or None, default=10_000
        Training rows that sharpness is measured on, the same in all trials; None: all.
    solver : {"auto", "lbfgsb", "lbfgsb-scaled", "power"}, default="auto"
        See `sklgap.inspection.sharpness`.
    random_state : int, RandomState or None, default=None
        An int makes the curve repeatable, whatever ``n_jobs``, at equal thread count.
    n_jobs : int, default=None
        Fits at once, as in scikit-learn. On one GPU keep it at 1.
    memory : str or Path, default=None
        Folder that keeps finished work: a finished fit is loaded instead of repeated, an unfinished one goes on from
        its last saved epoch; see `LBGapClassifier`. Needs ``random_state``.
    verbose : int, default=1
        0: silent. 1: first the cost (fits, updates, and the time they will take by some steps measured with every
        batch size), then a progress bar.

    Returns
    -------
    BatchSizeCurve
        Prints as a table. Interrupted by Ctrl-C it holds the fits that had finished.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, before anything is trained.
    TypeError
        For an estimator that is no `LBGapClassifier` and does not end in one.

    See Also
    --------
    largest_safe_batch_size : The largest batch that costs no more than a margin.
    sklgap.critical_batch_size : The batch beyond which more rows save few updates: speed, not accuracy.

    Notes
    -----
    With a fixed number of epochs a larger batch makes fewer updates, so that part of what it loses may be that it is
    trained less: compare the training losses, and see ``budget``.

    Costs ``len(batch_sizes) * n_trials`` fits, and as many measurements of sharpness per dimension and epsilon; with
    ``lr="tuned"`` two more fits for each size and rate.

    References
    ----------
    Keskar et al., ICLR 2017, Figure 4: "a threshold after which there is a deterioration in the quality of the model".
    Hoffer et al., NeurIPS 2017, Sections 4 and 5.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, batch_size_curve
    >>> X, y = load_digits(return_X_y=True)
    >>> curve = batch_size_curve(
    ...     LBGapClassifier(module__width=16, max_epochs=3, tol=None), X[:900] / 16, y[:900], X[900:] / 16, y[900:],
    ...     batch_sizes=[20, 200], n_trials=2, epsilons=[], random_state=0, verbose=0)
    >>> curve.batch_sizes
    [20, 200]
    >>> bool(curve.values(20, "test_accuracy").mean() > curve.values(200, "test_accuracy").mean())
    True
    """
    check_arguments(batch_size_curve, locals())
    classifier = check_classifier(estimator)
    lrs = _check_rules(lr, lrs, budget, classifier)
    check_integer("n_trials", n_trials)
    check_keepable(memory, random_state)
    X, y, X_test, y_test = check_data(X, y, X_test, y_test)
    rng = check_random_state(random_state)
    train, valid = _hold_out(X, y, validation_fraction, rng)
    sizes = _check_sizes(batch_sizes, len(train[1]))
    base = _check_reference(reference, sizes, len(train[1]))
    seeds = _different_seeds(n_trials + TUNING_TRIALS, rng)
    seeds, tuning_seeds = seeds[:n_trials], seeds[n_trials:] if lr == "tuned" else []
    measuring = check_measuring(epsilons, subspace_dims, batch_norm, solver, max_samples, len(train[1]), rng)
    parameters = {size: _parameters(size, base, lr, budget) for size in sizes}
    settings = {
        "n_train": len(train[1]),
        "n_valid": len(valid[1]),
        "n_test": len(y_test),
        "n_trials": int(n_trials),
        "batch_sizes": sizes,
        "reference": str(base),
        "lr": lr,
        "lrs": lrs,
        "budget": budget,
        "max_epochs": classifier.max_epochs,
        "target_loss": classifier.target_loss if budget == "loss" else None,
        "estimator": text_of(estimator),
        **measuring_settings(measuring),
        "tuning_seeds": tuning_seeds,
        "random_state": random_state if isinstance(random_state, numbers.Integral) else None,
        "environment": environment(),
    }
    if verbose:
        n_tuning, n_rows = len(lrs) * len(tuning_seeds), len(valid[1]) + len(y_test)
        cost = measure_cost(estimator, parameters, n_trials, n_tuning, train, n_rows, measuring, n_jobs)
        settings["cost"] = asdict(cost)
        print(cost)
    options: dict[str, Any] = {"n_jobs": n_jobs, "verbose": verbose, "memory": memory}
    tuning: list[dict[str, Any]] = []
    if lr == "tuned":
        tuning = _try_rates(estimator, parameters, lrs, tuning_seeds, train, valid, batch_norm, options)
        parameters = {size: {**own, "lr": _best_rate(tuning, size)} for size, own in parameters.items()}
    trials = [Trial(str(size), parameters[size], trial, seed) for trial, seed in enumerate(seeds) for size in sizes]
    results, interrupted = run_trials(estimator, trials, train, (X_test, y_test), measuring, **options)
    rates = {size: _rate(estimator, parameters[size], size, base) for size in sizes}
    results = [(_with_validation(record, model, valid, batch_norm, rates), model) for record, model in results]
    return BatchSizeCurve(results, settings=settings, interrupted=interrupted, tuning=tuning)


def ladder(n_samples: int) -> list[int]:
    """Return the small batch, doubled up to twice the large one; at least two sizes where the data have them."""
    size = default_base_batch_size(n_samples)
    sizes = [size]
    while 2 * sizes[-1] <= max(2 * LARGE_BATCH_FRACTION * n_samples, 2 * size) and 2 * sizes[-1] <= n_samples:
        sizes.append(2 * sizes[-1])
    return sizes


def _parameters(size: int, reference: int, lr: str, budget: str) -> dict[str, Any]:
    """Return what a batch size sets in the classifier."""
    scaling: dict[str, Any] = {"lr_scaling": lr} if lr in ("sqrt", "linear") else {"lr_scaling": None}
    if scaling["lr_scaling"] is None:
        scaling["lr_warmup_epochs"] = 0  # it warms up to a scaled rate
    return {
        "batch_size": size,
        "batch_regime": "SB",
        "base_batch_size": reference,
        "regime_adaptation": budget == "updates",
        **scaling,
        **({"tol": None} if budget == "loss" else {}),
    }


# -- learning rates ----------------------------------------------------------------------------------------------------


def _try_rates(
    estimator: Any,
    parameters: dict[int, dict[str, Any]],
    lrs: Sequence[float],
    seeds: Sequence[int],
    train: tuple[Any, Any],
    valid: tuple[Any, Any],
    batch_norm: str,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return one record for each size, rate and seed; the test data are not seen."""
    tried = {f"{size}, lr {rate:g}": (size, rate) for size in parameters for rate in lrs}
    trials = [
        Trial(label, {**parameters[size], "lr": rate}, trial, seed)
        for trial, seed in enumerate(seeds)
        for label, (size, rate) in tried.items()
    ]
    nothing = Measuring((), (), batch_norm, "auto", np.arange(0, 2))
    results, interrupted = run_trials(estimator, trials, train, valid, nothing, test_name="validation", **options)
    if interrupted:
        raise KeyboardInterrupt  # nothing can be chosen yet
    found = []
    for record, _ in results:
        size, rate = tried[record["regime"]]
        kept = {key: record[key] for key in ("trial", "seed", "train_loss", "n_updates", "fit_seconds")}
        measured = {"valid_accuracy": record["test_accuracy"], "valid_loss": record["test_loss"]}
        found.append({"batch_size": size, "lr": rate, **kept, **measured})
    return sorted(found, key=lambda record: (record["batch_size"], record["lr"], record["trial"]))


def _best_rate(tuning: list[dict[str, Any]], size: int) -> float:
    """Return the rate of the best mean validation accuracy; of equal ones that of the smallest validation loss."""
    of_size = [record for record in tuning if record["batch_size"] == size]
    rates = sorted({record["lr"] for record in of_size})
    accuracy, loss = (
        [np.mean([record[key] for record in of_size if record["lr"] == rate]) for rate in rates]
        for key in ("valid_accuracy", "valid_loss")
    )
    return rates[np.lexsort((loss, -np.array(accuracy)))[0]]


def _rate(estimator: Any, parameters: dict[str, Any], size: int, reference: int) -> float:
    """Return the rate of a batch size, before milestones and schedulers."""
    lr = parameters.get("lr", last_step(estimator).lr)
    return float(lr * lr_factor(parameters["lr_scaling"], size, reference))


def _with_validation(
    record: dict[str, Any], model: Any, valid: tuple[Any, Any], batch_norm: str, rates: dict[int, float]
) -> dict[str, Any]:
    loss, accuracy = check_objective(model, *valid, batch_norm=batch_norm).evaluate()
    lr = rates[int(record["regime"])]
    return {**record, "lr": lr, "valid_accuracy": accuracy, "valid_loss": loss}


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_rules(lr: Any, lrs: Any, budget: Any, classifier: Any) -> list[float]:
    for name, value, allowed in (("lr", lr, LR_RULES), ("budget", budget, BUDGETS)):
        if not is_one_of(value, allowed):
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {shown(value)}.")
    if not is_flat(lrs) or not len(lrs) or not all(is_number(rate) and rate > 0 for rate in lrs):
        raise ValueError(f"lrs must be a sequence of numbers above 0; got {lrs!r}.")
    if len({float(rate) for rate in lrs}) < len(lrs):
        raise ValueError(f"lrs must all be different; got {lrs!r}.")
    if budget == "loss" and (not is_number(classifier.target_loss) or classifier.target_loss <= 0):
        raise ValueError(
            f"target_loss of the estimator must be a number above 0 with budget='loss'; got {classifier.target_loss!r}."
        )
    check_positive("lr of the estimator", classifier.lr)
    check_integer("max_epochs", classifier.max_epochs)
    with_parameters(classifier, _parameters(2, 2, lr, budget))
    return [float(rate) for rate in lrs] if lr == "tuned" else []


def _check_sizes(batch_sizes: Any, n_samples: int) -> list[int]:
    if batch_sizes is None:
        return ladder(n_samples)
    if isinstance(batch_sizes, str) or not is_flat(batch_sizes) or not len(batch_sizes):
        raise ValueError(f"batch_sizes must be None or a sequence of batch sizes; got {batch_sizes!r}.")
    sizes = sorted(check_batch_size(size, n_samples, "batch_sizes") for size in batch_sizes)
    if max(batch_sizes) > n_samples:
        raise ValueError(f"batch_sizes must be at most the {n_samples} rows trained on; got {batch_sizes!r}.")
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"batch_sizes must all be different; got {batch_sizes!r}.")
    return sizes


def _check_reference(reference: Any, sizes: list[int], n_samples: int) -> int:
    if reference is None:
        return sizes[0]
    size = check_batch_size(reference, n_samples, "reference")
    if size not in sizes:
        raise ValueError(f"reference must be one of the batch sizes, {', '.join(map(str, sizes))}; got {reference!r}.")
    return size


def _different_seeds(n: int, rng: np.random.RandomState) -> list[int]:
    seeds: dict[int, None] = {}
    while len(seeds) < n:
        seeds |= dict.fromkeys(rng.randint(2**31 - 1, size=n - len(seeds)).tolist())
    return list(seeds)


def _hold_out(X: Any, y: Any, fraction: Any, rng: np.random.RandomState) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return training and validation data; every class is among the first, and in proportion where it can be."""
    labels, n = np.asarray(y), len(y)
    if not is_number(fraction) or not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be a number above 0 and below 1; got {fraction!r}.")
    if labels.ndim != 1:
        raise ValueError(f"y must have one label per row; got an array of shape {labels.shape}.")
    order = rng.permutation(n)
    classes, first = np.unique(labels[order], return_index=True)
    n_valid = round(float(fraction) * n)
    if not 2 <= n_valid <= n - max(2, len(classes)):
        raise ValueError(
            "validation_fraction must leave at least 2 rows to validate on and one of each class to train on; "
            f"got {fraction!r} of {n} rows."
        )
    rest = np.delete(order, first)
    held_out = np.zeros(n, dtype=bool)
    held_out[rest[np.argsort(_share_before(labels[rest]), kind="stable")][:n_valid]] = True
    train, valid = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return (take(X, train), take(y, train)), (take(X, valid), take(y, valid))


def _share_before(labels: np.ndarray) -> np.ndarray:
    """Return which share of its class comes before each row: the rows of the smallest shares hold all classes alike."""
    share = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        share[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return share
