"""The learning rate that goes with a larger batch.

``"sqrt"``: Hoffer et al. (2017), Section 4, keeps the covariance of the update; ``"linear"``: Goyal et al. (2017),
keeps its mean per epoch.
"""

import math
from typing import get_args

from sklgap._checks import check_integer, shown
from sklgap._typing import LRScaling

RULES: tuple[LRScaling | None, ...] = (None, *get_args(LRScaling))


def check_lr_scaling(lr_scaling: LRScaling | None) -> LRScaling | None:
    """Return the rule if it is one; ValueError otherwise."""
    if not (lr_scaling is None or (isinstance(lr_scaling, str) and lr_scaling in RULES)):
        raise ValueError(f"lr_scaling must be None, 'sqrt' or 'linear'; got {shown(lr_scaling)}.")
    return lr_scaling


def lr_factor(lr_scaling: LRScaling | None, batch_size: int, base_batch_size: int) -> float:
    """Return what the learning rate is multiplied with: 1, sqrt(B / B_base) or B / B_base."""
    check_lr_scaling(lr_scaling)
    check_integer("batch_size", batch_size)
    check_integer("base_batch_size", base_batch_size)
    ratio = batch_size / base_batch_size
    return {None: 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[lr_scaling]
