"""Sharpness (Metric 2.1 of Keskar et al. 2017) as a scorer."""

import inspect
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np

from sklgap._checks import check_arguments, check_flag, check_integer, check_max_samples, shown
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs, Solver
from sklgap.estimator._nested_parameters import suggestion
from sklgap.inspection import sharpness
from sklgap.inspection._sharpness import check_search
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.objective._check import Measurable

Function = TypeVar("Function", bound=Callable[..., float])


def _scores_sharpness(sign: int) -> Callable[[Function], Function]:
    """Mark a scorer with the sign that its sharpness has, by which `sklgap.gap_report` recognises it."""

    def mark(scorer: Function) -> Function:
        vars(scorer)["sharpness_sign"] = sign
        return scorer

    return mark


@_scores_sharpness(1)
def sharpness_score(
    estimator: Measurable,
    X: Inputs,
    y: ArrayLike | None = None,
    *,
    epsilon: float = 1e-3,
    subspace_dim: int | None = None,
    solver: Solver = "auto",
    batch_norm: BatchNormPolicy = "batch",
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> float:
    """Return the sharpness (Metric 2.1) of a fitted estimator on X and y, in percent.

    In the paper, sharpness is measured on the *training* loss. In searches and ``cross_validate``, ask for
    ``return_train_score=True`` and read the train column. On held-out samples the loss is far above zero, and the
    figure says little about the minimum.

    Parameters
    ----------
    estimator : estimator
        A fitted `LBGapClassifier` or skorch net, or a pipeline or a search that ends in one.
    X, y : array-like
        Samples over which the loss is averaged. X may also be a Dataset or a DataLoader, with y None.
    epsilon, subspace_dim, solver, batch_norm, max_samples, random_state : see `sklgap.inspection.sharpness`
        Parameters of the measurement. The default of ``random_state`` is 0 here, so that all candidates of a search are
        measured in the same subspace.

    Returns
    -------
    float
        The sharpness; larger is sharper. A search that refits on it would choose the sharpest model. Refit on accuracy,
        or search with ``neg_sharpness_scorer``.

    See Also
    --------
    sklgap.inspection.sharpness : The whole record, with solver status, number of gradients and point of the maximum.

    References
    ----------
    Keskar et al., ICLR 2017, Metric 2.1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_validate
    >>> from sklgap import LBGapClassifier, sharpness_score
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None, random_state=0)
    >>> scores = cross_validate(model, X / 16, y, cv=2, return_train_score=True, scoring={"sharpness": sharpness_score})
    >>> bool((scores["train_sharpness"] > 0).all())
    True
    """
    check_arguments(sharpness_score, locals())
    _check_one(epsilon)
    return sharpness(
        estimator,
        X,
        y,
        epsilon=epsilon,
        subspace_dim=subspace_dim,
        solver=solver,
        batch_norm=batch_norm,
        max_samples=max_samples,
        random_state=random_state,
    ).value


class _SharpnessScorer:
    """A scorer with fixed arguments. It is a class so that it can be pickled."""

    def __init__(self, sign: int, kwargs: "ScoreOptions") -> None:
        self.sign = self.sharpness_sign = sign
        self.kwargs = kwargs

    def __call__(self, estimator: Measurable, X: Inputs, y: ArrayLike | None) -> float:
        return self.sign * sharpness_score(estimator, X, y, **self.kwargs)

    def __repr__(self) -> str:
        arguments = [f"greater_is_better={self.sign > 0}", *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        return f"make_sharpness_scorer({', '.join(arguments)})"


class ScoreOptions(TypedDict, total=False):
    """The keyword arguments of `sharpness_score`."""

    epsilon: float
    subspace_dim: int | None
    solver: Solver
    batch_norm: BatchNormPolicy
    max_samples: int | float | None
    random_state: int | np.random.RandomState | None


def make_sharpness_scorer(*, greater_is_better: bool = False, **kwargs: Unpack[ScoreOptions]) -> _SharpnessScorer:
    """Return a sharpness scorer with fixed arguments, which can be pickled.

    Parameters
    ----------
    greater_is_better : bool, default=False
        False means that the score is the negative sharpness, so that searches prefer flat minima.
    **kwargs
        Arguments of `sharpness_score`, which are checked immediately.

    Returns
    -------
    callable
        Scorer (estimator, X, y) -> float.

    Examples
    --------
    >>> from sklgap import make_sharpness_scorer
    >>> make_sharpness_scorer(epsilon=5e-4)
    make_sharpness_scorer(greater_is_better=False, epsilon=0.0005)
    """
    allowed = list(_defaults())
    for name in kwargs:
        if name not in allowed:
            raise TypeError(f"make_sharpness_scorer has no argument {name!r}{suggestion(name, allowed)}")
    check_flag("greater_is_better", greater_is_better)
    given: dict[str, Any] = {name: kwargs.get(name, default) for name, default in _defaults().items()}
    check_search(given["epsilon"], given["solver"], None, None, given["random_state"])
    _check_one(given["epsilon"])
    check_integer("subspace_dim", given["subspace_dim"], or_none=True)
    check_batch_norm(given["batch_norm"])
    check_max_samples(given["max_samples"])
    return _SharpnessScorer(1 if greater_is_better else -1, kwargs)


def _check_one(epsilon: Any) -> None:
    """Raise a ValueError for several epsilons, because a score is a single number."""
    if isinstance(epsilon, list | tuple) or getattr(epsilon, "ndim", 0) != 0:
        raise ValueError(f"epsilon must be a number above 0; got {shown(epsilon)}.")


def _defaults() -> dict[str, Any]:
    """Return the arguments of `sharpness_score` that a scorer may fix, with their defaults."""
    parameters = list(inspect.signature(sharpness_score).parameters.values())[3:]
    return {parameter.name: parameter.default for parameter in parameters}


@_scores_sharpness(-1)
def neg_sharpness_scorer(estimator: Measurable, X: Inputs, y: ArrayLike | None) -> float:
    """Return the negative sharpness with the defaults of `sharpness_score`, for searches.

    Parameters
    ----------
    estimator : estimator
        As in `sharpness_score`.
    X, y : array-like
        As in `sharpness_score`.

    Returns
    -------
    float
        The negative sharpness in percent; larger is flatter.

    See Also
    --------
    make_sharpness_scorer : A scorer with other arguments.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier
    >>> from sklgap.metrics import neg_sharpness_scorer
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=16, max_epochs=3, tol=None, random_state=0).fit(X[:900], y[:900])
    >>> neg_sharpness_scorer(model, X[:900], y[:900]) < 0
    True
    """
    return -sharpness_score(estimator, X, y)
