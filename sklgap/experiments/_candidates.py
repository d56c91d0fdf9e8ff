"""The results of a fitted search or of `cross_validate`, by candidate and fold."""

import functools
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    KFold,
    PredefinedSplit,
    RepeatedKFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
)
from torch import nn

from sklgap._checks import is_integer
from sklgap.objective._estimators import final_estimator, net_of
from sklgap.regimes._base import BatchRegime, check_batch_size
from sklgap.regimes._check import check_batch_regime

# Possible sizes of training sets, for a search whose own sizes are not known.
_ANY_SIZE = 100, 10_000_000
# Splitters whose folds have equal sizes. Those of groups do not, and a subclass may leave samples out.
_K_FOLDS = KFold, StratifiedKFold, RepeatedKFold, RepeatedStratifiedKFold
_SHUFFLES = ShuffleSplit, StratifiedShuffleSplit
# Parameters of an estimator that set its batch size.
_BATCH_PARAMETERS = "batch_size", "batch_regime"


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


def sharpness_sign(search: Any, name: str) -> int | None:
    """Return 1 if a score is sharpness, -1 if it is negative sharpness, and None if it is neither.

    The sign is 0 if only the name of the score says that it is sharpness.
    """
    scorer = scorer_of(search, name)
    while isinstance(scorer, functools.partial):
        scorer = scorer.func
    sign: int | None = getattr(scorer, "sharpness_sign", None)
    if sign is not None:
        return sign
    of_predictions = hasattr(scorer, "_score_func")  # a scorer of scikit-learn sees no loss surface
    return 0 if "sharpness" in name and not of_predictions else None


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


def batch_settings(search: Any, candidate: Candidate) -> tuple[Any, ...]:
    """Return the batch size or batch regime of every net in the estimator of a candidate.

    They are read from the estimator of the search with the parameters of the candidate, because a candidate need not
    set them. An estimator without a net has the parameters of the candidate with these names, if any.
    """
    estimator = getattr(search, "estimator", None)
    if estimator is not None:
        # The parameters are copied like in the search, because setting them may change estimators among them.
        estimator = clone(estimator).set_params(**clone(candidate.parameters, safe=False))
        settings = tuple(map(_batch_setting, _nets(estimator)))
        if settings:
            return settings
    by_name: dict[str, Any] = {}
    for key, value in candidate.parameters.items():
        if "iterator_valid" not in key.split("__"):
            by_name.setdefault(key.rsplit("__", 1)[-1], value)
    return (_batch_setting(by_name),) if any(name in by_name for name in _BATCH_PARAMETERS) else ()


def _nets(estimator: Any) -> list[Any]:
    """Return the parameters of the final estimator if it has a batch size, else of all its parts that have one."""
    final = final_estimator(estimator)
    if _has_batches(final):
        return [final.get_params(deep=False)]
    parts = [part for part in estimator.get_params(deep=True).values() if not isinstance(part, type)]
    nets = list({id(part): part.get_params(deep=False) for part in parts if _has_batches(part)}.values())
    if nets and any(hasattr(part, "refit") and hasattr(part, "estimator") for part in [estimator, *parts]):
        raise ValueError(
            "reference must be given, because the search inside the estimator may have chosen another batch size in "
            "every fold."
        )
    return nets


def _has_batches(estimator: Any) -> bool:
    if isinstance(estimator, type) or not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
        return False
    return any(name in estimator.get_params(deep=False) for name in _BATCH_PARAMETERS)


def _batch_setting(parameters: Mapping[str, Any]) -> Any:
    """Return what sets the batch size. As in the classifier, ``batch_size`` overrides ``batch_regime``."""
    if "iterator_train__batch_size" in parameters:  # of a skorch net, which overrides batch_size
        return parameters["iterator_train__batch_size"]
    size = parameters.get("batch_size")
    return parameters.get("batch_regime") if size is None else size


def smallest_batch(search: Any, candidates: list[Candidate]) -> tuple[Candidate | None, int]:
    """Return the first candidate with the smallest batch size, and their number; None if the batch sizes do not vary.

    The order of batch sizes such as 256 and 10 % depends on the number of training samples. If that is not known, the
    reference must be given.
    """
    settings = [batch_settings(search, candidate) for candidate in candidates]
    if len({repr(values) for values in settings}) < 2:
        return None, 0
    named = ", ".join(dict.fromkeys(", ".join(map(repr, values)) or "no batch size" for values in settings))
    try:
        rows = [
            np.array([_rows(*values, n_samples=n_samples) for values in settings])
            for n_samples in _training_sizes(search, candidates)
        ]
    except (TypeError, ValueError) as error:  # no net, several nets, or a value that only the estimator understands
        raise ValueError(
            "reference must be given, because the batch sizes of the candidates are not known; the candidates have "
            f"{named}."
        ) from error
    smallest = np.flatnonzero(np.logical_and.reduce([sizes == sizes.min() for sizes in rows]))
    if not len(smallest):
        raise ValueError(
            "reference must be given, because the smallest batch size depends on the number of training samples; the "
            f"candidates have {named}."
        )
    return candidates[smallest[0]], len(smallest)


def _training_sizes(search: Any, candidates: list[Candidate]) -> tuple[int, int]:
    """Return the least and the largest possible size of the training sets of the folds."""
    if getattr(search, "resource", None) == "n_samples" and candidates[0].resources is not None:
        n_samples: int | None = candidates[0].resources
        validates = bool(getattr(final_estimator(getattr(search, "estimator", None)), "train_split", None))
    else:
        n_samples, validates = _refitted_size(search), False
    if n_samples is None:
        return _ANY_SIZE
    share = 0 if validates else _least_training_share(search, n_samples)
    return max(1, int(share * n_samples)), n_samples


def _refitted_size(search: Any) -> int | None:
    """Return the number of training samples of the net that was refitted to all data; None if it is not known."""
    if not hasattr(search, "best_estimator_"):
        return None
    try:
        return getattr(net_of(search), "n_samples_", None)
    except NotFittedError:  # an ensemble of nets, say
        return None


def _rows(value: Any, *, n_samples: int) -> float:
    """Return the batch size in the first epoch."""
    if isinstance(value, BatchRegime | str):
        return check_batch_regime(value, n_samples).batch_size(0, n_samples)
    # The number is not limited to the size of the data, which may not be known. All samples count as infinity.
    if is_integer(value, 1):
        return int(value)
    whole = check_batch_size(value, n_samples, or_none=False)
    return np.inf if value in (-1, 1.0) else whole


# -- folds -------------------------------------------------------------------------------------------------------------


def test_to_train_ratio(search: Any, n_folds: int) -> tuple[float, bool]:
    """Return the ratio of test to training samples in a fold, and whether it is known (else that of k-fold)."""
    splits = _splits(search)
    if splits is not None:
        return float(np.mean([len(_members(test)) / len(_members(train)) for train, test in splits])), True
    cv = getattr(search, "cv", None)
    sizes = _shuffled_sizes(cv)
    if sizes is not None:
        return sizes[1] / sizes[0], True
    folds = n_folds // getattr(cv, "n_repeats", 1)
    return 1 / (folds - 1) if folds > 1 else np.nan, _has_equal_folds(search)


def check_same_folds(search: Any) -> bool:
    """Return whether all candidates are known to have the same folds; raise a ValueError if two have different folds.

    A search has the same folds for all candidates. Results of `cross_validate` have them in ``indices``, if at all.
    """
    if not isinstance(search, Mapping) or "fit_time" in search:
        return True
    known = _known_splits(search)
    for label, splits in known[1:]:
        first, expected = known[0]
        for fold, (one, other) in enumerate(zip(expected, splits, strict=False)):
            if not all(np.array_equal(_members(a), _members(b)) for a, b in zip(one, other, strict=True)):
                raise ValueError(
                    f"search must have results over the same folds; {label!r} and {first!r} have different training or "
                    f"test samples in fold {fold}. Use the same splits in cv, such as KFold(shuffle=True, "
                    "random_state=0)."
                )
    return len(known) == len(search)


def _known_splits(results: Mapping[Any, Mapping[str, Any]]) -> list[tuple[Any, list[tuple[Any, Any]]]]:
    """Return the labels and the splits of the results that have ``indices``."""
    return [
        (label, list(zip(result["indices"]["train"], result["indices"]["test"], strict=True)))
        for label, result in results.items()
        if result.get("indices") is not None
    ]


def _members(indices: Any) -> np.ndarray:
    """Return the numbers of the samples, in order. scikit-learn also takes a mask of all samples."""
    indices = np.asarray(indices)
    return np.flatnonzero(indices) if indices.dtype == bool else np.sort(indices)


def _splits(search: Any) -> list[tuple[Any, Any]] | None:
    """Return the splits if they are available by ``return_indices=True``, or as a list of splits in ``cv``."""
    if isinstance(search, Mapping):
        found = _known_splits({"": search} if "fit_time" in search else search)
        return found[0][1] if found else None
    cv: Any = getattr(search, "cv", None)
    if type(cv) is PredefinedSplit:
        return list(cv.split())
    return [(train, test) for train, test in cv] if isinstance(cv, list | tuple) else None


def _has_equal_folds(search: Any) -> bool:
    """Return whether the splitter is known to be k-fold with folds of equal sizes."""
    cv = getattr(search, "cv", None)
    return is_integer(cv, 2) or type(cv) in _K_FOLDS or (cv is None and hasattr(search, "cv"))


def _shuffled_sizes(cv: Any) -> tuple[float, float] | None:
    """Return the training and the test size of a shuffle split, both as fractions or both as numbers of samples.

    For other splitters, return None. Also return None if one size is a number of samples and the other is not, because
    their ratio then depends on the number of samples.
    """
    if type(cv) not in _SHUFFLES:
        return None
    train, test = cv.train_size, cv.test_size
    given = [size for size in (train, test) if size is not None]
    n_absolute = sum(isinstance(size, numbers.Integral) for size in given)
    if n_absolute:
        return (train, test) if n_absolute == 2 else None
    if train is None:
        test = 0.1 if test is None else test  # the default of these splitters
        return 1 - test, test
    return train, 1 - train if test is None else test


def _least_training_share(search: Any, n_samples: int) -> float:
    """Return the least share of the samples that a training set of the folds may have; 0 if it is not known."""
    if _has_equal_folds(search):
        return 1 / 2
    splits, sizes = _splits(search), _shuffled_sizes(getattr(search, "cv", None))
    if splits is not None:
        n_all = max(n_samples, *(1 + int(_members(part).max()) for split in splits for part in split))
        return min(len(_members(train)) for train, _ in splits) / n_all
    return sizes[0] if sizes is not None and sizes[0] < 1 else 0
