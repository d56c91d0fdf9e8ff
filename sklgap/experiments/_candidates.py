"""The results of a fitted search or of `cross_validate`, by candidate and fold."""

import copy
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedKFold,
    RepeatedStratifiedKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from torch import nn

from sklgap.inspection._records import net_of
from sklgap.regimes._base import BatchRegime, check_batch_size
from sklgap.regimes._check import check_batch_regime

# Possible sizes of training sets, for a search whose own sizes are not known.
_ANY_SIZE = 100, 10_000_000
# Splitters whose folds have equal sizes.
_K_FOLDS = KFold, StratifiedKFold, GroupKFold, StratifiedGroupKFold, RepeatedKFold, RepeatedStratifiedKFold


@dataclass(frozen=True)
class Candidate:
    """One candidate of a search.

    Attributes
    ----------
    index : int
        The row of the candidate in ``cv_results_``.
    label : str
        The parameters that distinguish it from the others.
    parameters : dict
        All parameters that were searched.
    iteration : int or None
        Iteration of a halving search; None for other searches.
    resources : int or None
        Amount of the resource of a halving search; None for other searches.
    scores : dict of str to ndarray
        ``train_{metric}`` and ``test_{metric}``, one value per fold.
    fit_time, fit_time_std : float
        Seconds of a fit: mean and standard deviation over the folds (divided by n, as in scikit-learn).
    """

    index: int
    label: str
    parameters: dict[str, Any]
    iteration: int | None
    resources: int | None
    scores: dict[str, np.ndarray]
    fit_time: float
    fit_time_std: float


@dataclass(frozen=True)
class TrainingLosses:
    """The known training losses of a search.

    Attributes
    ----------
    values : dict of int to ndarray
        Losses by the index of a candidate: one loss per fold, or the loss of the one model that was refitted to all
        data.
    source : str
        Source of the losses: "scores" of the folds, "estimators" of the folds, "best_estimator_", or "" without losses.
    n_classes : int or None
        Number of classes; None if it is not known.
    """

    values: dict[int, np.ndarray]
    source: str
    n_classes: int | None


def candidates_of(search: Any) -> list[Candidate]:
    """Return the candidates of a fitted search, of ``cross_validate``'s dict, or of a dict of such dicts by label."""
    if hasattr(search, "cv_results_"):
        return _of_search(search)
    if isinstance(search, Mapping) and "fit_time" in search:
        return [_of_dict(0, "cross_validate", search)]
    if isinstance(search, Mapping) and search and all(_is_result(value) for value in search.values()):
        return [_of_dict(i, str(label), result) for i, (label, result) in enumerate(search.items())]
    raise TypeError(
        "search must be a fitted GridSearchCV, RandomizedSearchCV or HalvingGridSearchCV, the dict of cross_validate, "
        f"or a dict of such dicts by label; got {type(search).__name__}{_why_not(search)}."
    )


def _is_result(value: Any) -> bool:
    return isinstance(value, Mapping) and "fit_time" in value


def _why_not(search: Any) -> str:
    if hasattr(search, "fit") and hasattr(search, "scoring"):
        return ", which is not fitted"
    return f" with the keys {', '.join(map(repr, search)) or 'of nothing'}" if isinstance(search, Mapping) else ""


def _of_search(search: Any) -> list[Candidate]:
    results = search.cv_results_
    columns: dict[str, list[np.ndarray]] = {}
    for key in results:
        found = re.fullmatch(r"split(\d+)_((?:train|test)_.+)", key)
        if found:
            columns.setdefault(found[2], []).append(np.asarray(results[key], dtype=float))
    labels = _labels(results["params"])
    return [
        Candidate(
            index=i,
            label=labels[i],
            parameters=dict(parameters),
            iteration=int(results["iter"][i]) if "iter" in results else None,
            resources=int(results["n_resources"][i]) if "n_resources" in results else None,
            scores={name: np.array([fold[i] for fold in folds]) for name, folds in columns.items()},
            fit_time=float(results["mean_fit_time"][i]),
            fit_time_std=float(results["std_fit_time"][i]),
        )
        for i, parameters in enumerate(results["params"])
    ]


def _of_dict(index: int, label: str, result: Mapping[str, Any]) -> Candidate:
    scores = {
        key: np.asarray(values, dtype=float)
        for key, values in result.items()
        if key.startswith(("train_", "test_")) and np.ndim(values) == 1
    }
    times = np.asarray(result["fit_time"], dtype=float)
    return Candidate(index, label, {}, None, None, scores, float(times.mean()), float(times.std()))


def _labels(parameters: list[dict[str, Any]]) -> list[str]:
    """Return short labels of the candidates, without parameters that all share and without needless prefixes."""
    keys = list(dict.fromkeys(key for candidate in parameters for key in candidate))
    shown = {key: [repr(candidate[key]) if key in candidate else "" for candidate in parameters] for key in keys}
    telling = [key for key in keys if len(set(shown[key])) > 1] or keys
    short = {key: key.rsplit("__", 1)[-1] for key in telling}
    names = {key: short[key] if list(short.values()).count(short[key]) == 1 else key for key in telling}
    labels = [
        ", ".join(f"{names[key]}={_value(candidate[key])}" for key in telling if key in candidate)
        for candidate in parameters
    ]
    alike: dict[str, set[tuple[str, ...]]] = {}
    for i, label in enumerate(labels):
        alike.setdefault(label, set()).add(tuple(shown[key][i] for key in keys))
    return [f"{label} #{i}" if not label or len(alike[label]) > 1 else label for i, label in enumerate(labels)]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else getattr(value, "__name__", None) or repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:37] + "..."


# -- scores and losses -------------------------------------------------------------------------------------------------


def scorer_of(search: Any, name: str) -> Any:
    """Return the scorer of this name; None if only the name is known, as in the dict of `cross_validate`."""
    scorer = getattr(search, "scorer_", None)
    return scorer.get(name) if isinstance(scorer, Mapping) else scorer if name == "score" else None


def training_losses(search: Any, candidates: list[Candidate]) -> TrainingLosses:
    """Return the cross-entropy of the training samples if it is available.

    A log loss among the scores comes first, because it is measured on the final weights of every fold. Otherwise the
    loss of the last epoch (``train_loss_``) is read from the estimators: from those of all folds if `cross_validate`
    returned them, or from the one that a search refitted.
    """
    by_candidate = _estimators(search, candidates)
    models = [model for own in by_candidate.values() for model in own]
    classes = next((model.classes_ for model in models if hasattr(model, "classes_")), None)
    n_classes = None if classes is None else len(classes)
    name = _log_loss_name(search, candidates)
    if name is not None:
        values = {c.index: np.abs(c.scores[f"train_{name}"]) for c in candidates}  # a log loss is never below 0
        return TrainingLosses(values, "scores", n_classes)
    losses = {index: np.array([_loss_of(model) for model in own]) for index, own in by_candidate.items()}
    losses = {index: values for index, values in losses.items() if not np.isnan(values).all()}
    source = "best_estimator_" if hasattr(search, "cv_results_") else "estimators"
    return TrainingLosses(losses, source if losses else "", n_classes)


def _estimators(search: Any, candidates: list[Candidate]) -> dict[int, list[Any]]:
    """Return the available fitted estimators, by the index of their candidate."""
    if hasattr(search, "cv_results_"):
        best, index = getattr(search, "best_estimator_", None), getattr(search, "best_index_", None)
        return {} if best is None or index is None else {int(index): [best]}
    results = [search] if "fit_time" in search else list(search.values())
    return {
        candidate.index: list(result["estimator"])
        for candidate, result in zip(candidates, results, strict=True)
        if "estimator" in result
    }


def _log_loss_name(search: Any, candidates: list[Candidate]) -> str | None:
    for key in candidates[0].scores:
        name = key.removeprefix("train_")
        if key.startswith("train_") and all(key in candidate.scores for candidate in candidates):
            scorer = scorer_of(search, name)
            if getattr(scorer, "_score_func", None) is log_loss or (scorer is None and name.endswith("log_loss")):
                return name
    return None


def _loss_of(model: Any) -> float:
    """Return the training loss of the last epoch if it is a cross-entropy; NaN if that is not known."""
    try:
        net = net_of(model)
    except NotFittedError:  # an ensemble of nets, say
        return np.nan
    if not isinstance(getattr(net, "criterion_", None), nn.CrossEntropyLoss | nn.NLLLoss) or not len(net.history):
        return np.nan
    return float(net.history[-1].get("train_loss", np.nan))


# -- batch sizes -------------------------------------------------------------------------------------------------------


def batch_parameter(candidate: Candidate) -> Any:
    """Return the ``batch_size`` or ``batch_regime`` of a candidate, with any prefix; None if it has neither."""
    by_name: dict[str, Any] = {}
    for key, value in candidate.parameters.items():
        by_name.setdefault(key.rsplit("__", 1)[-1], value)
    size = by_name.get("batch_size")
    return size if size is not None else by_name.get("batch_regime")


def smallest_batch(search: Any, candidates: list[Candidate]) -> tuple[Candidate | None, int]:
    """Return the first candidate with the smallest batch size, and their number; None if the batch sizes do not vary.

    The order of batch sizes such as 256 and 10 % depends on the number of training samples. If that is not known, the
    reference must be given.
    """
    values = [batch_parameter(candidate) for candidate in candidates]
    if len({repr(value) for value in values}) < 2:
        return None, 0
    rows = [np.array([_rows(value, n_samples) for value in values]) for n_samples in _training_sizes(search)]
    smallest = np.flatnonzero(np.logical_and.reduce([sizes == sizes.min() for sizes in rows]))
    if not len(smallest):
        named = ", ".join(dict.fromkeys(map(repr, values)))
        raise ValueError(
            "reference must be given, because the smallest batch size depends on the number of training samples; the "
            f"candidates have {named}."
        )
    return candidates[smallest[0]], len(smallest)


def _training_sizes(search: Any) -> tuple[int, int]:
    """Return the least and the largest possible size of the training sets of the folds."""
    if not hasattr(search, "best_estimator_") or getattr(search, "resource", None) == "n_samples":
        return _ANY_SIZE
    try:
        n_samples = getattr(net_of(search), "n_samples_", None)
    except NotFittedError:  # an ensemble of nets, say
        n_samples = None
    return _ANY_SIZE if n_samples is None else (max(1, n_samples // 2), n_samples)


def _rows(value: Any, n_samples: int) -> float:
    """Return the batch size in the first epoch. None stands for the default of the classifier, the small batch."""
    if value is None or value == "SB":
        return check_batch_size(None, n_samples)
    if isinstance(value, BatchRegime | str):
        return check_batch_regime(value, n_samples).batch_size(0, n_samples)
    # The number is not limited to the size of the data, which may not be known. All samples count as infinity.
    if isinstance(value, int | np.integer) and value > 0:
        return int(value)
    return np.inf if value in (-1, 1.0) else check_batch_size(value, n_samples)


# -- folds -------------------------------------------------------------------------------------------------------------


def test_to_train_ratio(search: Any, n_folds: int) -> tuple[float, bool]:
    """Return the ratio of test to training samples in a fold, and whether it is known (else that of k-fold)."""
    splits = _splits(search)
    if splits is not None:
        return float(np.mean([len(test) / len(train) for train, test in splits])), True
    cv = getattr(search, "cv", None)
    if hasattr(cv, "test_size") and hasattr(cv, "train_size"):  # shuffle splits
        return _shuffled_ratio(cv), True
    folds = n_folds // getattr(cv, "n_repeats", 1)
    k_fold = isinstance(cv, (int, *_K_FOLDS)) or (cv is None and hasattr(search, "cv"))
    return 1 / (folds - 1) if folds > 1 else np.nan, k_fold


def _splits(search: Any) -> list[tuple[Any, Any]] | None:
    """Return the splits if they are available by ``return_indices=True``, or as a list of splits in ``cv``."""
    if isinstance(search, Mapping):
        result = search if "fit_time" in search else next(iter(search.values()))
        indices = result.get("indices")
        return None if indices is None else list(zip(indices["train"], indices["test"], strict=True))
    cv = getattr(search, "cv", None)
    if isinstance(cv, PredefinedSplit):
        return list(cv.split())
    return [(train, test) for train, test in cv] if isinstance(cv, list | tuple) else None


def _shuffled_ratio(cv: Any) -> float:
    rows = np.arange(10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, test = next(iter(copy.deepcopy(cv).split(rows, rows % 2, rows)))  # it may hold a random generator
    return len(test) / len(train)
