"""The only place that knows what is at the end of a pipeline, of a search, or of one inside the other."""

from collections.abc import Iterator
from typing import Any

from sklearn.exceptions import NotFittedError
from torch import nn

from sklgap.objective._stream import is_stream


def final_estimator(estimator: Any) -> Any:
    """Return the last step of a pipeline or the best estimator of a search; return anything else as it is.

    A pipeline may end in a search, and a search may be over pipelines. A search that is not fitted is returned as it
    is.
    """
    *_, last = _layers(estimator)
    return last


def parameter_prefix(estimator: Any) -> str:
    """Return the prefix of parameters of a pipeline's last step in ``set_params``; "" for an estimator."""
    return "".join(f"{layer.steps[-1][0]}__" for layer in _layers(estimator) if _is_pipeline(layer))


def through_head(estimator: Any, X: Any) -> Any:
    """Return X as the final estimator gets it, after the earlier steps of a fitted pipeline.

    Raises
    ------
    TypeError
        If X is a Dataset or a DataLoader and a step would transform it.
    """
    for layer in filter(_is_pipeline, _layers(estimator)):
        # "passthrough" and the samplers of imbalanced-learn, which act only in fit, have no transform.
        earlier = [step for _, step in layer.steps[:-1] if hasattr(step, "transform")]
        if is_stream(X) and earlier:
            raise TypeError(
                "X must be an array for a pipeline whose steps transform it; got a Dataset or a DataLoader; apply the "
                "steps in the dataset, and pass the last step of the pipeline."
            )
        for step in earlier:
            X = step.transform(X)
    return X


def net_of(estimator: Any) -> Any:
    """Return the skorch net at the end of an estimator, or the final estimator if it holds no net.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    """
    last = final_estimator(estimator)
    if hasattr(last, "net_"):
        return last.net_
    check_fitted(last)
    return last


def module_of(estimator: Any, name: str = "estimator") -> nn.Module:
    """Return the module of an estimator or of a pair (module, criterion), or the given module.

    ``name`` is the user's name for the estimator.
    """
    if isinstance(estimator, tuple) and len(estimator) == 2:
        estimator = estimator[0]
    module = estimator if isinstance(estimator, nn.Module) else getattr(net_of(estimator), "module_", None)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{name} must be a torch module, a fitted LBGapClassifier or skorch net, a pipeline or a search that "
            f"ends in one, or a pair (module, criterion); got {type(estimator).__name__}."
        )
    return module


def is_skorch_net(estimator: Any) -> bool:
    """Say whether an estimator has the attributes of a skorch net that a measurement needs."""
    return hasattr(estimator, "get_loss") and hasattr(estimator, "module")


def check_fitted(estimator: Any) -> None:
    """Raise a NotFittedError for a net, a classifier of this package or a search that is not fitted."""
    known = any(hasattr(estimator, name) for name in ("objective_parts", "get_loss", "estimator"))
    if known and not getattr(estimator, "initialized_", False):
        raise NotFittedError(
            f"This {type(estimator).__name__} is not fitted yet, or was not refitted; call 'fit' first."
        )


def _layers(estimator: Any) -> Iterator[Any]:
    """Yield the estimator, then the estimators inside it, down to the final one."""
    yield estimator
    if hasattr(estimator, "best_estimator_"):
        yield from _layers(estimator.best_estimator_)
    elif _is_pipeline(estimator):
        yield from _layers(estimator.steps[-1][1])


def _is_pipeline(estimator: Any) -> bool:
    # A net may have a parameter of this name, such as a number of steps.
    return isinstance(getattr(estimator, "steps", None), list | tuple)
