"""The scores of a model: accuracy under a batch-norm policy, or any score of scikit-learn.

A difference between two batch sizes varies with the samples that it is measured on. A trial therefore saves, together
with a score, the values behind it: which samples are predicted correctly, the score of each sample, or the outputs if
the score is not a mean over samples (such as average precision).
"""

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score, balanced_accuracy_score, get_scorer, get_scorer_names, log_loss
from sklearn.utils.metaestimators import available_if

from sklgap._checks import WrongArgument, shown
from sklgap.estimator._evaluation import NoPrediction
from sklgap.experiments._estimate import (
    FROM_COUNTS,
    Components,
    bootstrap_components,
    crossed_components,
    row_differences,
    trial_components,
)

Scorer = Callable[..., float]
Scoring = str | Scorer | Sequence[str] | Mapping[str, str | Scorer] | None

ACCURACY = "accuracy"
_MEASURED_ANYWAY = (ACCURACY, "loss")
_METHODS = ("predict", "predict_proba", "decision_function")
# scikit-learn's scores that lie in [0, 1].
_FRACTIONS = {
    *("accuracy_score", "balanced_accuracy_score", "top_k_accuracy_score", "average_precision_score", "f1_score"),
    *("fbeta_score", "precision_score", "recall_score", "jaccard_score", "roc_auc_score"),
}


@dataclass(frozen=True)
class Score:
    """A score, with its name in the records. Without a scorer it is accuracy under the batch-norm policy."""

    name: str
    scorer: Scorer | None = None

    @property
    def is_fraction(self) -> bool:
        """Whether the score is known to lie in [0, 1]."""
        if self.scorer is None:
            return True
        adjusted = _kwargs(self.scorer).get("adjusted", False)
        return _sign(self.scorer) == 1 and not adjusted and _function_name(self.scorer) in _FRACTIONS

    @property
    def in_points(self) -> bool:
        """Whether its differences are shown in percentage points."""
        return self.scorer is None

    def policy(self, batch_norm: str, model: Any) -> str:
        """Return the batch-norm policy of the score. Scorers use the policy of ``predict``."""
        if self.scorer is None:
            return batch_norm
        return "population" if getattr(model, "recompute_batch_norm", False) else "running"


@dataclass(frozen=True)
class Samples:
    """The values behind the score of one model, in the order of the samples.

    Attributes
    ----------
    values : ndarray of shape (n_samples,) or (n_samples, n_classes)
        Without a method, the score of each sample, whose mean is the score (True for a sample that is predicted
        correctly). With a method, the outputs; labels are their positions in ``classes_``.
    method : str
        The method of the model that returned the outputs; "" for scores.
    """

    values: np.ndarray
    method: str = ""


def check_scoring(scoring: Any) -> tuple[Score, ...]:
    """Return the scores of ``scoring``. Comparisons use the first one.

    Parameters
    ----------
    scoring : None, str, callable, sequence of str, or dict
        None or "accuracy" means accuracy under the batch-norm policy. Otherwise the name of one of scikit-learn's
        scorers, a scorer ``scorer(estimator, X, y)``, several names, or a dict from your names to either.

    Raises
    ------
    WrongArgument
        If ``scoring`` is anything else.
    """
    if scoring is None:
        return (Score(ACCURACY),)
    if isinstance(scoring, str):
        return (_named(scoring),)
    if callable(scoring):
        return (_checked(Score(_name_of(scoring), scoring)),)
    if isinstance(scoring, Mapping) and scoring:
        found = []
        for name, value in scoring.items():
            if not (isinstance(name, str) and name) or not (isinstance(value, str) or callable(value)):
                raise _wrong(scoring)
            found.append(_named(value, name) if isinstance(value, str) else _checked(Score(name, value)))
        return tuple(found)
    if isinstance(scoring, list | tuple) and scoring and all(isinstance(name, str) for name in scoring):
        return tuple(_named(name) for name in dict.fromkeys(scoring))
    raise _wrong(scoring)


def _wrong(scoring: Any) -> WrongArgument:
    return WrongArgument(
        "scoring must be None, a scorer, the name of one of scikit-learn's scorers, or a dict from names to these; got "
        f"{shown(scoring)}."
    )


def _named(scorer: str, name: str | None = None) -> Score:
    name = scorer if name is None else name
    if scorer == ACCURACY:
        if name != ACCURACY:
            raise WrongArgument(
                f"scoring must have accuracy under its own name; got {name!r}. For the accuracy of predict, give "
                "make_scorer(accuracy_score)."
            )
        return Score(ACCURACY)
    if scorer not in get_scorer_names():
        raise WrongArgument(
            "scoring must be the name of one of scikit-learn's scorers (see sklearn.metrics.get_scorer_names()); got "
            f"{scorer!r}."
        )
    return _checked(Score(name, get_scorer(scorer)))


def _checked(score: Score) -> Score:
    if score.name in _MEASURED_ANYWAY:
        raise WrongArgument(
            f"scoring must not call a scorer {score.name!r}, because this name is for the value under batch_norm. Give "
            "it another name in a dict."
        )
    module = getattr(score.scorer, "__module__", None)
    if inspect.isfunction(score.scorer) and isinstance(module, str) and module.startswith("sklearn.metrics."):
        raise WrongArgument(
            f"scoring must be a scorer, which is called with a model; got the metric {shown(score.scorer)}. Use "
            "make_scorer, or the name of its scorer."
        )
    return score


def _name_of(scorer: Any) -> str:
    name = _function_name(scorer) or getattr(scorer, "__name__", "") or type(scorer).__name__
    name = str(name).strip("<>").removesuffix("_score")
    return f"predict_{name}" if name in _MEASURED_ANYWAY else name


def try_scores(scores: Sequence[Score], y: Any, y_train: Any) -> None:
    """Raise a WrongArgument, before anything is trained, for a scorer that cannot be computed for these labels.

    Parameters
    ----------
    scores : sequence of Score
        Scores that will be measured.
    y : array-like
        Labels of the samples that models will be scored on.
    y_train : array-like
        Labels of the training samples, whose classes the models know.
    """
    y, classes = np.asarray(y), np.unique(np.asarray(y_train))
    for score in scores:
        if not hasattr(score.scorer, "_score_func"):
            continue  # it may read anything of a model, which nothing can replace
        assert score.scorer is not None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a warning about an undefined score is raised here as an error
                value = score.scorer(_Perfect(classes), y, y)
            if not np.isfinite(value):
                raise ValueError(f"it is {value} even for predictions that are all right")
        except Exception as error:  # a metric of the user may raise anything
            way_out = "; give y as 0 and 1, or make_scorer(..., pos_label=...)" if "pos_label" in str(error) else ""
            raise WrongArgument(
                f"scoring must be defined for these labels; {score.name} is not: {error}{way_out}"
            ) from error


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure_score(score: Score, model: Any, X: Any, y: Any) -> tuple[float, Samples | None]:
    """Return the value of a scorer and the values behind it; None for these if it reads more than one method's outputs.

    The value is NaN if the outputs are not finite.
    """
    assert score.scorer is not None
    # The scorer receives a copy of the model whose methods record their outputs.
    listening = copy.copy(model)
    heard: dict[str, Any] = {}
    for method in _METHODS:
        if hasattr(model, method):
            setattr(listening, method, _remembering(getattr(model, method), X, heard, method))
    try:
        value = float(score.scorer(listening, X, y))
    except Exception as error:  # a metric of the user may raise anything
        nans = any(isinstance(found, np.ndarray) and not _all_finite(found) for found in heard.values())
        if nans or isinstance(error, NoPrediction):
            return float("nan"), None  # training diverged, which must not end the other fits
        raise WrongArgument(
            f"scoring must be scorers that take the fitted model; {score.name} raised {type(error).__name__}: {error}"
        ) from error
    if len(heard) != 1 or not np.isfinite(value):
        return value, None
    ((method, outputs),) = heard.items()
    classes, y = np.asarray(model.classes_), np.asarray(y)
    outputs = np.asarray(outputs)
    if outputs.ndim not in (1, 2) or len(outputs) != len(y):
        return value, None
    if method == "predict":
        outputs = np.searchsorted(classes, outputs)
    rows = _scores_of_samples(score.scorer, method, outputs, classes, y)
    if rows is not None and np.isclose(rows.mean(), value, rtol=1e-9, atol=1e-12):
        return value, Samples(rows)
    try:
        again = float(score.scorer(_Replay(classes, method), _decoded(method, outputs, classes), y))
    except Exception:  # the scorer needs more than outputs
        return value, None
    return value, Samples(outputs, method) if again == value else None


def _all_finite(values: np.ndarray) -> bool:
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def _remembering(function: Callable[[Any], Any], X: Any, heard: dict[str, Any], method: str) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def remember(data: Any) -> Any:
        if data is not X:
            heard["of other data"] = None
            return function(data)
        if method not in heard:
            heard[method] = function(data)
        return heard[method]

    return remember


def _scores_of_samples(
    scorer: Scorer, method: str, outputs: np.ndarray, classes: np.ndarray, y: np.ndarray
) -> np.ndarray | None:
    """Return the score of each sample, for scores that are known to be means over samples; None for others."""
    function = getattr(scorer, "_score_func", None)
    if _kwargs(scorer):
        return None
    if function is accuracy_score and method == "predict" and _sign(scorer) == 1:
        right: np.ndarray = classes[outputs] == y
        return right
    if function is log_loss and method == "predict_proba" and outputs.ndim == 2:
        own = outputs[np.arange(len(y)), np.searchsorted(classes, y)]
        return _sign(scorer) * -np.log(np.clip(own, np.finfo(outputs.dtype).eps, 1 - np.finfo(outputs.dtype).eps))
    return None


class _StandIn(ClassifierMixin, BaseEstimator):
    """A stand-in for a fitted classifier, which scorers accept."""

    classes_: np.ndarray

    def fit(self, X: Any, y: Any) -> "_StandIn":
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _if_heard(method: str) -> Any:
    return available_if(lambda replay: replay.method == method)


class _Replay(_StandIn):
    """A model that returns its input, so that a scorer computes from saved outputs what it computed from the model.

    It has a single method, because scorers choose among the methods of a model.
    """

    def __init__(self, classes: Any = None, method: str = "predict") -> None:
        self.classes = self.classes_ = classes
        self.method = method

    @_if_heard("predict")
    def predict(self, X: Any) -> Any:
        return X

    @_if_heard("predict_proba")
    def predict_proba(self, X: Any) -> Any:
        return X

    @_if_heard("decision_function")
    def decision_function(self, X: Any) -> Any:
        return X


class _Perfect(_StandIn):
    """A model that predicts the given labels with certainty, with the methods of `LBGapClassifier`."""

    def __init__(self, classes: Any = None) -> None:
        self.classes = self.classes_ = classes

    def predict(self, X: Any) -> Any:
        return X

    def predict_proba(self, X: Any) -> Any:
        return (np.asarray(X)[:, None] == self.classes_).astype(float)


def _decoded(method: str, outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return classes[outputs] if method == "predict" else outputs


# -- differences -------------------------------------------------------------------------------------------------------


def difference(
    score: Score,
    y: np.ndarray,
    classes: np.ndarray,
    values: tuple[np.ndarray, np.ndarray],
    samples: tuple[Sequence[Samples | None], Sequence[Samples | None]],
) -> Components:
    """Return the components of reference minus other over paired trials.

    Parameters
    ----------
    score : Score
        What was measured.
    y, classes : ndarray
        Labels of the samples that the score was measured on, and classes of the models.
    values : pair of ndarrays of shape (n_trials,)
        Scores of the reference and of the other.
    samples : pair of sequences of n_trials Samples
        The values behind these scores. If one of them is None, only seeds vary.

    Raises
    ------
    ValueError
        If there are too few samples for the interval of a score that is not a mean over samples.
    """
    flat = [own for side in samples for own in side]
    if not len(values[0]) or any(own is None for own in flat):
        return trial_components(values[0] - values[1])
    methods = {own.method for own in flat if own is not None}
    sides = [[own.values for own in side if own is not None] for side in samples]
    if methods == {""}:
        return crossed_components(row_differences(*sides))
    if len(methods) > 1 or score.scorer is None:
        return trial_components(values[0] - values[1])
    function, y, convert = _function_of(score.scorer, methods.pop(), classes, y)
    reference, other = ([convert(outputs) for outputs in side] for side in sides)
    return bootstrap_components(function, y, reference, other)


def _function_of(
    scorer: Scorer, method: str, classes: np.ndarray, y: np.ndarray
) -> tuple[Callable[..., float], np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return score(y, outputs[, sample_weight]), y, and a function that converts saved outputs for the score."""
    known = getattr(scorer, "_score_func", None)
    found_by_one = known is balanced_accuracy_score or classes[-1] == 1  # scikit-learn looks for the class 1
    if (
        known is not None
        and any(known is f for f in FROM_COUNTS)
        and len(classes) == 2
        and found_by_one
        and _sign(scorer) == 1
        and _kwargs(scorer) in ({}, {"average": "binary"})
    ):
        # All resamples at once.
        ones = (np.asarray(y) == classes[1]).astype(int)
        return known, ones, lambda outputs: outputs[:, 1] if outputs.ndim == 2 else outputs
    replay = _Replay(classes, method)

    def plain(y: np.ndarray, outputs: np.ndarray) -> float:
        return float(scorer(replay, _decoded(method, outputs, classes), y))

    def weighted(y: np.ndarray, outputs: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
        return float(scorer(replay, _decoded(method, outputs, classes), y, sample_weight=sample_weight))

    takes_weights = callable(known) and "sample_weight" in inspect.signature(known).parameters
    return weighted if takes_weights else plain, np.asarray(y), lambda outputs: outputs


def _function_name(scorer: Any) -> str:
    return getattr(getattr(scorer, "_score_func", None), "__name__", "")


def _sign(scorer: Any) -> int:
    return int(getattr(scorer, "_sign", 1))


def _kwargs(scorer: Any) -> dict[str, Any]:
    return dict(getattr(scorer, "_kwargs", {}))
