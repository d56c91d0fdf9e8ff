"""``explain_gap``: why the large batch loses accuracy, by removing causes one at a time over paired trials."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sklgap._checks import WrongArgument, check_arguments, check_random_state, is_one_of, shown
from sklgap._typing import BatchNormPolicy, Solver
from sklgap.experiments import _notes as notes
from sklgap.experiments._cost import time_steps
from sklgap.experiments._estimate import Estimate
from sklgap.experiments._inputs import (
    check_classifier,
    check_data,
    check_keepable,
    described,
    without_head,
)
from sklgap.experiments._paired_trials import run_paired_trials
from sklgap.experiments._protocol import Measurement, Trial, draw_seeds, given_measurement
from sklgap.experiments._records import Records
from sklgap.experiments._result import count, listed, mean_std
from sklgap.experiments._run import interruptible
from sklgap.experiments._scores import Scoring
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
from sklgap.objective._batch_norm import batch_norm_layers
from sklgap.objective._estimators import final_estimator
from sklgap.regimes import check_batch_regime
from sklgap.regimes._lr_scaling import lr_factor
from sklgap.training import WeightAveraging
from sklgap.training._averaging import Averaging

if TYPE_CHECKING:
    from sklgap.experiments._plot._explain_gap import GapExplanationDisplay

# Possible causes of the loss of a large batch, in the order in which they are removed.
CAUSES = ("fewer updates", "learning rate", "batch norm", "last weights")
SMALL, LARGE = "small batch", "large batch"
NOT_EXPLAINED = "not explained"
# Parameters that `explain_gap` sets for all trainings, so that no cause may set them.
_OF_ALL_ARMS = ("batch_size", "batch_regime", "base_batch_size", "random_state")
_OF_ALL_CALLS = ("batch_size", "random_state")


@interruptible
def explain_gap(
    estimator: Any,
    X: Any = None,
    y: Any = None,
    X_test: Any = None,
    y_test: Any = None,
    *,
    small: str | int | float = "SB",
    large: str | int | float = "LB",
    causes: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    learning_rate: float | None = None,
    n_trials: int = 5,
    epsilon: float | Sequence[float] = (),
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
) -> "GapExplanation":
    r"""Split the score that a large batch loses into parts: fewer updates, learning rate, batch norm, last weights.

    The estimator is trained with the small batch and with the large batch, from the same starting points. Then the
    causes are removed from the large-batch training, one after the other. The part of the gap that remains after all
    removals is "not explained". Each cause is also removed alone, because its effect may depend on the others.

    Parameters
    ----------
    estimator : LBGapClassifier, a pipeline that ends in one, or a function
        Estimator that is cloned for every fit, with your training settings except the batch size. Or your own training
        loop: a function ``train(batch_size, random_state, ...)`` that returns validation scores; see
        `batch_size_curve`.
    X, y : array-like
        Training data. None for a function, which has its own data.
    X_test, y_test : array-like
        Test data. Every fitted model is evaluated on them once. None for a function.
    small, large : "SB", "LB", int or float, default="SB", "LB"
        The ``batch_regime`` of the small and of the large batch, which must be constant batch sizes. A function needs
        integers.
    causes : sequence of str, dict of str to dict, or None, default=None
        The causes to remove, in this order.

        * ``"fewer updates"``: the large batch gets a budget of as many updates as the small batch
          (``regime_adaptation``: Hoffer et al., Section 5). A stopping rule may end either training earlier.
        * ``"learning rate"``: the learning rate is scaled by the square root of the batch size (``lr_scaling="sqrt"``:
          Hoffer et al., Section 4.1).
        * ``"batch norm"``: batch norm uses statistics of as many samples as the small batch has (``ghost_batch_size``:
          Hoffer et al., Section 4.2).
        * ``"last weights"``: the final weights are the average over the last quarter of the training
          (`sklgap.WeightAveraging`).

        None means those of the four that can be removed; the notes name the others, for example causes that the
        parameters of the estimator already remove. Or a dict from your own names to parameters of the classifier that
        remove a cause. Only one cause may set a parameter, except that the callbacks of several causes add up. A
        function needs a dict from names to arguments that remove a cause (``{"fewer updates": {"epochs": 320}}``), or
        ``["learning rate"]``.
    learning_rate : float, default=None
        Learning rate that a function receives in all trainings, unless a cause sets another one. The named cause
        ``"learning rate"`` scales it by the square root of large / small. None means that the function is called
        without one. An estimator has its own ``lr``.
    n_trials : int, default=5
        Number of paired trials. In a trial, all fits start from the same weights.
    epsilon, subspace_dims, batch_norm, max_samples, solver, scoring : see `Measurement`
        What is measured on every model. By default, sharpness is not measured here.
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
    GapExplanation
        The parts of the gap. ``print`` shows them as a table, and ``plot()`` draws a waterfall chart. After Ctrl-C it
        holds the fits that finished.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values. This is raised before anything is trained.
    TypeError
        If the estimator is neither an `LBGapClassifier`, nor ends in one, nor is a function.

    See Also
    --------
    compare_regimes : Compares any settings side by side.

    Notes
    -----
    Let :math:`s_0` be the score of the large batch, :math:`s_k` its score with the first k of K causes removed, and s
    the score of the small batch. The gap is a sum without a remainder:

    .. math:: s - s_0 = \sum_k (s_k - s_{k-1}) + (s - s_K)

    Each part is a mean over paired trials with its own interval. All parts use the same trials, which are those with a
    score at every step. The parts depend on the order of the causes; their sum does not.

    The cost is ``n_trials * (1 + 2 * len(causes))`` fits. Fits with as many updates as the small batch take the longest
    time.

    References
    ----------
    Hoffer, Hubara and Soudry, Train longer, generalize better, NeurIPS 2017.

    Examples
    --------
    >>> from sklgap import LBGapClassifier, explain_gap
    >>> from sklgap.datasets import make_mnist1d
    >>> X, y = make_mnist1d(600, random_state=0)
    >>> model = LBGapClassifier(module__width=16, max_epochs=6, tol=None)
    >>> found = explain_gap(
    ...     model, X[:300], y[:300], X[300:], y[300:], small=10, large=100, causes=["fewer updates", "learning rate"],
    ...     n_trials=2, random_state=0, verbose=0)
    >>> parts = found.parts()
    >>> list(parts)
    ['fewer updates', 'learning rate', 'not explained']
    >>> bool(abs(sum(part.value for part in parts.values()) - found.total().value) < 1e-12)
    True

    The same with your own training loop, here for least squares:

    >>> import numpy as np
    >>> def train(batch_size, random_state, learning_rate=0.1, epochs=1):
    ...     rng = np.random.RandomState(random_state)
    ...     w, X = np.zeros(8), np.random.RandomState(0).randn(800, 8)
    ...     for rows in np.concatenate([rng.permutation(600).reshape(-1, batch_size) for _ in range(epochs)]):
    ...         w -= learning_rate * X[rows].T @ (X[rows] @ w - X[rows].sum(axis=1)) / batch_size
    ...     return {"correct": np.abs(X[600:] @ w - X[600:].sum(axis=1)) < 0.1}
    >>> found = explain_gap(
    ...     train, small=10, large=100, n_trials=3, random_state=0, verbose=0,
    ...     causes={"fewer updates": {"epochs": 10}, "learning rate": {"learning_rate": 0.3}})
    >>> bool(found.parts()["fewer updates"].low > 0)
    True
    """
    check_arguments(explain_gap, locals())
    if is_training_function(estimator):
        return _explain_function(estimator, locals())
    check_no_rate(learning_rate)
    measurement = given_measurement(explain_gap, locals())
    check_classifier(estimator)
    X, y, X_test, y_test = check_data(X, y, X_test, y_test)
    check_keepable(memory, random_state)
    sizes = {name: _check_size(name, size, len(y)) for name, size in (("small", small), ("large", large))}
    _check_order(sizes)
    removed, not_removed = _check_causes(causes, estimator, X, y, sizes["small"])
    arms = _arms(estimator, sizes, removed)
    found = run_paired_trials(
        estimator,
        arms,
        (X, y, X_test, y_test),
        measurement,
        n_trials=n_trials,
        random_state=random_state,
        n_jobs=n_jobs,
        memory=memory,
        verbose=verbose,
    )
    settings = {
        "reference": SMALL,
        "batch_sizes": sizes,
        "causes": list(removed),
        "not_removed": not_removed,
        "regimes": described(arms),
        **found.settings,
    }
    return GapExplanation(
        found.outcomes, list(arms), settings, found.interrupted, targets=found.targets, scores=found.scores
    )


def _explain_function(train: Any, given: dict[str, Any]) -> "GapExplanation":
    """Return the explanation for a training function; ``given`` are all arguments of `explain_gap`."""
    memory, random_state = given["memory"], given["random_state"]
    check_beside(explain_gap, given, ("small", "large", "causes"))
    names = check_names(given["scoring"])
    check_keepable(memory, random_state)
    sizes = {name: check_size(name, given[name]) for name in ("small", "large")}
    _check_order(sizes)
    check_rate(given["learning_rate"])
    causes = _check_causes_of_function(given["causes"], sizes, given["learning_rate"])
    arms = _arms_of_function(sizes, causes, given["learning_rate"])
    for own in arms.values():
        check_calls(train, {**own, "random_state": 0})
        if memory is not None:
            check_memory_of(train, own)
    seeds = draw_seeds(given["n_trials"], check_random_state(random_state))
    settings: dict[str, Any] = {
        "reference": SMALL,
        "batch_sizes": sizes,
        "causes": list(causes),
        "not_removed": {},
        "regimes": described(arms),
        "n_trials": int(given["n_trials"]),
        **function_settings(train, random_state),
    }
    if given["verbose"]:
        settings["cost"] = say_cost(train, len(arms) * len(seeds))
    trials = [Trial(label, own, trial, seed) for trial, seed in enumerate(seeds) for label, own in arms.items()]
    options: dict[str, Any] = {"n_jobs": given["n_jobs"], "verbose": given["verbose"], "memory": memory}
    outcomes, interrupted = run_calls(train, trials, names, **options)
    if not outcomes:
        raise KeyboardInterrupt
    scores, n_valid = agreed(outcomes)
    settings |= {"n_valid": n_valid, "scores": [score.name for score in scores]}
    return GapExplanation(outcomes, list(arms), settings, interrupted, scores=scores)


class GapExplanation(Records):
    """Result of `explain_gap`; ``print`` shows it.

    Attributes
    ----------
    causes : list of str
        The causes, in the order of their removal.
    records : list of dict
        One per finished fit: accuracies as fractions, sharpness in percent, times in seconds.
    labels : list of str
        "small batch", "large batch", "without a", "without a, b", ..., then "without b alone", ...
    estimators_ : dict of lists
        Fitted estimators by label, in the order of the trials. For a function, the models that it returned, or None.
    notes : list of str
        Sentences that a reader must know before believing the figures.
    """

    @property
    def causes(self) -> list[str]:
        """The causes, in the order of their removal."""
        return list(self.settings["causes"])

    # -- statistics ------------------------------------------------------------------------------------------------

    def total(self) -> Estimate:
        """Return the gap: the test score of the small batch minus that of the large batch, with its interval.

        For a training function, it is the gap in the validation score.
        """
        return self._gained(SMALL, LARGE)

    def parts(self) -> dict[str, Estimate]:
        """Return the parts of the gap by cause, and "not explained", each with its interval. Their sum is the gap."""
        steps = self._steps()
        return {name: self._gained(steps[k + 1], steps[k]) for k, name in enumerate([*self.causes, NOT_EXPLAINED])}

    def alone(self) -> dict[str, Estimate]:
        """Return the score that the large batch gains when each cause alone is removed."""
        return {cause: self._gained(_alone(cause, self.causes), LARGE) for cause in self.causes}

    def _steps(self) -> list[str]:
        """Return the labels from the large batch to the small one, with one cause more removed at each step."""
        return [LARGE, *(_together(self.causes[: k + 1]) for k in range(len(self.causes))), SMALL]

    def _gained(self, label: str, before: str) -> Estimate:
        """Return the test score of a label minus that of another one, over the trials with a score at every step."""
        name = f"{self.judged}_{self.scores[0].name}"
        among = np.isfinite(np.array([self.by_trial(step, name) for step in self._steps()])).all(axis=0)
        return self.estimate_of(self.components(label, before, name, among=among), name)

    @property
    def notes(self) -> list[str]:
        """The sentences that a reader must know before believing the figures."""
        s, name = self.settings, self.scores[0].name
        differences = {"the gap": self.total(), **self.parts()}
        found = [
            *notes.interrupted(self.interrupted, len(self.records), s["n_trials"] * len(self.labels)),
            *notes.not_converged(self._by_label("converged")),
            *notes.diverged(self._by_label("train_loss")),
            *notes.left_out(self._by_label(f"{self.judged}_{name}"), name),
            *notes.training_function(self),
            *notes.no_interval(differences),
            *notes.undecided(SMALL, {LARGE: self.total()}, name),
            *notes.seeds_only(differences),
            *self._not_removed(),
            *self._unequal_updates(),
            *notes.majority(self),
        ]
        if len(self.causes) > 1:
            found.append(
                'The parts depend on the order in which the causes are removed. The column "alone" shows the gain when '
                "each cause is removed by itself. If the two columns differ, the causes act on one another."
            )
        worse = [cause for cause in self.causes if self.parts()[cause].high < 0]
        if worse:
            found.append(f"The large batch became worse when these were removed: {listed(worse)}.")
        found.append("A part shows what the removal changes in these trainings, not by which mechanism.")
        return found

    def _not_removed(self) -> list[str]:
        reasons = [f"{cause} ({reason})" for cause, reason in self.settings["not_removed"].items()]
        return [f"These causes are not removed: {listed(reasons)}."] if reasons else []

    def _unequal_updates(self) -> list[str]:
        """Report that a stopping rule ended some trainings whose budgets of updates are equal."""
        if self.of_training_function or SMALL not in self.done:
            return []
        regimes = self.settings["regimes"]
        for label in self._steps():
            if label in self.done and regimes[label].get("regime_adaptation") is True:
                small, large = self.paired(SMALL, label, "n_updates")
                if (small != large).any():
                    return [
                        f"The small batch made {small.mean():,.0f} updates and the large batch {label} "
                        f"{large.mean():,.0f}: their budgets are equal, but a stopping rule ended some trainings."
                    ]
        return []

    # -- printing --------------------------------------------------------------------------------------------------

    def _verdict(self) -> list[str]:
        total = self.total()
        if not total.n:
            return ["No trial has a score at every step, so the gap cannot be split into parts."]
        if total.value <= 0:
            found = f"{self._apart(total)} the small batch{self._doubt(total)}"
            return [f"The large batch does not lose here: it scores {found}."]
        parts = "; ".join(f"{name} {self._number(part)}" for name, part in self.parts().items())
        return [f"The large batch loses {self._gap_sentence(total)}{self._doubt(total)}. Parts: {parts}."]

    def _number(self, part: Estimate) -> str:
        return part.scaled(100).text("z.2f") if self.scores[0].in_points else part.text("z.4f")

    def _head(self) -> list[str]:
        sizes = self.settings["batch_sizes"]
        return [
            f"batches of {sizes['small']:,} (small) and {sizes['large']:,} (large): {self._data_line()}",
            *self._measured_lines(),
        ]

    def _table(self) -> list[list[str]]:
        score = self.scores[0]
        unit = " (points)" if score.in_points else ""
        columns = [
            *self._score_columns(("train", self.judged)),
            ("train loss", "train_loss", lambda v: mean_std(v, ".1e")),
            *self._sharpness_columns(),
            ("updates", "n_updates", lambda v: mean_std(v, ",.0f")),
        ]
        columns = [column for column in columns if self.has(column[1])]
        rows = [["", *(name for name, _, _ in columns), f"part of the gap{unit}", f"alone{unit}"]]
        parts, alone, steps = self.parts(), self.alone(), self._steps()
        shown = {LARGE: ["", ""], SMALL: [self._shown_gap(parts[NOT_EXPLAINED]), ""]}
        for label, cause in zip(steps[1:], self.causes, strict=False):
            shown[label] = [self._shown_gap(parts[cause]), self._shown_gap(alone[cause])]
        names = {label: f"and {cause}" for label, cause in zip(steps[2:], self.causes[1:], strict=False)}
        for label in steps:
            cells = [show(self.values(label, key)) if label in self.done else "-" for _, key, show in columns]
            rows.append([names.get(label, label), *cells, *shown[label]])
        return rows

    def _reading(self) -> list[str]:
        estimates = [*self.parts().values(), *self.alone().values()]
        return [
            f"part of the gap: {self.judged_part} score minus that of the line above; on the line of the small batch, "
            "the part that is not explained",
            "alone: the gain of the large batch when this cause alone is removed",
            *self._interval_lines(estimates),
            f"part of the gap and alone: means over {count(self.total().n, 'trial')} with a score at every step",
        ]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        return {
            **super()._statistics(),
            "total": self.total().to_dict(),
            "parts": {name: part.to_dict() for name, part in self.parts().items()},
            "alone": {name: part.to_dict() for name, part in self.alone().items()},
        }

    def plot(self, ax: Any = None) -> "GapExplanationDisplay":
        """Draw the parts as a waterfall; return a `GapExplanationDisplay`."""
        from sklgap.experiments._plot._explain_gap import GapExplanationDisplay

        return GapExplanationDisplay.from_explanation(self, ax=ax)


# -- arms --------------------------------------------------------------------------------------------------------------


def _together(causes: Sequence[str]) -> str:
    return f"without {', '.join(causes)}"


def _alone(cause: str, causes: Sequence[str]) -> str:
    return _together([cause]) if cause == causes[0] else f"without {cause} alone"


def _arms(
    estimator: Any, sizes: Mapping[str, int], removed: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the parameters of every setting that is trained."""
    plain = {"batch_regime": "SB", "base_batch_size": sizes["small"]}
    small, large = ({**plain, "batch_size": sizes[name]} for name in ("small", "large"))
    return _all_arms(small, large, removed, lambda removals: _without(estimator, large, removals))


def _all_arms(
    small: dict[str, Any],
    large: dict[str, Any],
    removed: Mapping[str, Mapping[str, Any]],
    without: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return the parameters of both batches, and those of the large one ``without`` the causes, together and alone."""
    arms = {SMALL: small, LARGE: large}
    names = list(removed)
    for k in range(len(names)):
        arms[_together(names[: k + 1])] = without([removed[name] for name in names[: k + 1]])
    for name in names[1:]:
        arms[_alone(name, names)] = without([removed[name]])
    return arms


def _without(estimator: Any, large: Mapping[str, Any], removals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters of the large batch with several causes removed; callbacks add up."""
    parameters = dict(large)
    for removal in removals:
        parameters |= {name: value for name, value in removal.items() if name != "callbacks"}
    callbacks = [own for removal in removals for own in removal.get("callbacks", [])]
    if callbacks:
        parameters["callbacks"] = [*(final_estimator(estimator).callbacks or []), *callbacks]
    return parameters


def _check_order(sizes: Mapping[str, int]) -> None:
    if sizes["small"] >= sizes["large"]:
        raise ValueError(f"small must be a smaller batch size than large, {sizes['large']}; got {sizes['small']}.")


def _check_size(name: str, size: Any, n_samples: int) -> int:
    if not isinstance(size, str | int | float) or isinstance(size, bool):
        raise WrongArgument(f"{name} must be 'SB', 'LB', a batch size or a fraction of the samples; got {shown(size)}.")
    try:
        return check_batch_regime(size, n_samples).batch_size(0, n_samples)
    except ValueError as error:
        raise ValueError(str(error).replace("batch_regime must", f"{name} must", 1)) from None


def _check_causes(
    causes: Any, estimator: Any, X: Any, y: Any, small: int
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """Return the parameters that remove each cause, and the reasons why other causes cannot be removed."""
    if isinstance(causes, Mapping):
        return _check_own_causes(causes), {}
    allowed = ", ".join(map(repr, CAUSES))
    if causes is not None and (isinstance(causes, str) or not isinstance(causes, Sequence) or not causes):
        raise WrongArgument(f"causes must be None, a sequence of {allowed}, or a dict; got {shown(causes)}.")
    wanted = CAUSES if causes is None else tuple(causes)
    if not all(is_one_of(cause, CAUSES) for cause in wanted) or len(set(wanted)) < len(wanted):
        raise ValueError(f"causes must be different ones of {allowed}; got {shown(causes)}.")
    removals: dict[str, Mapping[str, Any]] = {
        "fewer updates": {"regime_adaptation": True},
        "learning rate": {"lr_scaling": "sqrt"},
        "batch norm": {"ghost_batch_size": small},
        "last weights": {"callbacks": [("averaged last weights", WeightAveraging())]},
    }
    cannot = {cause: reason for cause, reason in _not_removable(estimator, wanted, X, y).items() if cause in wanted}
    if causes is not None and cannot:
        cause, reason = next(iter(cannot.items()))
        raise ValueError(f"causes must not have {cause!r}, which cannot be removed: {reason}.")
    if len(cannot) == len(wanted):
        raise ValueError(f"causes must be a dict with your own causes here, because {allowed} cannot be removed.")
    return {cause: removals[cause] for cause in wanted if cause not in cannot}, cannot


def _check_causes_of_function(
    causes: Any, sizes: Mapping[str, int], learning_rate: float | None
) -> dict[str, Mapping[str, Any]]:
    """Return the arguments by which a training function removes each cause."""
    if isinstance(causes, Mapping):
        return _check_own_causes(causes, _OF_ALL_CALLS, adding_up=())
    if not isinstance(causes, list | tuple) or list(causes) != ["learning rate"]:
        raise WrongArgument(
            "causes must be given for a training function: a dict from names to the arguments that remove each cause, "
            "such as {'fewer updates': {'epochs': 320}}, or ['learning rate'], which scales learning_rate by the "
            f"square root of large / small; got {shown(causes)}."
        )
    if learning_rate is None:
        raise WrongArgument("learning_rate must be given with the cause 'learning rate', which scales it; got None.")
    factor = lr_factor("sqrt", sizes["large"], sizes["small"])
    return {"learning rate": {"learning_rate": float(learning_rate * factor)}}


def _arms_of_function(
    sizes: Mapping[str, int], removed: Mapping[str, Mapping[str, Any]], learning_rate: float | None
) -> dict[str, dict[str, Any]]:
    """Return the arguments of every setting that is trained."""
    rate = {} if learning_rate is None else {"learning_rate": float(learning_rate)}
    small, large = ({"batch_size": sizes[name], **rate} for name in ("small", "large"))
    return _all_arms(small, large, removed, lambda removals: large | dict(item for r in removals for item in r.items()))


def _check_own_causes(
    causes: Mapping[Any, Any],
    of_all_arms: Sequence[str] = _OF_ALL_ARMS,
    adding_up: Sequence[str] = ("callbacks",),
) -> dict[str, Mapping[str, Any]]:
    named = all(isinstance(name, str) and name.strip() and name != NOT_EXPLAINED for name in causes)
    if not causes or not named or not all(isinstance(p, Mapping) and p for p in causes.values()):
        raise WrongArgument(
            f"causes must be a dict from names, other than {NOT_EXPLAINED!r}, to the parameters that remove each "
            f"cause; got {shown(causes)}."
        )
    names = list(causes)
    if len({*(_together(names[: k + 1]) for k in range(len(names))), *(_alone(n, names) for n in names)}) < (
        2 * len(names) - 1
    ):
        raise ValueError(f"causes must have names that make different labels; got {shown(names)}.")
    set_by: dict[str, str] = {}
    for cause, parameters in causes.items():
        for name in parameters:
            if name in of_all_arms:
                raise ValueError(f"causes must not set {name}, which explain_gap sets for all trainings; {cause} does.")
            if name in set_by and name not in adding_up:
                raise ValueError(
                    f"causes must not set a parameter twice; {set_by[name]} and {cause} both set {name}, so the second "
                    "one would undo the first."
                )
            set_by[name] = cause
        callbacks = parameters.get("callbacks", []) if "callbacks" in adding_up else []
        if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
            raise WrongArgument(
                f"callbacks of causes must be lists, because they add up; got {shown(callbacks)} for {cause}."
            )
    return dict(causes)


def _not_removable(estimator: Any, wanted: Sequence[str], X: Any, y: Any) -> dict[str, str]:
    """Return the causes that cannot be removed, with the reasons."""
    classifier = final_estimator(estimator)
    found = {}
    if classifier.regime_adaptation:
        found["fewer updates"] = "the estimator has regime_adaptation=True already"
    elif any(name.startswith(("iterator_train", "dataset")) for name in classifier.get_params(deep=False)):
        found["fewer updates"] = "the estimator has its own iterator_train or dataset, which excludes regime_adaptation"
    if classifier.lr_scaling is not None:
        found["learning rate"] = f"the estimator has lr_scaling={classifier.lr_scaling!r} already"
    callbacks = [entry[1] if isinstance(entry, tuple) else entry for entry in classifier.callbacks or []]
    averaging = [type(callback).__name__ for callback in callbacks if isinstance(callback, Averaging)]
    if averaging:
        found["last weights"] = f"the estimator has {averaging[0]} among its callbacks already"
    if classifier.ghost_batch_size is not None:
        found["batch norm"] = f"the estimator has ghost_batch_size={classifier.ghost_batch_size!r} already"
    elif "batch norm" in wanted and not _has_batch_norm(estimator, X, y):
        found["batch norm"] = "the net has no batch normalisation"
    return found


def _has_batch_norm(estimator: Any, X: Any, y: Any) -> bool:
    classifier, X = without_head(estimator, X, y)
    return bool(batch_norm_layers(time_steps(classifier, {}, X, y).net_.module_))
