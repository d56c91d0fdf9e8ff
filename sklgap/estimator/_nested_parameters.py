"""Nested parameters of skorch (``optimizer__momentum``) on an estimator, with suggestions for misspelt names."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Self

from torch import Tensor

from sklgap._checks import OWNERS, WrongArgument, check_flag, check_fraction, is_number, shown
from sklgap.remedies import check_remedies

PREFIXES = ("module", "criterion", "optimizer", "iterator_train", "iterator_valid", "callbacks", "dataset", "compile")

# Parts of skorch's data path that a user may replace. They are not parameters of the estimator's own.
PARTS = ("iterator_train", "iterator_valid", "dataset")


# Common names of parameters, and the parameter of the estimator that they mean.
PLACES = {
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "weight_decay": "optimizer__weight_decay",
    "momentum": "optimizer__momentum",
    "nesterov": "optimizer__nesterov",
    "betas": "optimizer__betas",
    "label_smoothing": "criterion__label_smoothing",
    "width": "module__width",
    "n_layers": "module__n_layers",
}


def is_nested(name: str) -> bool:
    """Return whether the name is a nested parameter of skorch, or a part of its data path."""
    prefix, dunder, key = name.partition("__")
    return name in PARTS or (bool(dunder and key) and prefix in PREFIXES)


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a near miss, an empty string otherwise."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_parameter(estimator: str, name: str, own: Iterable[str]) -> str:
    """Return the sentence for a parameter name that does not exist."""
    if name in PLACES:
        return f"{estimator} has no parameter {name!r}; did you mean {PLACES[name]!r}?"
    _, dunder, key = name.partition("__")
    own = [*own, *PARTS]
    candidates = [*own, *(f"{p}{dunder}{key}" for p in PREFIXES)] if dunder else own
    return f"{estimator} has no parameter {name!r}{suggestion(name, candidates)}"


def check_nested(prefix: str, target: Callable[..., Any], given: dict[str, Any]) -> None:
    """Raise a TypeError for an argument that ``target`` does not take, or for a flag that is not a bool.

    Parameters
    ----------
    prefix : str
        Prefix of the parameters, for example ``"optimizer"``.
    target : class or callable
        Class or function that receives the arguments.
    given : dict
        The arguments, by their names without the prefix.
    """
    try:
        parameters = inspect.signature(target).parameters
    except ValueError as error:  # a class of Python's own
        raise TypeError(f"{OWNERS.get(prefix, prefix)} must be a class of torch; got {shown(target)}.") from error
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    allowed = list(parameters)
    for name in given:
        # skorch itself checks optimizer__param_groups and deeper nesting.
        if name.split("__")[0] not in allowed and not name.startswith("param_groups"):
            raise TypeError(
                f"{prefix}__{name} is not an argument of {getattr(target, '__name__', target)}, "
                f"which takes {', '.join(allowed) or 'none'}{suggestion(name, allowed)}"
            )
        if name in parameters and isinstance(parameters[name].default, bool):
            check_flag(f"{prefix}__{name}", given[name])
        if prefix in ("optimizer", "criterion") and name in parameters:
            _check_number(f"{prefix}__{name}", parameters[name].default, given[name])


def _check_number(name: str, default: Any, value: Any) -> None:
    """Raise an error if the default is a number but the value is not, because torch may not notice that."""
    if isinstance(default, bool) or not isinstance(default, int | float):
        return
    if not (is_number(value) or value is None or (isinstance(value, Tensor) and value.numel() == 1)):
        raise WrongArgument(f"{name} must be a finite number; got {shown(value)}.")
    if name == "criterion__label_smoothing":  # torch treats a negative value like 0
        check_fraction(name, value)


class NestedParametersMixin:
    """Parameters in addition to those of ``__init__``: nested parameters of skorch, and parameters of named remedies.

    List this class before ``BaseEstimator``, and end ``__init__`` with ``self._set_nested(kwargs)``.
    """

    remedies: Any
    _get_param_names: Any

    def _set_nested(self, kwargs: dict[str, Any]) -> None:
        for name in kwargs:
            if not is_nested(name):
                raise TypeError(unknown_parameter(type(self).__name__, name, self._get_param_names()))
        self._nested = dict(sorted(kwargs.items()))  # the order of keywords does not matter

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all parameters, including the nested parameters of skorch."""
        params = super().get_params(deep)  # type: ignore[misc] # BaseEstimator comes after
        params.update(self._nested)
        if deep:
            for name, remedy in self._named_remedies():
                params.update({f"remedies__{name}__{key}": value for key, value in remedy.get_params().items()})
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, including nested ones. A misspelt name raises a ValueError with a suggestion."""
        if "remedies" in params:
            self.remedies = params["remedies"]
        known = self.get_params()
        own: dict[str, Any] = {}
        for name, value in params.items():
            prefix, dunder, _ = name.partition("__")
            if is_nested(name):
                self._nested = dict(sorted({**self._nested, name: value}.items()))
            elif name.startswith("remedies__") and name in known:
                _, remedy, key = name.split("__", 2)
                named = check_remedies(self.remedies)
                dict(named)[remedy].set_params(**{key: value})
                if any(isinstance(item, str) for item in self.remedies):
                    self.remedies = named  # a shorthand becomes the object that holds the parameter
            elif name == "remedies":
                continue
            elif name in known or (dunder and hasattr(params.get(prefix, known.get(prefix)), "set_params")):
                own[name] = value
            else:
                raise ValueError(unknown_parameter(type(self).__name__, name, known))
        super().set_params(**own)  # type: ignore[misc] # likewise
        return self

    def _named_remedies(self) -> list[tuple[str, Any]]:
        """Return the named remedies; an empty list if the parameter is wrong, which ``fit`` reports."""
        try:
            return check_remedies(self.remedies)
        except (TypeError, ValueError):
            return []

    def __getattr__(self, name: str) -> Any:
        """Return a nested parameter, because scikit-learn expects every parameter to be an attribute."""
        try:
            return vars(self)["_nested"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None


def hide_kwargs(cls: type) -> type:
    """Remove ``**kwargs`` from the signature, because scikit-learn's checks would treat it as a parameter."""
    parameters = inspect.signature(cls).parameters.values()
    cls.__signature__ = inspect.Signature([p for p in parameters if p.kind is not p.VAR_KEYWORD])  # type: ignore[attr-defined]
    return cls


def drop_nested(model: NestedParametersMixin, prefix: str) -> None:
    """Remove the nested parameters of this prefix from an estimator."""
    model._nested = {name: value for name, value in model._nested.items() if not name.startswith(f"{prefix}__")}
