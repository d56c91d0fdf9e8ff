"""Checks of plain parameters: one sentence that names the parameter, what is allowed and what came."""

import math
import numbers
from typing import Any, TypeGuard

import numpy as np


def is_integer(value: Any, least: int) -> TypeGuard[int]:
    """Say whether ``value`` is an integer of at least ``least``; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any, *, finite: bool = True) -> bool:
    """Say whether ``value`` is a real number; True and False are none."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and (math.isfinite(value) or not finite)


def check_integer(name: str, value: Any, least: int = 1, *, or_none: bool = False) -> None:
    """Raise a ValueError unless ``value`` is an integer of at least ``least``, or None where that is allowed."""
    if not (is_integer(value, least) or (or_none and value is None)):
        raise ValueError(f"{name} must be {_or_none(or_none)}an integer of at least {least}; got {value!r}.")


def check_nonnegative(name: str, value: Any, *, or_none: bool = False) -> None:
    """Raise a ValueError unless ``value`` is a finite number of at least 0, or None where that is allowed."""
    if not ((is_number(value) and value >= 0) or (or_none and value is None)):
        raise ValueError(f"{name} must be {_or_none(or_none)}a number of at least 0; got {value!r}.")


def check_positive(name: str, value: Any) -> None:
    """Raise a ValueError unless ``value`` is a finite number above 0."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"{name} must be a number above 0; got {value!r}.")


def check_fraction(name: str, value: Any, *, above: float | None = None) -> None:
    """Raise a ValueError unless ``value`` is a number from 0 to 1, or above ``above``."""
    if not is_number(value) or not 0 <= value <= 1 or (above is not None and value <= above):
        raise ValueError(f"{name} must be a number in {'[0' if above is None else f'({above}'}, 1]; got {value!r}.")


def check_random_state(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """Return a RandomState; for None a fresh one, never NumPy's global one as scikit-learn's function of this name."""
    if isinstance(random_state, np.random.RandomState):
        return random_state
    try:
        return np.random.RandomState(random_state)
    except (TypeError, ValueError):
        raise ValueError(
            f"random_state must be None, an integer from 0 to 2**32 - 1 or a RandomState; got {random_state!r}."
        ) from None


def _or_none(allowed: bool) -> str:
    return "None or " if allowed else ""
