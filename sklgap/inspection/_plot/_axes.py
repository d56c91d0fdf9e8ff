"""Checks and labels of the axes that a display draws on."""

import math
from typing import Any

import numpy as np

from sklgap._checks import WrongArgument, shown


def axes_for(ax: Any, caller: str, *shape: int, **options: Any) -> Any:
    """Return the given axes, or those of a new figure.

    The function raises an ImportError that names ``caller`` if matplotlib is missing.

    Parameters
    ----------
    ax : matplotlib Axes, an array of them, or None
        The argument of the user.
    caller : str
        Name of the calling method, such as ``"SpectrumDisplay.plot"``.
    *shape, **options
        Arguments of ``matplotlib.pyplot.subplots``.
    """
    from sklearn.utils._optional_dependencies import check_matplotlib_support

    check_matplotlib_support(caller)
    import matplotlib.pyplot as plt

    if ax is None:
        return plt.subplots(*shape, layout="constrained", **options)[1]
    check_axes("axes" if shape else "ax", ax, math.prod(shape))
    return ax


def check_axes(name: str, axes: Any, n_axes: int = 1) -> None:
    """Raise an error unless ``axes`` holds at least ``n_axes`` matplotlib Axes."""
    from matplotlib.axes import Axes

    given = axes.ravel().tolist() if isinstance(axes, np.ndarray) else axes
    given = given if isinstance(given, list | tuple) else [given]
    if len(given) < n_axes or not all(isinstance(one, Axes) for one in given):
        what = "matplotlib Axes" if n_axes == 1 else f"an array of {n_axes} matplotlib Axes"
        raise WrongArgument(f"{name} must be None or {what}; got {shown(axes)}.")


def literal(label: object) -> str:
    """Return a label that matplotlib writes letter by letter. It would read text between two dollars as TeX."""
    return str(label).replace("$", r"\$")


def plain_log_labels(*axes: Any) -> None:
    """Label the ticks of logarithmic axes with plain numbers, such as 0.6 and 200, where these are short.

    Parameters
    ----------
    *axes : matplotlib Axis
        An axis such as ``ax.yaxis``, after everything is drawn. The labels do not change if the axis is not
        logarithmic, if it starts below 0.001, or if it reaches 10,000.
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
            # A pickle of a figure cannot refer to a class that a function defines.
            return _plain_formatter, (), self.__dict__

    return Plain(**options)
