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

# A place is unknown if more than this share of the late records could not be measured.
_MISSING = 0.5

Place = Literal["far above", "at", "below", "unknown"]


def late_records(n_updates: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """Return the eigenvalues over thresholds of the records after half of the updates.

    Records that could not be measured must be among them, as NaN, because they too count for half of the updates.
    """
    return relative[n_updates >= n_updates[-1] / 2] if len(n_updates) else relative


def measured(late: np.ndarray) -> np.ndarray:
    """Return the records that are not NaN; no record if more than half are NaN, because few do not speak for all."""
    found = late[~np.isnan(late)]
    return found if len(late) - len(found) <= _MISSING * len(late) else found[:0]


def share_at_edge(late: np.ndarray) -> float:
    """Return the share of the measured records at the edge or beyond it; NaN if fewer than half are measured."""
    found = measured(late)
    return float(np.mean(found >= AT_EDGE)) if len(found) else float("nan")


def median_of(late: np.ndarray) -> float:
    """Return the median of the measured records; NaN if fewer than half are measured."""
    found = measured(late)
    return float(np.median(found)) if len(found) else float("nan")


def place_of(late: np.ndarray) -> Place:
    """Return where a training with these late records is."""
    if not len(measured(late)):
        return "unknown"
    if share_at_edge(late) < _MOSTLY:
        return "below"
    return "far above" if median_of(late) > _FAR_ABOVE else "at"


def far_above(who: str) -> str:
    """Return a sentence on what it means if a training stays far above its threshold."""
    return (
        f"{who} stays far above the threshold, where the updates of the optimiser alone would diverge on a quadratic "
        "loss. Either something else bounds the updates, such as gradient clipping, or the loss is far from quadratic."
    )
