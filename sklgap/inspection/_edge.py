"""Where a training is relative to the edge of stability, judged by its largest eigenvalues over their thresholds.

The first half of the updates is left out, because a net may begin sharp, and sharpening takes time.
"""

from typing import Literal

import numpy as np

# A record is at the edge if its largest eigenvalue is at least this share of the threshold.
AT_EDGE = 0.9
# A training is at the edge if at least this share of its late records is.
_MOSTLY = 0.5
# A training is far above the threshold if the median of its late records is more than this multiple of it. This is our
# choice: our trainings that stay at the edge are at most 1.2 times as high as the threshold.
_FAR_ABOVE = 2.0

Place = Literal["far above", "at", "below"]


def late_records(n_updates: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """Return the eigenvalues over thresholds of the records after half of the updates."""
    return relative[n_updates >= n_updates[-1] / 2] if len(n_updates) else relative


def share_at_edge(relative: np.ndarray) -> float:
    """Return the share of the records at the edge or beyond it; NaN if there are no records."""
    return float(np.mean(relative >= AT_EDGE)) if len(relative) else float("nan")


def place_of(late: np.ndarray) -> Place:
    """Return where a training with these late records is."""
    if not share_at_edge(late) >= _MOSTLY:
        return "below"
    return "far above" if np.median(late) > _FAR_ABOVE else "at"


def far_above(who: str) -> str:
    """Return a sentence on what it means if a training stays far above its threshold."""
    return (
        f"{who} stays far above the threshold, where the updates of the optimiser alone would diverge on a quadratic "
        "loss. Either something else bounds the updates, such as gradient clipping, or the loss is far from quadratic."
    )
