"""The two gaps and the sharpness of the candidates of a search that has been run."""

import math
from typing import Any

import numpy as np
from scipy import stats

from sklgap._checks import check_positive, is_integer, is_one_of
from sklgap.experiments._candidates import Candidate, candidates_of, smallest_batch, test_to_train_ratio
from sklgap.experiments._gap_result import GapReport, sentences_on
from sklgap.experiments._statistics import CONFIDENCE


def gap_report(
    search: Any,
    *,
    reference: int | str | dict[str, Any] | None = None,
    accuracy: str | None = None,
    test_ratio: float | None = None,
) -> GapReport:
    r"""Read a search as a study of batch sizes: accuracies, both gaps and sharpness of every candidate.

    Parameters
    ----------
    search : fitted search, or dict
        A `GridSearchCV`, `RandomizedSearchCV` or halving search, or what `cross_validate` returned, or a dict of
        ``{label: what cross_validate returned}`` over the same folds. Made with ``return_train_score=True``, and with
        sharpness among the scorers where it is wanted:
        ``scoring={"accuracy": "accuracy", "sharpness": sharpness_score}, refit="accuracy"``.
    reference : int, str or dict, default=None
        The candidate that the others are compared with: its index in ``cv_results_``, its label, or parameters that
        only it has (prefixes of a pipeline's step may be left out). None: the one with the smallest batch by
        ``batch_size`` or ``batch_regime``, the first of several; of a dict of results the first.
    accuracy : str, default=None
        The name of the score that is accuracy. None: "accuracy", else the only name that contains it, else the one
        score there is.
    test_ratio : float, default=None
        Rows of a test fold by those of its training set, for the interval. None: taken from the splits where they are
        known, else 1 / (n_folds - 1), which is right for k-fold.

    Returns
    -------
    GapReport
        Prints as a table with its warnings; ``records``, ``to_frame()``, ``to_json()``.

    Raises
    ------
    ValueError
        Without training scores or accuracy among the scores, for results of unequal folds, or a reference that is
        not one candidate.
    TypeError
        For what is no result of a search.

    See Also
    --------
    compare_regimes : Paired trials that start from the same weights, on one training and test set.

    Notes
    -----
    The regime gap is paired over the folds. With J folds, differences of variance :math:`s^2`, and
    :math:`n_2 / n_1` test rows to training rows, its interval is

    .. math:: \bar d \pm t_{J-1} \sqrt{\Big(\frac{1}{J} + \frac{n_2}{n_1}\Big) s^2}

    where 1/J alone would take the folds for independent, which their common training rows forbid. The folds of
    different iterations of a halving search are different rows: gaps are taken within an iteration.

    Sharpness is that of the training rows, the paper's f; a score that is negative throughout, as that of
    ``neg_sharpness_scorer``, is turned. Failed fits (NaN) are left out and reported.

    Batch-norm policies may differ: scores of accuracy are those of ``predict``, sharpness has its own ``batch_norm``.
    Seconds compare only where the fits had the machine to themselves in the same way.

    References
    ----------
    Keskar et al., ICLR 2017, Metric 2.1. Nadeau and Bengio, Inference for the Generalization Error, Machine Learning
    52, 2003, Section 3 (corrected resampled t-test).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklgap import LBGapClassifier, gap_report
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None, random_state=0)
    >>> search = GridSearchCV(model, {"batch_size": [20, 600]}, cv=3, return_train_score=True)
    >>> report = gap_report(search.fit(X / 16, y))
    >>> report.settings["reference"], bool(report.records[1]["regime_gap"] > 0)
    ('batch_size=20', True)
    """
    candidates = candidates_of(search)
    name = _accuracy_name(candidates, search, accuracy)
    n_folds = _check_folds(candidates, name)
    chosen, sharing = _choose_reference(search, candidates, reference)
    if test_ratio is None:
        ratio, known = test_to_train_ratio(search, n_folds)
    else:
        check_positive("test_ratio", test_ratio)
        ratio, known = float(test_ratio), True
    sharpness = _sharpness_names(candidates)
    records = [_record(candidate, candidates, chosen, name, sharpness, ratio) for candidate in candidates]
    settings = {
        "search": type(search).__name__,
        "reference": None if chosen is None else chosen.label,
        "accuracy": name,
        "sharpness": list(sharpness),
        "n_folds": n_folds,
        "test_to_train_ratio": ratio,
        "test_to_train_ratio_known": known,
        "resource": _resource(search) if candidates[0].iteration is not None else None,
        "confidence": CONFIDENCE,
    }
    return GapReport(records, settings, sentences_on(records, settings, candidates, sharing))


# -- numbers -----------------------------------------------------------------------------------------------------------


def _record(
    candidate: Candidate,
    candidates: list[Candidate],
    reference: Candidate | None,
    accuracy: str,
    sharpness: dict[str, float],
    ratio: float,
) -> dict[str, Any]:
    train, test = (candidate.scores[f"{part}_{accuracy}"] for part in ("train", "test"))
    finished = np.isfinite(train) & np.isfinite(test)
    record: dict[str, Any] = {
        "candidate": candidate.index,
        "label": candidate.label,
        **{f"param_{key}": value for key, value in candidate.parameters.items()},
    }
    if candidate.iteration is not None:
        record |= {"iteration": candidate.iteration, "resources": candidate.resources}
    record["n_finished"] = int(finished.sum())
    record |= _moments("train_accuracy", train[finished]) | _moments("test_accuracy", test[finished])
    record |= _moments("train_test_gap", (train - test)[finished])
    if reference is not None:
        beside = _same_iteration(reference, candidate, candidates)
        record |= {"is_reference": beside is candidate, **_gap_to(candidate, beside, f"test_{accuracy}", ratio)}
    for name, sign in sharpness.items():
        values = sign * candidate.scores[f"train_{name}"]
        record |= _moments(name, values[np.isfinite(values)])
    n = len(test)
    by_n_minus_1 = math.sqrt(n / (n - 1)) if n > 1 else math.nan
    return record | {"fit_seconds": candidate.fit_time, "fit_seconds_std": by_n_minus_1 * candidate.fit_time_std}


def _moments(name: str, values: np.ndarray) -> dict[str, float]:
    mean = float(values.mean()) if len(values) else math.nan
    return {name: mean, f"{name}_std": float(values.std(ddof=1)) if len(values) > 1 else math.nan}


def _same_iteration(reference: Candidate, candidate: Candidate, candidates: list[Candidate]) -> Candidate | None:
    """Return the reference as it was trained beside a candidate; None where it had left a halving search."""
    if reference.iteration == candidate.iteration:
        return reference
    beside = (c for c in candidates if c.iteration == candidate.iteration)
    return next((c for c in beside if _same(c.parameters, reference.parameters)), None)


def _gap_to(candidate: Candidate, reference: Candidate | None, score: str, ratio: float) -> dict[str, float]:
    """Return the regime gap and its interval by the corrected resampled t-test."""
    gap = {"regime_gap": math.nan, "regime_gap_low": math.nan, "regime_gap_high": math.nan, "n_pairs": 0}
    if reference is None or reference is candidate:
        return gap
    differences = reference.scores[score] - candidate.scores[score]
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    if not n:
        return gap
    mean = float(differences.mean())
    half = math.nan
    if n > 1:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.sqrt((1 / n + ratio) * differences.var(ddof=1)))
    return {"regime_gap": mean, "regime_gap_low": mean - half, "regime_gap_high": mean + half, "n_pairs": n}


# -- what is what ------------------------------------------------------------------------------------------------------


def _accuracy_name(candidates: list[Candidate], search: Any, accuracy: str | None) -> str:
    names = [key.removeprefix("test_") for key in candidates[0].scores if key.startswith("test_")]
    scoring = getattr(search, "scoring", None)
    if accuracy is not None:
        found = [accuracy] if is_one_of(accuracy, names) else []
    elif names == ["score"]:  # the one score; a search says which
        found = names if not isinstance(scoring, str) or "accuracy" in scoring else []
        names = [scoring] if isinstance(scoring, str) else names
    else:
        found = ["accuracy"] if "accuracy" in names else [name for name in names if "accuracy" in name]
    if len(found) != 1:
        raise ValueError(
            f"accuracy must name the score that is accuracy, one of {', '.join(map(repr, names)) or 'none'}; "
            f"got {accuracy!r}."
        )
    if f"train_{found[0]}" not in candidates[0].scores:
        raise ValueError(
            "search must have training scores, which the gaps need: make it with return_train_score=True; got test "
            "scores alone."
        )
    return found[0]


def _check_folds(candidates: list[Candidate], accuracy: str) -> int:
    """Return the number of folds, which all candidates must have."""
    for candidate in candidates:
        for key in (f"train_{accuracy}", f"test_{accuracy}"):
            if key not in candidate.scores:
                raise ValueError(f"search must have {key!r} for every label; {candidate.label!r} has none.")
    counts = {len(candidate.scores[f"test_{accuracy}"]) for candidate in candidates}
    if len(counts) > 1:
        raise ValueError(f"search must have results over the same folds; got {sorted(counts)} folds.")
    return counts.pop()


def _sharpness_names(candidates: list[Candidate]) -> dict[str, float]:
    """Return the metrics that are sharpness, each with the sign that makes it positive."""
    signs = {}
    for key in candidates[0].scores:
        name = key.removeprefix("train_")
        if not key.startswith("train_") or "sharpness" not in name or not all(key in c.scores for c in candidates):
            continue
        values = np.concatenate([candidate.scores[key] for candidate in candidates])
        values = values[np.isfinite(values)]
        # Sharpness is a maximum minus a value it includes: what is negative is a scorer that prefers flat minima.
        signs[name] = -1.0 if len(values) and values.max() <= 0 and values.min() < 0 else 1.0
    return signs


def _resource(search: Any) -> str:
    return "rows" if getattr(search, "resource", "n_samples") == "n_samples" else str(search.resource)


def _choose_reference(
    search: Any, candidates: list[Candidate], reference: int | str | dict[str, Any] | None
) -> tuple[Candidate | None, int]:
    """Return the reference, None where nothing says which, and how many candidates share its batch size."""
    first = [c for c in candidates if c.iteration in (None, candidates[0].iteration)]
    if reference is None:
        if len(first) == 1:
            return None, 0
        return (first[0], 1) if not hasattr(search, "cv_results_") else smallest_batch(search, first)
    if is_integer(reference, 0) and reference < len(candidates):
        return candidates[reference], 1
    if isinstance(reference, str):
        found = [c for c in first if c.label == reference]
    elif isinstance(reference, dict) and reference:
        found = [c for c in first if all(_has(c.parameters, key, value) for key, value in reference.items())]
    else:
        found = []
    if len(found) != 1:
        raise ValueError(
            f"reference must be the index, the label or the parameters of one of {len(candidates)} candidates, such as "
            f"{first[0].label!r}; got {reference!r}" + (f", which {len(found)} of them have." if found else ".")
        )
    return found[0], 1


def _has(parameters: dict[str, Any], key: str, value: Any) -> bool:
    keys = [own for own in parameters if own == key or own.endswith(f"__{key}")]
    return any(_equal(parameters[own], value) for own in keys)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)


def _equal(one: Any, other: Any) -> bool:
    return one is other or repr(one) == repr(other)  # regimes and remedies do not compare
