"""Distance from the initial weights: Hoffer et al. (2017), Figure 2."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._typing import Estimator
from sklgap.inspection._diffusion import DiffusionFit, fit_diffusion
from sklgap.inspection._plot._axes import axes_for
from sklgap.inspection._plot._lines import draw_records, dress
from sklgap.inspection._records import recorded_by_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class WeightDistanceDisplay:
    """Distance from the initial weights against the number of updates.

    The axis of updates is logarithmic, so that ultra-slow diffusion, a + b log t, is a straight line. Thin black lines
    show the fits over their windows.

    Parameters
    ----------
    curves : dict of tuples (n_updates, distance) of ndarrays
        Values by name of the estimator, such as its batch size. The figure leaves out records at 0 updates.
    fits : dict of DiffusionFit, default=None
        Fits by name of the estimator.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        One per estimator.
    fit_lines_ : list of matplotlib Line2D
        One per fit.

    See Also
    --------
    fit_diffusion : Fit a + b log t to the distances.
    sklgap.TrainingRecorder : Record the numbers during training; see ``at_updates``.
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    lines_: list["Line2D"]
    fit_lines_: list["Line2D"]

    def __init__(
        self, curves: dict[str, tuple[np.ndarray, np.ndarray]], fits: dict[str, DiffusionFit] | None = None
    ) -> None:
        self.curves = curves
        self.fits = fits

    @classmethod
    def from_estimators(
        cls,
        estimators: dict[str, Estimator],
        *,
        window: tuple[float, float] | None = None,
        recorder: str | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the records of fitted estimators, with a fit of a + b log t to each.

        Parameters
        ----------
        estimators : dict of str to estimator
            Estimators fitted with a `TrainingRecorder`. In the paper they have different batch sizes.
        window : tuple (first, last), default=None
            Range of updates to fit, as in `fit_diffusion`. None means all updates.
        recorder : str, default=None
            Name of the recorder, which is needed if there are several.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of ``Axes.plot`` for every line of an estimator.

        Returns
        -------
        WeightDistanceDisplay
        """
        columns, _ = recorded_by_name(
            estimators, dict.fromkeys(("n_updates", "weight_distance"), "this plot"), recorder
        )
        curves = {label: (values["n_updates"], values["weight_distance"]) for label, values in columns.items()}
        fits = {label: fit_diffusion(*curve, window=window) for label, curve in curves.items()}
        return cls(curves, fits).plot(ax=ax, **kwargs)

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the figure.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of ``Axes.plot`` for every line of an estimator.

        Returns
        -------
        self
        """
        ax = axes_for(ax, "WeightDistanceDisplay.plot")
        self.lines_, self.fit_lines_ = [], []
        for number, (label, (n_updates, distance)) in enumerate(self.curves.items()):
            moved = n_updates > 0
            self.lines_.append(draw_records(ax, number, label, n_updates[moved], distance[moved], kwargs))
        for fit in (self.fits or {}).values():
            ends = np.array(fit.window)
            self.fit_lines_ += ax.plot(ends, fit.predict(ends), color="black", linewidth=0.7)
        if self.fit_lines_:
            self.fit_lines_[0].set_label("a + b log t, fitted")
        ax.set_xscale("log")
        dress(ax, "updates", "distance from the initial weights")
        self.ax_, self.figure_ = ax, ax.figure
        return self
