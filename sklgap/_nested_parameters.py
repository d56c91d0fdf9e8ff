"""skorch's nested parameters (``optimizer__momentum``) on an estimator: which exist, and what is misspelt."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

PREFIXES = ("module", "criterion", "optimizer", "iterator_train", "iterator_valid", "callbacks", "dataset")

# Parts of skorch's data path that a user may replace; they are not parameters of ours.
PARTS = ("iterator_train", "iterator_valid", "dataset")


def is_nested(name: str) -> bool:
    """Say whether the name is one of skorch's nested parameters, or a part of its data path."""
    prefix, dunder, key = name.partition("__")
    return name in PARTS or (bool(dunder and key) and prefix in PREFIXES)


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a near miss, an empty string otherwise."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_parameter(estimator: str, name: str, own: Iterable[str]) -> str:
    """Return the sentence for a parameter name that does not exist."""
    _, dunder, key = name.partition("__")
    own = [*own, *PARTS]
    candidates = [*own, *(f"{p}{dunder}{key}" for p in PREFIXES)] if dunder else own
    return f"{estimator} has no parameter {name!r}{suggestion(name, candidates)}"


def check_nested(prefix: str, target: Callable[..., Any], given: dict[str, Any], supplied: Iterable[str] = ()) -> None:
    """Raise a TypeError for an argument that ``target`` does not take.

    Parameters
    ----------
    prefix : str
        For example ``"optimizer"``.
    target : class or callable
        What the arguments go to.
    given : dict
        Arguments by their name without the prefix.
    supplied : iterable of str
        Arguments that come from the data and cannot be set.
    """
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    allowed = [name for name in parameters if name not in supplied]
    for name in given:
        # skorch's optimizer__param_groups, and deeper nesting, are its own to check.
        if name.split("__")[0] not in allowed and not name.startswith("param_groups"):
            raise TypeError(
                f"{prefix}__{name} is not an argument of {getattr(target, '__name__', target)}, "
                f"which takes {', '.join(allowed) or 'none'}{suggestion(name, allowed)}"
            )
