"""The axes that a display draws on."""

from typing import Any


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

    return plt.subplots(*shape, layout="constrained", **options)[1] if ax is None else ax
