"""Where a training is relative to the edge of stability: what its largest eigenvalues over their thresholds say.

The first half of the updates is left out: a net may begin sharp, and it takes time to sharpen.
"""

from typing import Literal

import numpy as np

# At the edge: the largest eigenvalue is at least this share of the threshold.
AT_EDGE = 0.9
# A training is at the edge where this share of its late records is at least.
_MOSTLY = 0.5
# Far above: a median of the late records beyond so many times the threshold. Our choice; trainings of ours that ride at
# the edge are at most 1.2 times as high.
_FAR_ABOVE = 2.0

Place = Literal["far above", "at", "below"]


def late_records(n_updates: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """Return the eigenvalues over thresholds of the records after half of the updates."""
    return relative[n_updates >= n_updates[-1] / 2] if len(n_updates) else relative


def share_at_edge(relative: np.ndarray) -> float:
    """Return the share of the records at the edge or beyond it; NaN of no records."""
    return float(np.mean(relative >= AT_EDGE)) if len(relative) else float("nan")


def place_of(late: np.ndarray) -> Place:
    """Return where a training with these late records is."""
    if not share_at_edge(late) >= _MOSTLY:
        return "below"
    return "far above" if np.median(late) > _FAR_ABOVE else "at"


def far_above(who: str) -> str:
    """Return what is to be thought of a training that stays far above its threshold."""
    return (
        f"{who} stays far above the threshold, where the updates of the optimiser alone would diverge on a quadratic "
        "loss: either something else bounds them, such as gradient clipping, or the loss is far from quadratic."
    )
