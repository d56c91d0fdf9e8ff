"""``branched_critical_batch_size``: the largest batch size that loses nothing from a checkpoint on."""

import inspect
import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sklgap._checks import (
    WrongArgument,
    check_arguments,
    check_integer,
    check_max_samples,
    check_positive,
    check_random_state,
    is_flat,
    is_integer,
    is_number,
    is_one_of,
    resolve_max_samples,
    shown,
)
from sklgap._tables import text_of
from sklgap._typing import BatchNormPolicy
from sklgap.experiments import _notes as notes
from sklgap.experiments._branches import RUN_PARAMETERS, Branch, Setting, call_branch, cases_of, describe, run_branches
from sklgap.experiments._cost import Cost, measure_cost
from sklgap.experiments._estimate import Estimate, paired_estimate
from sklgap.experiments._inputs import check_classifier, check_data, check_keepable, common_settings, without_head
from sklgap.experiments._noise_scale import NoiseScale, check_noise_scale
from sklgap.experiments._protocol import draw_different_seeds, with_parameters
from sklgap.experiments._result import Result, count, describe_measuring, environment, listed, mean_std
from sklgap.experiments._run import interruptible, run
from sklgap.experiments._training_function import is_training_function
from sklgap.inspection._gradient_noise import LEAST_BATCHES
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.regimes import check_batch_regime
from sklgap.regimes._base import check_batch_size

if TYPE_CHECKING:
    from sklgap.experiments._plot._branched_critical_batch_size import BranchedCriticalBatchSizeDisplay

LR_RULES = ("auto", None, "sqrt", "linear")
NEW_ORDERS = "new data orders from this checkpoint of this run"
# Arguments of the user's function, in addition to the state.
_ARGUMENTS = ("batch_size", "learning_rate", "n_samples", "random_state")
# Their learning rate grows with the square root of the batch size, and that of SGD in proportion (Malladi et al. 2022).
_ADAPTIVE = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop)


@interruptible
def branched_critical_batch_size(
    estimator: Any,
    X: Any = None,
    y: Any = None,
    X_valid: Any = None,
    y_valid: Any = None,
    *,
    checkpoints: Any,
    batch_sizes: Sequence[int],
    n_samples: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    lr_scaling: Literal["auto", "sqrt", "linear"] | None = "auto",
    tolerance: float = 0.01,
    n_orders: int = 3,
    noise_scales: Mapping[Any, NoiseScale] | None = None,
    n_batches: int = 50,
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = 10_000,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> "BranchedCriticalBatchSize":
    r"""Measure, by branches, the largest batch size that loses nothing from a checkpoint on (Merrill et al. 2025).

    One run trains with batches of B samples. From each of its checkpoints, branches train on the same number of samples
    with batches of kB, and with the learning rate :math:`f(k)\,\eta`, where :math:`f(k) = k` for SGD and :math:`\sqrt
    k` for ADAM. The unbranched run, k = 1, continues with the same data orders. A branch has caught up if its held-out
    loss exceeds the loss of the unbranched run by at most the fraction ``tolerance``. The answer at a checkpoint is the
    largest batch size up to which all tried batch sizes have caught up.

    This is not the critical batch size of the noise scale, at which a batch needs twice the samples for the same
    progress (half the efficiency). The result prints both.

    Parameters
    ----------
    estimator : LBGapClassifier, a pipeline that ends in one, or callable
        An estimator is cloned and trained with its own batch size. Or a function for your own training loop,
        ``train_from(state, batch_size, learning_rate, n_samples, random_state)``. It continues from a saved state
        (weights and state of the optimiser) over ``n_samples`` samples, in an order that depends on ``random_state``
        (an int), and returns the held-out loss. It is called with these names, and receives a copy of the state.
    X, y : array-like
        Training data; None for a function.
    X_valid, y_valid : array-like
        Held-out data on which the losses are measured; None for a function.
    checkpoints : sequence of int, or dict
        Epochs of the run after which branches start. For a function: a dict from names or numbers, which the report
        uses, to your saved states, such as ``{1000: "step_1000.pt", 4000: "step_4000.pt"}``.
    batch_sizes : sequence of int
        Batch sizes of the branches in samples, above the batch size of the run, which is always included.
    n_samples : int, default=None
        Number of samples that every branch trains on. For an estimator it is a multiple of the number of training
        samples, because its epochs are whole; None means one epoch. For a function it is a multiple of every batch
        size, so that all branches train on equally many samples.
    batch_size, learning_rate : int, float, default=None
        Batch size and learning rate of the run, for a function; None for an estimator, which has its own.
    lr_scaling : {"auto", "sqrt", "linear"} or None, default="auto"
        Learning rate of a branch: :math:`k \eta` for ``"linear"``, :math:`\sqrt k\,\eta` for ``"sqrt"``, and
        :math:`\eta` for None. ``"auto"`` means ``"linear"`` for SGD and ``"sqrt"`` for ADAM and similar optimisers; it
        is not allowed for a function.
    tolerance : float, default=0.01
        Fraction of the unbranched loss by which a branch that has caught up may exceed it.
    n_orders : int, default=3
        Number of data orders. The first one is the order in which the run itself continues.
    noise_scales : dict, default=None
        For a function: the noise scale at each checkpoint, as a number, an `Estimate`, the result of
        `gradient_noise_scale`, or the ``state()`` of a `BatchSizeMonitor` of the run. None means that it is not
        reported. For an estimator it must be None, because the noise is measured.
    n_batches : int, default=50
        Number of mini-batches from which the noise of an estimator is measured at a checkpoint.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy of the held-out losses and of the gradients of an estimator.
    max_samples : int, float or None, default=10_000
        Training samples that these mini-batches are taken from: their number, or a fraction in (0, 1]. None: all.
    random_state : int, RandomState or None, default=None
        Source of all random numbers. An int makes the result repeatable.
    n_jobs : int or None, default=None
        Number of branches that run at the same time, as in scikit-learn.
    memory : str, Path or None, default=None
        Folder in which finished branches are saved, and from which they are loaded in the next run. If a branch is
        missing, the run is trained again. It must be None for a function.
    verbose : int, default=1
        0 is silent; 1 prints the expected cost and shows a progress bar. `sklgap.experiments` explains these four
        parameters.

    Returns
    -------
    BranchedCriticalBatchSize
        The result; ``print`` shows it as a table. After Ctrl-C it holds the branches that finished.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values; if the learning rate or the batch size of the estimator changes by
        ``lr_scaling``, a callback or a regime, which a branch could not continue; or if a held-out loss is not above 0.
    TypeError
        If the estimator is neither an `LBGapClassifier` nor a function with these arguments.

    See Also
    --------
    sklgap.critical_batch_size : Predicts, from the noise along a training, where a batch needs twice the samples.
    sklgap.experiments.steps_to_loss : Measures the same.
    sklgap.experiments.largest_safe_batch_size : Finds a batch size that is safe for a score at the end of a training.

    Notes
    -----
    A branch starts from the full state of the run: weights, buffers, the moments of the optimiser and the number of
    epochs, so that ``lr_milestones`` continue as in the run. In the paper, branches start from checkpoints of a run
    with ADAM, and the learning rate grows with the square root of k. The losses there are smoothed training losses
    after 2 billion tokens, two losses count as equal within 0.01, and the answer is the largest k that is no worse than
    any smaller one. This function uses held-out losses at the end of the branch, a tolerance relative to the loss, a
    comparison with the unbranched run alone, several data orders, and an interval.

    The interval comes from the paired relative differences over the data orders, by Student's t. Its lower end is the
    largest batch size up to which all batch sizes are shown to have caught up (the upper end of the difference is
    within the tolerance). Its upper end is the batch size below the smallest one that is shown to be too large, counted
    down from the largest batch size (the lower end of the difference is above the tolerance). Both are tests in a fixed
    sequence, so that each end errs with a chance of at most 2.5 %. Three orders give wide intervals (t = 4.3). The
    intervals cover data orders alone. They cover neither other runs nor other held-out samples, nor losses with which a
    branch would catch up later.

    An epoch whose samples are not a multiple of the batch size ends with a smaller batch, at the full learning rate.

    The cost is the run up to its last checkpoint, and for every checkpoint ``n_orders * (1 + len(batch_sizes))``
    branches of ``n_samples`` samples. All checkpoints are in memory at the same time.

    References
    ----------
    Merrill et al., Critical Batch Size Revisited: A Simple Empirical Approach to Large-Batch Language Model Training,
    arXiv:2505.23971, Section 3.1. Malladi et al., On the SDEs and Scaling Rules for Adaptive Gradient Algorithms,
    arXiv:2205.10287. McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, branched_critical_batch_size
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, batch_size=20)
    >>> found = branched_critical_batch_size(
    ...     model, X[:1000] / 16, y[:1000], X[1000:] / 16, y[1000:], checkpoints=[2], batch_sizes=[40, 1000],
    ...     n_orders=2, n_batches=10, random_state=0, verbose=0)
    >>> found.batch_sizes
    [20, 40, 1000]
    >>> found.estimates[2].value < 1000
    True

    The same with your own training loop, here gradient steps towards 0 with noise that falls with the batch size:

    >>> import numpy as np
    >>> def train_from(state, batch_size, learning_rate, n_samples, random_state):
    ...     rng = np.random.RandomState(random_state)
    ...     for _ in range(n_samples // batch_size):
    ...         state = state - learning_rate * (state + rng.normal() / batch_size**0.5)
    ...     return 1 + state**2
    >>> found = branched_critical_batch_size(
    ...     train_from, checkpoints={"early": 3.0}, batch_size=1, learning_rate=0.01, n_samples=512,
    ...     batch_sizes=[4, 16, 256], lr_scaling="linear", random_state=0, verbose=0)
    >>> found.estimates["early"].value
    16
    """
    check_arguments(branched_critical_batch_size, locals())
    check_integer("n_orders", n_orders)
    check_positive("tolerance", tolerance)
    check_integer("n_samples", n_samples, or_none=True)
    check_integer("n_batches", n_batches, least=LEAST_BATCHES)
    check_batch_norm(batch_norm)
    check_max_samples(max_samples)
    if not is_one_of(lr_scaling, LR_RULES):
        raise ValueError(f"lr_scaling must be 'auto', 'sqrt', 'linear' or None; got {shown(lr_scaling)}.")
    common: dict[str, Any] = {"tolerance": float(tolerance), "n_orders": int(n_orders), "lr_scaling": lr_scaling}
    if is_training_function(estimator):
        _check_signature(estimator)
        _check_none({"X": X, "y": y, "X_valid": X_valid, "y_valid": y_valid, "memory": memory}, "a function")
        of_run = {**common, "batch_size": batch_size, "learning_rate": learning_rate, "n_samples": n_samples}
        jobs, settings = _of_function(estimator, checkpoints, batch_sizes, of_run, random_state)
        noise = _given_noise(noise_scales, checkpoints)
        records, interrupted = run(jobs, n_jobs=n_jobs, verbose=verbose, unit=" branches", describe=describe)
        records += noise
    else:
        own = {"batch_size": batch_size, "learning_rate": learning_rate, "noise_scales": noise_scales}
        _check_none(own, "an estimator, which has its own values")
        check_keepable(memory, random_state)
        data = check_data(X, y, X_valid, y_valid, "X_valid", "y_valid")
        common |= {"n_samples": n_samples, "n_batches": int(n_batches)}
        common |= {"batch_norm": batch_norm, "max_samples": max_samples}
        model, setting, settings, seeds = _of_estimator(estimator, data, checkpoints, batch_sizes, common, random_state)
        if verbose:
            cost = _cost(model, setting, settings, n_jobs)
            settings["cost"] = asdict(cost)
            print(cost)
        cases = cases_of(settings, seeds)
        records, interrupted, settings["lost"] = run_branches(model, setting, cases, memory, n_jobs, verbose)
    if not any("loss" in record for record in records):
        raise KeyboardInterrupt
    return BranchedCriticalBatchSize(records, settings, interrupted)


# -- the arguments -----------------------------------------------------------------------------------------------------


def _check_none(given: Mapping[str, Any], what: str) -> None:
    for name, value in given.items():
        if value is not None:
            raise WrongArgument(f"{name} must be None for {what}; got {shown(value)}.")


def _of_function(
    train_from: Callable[..., Any],
    checkpoints: Any,
    batch_sizes: Any,
    of_run: dict[str, Any],
    random_state: int | np.random.RandomState | None,
) -> tuple[list[Callable[[], dict[str, Any]]], dict[str, Any]]:
    """Return the jobs of a user's function, and the settings of the result."""
    if not isinstance(checkpoints, Mapping) or not checkpoints or not all(map(_is_label, checkpoints)):
        raise ValueError(
            "checkpoints must be a non-empty dict from names or numbers to saved states for a function; got "
            f"{shown(checkpoints)}."
        )
    check_integer("batch_size", of_run["batch_size"])
    check_positive("learning_rate", of_run["learning_rate"])
    check_integer("n_samples", of_run["n_samples"])
    n_samples = int(of_run["n_samples"])
    sizes = _check_sizes(batch_sizes, int(of_run["batch_size"]), n_samples)
    uneven = [size for size in sizes if n_samples % size]
    if uneven:
        raise ValueError(
            "n_samples must be a multiple of every batch size, so that all branches train on equally many samples; got "
            f"{n_samples} and batches of {uneven[0]}."
        )
    if of_run["lr_scaling"] == "auto":
        raise ValueError(
            "lr_scaling must be 'linear' (for SGD), 'sqrt' (for ADAM) or None for a function, because its optimiser is "
            "not known; got 'auto'."
        )
    settings = {
        **of_run,
        "learning_rate": float(of_run["learning_rate"]),
        "n_samples": n_samples,
        "checkpoints": list(checkpoints),
        "batch_sizes": sizes,
        "unit": None,
        "noise": False,
        "lost": [],
        "estimator": text_of(train_from),
        "random_state": int(random_state) if is_integer(random_state, 0) else None,
        "environment": environment(),
    }
    seeds = draw_different_seeds(settings["n_orders"], check_random_state(random_state))
    jobs: list[Callable[[], dict[str, Any]]] = [
        partial(call_branch, train_from, checkpoints[case.checkpoint], case, settings["learning_rate"], n_samples)
        for case in cases_of(settings, seeds)
        if isinstance(case, Branch)
    ]
    return jobs, settings


def _check_signature(train_from: Callable[..., Any]) -> None:
    """Raise a TypeError for a function that cannot be called with the arguments of a branch."""
    try:
        signature = inspect.signature(train_from)
    except (TypeError, ValueError):  # a callable without a signature
        return
    try:
        signature.bind(None, **dict.fromkeys(_ARGUMENTS))
    except TypeError:
        raise TypeError(
            f"estimator must be an LBGapClassifier or a function train_from(state, {', '.join(_ARGUMENTS)}); got a "
            f"function of {signature}."
        ) from None


def _given_noise(noise_scales: Any, checkpoints: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return the records of the noise scales that the user gives for checkpoints."""
    if noise_scales is None:
        return []
    if not isinstance(noise_scales, Mapping):
        raise ValueError(
            f"noise_scales must be None or a dict from checkpoints to noise scales; got {shown(noise_scales)}."
        )
    unknown = [label for label in noise_scales if label not in checkpoints]
    if unknown:
        raise ValueError(f"noise_scales must only have checkpoints that are given; got {shown(unknown[0])}.")
    found = {label: check_noise_scale(f"noise_scales[{label!r}]", value) for label, value in noise_scales.items()}
    unmeasured = [label for label, scale in found.items() if math.isnan(scale.value)]
    if unmeasured:
        raise ValueError(
            f"noise_scales[{unmeasured[0]!r}] must come from a BatchSizeMonitor that has measured; otherwise leave it "
            "out."
        )
    return [{"checkpoint": label, "noise_scale": scale} for label, scale in found.items()]


def _is_label(label: Any) -> bool:
    return isinstance(label, str) or is_number(label)


def _of_estimator(
    estimator: Any,
    data: tuple[Any, Any, Any, Any],
    checkpoints: Any,
    batch_sizes: Any,
    common: dict[str, Any],
    random_state: int | np.random.RandomState | None,
) -> tuple[Any, Setting, dict[str, Any], list[int]]:
    """Return the classifier of the run, the settings of its branches and of the result, and the seeds."""
    X, y, X_valid, y_valid = data
    n = len(y)
    classifier = check_classifier(estimator)
    size = _check_run(classifier, n)
    rule = _rule_of(classifier.optimizer) if common["lr_scaling"] == "auto" else common["lr_scaling"]
    sizes = _check_sizes(batch_sizes, size, n)
    epochs = _check_epochs(checkpoints)
    n_samples = n if common["n_samples"] is None else int(common["n_samples"])
    if n_samples % n:
        raise ValueError(f"n_samples must be None or a multiple of the {n:,} training samples; got {n_samples}.")
    if resolve_max_samples(common["max_samples"], n) <= size:
        raise ValueError(
            f"max_samples must be larger than the batch size of the run, {size}; got {shown(common['max_samples'])}."
        )
    settings = {
        "n_train": n,
        "n_valid": len(y_valid),
        **common,
        "checkpoints": epochs,
        "batch_size": size,
        "batch_sizes": sizes,
        "learning_rate": float(classifier.lr),
        "lr_scaling": rule,
        "n_samples": n_samples,
        "unit": "epoch",
        "noise": True,
        "sgd": isinstance(classifier.optimizer, type) and issubclass(classifier.optimizer, torch.optim.SGD),
        **common_settings(estimator, random_state),
    }
    seeds = draw_different_seeds(settings["n_orders"], check_random_state(random_state))
    classifier, X, X_valid = without_head(estimator, X, y, X_valid)
    model = with_parameters(
        classifier, {**RUN_PARAMETERS, "max_epochs": 1, "batch_size": size, "random_state": seeds[0]}
    )
    noise = (common["n_batches"], common["max_samples"])
    setting = Setting((X, y), (X_valid, y_valid), n_samples // n, common["batch_norm"], size, *noise, seeds[0])
    return model, setting, settings, seeds


def _check_run(classifier: Any, n_samples: int) -> int:
    """Return the batch size of the run; raise an error if branches cannot continue the run."""
    if classifier.lr_scaling is not None:
        raise ValueError(
            "estimator must have lr_scaling=None, because the lr_scaling of the experiment sets the learning rate of a "
            f"branch; got {classifier.lr_scaling!r}."
        )
    if classifier.regime_adaptation:
        raise ValueError(
            "estimator must have regime_adaptation=False, because all branches train on equally many samples."
        )
    if classifier.data_parallel:
        raise ValueError("estimator must have data_parallel=False, because each branch is trained in one process.")
    if classifier.train_split is not None and classifier.train_split is not False:
        raise ValueError("estimator must have train_split=None, because the losses are those on X_valid and y_valid.")
    for callback in classifier.callbacks or []:
        kind = type(callback[1] if isinstance(callback, tuple) else callback)
        if not (kind.__name__ == "GradientNormClipping" and kind.__module__.startswith("skorch.")):
            raise ValueError(
                "estimator must have no callbacks other than GradientNormClipping, because the schedule or the state "
                f"of a callback would start again in every branch; got {kind.__name__}."
            )
    own_path = [name for name in classifier.get_params() if name.partition("__")[0] in ("iterator_train", "dataset")]
    if own_path:
        raise ValueError(f"estimator must have no {own_path[0]}, because the order of the data must come from a seed.")
    try:
        pickle.dumps((classifier.net, classifier.criterion, classifier.optimizer))
    except Exception as error:  # pickling runs the code of what it saves
        raise ValueError(
            "estimator must have a net, a criterion and an optimiser that can be pickled, because checkpoints are "
            f"copies. Use classes from the top level of a module ({type(error).__name__}: {error})."
        ) from error
    if classifier.batch_size is not None:
        return min(int(check_batch_size(classifier.batch_size, n_samples)), n_samples)
    regime = check_batch_regime(classifier.batch_regime, n_samples)
    if regime.varies or regime.adaptive:
        raise ValueError(
            "estimator must have a constant batch size, because branches multiply it; got batch_regime="
            f"{shown(classifier.batch_regime)}."
        )
    return int(regime.batch_size(0, n_samples))


def _rule_of(optimizer: Any) -> str:
    """Return the published rule for the learning rate of an optimiser."""
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    if issubclass(kind, torch.optim.SGD):
        return "linear"
    if issubclass(kind, _ADAPTIVE):
        return "sqrt"
    raise ValueError(
        f"lr_scaling must be 'linear', 'sqrt' or None for the optimiser {kind.__name__}, because it has no published "
        "rule; got 'auto'."
    )


def _check_sizes(batch_sizes: Any, own_size: int, most: int) -> list[int]:
    """Return the batch sizes in ascending order, starting with that of the run."""
    flat = is_flat(batch_sizes) and len(batch_sizes) > 0
    if not flat or not all(is_integer(size, 1) for size in batch_sizes):
        raise ValueError(
            f"batch_sizes must be a non-empty sequence of integers of at least 1; got {shown(batch_sizes)}."
        )
    sizes = sorted({int(size) for size in batch_sizes} - {own_size})
    if not sizes or sizes[0] < own_size:
        raise ValueError(f"batch_sizes must be above the batch size of the run, {own_size}; got {shown(batch_sizes)}.")
    if sizes[-1] > most:
        raise ValueError(
            f"batch_sizes must be at most {most}, the number of samples of a branch or epoch; got {sizes[-1]}."
        )
    return [own_size, *sizes]


def _check_epochs(checkpoints: Any) -> list[int]:
    flat = not isinstance(checkpoints, Mapping) and is_flat(checkpoints) and len(checkpoints) > 0
    if not flat or not all(is_integer(epoch, 1) for epoch in checkpoints):
        raise ValueError(
            f"checkpoints must be a non-empty sequence of epochs, integers of at least 1; got {shown(checkpoints)}."
        )
    return sorted({int(epoch) for epoch in checkpoints})


def _cost(model: Any, setting: Setting, settings: dict[str, Any], n_jobs: int | None) -> Cost:
    """Return the expected cost of the run, its branches, and the noise measurements at its checkpoints."""
    sizes, n_points = settings["batch_sizes"], len(settings["checkpoints"])
    parameters = {f"branches of {size:,}": {"batch_size": size, "max_epochs": setting.n_epochs} for size in sizes}
    cost = measure_cost(
        model,
        parameters,
        n_points * settings["n_orders"],
        setting.train,
        n_evaluated=settings["n_valid"],
        n_jobs=n_jobs,
    )
    step = cost.step_seconds[0]
    updates = cost.updates[0] * settings["checkpoints"][-1] // setting.n_epochs
    noise = n_points * setting.n_batches * step
    low, high = cost.measure_seconds
    return replace(
        cost,
        labels=["the run", *cost.labels],
        step_seconds=[step, *cost.step_seconds],
        updates=[updates, *cost.updates],
        n_fits=[1, *cost.n_fits],
        fit_seconds=cost.fit_seconds + updates * step,
        measure_seconds=(low + noise, high + noise),
    )


# -- the result --------------------------------------------------------------------------------------------------------


class BranchedCriticalBatchSize(Result):
    """Result of `branched_critical_batch_size`; ``print`` shows it.

    Attributes
    ----------
    records : list of dict
        One per finished branch: ``checkpoint``, ``batch_size``, ``learning_rate``, ``order``, ``seed``, ``loss``
        (held out, at its end; infinite where it diverged).
    checkpoints : list
        The checkpoints with a branch that can be compared, in the order of the run.
    batch_sizes : list of int
        The batch size of the run, then those of the branches.
    estimates : dict
        An `Estimate` for each checkpoint: the largest batch size up to which no tried batch size loses more than the
        tolerance. ``low`` is the largest one that is shown to lose nothing. ``high`` is the largest one that is not
        shown to lose; it is infinite if no tried batch size is shown to lose.
    noise_scales : dict
        An `Estimate` of the gradient noise scale for each checkpoint, near which a batch needs twice the samples.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(self, records: list[dict[str, Any]], settings: dict[str, Any], interrupted: bool = False) -> None:
        order = {label: i for i, label in enumerate(settings["checkpoints"])}
        branches = [record for record in records if "loss" in record]
        branches.sort(key=lambda r: (order[r["checkpoint"]], r["order"], r["batch_size"]))
        super().__init__(branches, settings, interrupted)
        self.batch_sizes: list[int] = settings["batch_sizes"]
        self._losses = {label: self._losses_at(label) for label in order}
        self.checkpoints = [label for label in order if any(d.n for d in self.differences(label)[1:])]
        self.estimates = {label: self._largest(label) for label in self.checkpoints}
        noise = {record["checkpoint"]: record["noise_scale"] for record in records if "noise_scale" in record}
        self.noise_scales: dict[Any, Estimate] = {label: noise[label] for label in order if label in noise}

    # -- statistics ------------------------------------------------------------------------------------------------

    def losses(self, checkpoint: Any) -> np.ndarray:
        """Return the held-out losses, an array of shape (n_sizes, n_orders), NaN for unfinished branches."""
        if checkpoint not in self._losses:
            raise ValueError(
                f"checkpoint must be one of {listed([str(one) for one in self._losses])}; got {checkpoint!r}."
            )
        return self._losses[checkpoint]

    def differences(self, checkpoint: Any) -> list[Estimate]:
        """Return, for each batch size, the relative excess of its loss over the unbranched run, over paired orders."""
        losses = self.losses(checkpoint)
        return [_relative(of_size, losses[0]) for of_size in losses]

    def ratio(self, checkpoint: Any) -> float:
        """Return the noise scale divided by the answer of the branches; NaN if one of them is not known."""
        if checkpoint not in self.estimates or checkpoint not in self.noise_scales:
            return math.nan
        return self.noise_scales[checkpoint].value / self.estimates[checkpoint].value

    def _losses_at(self, checkpoint: Any) -> np.ndarray:
        values = np.full((len(self.batch_sizes), self.settings["n_orders"]), np.nan)
        for record in self.records:
            if record["checkpoint"] == checkpoint:
                values[self.batch_sizes.index(record["batch_size"]), record["order"]] = record["loss"]
        return values

    def _largest(self, checkpoint: Any) -> Estimate:
        """Return the largest batch size that loses nothing, with its interval over the orders."""
        tolerance, found = self.settings["tolerance"], self.differences(checkpoint)
        measured = _prefix(difference.value <= tolerance for difference in found[1:])
        shown_fine = _prefix(difference.has_interval and difference.high <= tolerance for difference in found[1:])
        shown_worse = _prefix(difference.low > tolerance for difference in reversed(found[1:]))
        n = max(difference.n for difference in found[1:])
        value, sizes = self.batch_sizes[measured], self.batch_sizes
        if not any(difference.has_interval for difference in found[1:]):
            return Estimate(value, -math.inf, math.inf, n, NEW_ORDERS)
        high = sizes[len(sizes) - 1 - shown_worse] if shown_worse else math.inf
        return Estimate(value, sizes[shown_fine], high, n, NEW_ORDERS)

    # -- printing --------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s = self.settings
        n_all = (len(s["checkpoints"]) - len(s["lost"])) * len(self.batch_sizes) * s["n_orders"]
        labelled = {
            f"{size:,} {self._at(label)}": difference
            for label in self.checkpoints
            for size, difference in zip(self.batch_sizes[1:], self.differences(label)[1:], strict=True)
        }
        diverged = [name for name, difference in labelled.items() if difference.value == math.inf]
        return [
            *notes.interrupted(self.interrupted, len(self.records), n_all, "branched training"),
            *self._lost(),
            *([f"Some branches diverged and did not catch up: {listed(diverged)}."] if diverged else []),
            *notes.no_interval({name: d for name, d in labelled.items() if math.isfinite(d.value)}),
            *self._at_the_end(),
            *self._out_of_order(),
            "An interval covers new data orders from the same checkpoint. It covers neither other runs nor other "
            "held-out samples.",
            "The two critical batch sizes answer different questions. A branch loses at most "
            f"{100 * s['tolerance']:g} % of the loss over {s['n_samples']:,} samples. At the noise scale, a batch "
            "needs twice the samples for the same progress at the best learning rate (half the efficiency).",
            *self._of_adam(),
        ]

    def _lost(self) -> list[str]:
        s, found = self.settings, []
        if s["lost"]:
            found.append(f"The run diverged before {count(s['lost'][0], s['unit'])}, so there are no later branches.")
        unknown = [label for label in s["checkpoints"] if np.isinf(self._losses[label][0]).any()]
        if unknown:
            where = listed([self._at(label) for label in unknown])
            found.append(f"The unbranched run diverged in some data orders, which are left out: {where}.")
        return found

    def _at_the_end(self) -> list[str]:
        ends = [self._at(label) for label, found in self.estimates.items() if found.value == self.batch_sizes[-1]]
        return [f"The largest tried batch size loses nothing {listed(ends)}: try larger ones."] if ends else []

    def _out_of_order(self) -> list[str]:
        tolerance = self.settings["tolerance"]
        found = [
            self._at(label)
            for label, largest in self.estimates.items()
            for size, difference in zip(self.batch_sizes, self.differences(label), strict=True)
            if size > largest.value and difference.value <= tolerance
        ]
        if not found:
            return []
        return [
            f"A larger batch size caught up although a smaller one did not {listed(list(dict.fromkeys(found)))}. The "
            "losses do not follow the batch size there, and the smaller one counts. Try more orders, or a larger "
            "n_samples."
        ]

    def _of_adam(self) -> list[str]:
        if self.settings.get("sgd", True):
            return []
        return ["The noise scale is that of plain gradient steps. It ignores the preconditioning of the optimiser."]

    def _at(self, checkpoint: Any) -> str:
        unit = self.settings["unit"]
        return f"at {checkpoint}" if unit is None else f"after {count(checkpoint, unit)}"

    def _size(self, found: Estimate) -> str:
        least = "at least " if found.value == self.batch_sizes[-1] else ""
        if not found.has_interval:
            return f"{least}{found.value:,.0f}"
        high = "not bounded" if math.isinf(found.high) else f"{found.high:,.0f}"
        return f"{least}{found.value:,.0f} [{found.low:,.0f}, {high}]"

    def _verdict(self) -> list[str]:
        s = self.settings
        if not self.checkpoints:
            return ["Nothing can be compared, because no branch and its unbranched run have both finished."]
        sizes = [f"{self._size(found)} {self._at(label)}" for label, found in self.estimates.items()]
        said = [
            f"Branches lose nothing over {s['n_samples']:,} samples up to a batch size of {'; '.join(sizes)} (held-out "
            f"loss at most {100 * s['tolerance']:g} % above that of the run with batches of {self.batch_sizes[0]:,})."
        ]
        scales = [f"{_shown(found)} {self._at(label)}" for label, found in self.noise_scales.items()]
        if scales:
            said.append(f"The noise scale, near which a batch needs twice the samples, is {'; '.join(scales)}.")
        return said

    def _head(self) -> list[str]:
        s = self.settings
        rule = {"linear": "k", "sqrt": "the square root of k", None: "1"}[s["lr_scaling"]]
        lines = [
            f"one run with batches of {s['batch_size']:,} and learning rate {s['learning_rate']:g}; branches of "
            f"{s['n_samples']:,} samples with k times the batch size and {rule} times the learning rate; "
            f"{count(s['n_orders'], 'data order')}"
        ]
        if s["unit"] is None:
            return lines
        return [
            f"{s['n_train']:,} training and {s['n_valid']:,} held-out samples",
            *lines,
            *describe_measuring(s),
        ]

    def _table(self) -> list[list[str]]:
        labels = self.checkpoints
        rows = [["", *(self._at(label) for label in labels)]]
        rows.append(["held-out loss, unbranched", *(mean_std(self._losses[label][0], ".4g") for label in labels)])
        for i, size in enumerate(self.batch_sizes[1:], start=1):
            cells = [_percent(self.differences(label)[i]) for label in labels]
            rows.append([f"batches of {size:,}: % more", *cells])
        rows.append(["loses nothing up to (branches)", *(self._size(self.estimates[label]) for label in labels)])
        if self.noise_scales:
            scales = [_shown(self.noise_scales[label]) if label in self.noise_scales else "-" for label in labels]
            rows.append(["twice the samples (noise scale)", *scales])
            rows.append(["noise scale / branches", *(_times(self.ratio(label)) for label in labels)])
        return rows

    def _reading(self) -> list[str]:
        s = self.settings
        kinds = [*(d for label in self.checkpoints for d in self.differences(label)[1:]), *self.noise_scales.values()]
        return [
            "% more: held-out loss at the end of a branch, relative to the unbranched run in the same data order; more "
            f"than {100 * s['tolerance']:g} % counts as a loss",
            "loses nothing up to: the largest batch size up to which no tried one loses; its interval goes from the "
            "largest that is shown to lose nothing to the largest that is not shown to lose",
            *self._interval_lines(kinds),
        ]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        points = []
        for label in self.checkpoints:
            noise = self.noise_scales.get(label)
            points.append(
                {
                    "checkpoint": label,
                    "branched": self.estimates[label].to_dict(),
                    "noise_scale": None if noise is None else noise.to_dict(),
                    "noise_scale_by_branched": self.ratio(label),
                    "differences": {
                        size: difference.to_dict()
                        for size, difference in zip(self.batch_sizes[1:], self.differences(label)[1:], strict=True)
                    },
                }
            )
        return {"batch_sizes": self.batch_sizes, "points": points}

    def plot(self, ax: Any = None) -> "BranchedCriticalBatchSizeDisplay":
        """Draw both critical batch sizes along the run; return a `BranchedCriticalBatchSizeDisplay`."""
        from sklgap.experiments._plot._branched_critical_batch_size import BranchedCriticalBatchSizeDisplay

        return BranchedCriticalBatchSizeDisplay.from_result(self, ax=ax)


def _relative(losses: np.ndarray, unbranched: np.ndarray) -> Estimate:
    """Return the relative excess of losses over those of the unbranched run; infinite if a branch diverged."""
    there = ~np.isnan(losses) & np.isfinite(unbranched)
    ratios = losses[there] / unbranched[there]
    finite = np.isfinite(ratios)
    if finite.all():
        return paired_estimate(ratios, np.ones(len(ratios)), NEW_ORDERS)
    all_of_several = len(ratios) > 1 and not finite.any()
    return Estimate(math.inf, math.inf if all_of_several else math.nan, math.inf, len(ratios), NEW_ORDERS)


def _prefix(right: Iterable[bool]) -> int:
    """Return the number of true values before the first false one."""
    return sum(1 for _ in takewhile(bool, right))


def _shown(found: Estimate) -> str:
    if not found.has_interval:
        return _short(found.value)
    return f"{_short(found.value)} [{_short(max(found.low, 0.0))}, {_short(found.high)}]"


def _short(value: float) -> str:
    """Return a number of samples in three digits."""
    if math.isinf(value):
        return "not bounded"
    return f"{value:.3g}" if value < 100 else f"{float(f'{value:.3g}'):,.0f}"


def _percent(difference: Estimate) -> str:
    if not difference.n:
        return "-"
    if math.isinf(difference.value):
        return "diverged"
    found = difference.scaled(100)
    return found.text("+.2f") if found.has_interval else f"{found.value:+.2f}"


def _times(ratio: float) -> str:
    return "-" if math.isnan(ratio) else _short(float(f"{ratio:.2g}"))
