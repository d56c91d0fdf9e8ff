"""The scaling of the learning rate with the batch size, and with ``"sde"`` also of the moments of Adam.

``"sqrt"`` (Hoffer et al. 2017, Section 4) preserves the covariance of the update. ``"linear"`` (Goyal et al. 2017)
preserves its mean per epoch. ``"sde"`` (Malladi et al. 2022) is the square root scaling rule for Adam. It also scales
the averages of the moments and eps, so that both trainings follow the same stochastic differential equation.
"""

import math
from typing import get_args

from sklgap._checks import check_integer, shown
from sklgap._typing import LRScaling

RULES: tuple[LRScaling | None, ...] = (None, *get_args(LRScaling))
# k (1 - beta) is 1 up to rounding if k = 1 / (1 - beta).
_ROUNDING = 1e-9


def check_lr_scaling(lr_scaling: LRScaling | None) -> LRScaling | None:
    """Return the rule if it is an allowed one.

    Parameters
    ----------
    lr_scaling : {None, "sqrt", "linear", "sde"}
        The rule.

    Returns
    -------
    str or None
        The same rule.

    Raises
    ------
    ValueError
        If it is not an allowed rule.
    """
    if not (lr_scaling is None or (isinstance(lr_scaling, str) and lr_scaling in RULES)):
        raise ValueError(f"lr_scaling must be None, 'sqrt', 'linear' or 'sde'; got {shown(lr_scaling)}.")
    return lr_scaling


def check_rate_rule(lr_scaling: LRScaling | None) -> LRScaling | None:
    """Return the rule if it changes the learning rate only; raise a ValueError for ``"sde"``."""
    if check_lr_scaling(lr_scaling) == "sde":
        raise ValueError(
            "lr_scaling must be None, 'sqrt' or 'linear' here, because only the learning rate follows the batch "
            "size; got 'sde', which also changes betas and eps; see transfer_hyperparameters."
        )
    return lr_scaling


def lr_factor(lr_scaling: LRScaling | None, batch_size: int, base_batch_size: int) -> float:
    """Return the factor of the learning rate at a batch size.

    Parameters
    ----------
    lr_scaling : {None, "sqrt", "linear", "sde"}
        The rule. None gives 1, ``"linear"`` gives B / B_base, and ``"sqrt"`` and ``"sde"`` give its square root.
    batch_size : int
        The batch size B.
    base_batch_size : int
        The batch size B_base to which the learning rate belongs.

    Returns
    -------
    float
        The factor.

    Examples
    --------
    >>> from sklgap.regimes import lr_factor
    >>> lr_factor("linear", 1024, 256), lr_factor("sqrt", 1024, 256)
    (4.0, 2.0)
    """
    check_lr_scaling(lr_scaling)
    check_integer("batch_size", batch_size)
    check_integer("base_batch_size", base_batch_size)
    ratio = batch_size / base_batch_size
    return {None: 1.0, "sqrt": math.sqrt(ratio), "linear": ratio, "sde": math.sqrt(ratio)}[lr_scaling]


def scaled_beta(beta: float, k: float) -> float:
    """Return a beta of Adam at a k times larger batch by "sde": 1 - k (1 - beta). Below 0 the rule does not hold."""
    scaled = 1 - k * (1 - beta)
    return 0.0 if abs(scaled) <= _ROUNDING else scaled


def scaled_eps(eps: float, k: float) -> float:
    """Return the eps of Adam at a k times larger batch by "sde": eps / sqrt(k)."""
    return eps / math.sqrt(k)


def largest_ratio(beta: float) -> float:
    """Return the largest ratio of batch sizes that "sde" allows, up to rounding; a beta is 0 there."""
    return (1 + _ROUNDING) / (1 - beta)
