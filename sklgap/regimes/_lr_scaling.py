"""The learning rate that goes with a larger batch, and with ``"sde"`` the moments of Adam.

``"sqrt"``: Hoffer et al. (2017), Section 4, keeps the covariance of the update; ``"linear"``: Goyal et al. (2017),
keeps its mean per epoch; ``"sde"``: Malladi et al. (2022), the square root scaling rule for Adam, which scales the
averages of its moments and its eps too, so that trainings have the same stochastic differential equation.
"""

import math
from typing import get_args

from sklgap._checks import check_integer, shown
from sklgap._typing import LRScaling

RULES: tuple[LRScaling | None, ...] = (None, *get_args(LRScaling))
# k (1 - beta) is 1 up to rounding where k = 1 / (1 - beta).
_ROUNDING = 1e-9


def check_lr_scaling(lr_scaling: LRScaling | None) -> LRScaling | None:
    """Return the rule if it is one; ValueError otherwise."""
    if not (lr_scaling is None or (isinstance(lr_scaling, str) and lr_scaling in RULES)):
        raise ValueError(f"lr_scaling must be None, 'sqrt', 'linear' or 'sde'; got {shown(lr_scaling)}.")
    return lr_scaling


def check_rate_rule(lr_scaling: LRScaling | None) -> LRScaling | None:
    """Return the rule if it says all that changes with the batch size; ValueError for ``"sde"``, which has betas."""
    if check_lr_scaling(lr_scaling) == "sde":
        raise ValueError(
            "lr_scaling must be None, 'sqrt' or 'linear' where only a rate follows the batch size; got 'sde', which "
            "changes betas and eps too: see transfer_hyperparameters."
        )
    return lr_scaling


def lr_factor(lr_scaling: LRScaling | None, batch_size: int, base_batch_size: int) -> float:
    """Return what the learning rate is multiplied with: 1, sqrt(B / B_base) or B / B_base; "sde" has the root too."""
    check_lr_scaling(lr_scaling)
    check_integer("batch_size", batch_size)
    check_integer("base_batch_size", base_batch_size)
    ratio = batch_size / base_batch_size
    return {None: 1.0, "sqrt": math.sqrt(ratio), "linear": ratio, "sde": math.sqrt(ratio)}[lr_scaling]


def scaled_beta(beta: float, k: float) -> float:
    """Return a beta of Adam at a batch k times as large, by "sde": 1 - k (1 - beta); below 0 the rule does not hold."""
    scaled = 1 - k * (1 - beta)
    return 0.0 if abs(scaled) <= _ROUNDING else scaled


def scaled_eps(eps: float, k: float) -> float:
    """Return the eps of Adam at a batch k times as large, by "sde": eps / sqrt(k)."""
    return eps / math.sqrt(k)


def largest_ratio(beta: float) -> float:
    """Return how many times as large "sde" lets a batch be, up to rounding: a beta is 0 there."""
    return (1 + _ROUNDING) / (1 - beta)
