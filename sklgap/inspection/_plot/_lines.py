"""Styles, scales, labels and legends that all displays with lines share."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sklgap.inspection._plot._axes import literal
from sklgap.inspection._plot._style import fit_labels, legend_above, regime_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# A quantity has a logarithmic scale if its values span more than this factor.
_DECADES = 20


def draw_records(
    ax: "Axes", number: int, label: str, x: np.ndarray, y: np.ndarray, options: dict[str, Any]
) -> "Line2D":
    """Draw the records of one estimator as a thin line in its style, with a marker for each record.

    ``options`` are the user's arguments of ``Axes.plot``. They replace the arguments of the style.
    """
    color, marker, linestyle = regime_style(label, number)
    style = {"color": color, "marker": marker, "linestyle": linestyle, "markersize": 3.5, "linewidth": 1}
    (line,) = ax.plot(x, y, **{**style, "label": literal(label), **options})
    return line


def spans_decades(*values: npt.ArrayLike) -> bool:
    """Return whether the finite positive values together span more than a factor of 20."""
    every = np.concatenate([np.ravel(one) for one in values])
    every = every[np.isfinite(every) & (every > 0)]
    return len(every) > 0 and bool(every.max() > _DECADES * every.min())


def with_policy(quantity: str, batch_norm: str | None) -> str:
    """Return the label of an axis, with the batch-norm policy if it is known."""
    return quantity if batch_norm is None else f"{quantity}, batch norm: {batch_norm}"


def dress(
    ax: "Axes",
    xlabel: str,
    ylabel: str,
    *,
    grid: Literal["both", "y"] = "both",
) -> None:
    """Add labels, a faint grid, and a legend above the axes."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(axis=grid, alpha=0.3)
    legend_above(ax)
    fit_labels(ax)
