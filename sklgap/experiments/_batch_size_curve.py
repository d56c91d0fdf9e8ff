"""``batch_size_curve``: test scores and sharpness against batch size (Keskar et al. 2017, Figure 4)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from sklgap._checks import (
    WrongArgument,
    check_arguments,
    check_integer,
    check_positive,
    check_random_state,
    is_flat,
    is_number,
    is_one_of,
    shown,
)
from sklgap._typing import BatchNormPolicy, LRScaling, Solver
from sklgap.experiments import _notes as notes
from sklgap.experiments._cost import measure_cost
from sklgap.experiments._estimate import DEFAULT_MARGIN, Estimate, round_up, smallest_margin
from sklgap.experiments._inputs import check_classifier, check_data, check_keepable, common_settings
from sklgap.experiments._learning_rate_rules import rule_held, tuned_exponents
from sklgap.experiments._protocol import (
    Measurement,
    Measuring,
    Trial,
    draw_different_seeds,
    given_measurement,
    take,
    with_parameters,
)
from sklgap.experiments._records import Records, targets_of
from sklgap.experiments._result import count, mean_std
from sklgap.experiments._run import Finished, interruptible
from sklgap.experiments._scores import Score, Scoring, try_scores
from sklgap.experiments._training_function import (
    agreed,
    check_beside,
    check_calls,
    check_memory_of,
    check_names,
    check_no_rate,
    check_rate,
    check_size,
    function_settings,
    is_training_function,
    run_calls,
    say_cost,
)
from sklgap.experiments._trial_data import Parts, TrialData
from sklgap.experiments._trials import Outcome, run_trials
from sklgap.objective._estimators import final_estimator
from sklgap.regimes import check_batch_size, default_base_batch_size
from sklgap.regimes._base import LARGE_BATCH_FRACTION
from sklgap.regimes._lr_scaling import lr_factor

if TYPE_CHECKING:
    from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay

LR_RULES = ("fixed", *get_args(LRScaling), "tuned")
BUDGETS = ("epochs", "updates", "loss")
# Trials of each learning rate, in addition to the trials of the curve.
TUNING_TRIALS = 2


@interruptible
def batch_size_curve(
    estimator: Any,
    X: Any = None,
    y: Any = None,
    X_test: Any = None,
    y_test: Any = None,
    *,
    batch_sizes: Sequence[int | float] | None = None,
    reference: int | float | None = None,
    lr: Literal["fixed", "sqrt", "linear", "sde", "tuned"] = "fixed",
    learning_rate: float | None = None,
    learning_rates: Sequence[float] = (3e-4, 1e-3, 3e-3, 1e-2),
    budget: Literal["epochs", "updates", "loss"] = "epochs",
    n_trials: int = 5,
    validation_fraction: float = 0.1,
    epsilon: float | Sequence[float] = (1e-3,),
    subspace_dims: Sequence[int | None] = (None,),
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = 10_000,
    solver: Solver = "auto",
    scoring: Scoring = None,
    measurement: Measurement | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    memory: str | Path | None = None,
    verbose: int = 1,
) -> "BatchSizeCurve":
    """Measure accuracy and sharpness against batch size, with trainings from the same starting points.

    A part of the training data is held out once as validation data. All choices use the validation data alone: the
    choice of learning rates here, and the choice of the batch size by `largest_safe_batch_size`. Scores on X_test are
    only reported.

    Parameters
    ----------
    estimator : LBGapClassifier, a pipeline that ends in one, or a function
        Estimator that is cloned for every fit. The parameters below set its ``batch_size``, ``batch_regime``,
        ``base_batch_size``, ``lr_scaling`` and ``regime_adaptation``. Or your own training loop, in any library: a
        function ``train(batch_size, learning_rate, random_state)``; see Notes.
    X, y : array-like
        Training data, of which ``validation_fraction`` is held out. None for a function, which has its own data.
    X_test, y_test : array-like
        Test data. Every fitted model is evaluated on them once; no choice uses them. None for a function.
    batch_sizes : sequence of int or float, default=None
        Batch sizes as numbers of samples, at most the number of training samples, or as fractions of it. None means
        ``"SB"`` (256 samples, or n // 40 for few data), doubled up to twice ``"LB"``, that is, up to 20 % of the
        training samples. A function needs integers.
    reference : int or float, default=None
        One of ``batch_sizes``, with which the others are compared. None means the smallest one.
    lr : {"fixed", "sqrt", "linear", "sde", "tuned"}, default="fixed"
        Rule for the learning rate. ``"fixed"``: the ``lr`` of the estimator for all batch sizes (Keskar et al.).
        ``"sqrt"``, ``"linear"``, and for Adam ``"sde"``: the ``lr`` of the estimator at the reference, scaled by this
        ``lr_scaling`` for the other batch sizes. ``"tuned"``: for each batch size, the one of ``learning_rates`` with
        the best mean validation score over two seeds that the curve does not use. The notes of the result say for
        which batch sizes a rule held, or which power of the batch size the tuned rates follow.
    learning_rate : float, default=None
        Learning rate of a function at the reference batch size. None means that the function is called without one.
        An estimator has its own ``lr``.
    learning_rates : sequence of float, default=(3e-4, 1e-3, 3e-3, 1e-2)
        Learning rates to choose from with ``lr="tuned"``. The default is made for ADAM.
    budget : {"epochs", "updates", "loss"}, default="epochs"
        How long each batch size trains. ``"epochs"``: ``max_epochs`` epochs. ``"updates"``: as many updates as the
        reference makes in these epochs (``regime_adaptation``: Hoffer et al., Section 5). ``"loss"``: until the
        ``target_loss`` of the estimator, within ``max_epochs`` and without ``tol``.
    n_trials : int, default=5
        Number of paired trials (5 in Keskar et al.). In trial i, all batch sizes start from the same weights.
    validation_fraction : float, default=0.1
        Fraction of the training data that is held out, stratified by class. At least one sample of every class remains
        for training. `largest_safe_batch_size` needs at least 5 / margin held-out samples, which is 1,000 for a margin
        of half a point.
    epsilon, subspace_dims, batch_norm, max_samples, solver, scoring : see `Measurement`
        What is measured on every model.
    measurement : Measurement, default=None
        All of these parameters in one object.
    random_state : int, RandomState or None, default=None
        Source of all random numbers. An int makes the result repeatable.
    n_jobs : int or None, default=None
        Number of fits that run at the same time, as in scikit-learn.
    memory : str, Path or None, default=None
        Folder in which finished work is saved, and from which it is loaded in the next run.
    verbose : int, default=1
        0 is silent; 1 prints the expected cost and shows a progress bar. `sklgap.experiments` explains these four
        parameters.

    Returns
    -------
    BatchSizeCurve
        The curve; ``print`` shows it as a table. After Ctrl-C it holds the fits that finished, including the fits that
        choose learning rates.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values. This is raised before anything is trained.
    TypeError
        If the estimator is neither an `LBGapClassifier`, nor ends in one, nor is a function.

    See Also
    --------
    largest_safe_batch_size : The largest batch size that loses less than a margin.
    sklgap.critical_batch_size : The batch size beyond which larger batches save few updates (speed, not accuracy).

    Notes
    -----
    In a fixed number of epochs, a larger batch makes fewer updates. Part of its loss may come from that: compare the
    training losses, and see ``budget``.

    The cost is ``len(batch_sizes) * n_trials`` fits. Every fit has one measurement of sharpness for each dimension and
    epsilon. ``lr="tuned"`` needs two more fits for each batch size and learning rate.

    A training function is called with the keyword arguments ``batch_size``, ``random_state`` and, if a learning rate is
    given or tried, ``learning_rate``. It trains once and returns the score of the model on validation samples, where
    larger is better:

    * a number;
    * a dict of numbers by name. ``scoring`` names the score, unless there is only one number. Under ``"correct"`` the
      dict may hold one True or False for each validation sample, in the same order in all calls. Accuracy, the mean of
      these values, is then the score, and intervals cover new seeds and new samples. Without ``"correct"``, intervals
      cover new seeds only. Other numbers are recorded; ``"train_loss"``, ``"n_updates"`` and ``"converged"`` appear in
      the same columns and notes as for an estimator;
    * a tuple of a model and either of these. The models are then in ``estimators_``.

    A score that is not finite means that the training diverged. An exception ends the curve. Two conditions cannot be
    checked, and the notes of the result name them: the initial weights and the order of the samples must come from
    ``random_state`` alone, which pairs the trials, and the function must not train on the validation samples.
    ``memory`` saves the scores of a function, not its models. It needs a function whose code, and everything that the
    code reads except files, can be identified. For a loaded training, ``estimators_`` has None.

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
    ...     batch_sizes=[20, 200], n_trials=2, epsilon=[], random_state=0, verbose=0)
    >>> curve.batch_sizes
    [20, 200]
    >>> bool(curve.values(20, "test_accuracy").mean() > curve.values(200, "test_accuracy").mean())
    True

    The same with your own training loop:

    >>> import numpy as np
    >>> def train(batch_size, learning_rate, random_state):
    ...     rng = np.random.RandomState(random_state)
    ...     w = np.zeros((64, 10))
    ...     for rows in np.array_split(rng.permutation(900), 900 // batch_size):
    ...         p = np.exp(X[rows] @ w / 16)
    ...         p /= p.sum(axis=1, keepdims=True)
    ...         w -= learning_rate * X[rows].T @ (p - np.eye(10)[y[rows]]) / len(rows) / 16
    ...     return {"correct": (X[900:] @ w).argmax(axis=1) == y[900:]}
    >>> curve = batch_size_curve(
    ...     train, batch_sizes=[20, 200], learning_rate=0.5, n_trials=3, random_state=0, verbose=0)
    >>> bool(curve.gap(200).low > 0)
    True
    """
    check_arguments(batch_size_curve, locals())
    if is_training_function(estimator):
        return _curve_of_function(estimator, locals())
    check_no_rate(learning_rate)
    measurement = given_measurement(batch_size_curve, locals())
    classifier = check_classifier(estimator)
    rates = _check_rules(lr, learning_rates, budget, classifier)
    check_integer("n_trials", n_trials)
    check_keepable(memory, random_state)
    X, y, X_test, y_test = check_data(X, y, X_test, y_test)
    rng = check_random_state(random_state)
    train, valid = _hold_out(X, y, validation_fraction, rng)
    sizes = _check_sizes(batch_sizes, len(train[1]))
    base = _check_reference(reference, sizes, len(train[1]))
    seeds = draw_different_seeds(n_trials + TUNING_TRIALS, rng)
    seeds, tuning_seeds = seeds[:n_trials], seeds[n_trials:] if lr == "tuned" else []
    measuring = measurement.settle(len(train[1]), rng)
    for judged in (valid[1], y_test):
        try_scores(measuring.scores, judged, train[1])
    parameters = {size: _parameters(size, base, lr, budget) for size in sizes}
    settings = {
        "n_train": len(train[1]),
        "n_valid": len(valid[1]),
        "n_test": len(y_test),
        "n_trials": int(n_trials),
        "batch_sizes": sizes,
        "reference": str(base),
        "lr": lr,
        "learning_rates": rates,
        "budget": budget,
        "max_epochs": classifier.max_epochs,
        "target_loss": classifier.target_loss if budget == "loss" else None,
        **measuring.settings(),
        "tuning_seeds": tuning_seeds,
        **common_settings(estimator, random_state),
    }
    parts: Parts = {"train": train, "valid": valid, "test": (X_test, y_test)}
    if verbose:
        n_tuning = len(rates) * len(tuning_seeds)
        settings["cost"] = _say_cost(estimator, parameters, parts, measuring, n_trials, n_tuning, n_jobs)
    options: dict[str, Any] = {"n_jobs": n_jobs, "verbose": verbose, "memory": memory}
    targets = targets_of(parts)
    data = TrialData.prepared(
        parts,
        estimator,
        {"lr", *(name for own in parameters.values() for name in own)},
        hashed=memory is not None,
        scored=any(score.scorer is not None for score in measuring.scores),
        left_out="test" if tuning_seeds else None,
    )
    found = _train_sizes(
        parameters,
        seeds,
        lambda trials: run_trials(estimator, trials, data, measuring, **options),
        rates=rates,
        tuning_seeds=tuning_seeds,
        try_rates=lambda trials: _run_tuning(estimator, trials, data, measuring, options),
    )
    own_rates = {str(size): _rate(estimator, own, size, base) for size, own in found.parameters.items()}
    outcomes = [o._replace(record={**o.record, "lr": own_rates[o.record["regime"]]}) for o in found.outcomes]
    return BatchSizeCurve(
        outcomes, settings, found.interrupted, tuning=found.tuning, targets=targets, scores=measuring.scores
    )


def _curve_of_function(train: Any, given: dict[str, Any]) -> "BatchSizeCurve":
    """Return the curve of a training function; ``given`` are all arguments of `batch_size_curve`."""
    lr, memory, random_state = given["lr"], given["memory"], given["random_state"]
    check_beside(batch_size_curve, given, ("batch_sizes", "reference", "lr", "learning_rates"))
    rates = _check_rates(lr, given["learning_rates"])
    names = check_names(given["scoring"])
    check_integer("n_trials", given["n_trials"])
    check_keepable(memory, random_state)
    sizes = _check_sizes_of_function(given["batch_sizes"])
    base = sizes[0] if given["reference"] is None else check_size("reference", given["reference"])
    _check_among(base, sizes, base)
    own_rates = _rates_of_function(lr, given["learning_rate"], sizes, base)
    parameters = {size: {"batch_size": size, **own_rates[size]} for size in sizes}
    arguments = {**parameters[base], **({"learning_rate": rates[0]} if rates else {}), "random_state": 0}
    check_calls(train, arguments)
    if memory is not None:
        check_memory_of(train, arguments)
    seeds = draw_different_seeds(given["n_trials"] + TUNING_TRIALS, check_random_state(random_state))
    seeds, tuning_seeds = seeds[: given["n_trials"]], seeds[given["n_trials"] :] if rates else []
    settings: dict[str, Any] = {
        "n_trials": int(given["n_trials"]),
        "batch_sizes": sizes,
        "reference": str(base),
        "lr": lr,
        "learning_rates": rates,
        "tuning_seeds": tuning_seeds,
        **function_settings(train, random_state),
    }
    if given["verbose"]:
        settings["cost"] = say_cost(train, len(sizes) * (len(seeds) + len(rates) * len(tuning_seeds)))
    options: dict[str, Any] = {"n_jobs": given["n_jobs"], "verbose": given["verbose"], "memory": memory}
    found = _train_sizes(
        parameters,
        seeds,
        lambda trials: run_calls(train, trials, names, **options),
        rates=rates,
        tuning_seeds=tuning_seeds,
        try_rates=lambda trials: run_calls(train, trials, names, keep_models=False, **options),
        rate_name="learning_rate",
    )
    scores, n_valid = agreed([*found.tried, *found.outcomes])
    settings |= {"n_valid": n_valid, "scores": [score.name for score in scores]}
    return BatchSizeCurve(found.outcomes, settings, found.interrupted, tuning=found.tuning, scores=scores)


def _check_sizes_of_function(batch_sizes: Any) -> list[int]:
    if isinstance(batch_sizes, str) or not is_flat(batch_sizes) or not len(batch_sizes):
        raise WrongArgument(
            "batch_sizes must be a sequence of integers for a training function, because its number of samples is not "
            f"known; got {shown(batch_sizes)}."
        )
    sizes = sorted(check_size("batch_sizes", size) for size in batch_sizes)
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"batch_sizes must all be different; got {shown(batch_sizes)}.")
    return sizes


def _rates_of_function(lr: str, learning_rate: Any, sizes: Sequence[int], base: int) -> dict[int, dict[str, float]]:
    """Return the learning rate that a function receives at each batch size; nothing if it has its own."""
    check_rate(learning_rate)
    if lr == "tuned" and learning_rate is not None:
        raise WrongArgument(
            f"learning_rate must be None with lr='tuned', which tries learning_rates instead; got {learning_rate}."
        )
    if lr == "sde":
        raise WrongArgument("lr must not be 'sde' for a function, because it receives no betas. Use 'sqrt'.")
    if lr in ("sqrt", "linear") and learning_rate is None:
        raise WrongArgument(
            f"learning_rate must be the learning rate at the reference, {base}, with lr={lr!r}; got None."
        )
    if learning_rate is None:
        return {size: {} for size in sizes}
    rules: dict[str, Literal["sqrt", "linear"]] = {"sqrt": "sqrt", "linear": "linear"}
    return {size: {"learning_rate": float(learning_rate * lr_factor(rules.get(lr), size, base))} for size in sizes}


def _say_cost(
    estimator: Any,
    parameters: dict[int, dict[str, Any]],
    parts: Parts,
    measuring: Measuring,
    n_trials: int,
    n_tuning: int,
    n_jobs: int | None,
) -> dict[str, Any]:
    """Print and return the expected cost of the curve, with ``n_tuning`` more fits for each batch size."""
    n_valid = len(parts["valid"][1])
    cost = measure_cost(
        estimator,
        {f"batches of {size:,}": own for size, own in parameters.items()},
        n_trials,
        parts["train"],
        n_evaluated=n_valid + len(parts["test"][1]),
        measuring=measuring,
        n_more_fits=n_tuning,
        n_jobs=n_jobs,
    )
    print(cost, *notes.resolution(n_valid, measuring.scores[0]), sep="\n")
    return asdict(cost)


Runner = Callable[[list[Trial]], Finished[Outcome]]


class _Trained(NamedTuple):
    """The trainings of all batch sizes. ``tried`` and ``tuning`` hold the trainings that choose learning rates."""

    outcomes: list[Outcome]
    tried: list[Outcome]
    tuning: list[dict[str, Any]]
    parameters: dict[int, dict[str, Any]]
    interrupted: bool


def _train_sizes(
    parameters: dict[int, dict[str, Any]],
    seeds: Sequence[int],
    train: Runner,
    *,
    rates: Sequence[float],
    tuning_seeds: Sequence[int],
    try_rates: Runner,
    rate_name: str = "lr",
) -> _Trained:
    """Choose a learning rate for every batch size if there are several, and train all batch sizes.

    Raises KeyboardInterrupt if nothing finished.
    """
    tried: list[Outcome] = []
    tuning: list[dict[str, Any]] = []
    outcomes: list[Outcome] = []
    interrupted = False
    if rates:
        settings = {f"{size}, lr {rate:g}": (size, rate) for size in parameters for rate in rates}
        tried, interrupted = try_rates(
            [
                Trial(label, {**parameters[size], rate_name: rate}, trial, seed)
                for trial, seed in enumerate(tuning_seeds)
                for label, (size, rate) in settings.items()
            ]
        )
        tuning = [_tuning_record(outcome, *settings[outcome.record["regime"]]) for outcome in tried]
        tuning.sort(key=lambda record: (record["batch_size"], record["lr"], record["trial"]))
    if rates and not interrupted:
        score = tried[0].scores[0].name
        of_size = _grouped(tuning, "batch_size")
        parameters = {size: {**own, rate_name: _best_rate(of_size[size], score)} for size, own in parameters.items()}
    if not interrupted:
        outcomes, interrupted = train(
            [Trial(str(size), own, trial, seed) for trial, seed in enumerate(seeds) for size, own in parameters.items()]
        )
    if not (tried or outcomes):
        raise KeyboardInterrupt
    return _Trained(outcomes, tried, tuning, parameters, interrupted)


_BUDGETS = {
    "epochs": "{max_epochs} epochs for every batch size",
    "updates": "for every batch size as many updates as the reference makes in {max_epochs} epochs",
    "loss": "until a training loss of {target_loss}, within {max_epochs} epochs",
}
_RATES = {
    "fixed": "the same for all batch sizes",
    "sqrt": "grows with the square root of the batch size",
    "linear": "grows in proportion to the batch size",
    "sde": "grows with the square root of the batch size, and Adam's betas and eps with it",
    "tuned": "chosen for each batch size on the validation data, with seeds that the trials below do not use",
}


class BatchSizeCurve(Records):
    """Result of `batch_size_curve`; ``print`` shows it.

    Attributes
    ----------
    batch_sizes : list of int
        In ascending order.
    reference : int
        The batch size that the others are compared with.
    records : list of dict
        One per finished fit; ``regime`` is the batch size as text. Accuracies are fractions, sharpness is in percent,
        times are in seconds.
    tuning : list of dict
        One record per fit that was used to choose a learning rate: ``batch_size``, ``lr``, ``valid_accuracy`` and more.
    settings : dict
        What was trained and measured. ``settings["cost"]`` is the expected cost of the curve, if it was estimated.
    estimators_ : dict of lists
        Fitted estimators by batch size, such as ``estimators_[512]``, in the order of the trials. For a function, the
        models that it returned, or None.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        settings: dict[str, Any],
        interrupted: bool = False,
        *,
        tuning: list[dict[str, Any]] | None = None,
        targets: dict[str, np.ndarray] | None = None,
        scores: Sequence[Score] = (Score("accuracy"),),
    ) -> None:
        self.batch_sizes: list[int] = list(settings["batch_sizes"])
        self.reference = int(settings["reference"])
        self.tuning = tuning or []
        labels = [str(size) for size in self.batch_sizes]
        super().__init__(outcomes, labels, settings, interrupted, targets=targets, scores=scores)

    def quantity(self, name: str) -> np.ndarray:
        """Return one quantity, an array of shape (n_sizes, n_trials), with NaN for fits that did not finish."""
        return np.array([self.by_trial(size, name) for size in self.batch_sizes])

    # -- printing --------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s, gaps, score, called = self.settings, self.gaps(), self.scores[0].name, "batches of {}"
        with_losses = gaps if self.has("train_loss") else {}
        losses = {label: self.paired(self.reference, label, "train_loss") for label in with_losses}
        return [
            *self._interrupted(),
            *notes.not_converged(self._by_label("converged", called), target=s["budget"] == "loss"),
            *notes.diverged(self._by_label("train_loss", called)),
            *notes.left_out(self._by_label(f"{self.judged}_{score}", called), score),
            *notes.unequal_losses(f"batches of {self.reference}", losses),
            *notes.majority(self),
            *notes.rates_at_the_edge({size: lr[0] for size, lr in self._by_label("lr").items()}, s["learning_rates"]),
            *self._rules(),
            *notes.training_function(self),
            *notes.no_interval(gaps),
            *notes.seeds_only(gaps),
            *notes.several_intervals(len(gaps)),
            *(notes.resolution(s["n_valid"], self.scores[0]) if len(self.batch_sizes) > 1 else []),
        ]

    def _rules(self) -> list[str]:
        """Report whether the rule for the learning rate held, or which rule the tuned rates follow."""
        lr = self.settings["lr"]
        if lr == "tuned":
            rates = {size: rate[0] for size, rate in self._by_label("lr").items()}
            return tuned_exponents(rates, self.settings["learning_rates"])
        return rule_held(lr, self.gaps(), is_fraction=self.scores[0].is_fraction)

    def _interrupted(self) -> list[str]:
        s = self.settings
        n_tuning = len(s["learning_rates"]) * len(s["tuning_seeds"]) * len(self.batch_sizes)
        if self.interrupted and len(self.tuning) < n_tuning:
            return [
                f"Interrupted while learning rates were tried: {len(self.tuning)} of {n_tuning} of these fits finished "
                "(see the attribute tuning), and no trial started."
            ]
        return notes.interrupted(self.interrupted, len(self.records), s["n_trials"] * len(self.labels))

    def _verdict(self) -> list[str]:
        gaps = {label: gap for label, gap in self.gaps().items() if not np.isnan(gap.value)}
        if not gaps:
            return ["No trial finished for the reference and for another batch size, so nothing can be compared."]
        label, gap = list(gaps.items())[-1]
        data = " on test data" if self.judged == "test" else ""
        sentence = (
            f"Batches of {int(label):,} score {self._apart(gap)} batches of {self.reference:,}{data}, over "
            f"{count(gap.n, 'trial')}{self._doubt(gap)}"
        )
        for key, name in list(self.sharpness_names().items())[:1]:
            one, other = self.paired(self.reference, label, key)
            finite = np.isfinite(one) & np.isfinite(other)
            if finite.any():
                sentence += f"; {name} is {other[finite].mean():.3g} % instead of {one[finite].mean():.3g} %"
        return [sentence + "."]

    def _head(self) -> list[str]:
        s = self.settings
        lines = [self._data_line()]
        if self.has("lr"):
            lines.append(f"learning rate (lr={s['lr']!r}): {_RATES[s['lr']]}")
        if s["budget"] is not None:
            lines.append(f"budget (budget={s['budget']!r}): {_BUDGETS[s['budget']].format(**s)}")
        return [*lines, *self._measured_lines()]

    def _table(self) -> list[list[str]]:
        columns = [
            ("lr", "lr", lambda v: f"{v[0]:.3g}"),
            ("updates", "n_updates", lambda v: f"{v.mean():,.0f}"),
            ("train loss", "train_loss", lambda v: mean_std(v, ".1e")),
            *self._score_columns(("train", "valid", "test")),
            *self._sharpness_columns(),
            ("s to fit", "fit_seconds", lambda v: f"{v.mean():.1f}"),
        ]
        columns = [column for column in columns if self.has(column[1])]
        gaps: dict[str, dict[str, Estimate]] = {score.name: self.gaps(score.name) for score in self.scores}
        of_gaps = ["regime gap" + (" (points)" if score.in_points else f", {score.name}") for score in self.scores]
        rows = [["batch size", *(name for name, _, _ in columns), *of_gaps, "worst trial"]]
        for label in self.done:
            cells = [show(self.values(label, key)) for _, key, show in columns]
            shown = [self._shown_gap(gaps[s.name][label], s) if label in gaps[s.name] else "" for s in self.scores]
            if int(label) == self.reference:
                shown[0] = "reference"
            rows.append([f"{int(label):,}", *cells, *shown, self._worst(label)])
        return rows

    def _worst(self, label: str) -> str:
        if int(label) == self.reference or not len(self.paired(self.reference, label, "trial")[0]):
            return ""
        return self._shown_worst(label, self.scores[0])

    def _reading(self) -> list[str]:
        gaps = self.gaps()
        if not gaps:
            return []
        return [
            f"regime gap: {self.judged_part} score of the reference minus that of the batch size, negative if the "
            "batch size is better; worst trial: the largest loss in a single trial",
            *self._interval_lines([gap for score in self.scores for gap in self.gaps(score.name).values()]),
        ]

    def _next_call(self) -> list[str]:
        """Return a line with the call that finds the safe batch size, with a margin that the samples can show."""
        if not self.gaps() or self.settings["n_trials"] == 1:
            return []
        if not self.scores[0].is_fraction:
            call = "largest_safe_batch_size(curve, margin=...), in the units of the score"
        else:
            smallest = round_up(smallest_margin(self.settings["n_valid"]))
            call = "largest_safe_batch_size(curve)"
            if smallest > DEFAULT_MARGIN:
                call = f"largest_safe_batch_size(curve, margin={smallest:g}), or give a larger margin"
        return [f"To find the largest safe batch size, call {call}."]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        return {**super()._statistics(), "tuning": self.tuning}

    def plot(self, ax: Any = None, *, safe: Any = None) -> "BatchSizeCurveDisplay":
        """Draw Figure 4 of Keskar et al.; return a `BatchSizeCurveDisplay`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        safe : int or SafeBatchSize, default=None
            Batch size to mark.
        """
        from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay

        return BatchSizeCurveDisplay.from_curve(self, ax=ax, safe=safe)


def ladder(n_samples: int) -> list[int]:
    """Return the small batch size, doubled up to twice the large one; at least two batch sizes if the data allow it."""
    size = default_base_batch_size(n_samples)
    sizes = [size]
    while 2 * sizes[-1] <= max(2 * LARGE_BATCH_FRACTION * n_samples, 2 * size) and 2 * sizes[-1] <= n_samples:
        sizes.append(2 * sizes[-1])
    return sizes


def _parameters(size: int, reference: int, lr: str, budget: str) -> dict[str, Any]:
    """Return the parameters of the classifier for a batch size."""
    scaling: dict[str, Any] = {"lr_scaling": lr if lr in get_args(LRScaling) else None}
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


def _run_tuning(
    estimator: Any, trials: Sequence[Trial], data: TrialData, measuring: Measuring, options: dict[str, Any]
) -> Finished[Outcome]:
    """Run the trials that choose learning rates, without the test data."""
    scores_alone = replace(measuring, epsilons=(), subspace_dims=())
    return run_trials(estimator, trials, data.without("test"), scores_alone, keep_estimators=False, **options)


def _tuning_record(outcome: Outcome, size: int, rate: float) -> dict[str, Any]:
    names = ["trial", "seed", "train_loss", "n_updates", "fit_seconds", "valid_accuracy", "valid_loss"]
    names += [f"valid_{score.name}" for score in outcome.scores]
    known = {name: outcome.record[name] for name in names if name in outcome.record}
    return {"batch_size": size, "lr": rate, **known}


def _best_rate(tuning: list[dict[str, Any]], score: str = "accuracy") -> float:
    """Return the learning rate with the best mean validation score; among equal ones, that of the smallest loss.

    ``tuning`` holds the records of one batch size. If a training function returns no loss, the smallest of equal rates
    is returned.
    """
    of_rate = _grouped(tuning, "lr")
    rates = sorted(of_rate)
    values, loss = (
        [np.mean([record.get(key, 0.0) for record in of_rate[rate]]) for rate in rates]
        for key in (f"valid_{score}", "valid_loss")
    )
    return rates[np.lexsort((loss, -np.nan_to_num(values, nan=-np.inf)))[0]]


def _grouped(records: list[dict[str, Any]], name: str) -> dict[Any, list[dict[str, Any]]]:
    """Return the records grouped by their value of ``name``."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record[name], []).append(record)
    return found


def _rate(estimator: Any, parameters: dict[str, Any], size: int, reference: int) -> float:
    """Return the learning rate of a batch size, before milestones and schedulers."""
    lr = parameters.get("lr", final_estimator(estimator).lr)
    return float(lr * lr_factor(parameters["lr_scaling"], size, reference))


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_rules(lr: Any, learning_rates: Any, budget: Any, classifier: Any) -> list[float]:
    rates = _check_rates(lr, learning_rates)
    _check_choice("budget", budget, BUDGETS)
    if budget == "loss" and (not is_number(classifier.target_loss) or classifier.target_loss <= 0):
        raise ValueError(
            f"target_loss of the estimator must be a number above 0 with budget='loss'; got {classifier.target_loss!r}."
        )
    check_positive("lr of the estimator", classifier.lr)
    check_integer("max_epochs", classifier.max_epochs)
    with_parameters(classifier, _parameters(2, 2, lr, budget))
    return rates


def _check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if not is_one_of(value, allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {shown(value)}.")


def _check_rates(lr: Any, learning_rates: Any) -> list[float]:
    """Return the learning rates to choose from; an empty list if they are not tuned."""
    _check_choice("lr", lr, LR_RULES)
    if (
        not is_flat(learning_rates)
        or not len(learning_rates)
        or not all(is_number(rate) and rate > 0 for rate in learning_rates)
    ):
        raise ValueError(f"learning_rates must be a sequence of numbers above 0; got {learning_rates!r}.")
    if len({float(rate) for rate in learning_rates}) < len(learning_rates):
        raise ValueError(f"learning_rates must all be different; got {learning_rates!r}.")
    return [float(rate) for rate in learning_rates] if lr == "tuned" else []


def _check_sizes(batch_sizes: Any, n_samples: int) -> list[int]:
    if batch_sizes is None:
        return ladder(n_samples)
    if isinstance(batch_sizes, str) or not is_flat(batch_sizes) or not len(batch_sizes):
        raise ValueError(f"batch_sizes must be None or a sequence of batch sizes; got {batch_sizes!r}.")
    sizes = sorted(check_batch_size(size, n_samples, "batch_sizes") for size in batch_sizes)
    if max(batch_sizes) > n_samples:
        raise ValueError(f"batch_sizes must be at most the {n_samples} training samples; got {batch_sizes!r}.")
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"batch_sizes must all be different; got {batch_sizes!r}.")
    return sizes


def _check_reference(reference: Any, sizes: list[int], n_samples: int) -> int:
    if reference is None:
        return sizes[0]
    size = check_batch_size(reference, n_samples, "reference")
    _check_among(size, sizes, reference)
    return size


def _check_among(size: int, sizes: list[int], reference: Any) -> None:
    if size not in sizes:
        raise ValueError(f"reference must be one of the batch sizes, {', '.join(map(str, sizes))}; got {reference!r}.")


def _hold_out(X: Any, y: Any, fraction: Any, rng: np.random.RandomState) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return training and validation data. The training data have every class; the classes are split in proportion."""
    labels, n = np.asarray(y), len(y)
    if not is_number(fraction) or not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be a number above 0 and below 1; got {fraction!r}.")
    if labels.ndim != 1:
        raise ValueError(f"y must have one label per sample; got an array of shape {labels.shape}.")
    order = rng.permutation(n)
    classes, first = np.unique(labels[order], return_index=True)
    n_valid = round(float(fraction) * n)
    if not 2 <= n_valid <= n - max(2, len(classes)):
        raise ValueError(
            "validation_fraction must leave at least 2 validation samples and one training sample of each class; "
            f"got {fraction!r} of {n} samples."
        )
    rest = np.delete(order, first)
    held_out = np.zeros(n, dtype=bool)
    held_out[rest[np.argsort(_share_before(labels[rest]), kind="stable")][:n_valid]] = True
    train, valid = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return (take(X, train), take(y, train)), (take(X, valid), take(y, valid))


def _share_before(labels: np.ndarray) -> np.ndarray:
    """Return for each sample the share of its class that comes before it.

    The samples with the smallest shares have all classes in proportion.
    """
    share = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        share[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return share
