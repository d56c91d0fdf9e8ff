"""The axes that a display draws on."""

import math
from typing import Any

import numpy as np

from sklgap._checks import WrongArgument, shown


def axes_for(ax: Any, caller: str, *shape: int, **options: Any) -> Any:
    """Return the axes given, or those of a new figure; ImportError with ``caller`` in it where matplotlib is missing.

    Parameters
    ----------
    ax : matplotlib Axes, an array of them, or None
        What the user gave.
    caller : str
        Such as ``"SpectrumDisplay.plot"``.
    *shape, **options
        For ``matplotlib.pyplot.subplots``.
    """
    from sklearn.utils._optional_dependencies import check_matplotlib_support

    check_matplotlib_support(caller)
    import matplotlib.pyplot as plt

    if ax is None:
        return plt.subplots(*shape, layout="constrained", **options)[1]
    check_axes("axes" if shape else "ax", ax, math.prod(shape))
    return ax


def check_axes(name: str, axes: Any, n_axes: int = 1) -> None:
    """Raise an error unless these are at least so many matplotlib Axes."""
    from matplotlib.axes import Axes

    given = axes.ravel().tolist() if isinstance(axes, np.ndarray) else axes
    given = given if isinstance(given, list | tuple) else [given]
    if len(given) < n_axes or not all(isinstance(one, Axes) for one in given):
        what = "matplotlib Axes" if n_axes == 1 else f"an array of {n_axes} matplotlib Axes"
        raise WrongArgument(f"{name} must be None or {what}; got {shown(axes)}.")


def literal(label: object) -> str:
    """Return a label of the user as matplotlib writes it down letter by letter: between two dollars it reads TeX."""
    return str(label).replace("$", r"\$")


def plain_log_labels(*axes: Any) -> None:
    """Write 0.6 and 200 beside the ticks of logarithmic axes, for 6 times a power of ten: where numbers are short.

    Parameters
    ----------
    *axes : matplotlib Axis
        Such as ``ax.yaxis``, with everything drawn. One that is not logarithmic, or that goes below 0.001 or to 10,000
        and above, keeps its labels.
    """
    for axis in axes:
        low, high = axis.get_view_interval()
        if axis.get_scale() == "log" and low >= 1e-3 and high < 1e4:
            axis.set_major_formatter(_plain_formatter())
            axis.set_minor_formatter(_plain_formatter(labelOnlyBase=False, minor_thresholds=(1, 0.5)))


def _plain_formatter(**options: Any) -> Any:
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            # The parent's text is empty for ticks that would crowd the axis.
            return f"{x:g}" if super().__call__(x, pos) else ""

        def __reduce__(self) -> Any:
            # A pickle of a figure does not find a class that is made in a function.
            return _plain_formatter, (), self.__dict__

    return Plain(**options)
