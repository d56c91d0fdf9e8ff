"""The one door from what a user holds (an estimator, a pipeline, a search, a skorch net) to an `Objective`."""

import copy
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from sklgap._checks import check_arguments, naming_data, shown
from sklgap._typing import Criterion
from sklgap.objective._objective import Objective, RestrictedObjective
from sklgap.objective._tensors import as_tensor


def check_objective(
    estimator: Any,
    X: Any = None,
    y: Any = None,
    *,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Any,
) -> Objective | RestrictedObjective:
    """Return the `Objective` of a fitted estimator on data.

    Parameters
    ----------
    estimator : object
        An `LBGapClassifier`; any fitted skorch net, measured by its own ``get_loss``; a pipeline that ends in one (X
        goes through the earlier steps); a fitted search over one; a pair (module, criterion); or an `Objective`,
        which is returned as it is.
    X, y : array-like
        The rows f is the mean over; not allowed beside an `Objective`, which has its data.
    max_samples : int, float or None, default=None
        Use this many rows (int) or this fraction of them (float in (0, 1]), drawn without replacement by
        ``random_state``; None, or at least as many as there are: all.
    random_state : int, RandomState or None, default=None
        Draws the rows.
    **kwargs
        ``batch_norm``, ``chunk_size``, ``dtype``, ``device`` of `Objective`.

    Returns
    -------
    Objective

    Raises
    ------
    TypeError
        For anything that is not one of the above.
    sklearn.exceptions.NotFittedError
        For an estimator that has not been fitted.

    Examples
    --------
    >>> import torch
    >>> from sklgap.objective import check_objective
    >>> pair = (torch.nn.Linear(3, 2), torch.nn.CrossEntropyLoss())
    >>> check_objective(pair, torch.zeros(8, 3), torch.zeros(8), max_samples=5, random_state=0).n_samples
    5
    """
    check_arguments(check_objective, locals())
    check_max_samples(max_samples)
    if isinstance(estimator, Objective | RestrictedObjective):
        if X is not None or y is not None or max_samples is not None:
            raise TypeError("An Objective carries its own data; X, y and max_samples must be None beside it.")
        if kwargs:
            raise TypeError(f"An Objective is settled; {', '.join(kwargs)} cannot be given beside it.")
        return estimator
    if X is None or y is None:
        raise TypeError("X and y must be given beside an estimator; only an Objective carries its own data.")
    with naming_data("X", "y"):
        module, criterion, X, y = _parts(estimator, X, y)
    if max_samples is not None:
        rows = _sample(len(y), max_samples, random_state)
        X, y = X[rows], y[rows]
    return Objective(module, criterion, (X, y), **kwargs)


def _parts(estimator: Any, X: Any, y: Any) -> tuple[nn.Module, Criterion, Any, Any]:
    """Recognise what the estimator is by what it offers, never by its class."""
    if isinstance(estimator, tuple) and len(estimator) == 2 and isinstance(estimator[0], nn.Module):
        return *estimator, as_tensor(X), as_tensor(y)
    if hasattr(estimator, "objective_parts"):
        return estimator.objective_parts(X, y)
    if hasattr(estimator, "best_estimator_"):
        return _parts(estimator.best_estimator_, X, y)
    if hasattr(estimator, "steps"):
        return _parts(estimator.steps[-1][1], estimator[:-1].transform(X) if len(estimator.steps) > 1 else X, y)
    if hasattr(estimator, "get_loss") and hasattr(estimator, "module"):
        if not getattr(estimator, "initialized_", False):
            raise NotFittedError(f"This {type(estimator).__name__} is not fitted yet; call 'fit' first.")
        return estimator.module_, own_loss(estimator), as_tensor(X), as_tensor(y)
    if hasattr(estimator, "estimator") and hasattr(estimator, "fit"):
        raise NotFittedError(
            f"This {type(estimator).__name__} is not fitted yet, or was not refitted; call 'fit' first."
        )
    raise TypeError(
        "estimator must be an LBGapClassifier, a skorch net, a pipeline or a search that ends in one, "
        f"a pair (module, criterion) or an Objective; got {type(estimator).__name__}."
    )


def check_max_samples(max_samples: Any) -> None:
    """Raise a ValueError unless it is None, a number of rows or a fraction of them."""
    fraction = isinstance(max_samples, float | np.floating)
    whole = isinstance(max_samples, int | np.integer) and not isinstance(max_samples, bool)
    if max_samples is not None and not (0 < max_samples <= 1 if fraction else whole and max_samples >= 1):
        raise ValueError(
            f"max_samples must be None, an integer of at least 1 or a float in (0, 1]; got {shown(max_samples)}."
        )


def own_loss(net: Any) -> Criterion:
    """Return a skorch net's ``get_loss`` as a function of (y_pred, y) alone: f is then its ``loss_scoring``.

    The loss is evaluated in float64 on the outputs, except for ``NLLLoss``, where skorch adds the rounding unit of
    the outputs' dtype before it takes the logarithm. ``get_loss`` sees a private copy of the criterion.
    """
    exact = not isinstance(net.criterion_, nn.NLLLoss)
    shadow = object.__new__(type(net))
    vars(shadow).update(vars(net))
    vars(shadow)["criterion_"] = copy.deepcopy(net.criterion_)

    def loss(y_pred: Tensor, y: Tensor) -> Tensor:
        vars(shadow)["device"] = y_pred.device
        if exact and y_pred.device.type != "mps":
            y_pred = y_pred.double()
        shadow.criterion_.to(device=y_pred.device, dtype=y_pred.dtype)
        return shadow.get_loss(y_pred, y)

    return loss


def _sample(n_samples: int, max_samples: int | float, random_state: int | np.random.RandomState | None) -> np.ndarray:
    fraction = isinstance(max_samples, float | np.floating)
    size = max(1, round(max_samples * n_samples)) if fraction else min(int(max_samples), n_samples)
    if not isinstance(random_state, np.random.RandomState):
        random_state = np.random.RandomState(random_state)
    return np.sort(random_state.choice(n_samples, size, replace=False))
