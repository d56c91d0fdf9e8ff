"""Checks of parameters. An error is one sentence with the parameter, the allowed values and the given value."""

import contextlib
import functools
import inspect
import math
import numbers
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
from sklearn.exceptions import NotFittedError

# Layers and data sets are not larger than this.
_MOST_SIZE = 2**31 - 1
_SHOWN = 200
# The user's name for the object that a prefix of nested parameters stands for.
OWNERS = {"module": "net"}
_LARGEST = float(np.finfo(np.float32).max)


class WrongArgument(ValueError, TypeError):
    """An argument has a wrong type or value. Like scikit-learn's own error, it is a ValueError and a TypeError."""


def shown(value: Any) -> str:
    """Return a value as a text for an error, on one line and cut to a fixed length."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # the repr of a user's object may raise anything
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Check flags, ``verbose``, ``n_jobs`` and ``random_state`` in the first line of a public function.

    The function itself checks numbers and choices, because it knows their allowed values.

    Parameters
    ----------
    function : callable
        The function. Its arguments that are annotated as bool are flags.
    given : mapping
        The arguments by name, that is ``locals()`` in the first line of the function.

    Raises
    ------
    WrongArgument
        With one sentence that names the argument.
    """
    for name in _plain_parameters(function):
        if name == "random_state":
            check_random_state(given[name])
        elif name == "verbose":
            check_verbose(given[name])
        elif name == "n_jobs":
            check_n_jobs(given[name])
        else:
            check_flag(name, given[name])


@functools.cache
def _plain_parameters(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.items()
    known = ("random_state", "verbose", "n_jobs")
    return [name for name, p in parameters if name in known or p.annotation in (bool, "bool")]


def check_verbose(verbose: Any) -> None:
    """Raise an error unless ``verbose`` is a flag or an integer of at least 0."""
    if not (isinstance(verbose, bool | np.bool_) or is_integer(verbose, 0)):
        raise WrongArgument(f"verbose must be True, False or an integer of at least 0; got {shown(verbose)}.")


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise a TypeError unless ``value`` is an instance of ``kind``."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}; got {shown(value)}.")


def check_text(name: str, value: Any, *, or_none: bool = False) -> None:
    """Raise an error unless ``value`` is a string, or None where that is allowed."""
    if not (isinstance(value, str) or (or_none and value is None)):
        raise WrongArgument(f"{name} must be {_or_none(or_none)}a string; got {shown(value)}.")


def check_n_jobs(n_jobs: Any) -> None:
    """Raise an error unless ``n_jobs`` is None or an integer that is not 0."""
    if n_jobs is not None and (not is_number(n_jobs) or not isinstance(n_jobs, numbers.Integral) or n_jobs == 0):
        raise WrongArgument(f"n_jobs must be None or an integer other than 0; got {shown(n_jobs)}.")


def check_flag(name: str, value: Any) -> None:
    """Raise an error unless ``value`` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise WrongArgument(f"{name} must be True or False; got {shown(value)}.")


@contextlib.contextmanager
def given_to(prefix: str, target: Any, given: dict[str, Any]) -> Iterator[None]:
    """Turn an error of ``target`` about its arguments into a ValueError that names our parameters.

    Parameters
    ----------
    prefix : str
        Prefix of the parameters, for example ``"optimizer"``.
    target : class or callable
        The class or function that is called inside the context.
    given : dict
        The arguments from the user, by their names without the prefix.
    """
    try:
        yield
    except Exception as error:  # the target may be the user's, and may raise anything
        text = str(error)
        if isinstance(error, ValueError | TypeError) and text.startswith(f"{prefix} must "):
            raise  # the error is already one of this package
        blamed = [name for name in given if re.search(rf"\b{re.escape(name)}\b", text)] or list(given)
        names = ", ".join(f"{prefix}__{name}" for name in blamed) or OWNERS.get(prefix, prefix)
        what = f"valid for {getattr(target, '__name__', target)}" if blamed else "one that works here"
        raise WrongArgument(f"{names} must be {what}: {text or type(error).__name__}") from error


@contextlib.contextmanager
def naming_data(*names: str) -> Iterator[None]:
    """Make errors about X or y name them, because scikit-learn, NumPy and torch often do not."""
    try:
        yield
    except NotFittedError:
        raise
    except Exception as error:  # an object of the user may raise anything when it becomes an array
        text = str(error)
        named = re.search(rf"\b({'|'.join(names)}|estimator)\b|^(module|criterion|loss) must\b", text)
        if isinstance(error, ValueError | TypeError) and named:
            raise
        what = "an array with one row per sample" if len(names) == 1 else "arrays with one row and one label per sample"
        kind = TypeError if isinstance(error, TypeError) else ValueError
        words = "could not convert string" in text
        advice = "; encode columns of words first, for example with OneHotEncoder in a pipeline" if words else ""
        raise kind(f"{' and '.join(names)} must be {what}: {text or type(error).__name__}{advice}") from error


def is_integer(value: Any, least: int) -> TypeGuard[int]:
    """Say whether ``value`` is an integer of at least ``least``; True and False do not count."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any, *, finite: bool = True) -> bool:
    """Say whether ``value`` is a real number that float32 can hold (or infinite, if that is allowed) and not a flag."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    if isinstance(value, numbers.Integral):
        return abs(int(value)) < 2**63  # torch does not accept larger integers
    return abs(float(value)) <= _LARGEST if finite else not math.isnan(value)


def check_integer(name: str, value: Any, least: int = 1, *, or_none: bool = False) -> None:
    """Raise a ValueError unless ``value`` is an integer of at least ``least``, or None where that is allowed."""
    if not (is_integer(value, least) or (or_none and value is None)):
        raise ValueError(f"{name} must be {_or_none(or_none)}an integer of at least {least}; got {shown(value)}.")


def check_sizes(**sizes: Any) -> None:
    """Raise an error unless every argument is an integer that can be the size of a layer or a data set."""
    for name, value in sizes.items():
        if not is_integer(value, 1) or int(value) > _MOST_SIZE:
            raise WrongArgument(f"{name} must be an integer from 1 to {_MOST_SIZE}; got {shown(value)}.")


def check_shape(name: str, value: Any, length: int | None = None, *, empty: bool = False) -> None:
    """Raise an error unless ``value`` is a tuple or list of sizes, of the given length if there is one."""
    sizes = value if isinstance(value, tuple | list) else None
    right = sizes is not None and all(is_integer(size, 1) and int(size) <= _MOST_SIZE for size in sizes)
    if not right or (length is not None and len(value) != length) or not (len(value) or empty):
        what = "a tuple of integers of at least 1" if length is None else f"{length} integers of at least 1"
        raise WrongArgument(f"{name} must be {what}; got {shown(value)}.")


def is_one_of(value: Any, allowed: Collection[Any]) -> bool:
    """Say whether ``value`` is None or a string, and is allowed. Other values, such as arrays, cannot be compared."""
    return (value is None or isinstance(value, str)) and value in allowed


def is_flat(value: Any) -> bool:
    """Say whether ``value`` is a sequence or an array of one dimension."""
    try:
        return np.ndim(value) == 1
    except ValueError:  # nested lists of different lengths
        return False


def check_nonnegative(name: str, value: Any, *, or_none: bool = False) -> None:
    """Raise a ValueError unless ``value`` is a finite number of at least 0, or None where that is allowed."""
    if not ((is_number(value) and value >= 0) or (or_none and value is None)):
        raise ValueError(f"{name} must be {_or_none(or_none)}a number of at least 0; got {shown(value)}.")


def check_positive(name: str, value: Any) -> None:
    """Raise a ValueError unless ``value`` is a finite number above 0."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"{name} must be a number above 0; got {shown(value)}.")


def check_max_samples(max_samples: Any) -> None:
    """Raise a ValueError unless it is None, a number of samples (int) or a fraction of them (float in (0, 1])."""
    whole, fraction = is_integer(max_samples, 1), isinstance(max_samples, float | np.floating)
    if not (max_samples is None or whole or (fraction and 0 < max_samples <= 1)):
        raise ValueError(
            f"max_samples must be None, an integer of at least 1 or a float in (0, 1]; got {shown(max_samples)}."
        )


def resolve_max_samples(max_samples: int | float | None, n_samples: int) -> int:
    """Return the number of samples that ``max_samples`` stands for: at least one, at most ``n_samples``.

    Parameters
    ----------
    max_samples : int, float or None
        A number of samples (int), a fraction of them (float in (0, 1]), or all of them (None).
    n_samples : int
        Number of samples that exist.

    Raises
    ------
    ValueError
        If ``max_samples`` is anything else.
    """
    check_max_samples(max_samples)
    if max_samples is None:
        return n_samples
    if is_integer(max_samples, 1):
        return min(int(max_samples), n_samples)
    return max(1, round(max_samples * n_samples))


def check_dropout(dropout: Any) -> None:
    """Raise an error unless ``dropout`` is a probability."""
    check_fraction("dropout", dropout)


def check_module(module: Any) -> None:
    """Raise an error unless ``module`` is a torch module."""
    if not hasattr(module, "named_parameters") or isinstance(module, type):
        raise WrongArgument(f"module must be a torch module; got {shown(module)}.")


def check_fraction(name: str, value: Any, *, above: float | None = None) -> None:
    """Raise a ValueError unless ``value`` is a number from 0 to 1, or above ``above``."""
    if not is_number(value) or not 0 <= value <= 1 or (above is not None and value <= above):
        raise ValueError(
            f"{name} must be a number in {'[0' if above is None else f'({above}'}, 1]; got {shown(value)}."
        )


def check_random_state(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """Return a RandomState. For None it is a new one, not NumPy's global one as in scikit-learn."""
    if isinstance(random_state, np.random.RandomState):
        return random_state
    if random_state is None or (is_integer(random_state, 0) and int(random_state) < 2**32):
        return np.random.RandomState(random_state)
    raise WrongArgument(
        f"random_state must be None, an integer from 0 to 2**32 - 1 or a RandomState; got {shown(random_state)}."
    )


def _or_none(allowed: bool) -> str:
    return "None or " if allowed else ""
