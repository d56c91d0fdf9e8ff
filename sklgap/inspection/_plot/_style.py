"""The common style of all figures: colours, markers, line styles, error bars and legends.

SB and LB each have one colour, one marker and one line style in every figure. Accuracy, sharpness, distance, loss and
noise each have a colour. Lines of different colours also differ in marker or line style, so that readers can
distinguish them without colours.
"""

import re
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# The site uses the same colours of SB and LB in its pictures (docs/_static/sklgap.css).
SB, LB = "#1b6ca8", "#b3261e"
ACCURACY, SHARPNESS, DISTANCE, LOSS, NOISE = "#2e7d32", "#c96a00", "#7b4fb3", "#4d4d4d", "#00838f"
# Lines to compare the data with, such as thresholds and the start of both regimes.
GUIDE = "#808080"
# Width of a character, from which legends and labels get their numbers of columns.
_INCHES_OF_A_CHARACTER = 0.085
# A line of a label may always have this number of characters.
_LEAST_COLUMNS = 17


class Style(NamedTuple):
    """The colour, marker and line style of a regime, model or quantity."""

    color: str
    marker: str
    linestyle: Any

    @property
    def points(self) -> dict[str, Any]:
        """Return options of ``Axes.plot`` for points without a line."""
        return {"color": self.color, "marker": self.marker, "linestyle": "none"}


# Styles of names other than SB and LB, such as batch sizes, remedies and models of a user.
_OTHERS = (
    Style("#222222", "^", "-"),
    Style("#c2185b", "D", "--"),
    Style("#8d6e63", "v", "-."),
    Style("#3f51b5", "P", ":"),
    Style("#827717", "X", (0, (5, 1, 1, 1, 1, 1))),
    Style("#607d8b", "<", (0, (8, 2))),
    Style("#ad1457", ">", (0, (3, 1, 1, 1))),
)
_REGIMES = {"SB": Style(SB, "o", "-"), "LB": Style(LB, "s", "--")}
_SHARPNESS = (
    Style(SHARPNESS, "s", "-"),
    Style("#8a4500", "D", "--"),
    Style("#e8a04c", "^", "-."),
    Style("#5c2e00", "v", ":"),
)


def regime_style(label: object, number: int = 0) -> Style:
    """Return the style of a regime or a model.

    Parameters
    ----------
    label : object
        Name of the regime or model. A name whose first word is SB or LB, such as "LB augmented", has the style of
        that regime.
    number : int, default=0
        Position among the names, which determines the style of every other name.
    """
    found = re.match(r"(SB|LB)\b", str(label))
    return _REGIMES[found[1]] if found else _OTHERS[number % len(_OTHERS)]


def other_style(number: int) -> Style:
    """Return the style of a batch size or of another thing that is not a regime."""
    return _OTHERS[number % len(_OTHERS)]


def sharpness_style(number: int) -> Style:
    """Return the style of one of several measurements of sharpness, such as those at two epsilons."""
    return _SHARPNESS[number % len(_SHARPNESS)]


def deviation(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the standard deviation of the finite values in each row, or NaN if a row has fewer than two."""
    found = [row[np.isfinite(row)] for row in values]
    return np.array([row.std(ddof=1) if len(row) > 1 else np.nan for row in found])


def legend_above(ax: Any, handles: list[Any] | None = None, *, title: str | None = None) -> Any:
    """Put the legend above the axes, where it covers no data. A title of the axes moves up.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes after everything is drawn.
    handles : list of artists, default=None
        Artists that the legend explains. None means all artists with a label.
    title : str, default=None
        The title of the legend.

    Returns
    -------
    matplotlib Legend, or None if no artist has a label.
    """
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    if not handles:
        return None
    width = ax.get_window_extent().width / ax.figure.dpi
    longest = max(len(str(handle.get_label())) for handle in handles) + 6  # the line sample next to the text
    n_columns = max(1, min(len(handles), 3, int(width / (longest * _INCHES_OF_A_CHARACTER))))
    legend = ax.legend(
        handles=handles,
        title=title,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=n_columns,
        frameon=False,
        fontsize="small" if width > 3 else "x-small",
        title_fontsize="small",
        handlelength=2.6,
        columnspacing=1.2,
        borderaxespad=0.2,
    )
    # matplotlib puts a title above child axes. These empty child axes are as large as the legend.
    for old in [child for child in ax.child_axes if child.get_label() == _ROOM]:
        old.remove()
    room = ax.inset_axes((0, 1, 1, 0.01), label=_ROOM)
    room.set_axis_off()
    room.set_in_layout(False)
    room.set_axes_locator(_PlaceOf(legend))
    return legend


def fit_labels(*axes: Any) -> None:
    """Break labels that are longer than their axes into lines."""
    for ax in axes:
        place, dpi = ax.get_window_extent(), ax.figure.dpi
        # The legend above the axes and the tick labels below take some of the height.
        for axis, inches in ((ax.xaxis, place.width / dpi), (ax.yaxis, place.height / dpi - 0.5)):
            columns = max(_LEAST_COLUMNS, int(inches / _INCHES_OF_A_CHARACTER))
            axis.label.set_text(textwrap.fill(axis.label.get_text(), columns, break_long_words=False))


_ROOM = "room of the legend"


class _PlaceOf:
    """A locator of axes, which returns the place of an artist."""

    def __init__(self, artist: Any) -> None:
        self.artist = artist

    def __call__(self, ax: Any, renderer: Any) -> Any:
        place = self.artist.get_window_extent(renderer)
        return place.transformed(ax.get_figure(root=False).transSubfigure.inverted())
