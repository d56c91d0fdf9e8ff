"""The single way from a user's object (an estimator, a pipeline, a search, a skorch net) to an `Objective`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypedDict, Unpack, overload

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from sklgap._checks import check_arguments, check_max_samples, naming_data, resolve_max_samples
from sklgap._typing import ArrayLike, BatchNormPolicy, Criterion, Estimator, Inputs
from sklgap.objective._compile import Options
from sklgap.objective._copy import check_plain, deepcopy
from sklgap.objective._data import tensors
from sklgap.objective._estimators import check_fitted, final_estimator, is_skorch_net, through_head
from sklgap.objective._nested import map_tensors
from sklgap.objective._objective import Objective, RestrictedObjective
from sklgap.objective._parameters import Patterns
from sklgap.objective._row_loss import RowLoss, row_loss
from sklgap.objective._stream import is_stream, length_of, part_of
from sklgap.objective._tensors import as_tensor

# Everything that can be measured.
Measurable = Objective | RestrictedObjective | Estimator | tuple[nn.Module, Callable[..., Any]]


class ObjectiveOptions(TypedDict, total=False):
    """Options that `check_objective`, and every function that calls it, passes to `Objective`."""

    batch_norm: BatchNormPolicy
    chunk_size: int
    dtype: torch.dtype | None
    device: str | torch.device | None
    parameters: Patterns | None
    sample_weight: ArrayLike | None
    num_workers: int
    check: bool
    compile: bool | Options


_OPTIONS = tuple(ObjectiveOptions.__annotations__)


@overload
def check_objective(
    estimator: Objective | Estimator | tuple[nn.Module, Callable[..., Any]],
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Objective: ...
@overload
def check_objective(
    estimator: RestrictedObjective,
    X: None = None,
    y: None = None,
    *,
    max_samples: None = None,
    random_state: int | np.random.RandomState | None = None,
) -> RestrictedObjective: ...
@overload
def check_objective(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Objective | RestrictedObjective: ...


def check_objective(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Objective | RestrictedObjective:
    """Return the `Objective` of a fitted estimator on data.

    Parameters
    ----------
    estimator : object
        An `LBGapClassifier`; any fitted skorch net, which is measured with its own ``infer`` and ``get_loss``; a
        pipeline that ends in one (its earlier steps transform X); a fitted search over one; a pair (module, criterion);
        or an `Objective`, which is returned as it is.
    X, y : array-like
        Samples over which f is averaged. X can also be a ``torch.utils.data.Dataset`` or ``DataLoader`` of (inputs,
        target), and then y is None. For an `LBGapClassifier` the targets are its labels. Both must be None with an
        `Objective`, which holds its data.
    max_samples : int, float or None, default=None
        Number of samples to use (int), or a fraction of them (float in (0, 1]). ``random_state`` draws them without
        replacement. None uses all samples, and so does a number that is too large. It must be None for a DataLoader.
    random_state : int, RandomState or None, default=None
        Seed of the samples.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype``, ``device``, ``parameters``,
        ``sample_weight``, ``num_workers``, ``check`` and ``compile``. By default an `LBGapClassifier` is measured with
        its own ``compile``.

    Returns
    -------
    Objective
        The loss of the estimator on the data, or the given `Objective`.

    Raises
    ------
    TypeError
        If the estimator is of none of these types.
    sklearn.exceptions.NotFittedError
        If the estimator has not been fitted.

    Examples
    --------
    >>> import torch
    >>> from sklgap.objective import check_objective
    >>> pair = (torch.nn.Linear(3, 2), torch.nn.CrossEntropyLoss())
    >>> check_objective(pair, torch.zeros(8, 3), torch.arange(8) % 2, max_samples=5, random_state=0).n_samples
    5
    """
    check_arguments(check_objective, locals())
    check_max_samples(max_samples)
    unknown = [name for name in kwargs if name not in _OPTIONS]
    if unknown:
        raise TypeError(f"{unknown[0]} is not an option of Objective; its options are {', '.join(_OPTIONS)}.")
    if isinstance(estimator, Objective | RestrictedObjective):
        if X is not None or y is not None or max_samples is not None:
            raise TypeError("X, y and max_samples must be None with an Objective, because it holds its own data.")
        if kwargs:
            raise TypeError(f"{', '.join(kwargs)} must not be given with an Objective, whose options are fixed.")
        return estimator
    if is_stream(X):
        if y is not None:
            raise TypeError("y must be None with a Dataset or a DataLoader, because it holds the targets.")
    elif X is None or y is None:
        raise TypeError("X and y must be given with an estimator; only an Objective holds its own data.")
    with naming_data("X", "y"):
        module, criterion, rows, target = _parts(estimator, X, y)
    if "compile" not in kwargs:
        kwargs["compile"] = _compile_of(estimator)
    if is_stream(rows):
        if max_samples is not None:
            rows = part_of(rows, _sample(length_of(rows), max_samples, random_state).tolist())
        return Objective(module, criterion, rows, **kwargs)
    if max_samples is not None:
        drawn = _sample(len(target), max_samples, random_state)
        rows, target = _take(rows, drawn), target[drawn]
        if kwargs.get("sample_weight") is not None:
            kwargs["sample_weight"] = as_tensor(kwargs["sample_weight"])[drawn]
    return Objective(module, criterion, (rows, target), **kwargs)


def module_to_measure(estimator: Any, X: Any, y: Any) -> nn.Module:
    """Return the module that `check_objective` would measure on a few samples, or on a stream, which is not read."""
    return check_plain(_parts(estimator, X, y)[0])


def first_rows(X: Any, n: int) -> Any:
    """Return the first rows of an array, of a tuple or dict of arrays, or of a table."""
    if isinstance(X, Mapping):
        return {key: value[:n] for key, value in X.items()}
    return tuple(value[:n] for value in X) if isinstance(X, tuple) else X[:n]


def _take(X: Any, rows: np.ndarray) -> Any:
    return X[rows] if sparse.issparse(X) else map_tensors(lambda t: t[rows], X)


def _parts(estimator: Any, X: Any, y: Any) -> tuple[nn.Module, Criterion | RowLoss, Any, Any]:
    """Return module, criterion and data. The methods of the estimator, not its class, show what it is."""
    if isinstance(estimator, type):
        raise TypeError(f"estimator must be a fitted object; got the class {estimator.__name__}.")
    if isinstance(estimator, tuple) and len(estimator) == 2 and isinstance(estimator[0], nn.Module):
        return *estimator, *_as_tensors(X, y)
    last, X = final_estimator(estimator), through_head(estimator, X)
    if hasattr(last, "objective_parts"):
        return last.objective_parts(X, y)
    check_fitted(last)
    if is_skorch_net(last):
        return last.module_, own_loss(last), *_as_tensors(X, y)
    raise TypeError(
        "estimator must be an LBGapClassifier, a skorch net, a pipeline or a search that ends in one, "
        f"a pair (module, criterion) or an Objective; got {type(last).__name__}."
    )


def _compile_of(estimator: Any) -> bool | Options:
    """Return the options of ``compile`` of an `LBGapClassifier`; False for any other estimator."""
    last = final_estimator(estimator)
    options = getattr(last, "torch_compile_options", None) if hasattr(last, "objective_parts") else None
    return False if options is None else options


def _as_tensors(X: Any, y: Any) -> tuple[Any, Any]:
    if is_stream(X):
        return X, None
    return X if sparse.issparse(X) else tensors(X), as_tensor(y)


def own_loss(net: Any) -> RowLoss:
    """Return the ``get_loss`` of a skorch net as a loss of (y_pred, y), where its own ``infer`` gives y_pred.

    f then equals its ``loss_scoring``. The loss is evaluated in float64 on the outputs. ``NLLLoss`` is an exception,
    because skorch adds the rounding unit of the outputs' dtype before it takes the logarithm. ``get_loss`` sees a
    private copy of the criterion.
    """
    exact = not isinstance(net.criterion_, nn.NLLLoss)
    shadow = object.__new__(type(net))
    vars(shadow).update(vars(net))
    # If a net offers the loss without its class weights, they are added below. For any other net, get_loss is the whole
    # loss, and an attribute called class_weight may mean anything.
    separate = hasattr(net, "loss_by_criterion")
    class_weight = net.class_weight if separate else None
    get_loss = shadow.loss_by_criterion if separate else shadow.get_loss

    def evaluate(criterion: Criterion) -> Criterion:
        def loss(y_pred: Any, y: Tensor) -> Tensor:
            if isinstance(y_pred, Tensor):
                device = y_pred.device
                if exact and device.type != "mps":
                    y_pred = y_pred.double()
                if isinstance(criterion, nn.Module):
                    criterion.to(device=device, dtype=y_pred.dtype)
                vars(shadow)["device"] = device
                if y.is_floating_point():
                    y = y.to(y_pred.dtype)
            vars(shadow)["criterion_"] = criterion
            return get_loss(y_pred, y)

        return loss

    def infer(module: nn.Module, X: Any) -> Any:
        vars(shadow)["module_"] = module
        vars(shadow)["device"] = next(module.parameters()).device
        return shadow.infer(X)

    loss = row_loss(deepcopy(net.criterion_), evaluate, gaps=True)
    if class_weight is not None:
        loss = loss.by_class(torch.as_tensor(class_weight))
    if not separate and not type(net).get_loss.__module__.startswith("skorch."):
        loss = replace(loss, criterion=None)  # in a user's own get_loss the criterion may be any part
    # Our own net only calls its module, and the inputs already have the module's type.
    return loss if separate else replace(loss, infer=infer)


def _sample(n_samples: int, max_samples: int | float, random_state: int | np.random.RandomState | None) -> np.ndarray:
    if not isinstance(random_state, np.random.RandomState):
        random_state = np.random.RandomState(random_state)
    return np.sort(random_state.choice(n_samples, resolve_max_samples(max_samples, n_samples), replace=False))


def drawn_samples(n_samples: int, max_samples: int | float | None, rng: np.random.RandomState) -> np.ndarray:
    """Return the positions of drawn samples in ascending order; nothing is drawn if all samples are used."""
    if max_samples is None or resolve_max_samples(max_samples, n_samples) == n_samples:
        return np.arange(n_samples)
    return _sample(n_samples, max_samples, rng)
