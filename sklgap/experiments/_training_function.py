"""The job of an experiment with the user's own training loop: call a function, and record the scores that it returns.

A training function is ``train(batch_size, random_state, ...)``, usually with a ``learning_rate``. It trains once and
returns the scores of the model on validation samples: a number, a dict of numbers, or a tuple (model, either of these).
Under ``correct``, a dict may say which validation samples are predicted correctly. Accuracy is then the share of these
samples, and intervals cover new samples, too.
"""

import functools
import inspect
import math
import numbers
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from sklgap._checks import WrongArgument, check_positive, check_sizes, shown
from sklgap._tables import text_of
from sklgap.estimator._parameters import check_device
from sklgap.experiments._protocol import Trial, given_beside
from sklgap.experiments._result import environment
from sklgap.experiments._run import Finished, run
from sklgap.experiments._scores import ACCURACY, Samples, Score
from sklgap.experiments._trials import Outcome
from sklgap.memory import Memory, Unfollowable, fingerprint, key_of, not_saved, plain, surroundings, unplain

# Name of the score if a function returns a single number.
SCORE = "score"
CORRECT = "correct"
_RETURNS = "a number, a dict of numbers, or a tuple (model, either of these)"
# Entries of a record that describe the call itself.
_OF_THE_CALL = ("regime", "trial", "seed", "batch_size", "lr", "fit_seconds")
# Parameters that every experiment accepts for a training function.
_TAKEN = ("estimator", "learning_rate", "n_trials", "scoring", "random_state", "n_jobs", "memory", "verbose")
# Words in the name of a score that mean "smaller is better", unless the name begins with a word of _NEGATED.
_SMALLER_IS_BETTER = {
    *("err", "nll", "ppl", "mse", "rmse", "rmsle", "mae", "mape", "wer", "cer", "eer", "ter", "fid", "kl", "ece"),
    *("bits", "bpb", "bpc", "bpd", "cost", "risk", "regret", "deviance", "brier"),
}
# The same at the end of a word, as in logloss.
_SMALLER_AT_THE_END = ("loss", "losses", "error", "errors", "entropy", "perplexity", "divergence")
_NEGATED = ("neg", "negative", "minus")


@dataclass(frozen=True)
class Reported(Score):
    """A score that a training function returns as a number. Its range and its samples are not known."""

    @property
    def is_fraction(self) -> bool:
        """False, because the range is not known."""
        return False

    @property
    def in_points(self) -> bool:
        """False, because the score is shown unchanged."""
        return False


# -- what is asked for -------------------------------------------------------------------------------------------------


def is_training_function(value: Any) -> bool:
    """Return whether the value is a training function, and not an estimator or a module."""
    return callable(value) and not isinstance(value, type | nn.Module) and not hasattr(value, "fit")


def name_of(train: Any) -> str:
    """Return the name of a training function."""
    if isinstance(train, functools.partial):
        return name_of(train.func)
    return str(getattr(train, "__name__", type(train).__name__))


def check_beside(experiment: Callable[..., Any], given: Mapping[str, Any], taken: Sequence[str]) -> None:
    """Raise a WrongArgument for a parameter of an experiment that has no meaning for a training function.

    Parameters
    ----------
    experiment : callable
        The public function.
    given : mapping
        Its arguments by name.
    taken : sequence of str
        Further parameters of this experiment that a training function accepts. All others must have their
        defaults.
    """
    others = given_beside(experiment, given, [name for name in given if name not in (*_TAKEN, *taken)])
    if others:
        raise WrongArgument(
            f"{', '.join(others)} must be left out for a training function, because it has its own data, measures "
            "itself and decides how long it trains."
        )


def check_calls(train: Any, arguments: Mapping[str, Any]) -> None:
    """Raise a WrongArgument for a function that cannot be called with these arguments by name."""
    call = f"train({', '.join(f'{name}=...' for name in arguments)})"
    try:
        inspect.signature(train).bind(**arguments)
    except (TypeError, ValueError) as error:
        way_out = ""
        if "learning_rate" in str(error):
            takes = "learning_rate" not in arguments
            way_out = "; give learning_rate" if takes else "; add the parameter learning_rate, or give no learning rate"
        raise WrongArgument(
            f"estimator must be an estimator or a function that can be called as {call}; {name_of(train)} cannot: "
            f"{error}{way_out}."
        ) from error


def check_rate(learning_rate: Any) -> None:
    """Raise a ValueError for a learning rate that is not a number above 0, or None."""
    if learning_rate is not None:
        check_positive("learning_rate", learning_rate)


def check_no_rate(learning_rate: Any) -> None:
    """Raise a WrongArgument for a learning rate that is given together with an estimator."""
    if learning_rate is not None:
        raise WrongArgument(f"learning_rate must be None for an estimator, which has lr; got {shown(learning_rate)}.")


def check_size(name: str, size: Any) -> int:
    """Return a batch size, checked to be a number of samples, because only the function knows its samples."""
    if size is None or isinstance(size, str | float):
        raise WrongArgument(
            f"{name} must be {'integers' if name == 'batch_sizes' else 'an integer'} for a training function, because "
            f"its number of samples is not known; got {shown(size)}."
        )
    check_sizes(**{name: size})
    return int(size)


def check_names(scoring: Any) -> tuple[str, ...] | None:
    """Return the names of the scores in ``scoring``; None if the function returns a single score."""
    if scoring is None:
        return None
    names = (scoring,) if isinstance(scoring, str) else scoring
    right = isinstance(names, list | tuple) and names and all(isinstance(name, str) and name for name in names)
    if not right or len(set(names)) < len(names):
        raise WrongArgument(
            "scoring must be None, or one or several names of scores that the training function returns; got "
            f"{shown(scoring)}."
        )
    return tuple(names)


def check_memory_of(train: Any, arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError for a function that cannot be identified completely, so that its work cannot be saved."""
    try:
        fingerprint(train, dict(arguments))
    except Unfollowable as error:
        raise ValueError(
            f"memory must be None for {name_of(train)}, because sklgap cannot check whether the function has changed: "
            f"{error}. Use a plain value instead, or create the object inside the function."
        ) from error


def function_settings(train: Any, random_state: Any) -> dict[str, Any]:
    """Return the settings of a result for a training function; those that only the function knows are None."""
    unknown = ("n_train", "n_test", "batch_norm", "budget", "max_epochs", "target_loss")
    return {
        **dict.fromkeys(unknown),
        "training_function": name_of(train),
        "estimator": text_of(train),
        "epsilon": [],
        "subspace_dims": [],
        "random_state": int(random_state) if isinstance(random_state, numbers.Integral) else None,
        "environment": environment(),
    }


def say_cost(train: Any, n_calls: int) -> dict[str, Any]:
    """Print and return how often a function will be called."""
    print(
        f"cost: {n_calls:,} trainings by {name_of(train)}. The progress bar shows the expected time after the first "
        "training."
    )
    return {"n_fits": n_calls}


# -- calling -----------------------------------------------------------------------------------------------------------


def run_calls(
    train: Any,
    trials: Sequence[Trial],
    names: tuple[str, ...] | None,
    *,
    n_jobs: int | None = None,
    verbose: int = 1,
    memory: str | Path | None = None,
    keep_models: bool = True,
) -> Finished[Outcome]:
    """Call a training function once for every trial.

    Parameters
    ----------
    train : callable
        Function that is called with the ``parameters`` of a trial by name, and its seed as ``random_state``.
    trials : sequence of Trial
        Trials to train, in this order.
    names : tuple of str or None
        Names of the scores.
    n_jobs, verbose, memory
        As in the experiments.
    keep_models : bool, default=True
        Whether to return the models. False returns None for each.
    """
    jobs: list[Callable[[], Outcome]] = [partial(call, train, trial, names, memory, keep_models) for trial in trials]

    first: list[Outcome] = []

    def describe(outcome: Outcome) -> str:
        first[:] = first or [outcome]
        agreed([*first, outcome])  # results that cannot be compared are refused at once, not after hours
        name = outcome.scores[0].name
        return f"{outcome.record['regime']}: {name} {outcome.record[f'valid_{name}']:.4g}"

    return run(jobs, n_jobs=n_jobs, verbose=verbose, describe=describe, unit="training")


def call(
    train: Any,
    trial: Trial,
    names: tuple[str, ...] | None,
    memory: str | Path | None = None,
    keep_model: bool = True,
) -> Outcome:
    """Train once and return the scores. Scores that ``memory`` holds are loaded, without the model."""
    arguments = {**trial.parameters, "random_state": trial.seed}
    store, key = None, None
    if memory is not None:
        store = Memory(memory, f"{name_of(train)}, {trial.label}, trial {trial.trial}")
        key = _key(train, arguments)
    found = None if store is None or key is None else _loaded(store, key)
    if found is None:
        started = time.perf_counter()
        returned = train(**arguments)
        found = _read(returned, time.perf_counter() - started)
        if store is not None and key is not None:
            _save(store, key, _key(train, arguments), found)
    scores = _judged_by(found, names)
    record = {"regime": trial.label, "trial": trial.trial, "seed": trial.seed}
    record["batch_size"] = trial.parameters["batch_size"]
    if "learning_rate" in trial.parameters:
        record["lr"] = trial.parameters["learning_rate"]
    samples = {}
    values = dict(found.numbers)
    if found.correct is not None:
        values[ACCURACY] = float(found.correct.mean())
        samples[f"valid_{ACCURACY}"] = Samples(found.correct)
    judged = [score.name for score in scores]
    taken = [name for name in judged if f"valid_{name}" in values]
    if taken:
        raise WrongArgument(
            f"estimator must be a function whose dict does not use the name 'valid_{taken[0]}', because the records "
            f"use it for the validation {taken[0]}."
        )
    record |= {f"valid_{name}": values[name] for name in judged}
    record |= {name: value for name, value in values.items() if name not in judged}
    return Outcome({**record, "fit_seconds": found.seconds}, samples, found.model if keep_model else None, scores)


def agreed(outcomes: Sequence[Outcome]) -> tuple[tuple[Score, ...], int | None]:
    """Return the scores that all calls returned, and the number of validation samples if it is known.

    Raises
    ------
    ValueError
        If calls differ in these, so that they cannot be compared.
    """
    found: dict[tuple[tuple[Score, ...], int | None], str] = {}
    for outcome in outcomes:
        correct = outcome.samples.get(f"valid_{ACCURACY}")
        form = outcome.scores, None if correct is None else len(correct.values)
        found.setdefault(form, f"batches of {outcome.record['batch_size']}, trial {outcome.record['trial']}")
    if len(found) > 1:
        (one, where), (other, elsewhere) = list(found.items())[:2]
        raise ValueError(
            "estimator must be a function that returns the same scores, on the same validation samples, in every call; "
            f"got {_form(*one)} for {where}, and {_form(*other)} for {elsewhere}."
        )
    return next(iter(found))


def _form(scores: Sequence[Score], n_valid: int | None) -> str:
    names = ", ".join(score.name for score in scores)
    return names if n_valid is None else f"{names} on {n_valid:,} samples"


# -- what is returned --------------------------------------------------------------------------------------------------


class _Returned(NamedTuple):
    """The returned values of one training; numbers that are not finite are NaN."""

    model: Any
    numbers: dict[str, float]
    correct: np.ndarray | None
    seconds: float


def _read(returned: Any, seconds: float) -> _Returned:
    model, scores = returned if isinstance(returned, tuple) and len(returned) == 2 else (None, returned)
    if not isinstance(scores, Mapping):
        value = _number(scores)
        if value is None or _number(model) is not None:  # two numbers are not a model and its score
            raise WrongArgument(f"estimator must be a function that returns {_RETURNS}; got {shown(returned)}.")
        return _Returned(model, {SCORE: value}, None, seconds)
    correct = _correct(scores[CORRECT]) if CORRECT in scores else None
    found: dict[str, float] = {}
    for name, one in scores.items():
        if name == CORRECT:
            continue
        value = _number(one)
        if not isinstance(name, str) or not name or value is None:
            raise WrongArgument(
                f"estimator must be a function whose dict has names with numbers, and {CORRECT!r}; got "
                f"{shown(name)}: {shown(one)}."
            )
        if name in _OF_THE_CALL:
            raise WrongArgument(
                f"estimator must be a function whose dict does not use the names {', '.join(_OF_THE_CALL)}; got "
                f"{name!r}."
            )
        found[name] = value
    if correct is not None and ACCURACY in found:
        share = float(correct.mean())
        if not abs(found.pop(ACCURACY) - share) < 0.5 / len(correct):
            raise WrongArgument(
                f"estimator must be a function whose {ACCURACY!r} is the share of True in {CORRECT!r}, {share:g}; got "
                f"{shown(scores[ACCURACY])}. Leave it out, or give it another name."
            )
    return _Returned(model, found, correct, seconds)


def _number(value: Any) -> float | None:
    """Return a number, also one of NumPy, torch or JAX, as a float (NaN if not finite); None for anything else."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer or a fraction beyond all floats
        found = math.inf
    return found if math.isfinite(found) else math.nan


def _correct(values: Any) -> np.ndarray:
    """Return which validation samples are predicted correctly, as an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    try:
        found = np.array(values)
    except Exception:  # an object of the user may raise anything when it is made an array
        found = np.empty(0)
    if found.ndim != 1 or found.dtype != bool or len(found) < 2:
        raise WrongArgument(
            f"estimator must be a function whose {CORRECT!r} has one True or False for each of at least 2 validation "
            f"samples, such as (predicted == y_valid); got {shown(values)}."
        )
    return found


def _judged_by(found: _Returned, names: tuple[str, ...] | None) -> tuple[Score, ...]:
    """Return the scores of a training, the compared one first. Accuracy is among them if it is known."""
    accuracy = () if found.correct is None else (Score(ACCURACY),)
    if names is None and accuracy:
        return accuracy
    if not found.numbers and not accuracy:
        raise WrongArgument(f"estimator must be a function that returns {_RETURNS}; got an empty dict.")
    if names is None and len(found.numbers) != 1:
        raise WrongArgument(
            f"scoring must name one of the scores that the function returns, {', '.join(map(repr, found.numbers))}; "
            "got None."
        )
    asked = tuple(found.numbers) if names is None else names
    for name in asked:
        if accuracy and name == ACCURACY:
            continue
        if name not in found.numbers:
            has = ", ".join(map(repr, [*found.numbers, *(score.name for score in accuracy)]))
            raise WrongArgument(f"scoring must name scores that the function returns, {has}; got {name!r}.")
        # The words of val_loss, valLoss and val/loss are the same.
        words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
        smaller = _SMALLER_IS_BETTER.intersection(words) or any(w.endswith(_SMALLER_AT_THE_END) for w in words)
        if smaller and words[0] not in _NEGATED:
            raise WrongArgument(
                f"scoring must name a score for which larger is better; {name!r} does not seem to be one. Return "
                f"-{name} as 'neg_{name}', and use this name."
            )
    own = tuple(Score(ACCURACY) if accuracy and name == ACCURACY else Reported(name) for name in asked)
    return own if not accuracy or ACCURACY in asked else own + accuracy


# -- saved work --------------------------------------------------------------------------------------------------------


def _key(train: Any, arguments: Mapping[str, Any]) -> str | None:
    return key_of("training function", train, dict(arguments), surroundings(check_device("auto")))


def _save(store: Memory, key: str, after: str | None, found: _Returned) -> None:
    if after is None:
        return  # a warning has given the reason
    if after != key:
        not_saved("the training function changes what it reads, so that another call starts from the change")
        return
    value = {"numbers": found.numbers, "correct": found.correct, "seconds": found.seconds}
    store.write(key, "scores", plain(value))


def _loaded(store: Memory, key: str) -> _Returned | None:
    """Return the values that `_save` saved; None if there are none, or if they are not valid."""
    saved = unplain(store.read(key, "scores"))
    if saved is None:
        return None
    try:
        found = _Returned(None, saved["numbers"], saved["correct"], saved["seconds"])
        right = all(isinstance(name, str) and type(value) is float for name, value in found.numbers.items())
        right = right and type(found.seconds) is float
        right = right and (found.correct is None or (found.correct.dtype == bool and found.correct.ndim == 1))
    except (TypeError, KeyError, AttributeError):
        right = False
    if not right:
        store.distrust(key, "scores", "does not hold the scores of this training")
        return None
    return found
