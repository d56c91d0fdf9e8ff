"""Largest Hessian eigenvalues during training, with the threshold above which the optimiser is unstable."""

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from sklgap._checks import check_flag, check_text
from sklgap._typing import BatchNormPolicy, Estimator
from sklgap.inspection._plot._axes import axes_for, literal
from sklgap.inspection._plot._lines import draw_records, dress, spans_decades, with_policy
from sklgap.inspection._plot._style import GUIDE
from sklgap.inspection._records import recorded, recorded_by_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class StabilityCurve(NamedTuple):
    """The records of one training.

    ``n_updates`` and ``threshold`` have shape (n_records,). ``eigenvalues`` has shape (n_records, n_eigenvalues), in
    descending order. A record without a threshold has NaN there.
    """

    n_updates: np.ndarray
    eigenvalues: np.ndarray
    threshold: np.ndarray


class StabilityTrajectoryDisplay:
    """Largest Hessian eigenvalues against the updates, with the threshold of the optimiser as a dashed line.

    All trials of an estimator have the same colour. On a quadratic loss, an optimiser is unstable above its dashed
    line. Thin lines show further eigenvalues.

    Parameters
    ----------
    curves : dict of lists of StabilityCurve
        Curves by name of the estimator, one for each training.
    preconditioned : bool, default=False
        Whether the eigenvalues are those of a preconditioned Hessian, for the label of the axis.
    batch_norm : str, default=None
        Batch-norm policy of the measurements, for the label of the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        The largest eigenvalue of each training.
    thresholds_ : list of matplotlib Line2D
        The threshold of each estimator that has one. There is a single line if all have the same threshold.

    See Also
    --------
    sklgap.stability_trajectory : Train, measure and draw in one call.
    StabilityMeasurement : Measure during any training.
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    lines_: list["Line2D"]
    thresholds_: list["Line2D"]

    def __init__(
        self,
        curves: dict[str, list[StabilityCurve]],
        *,
        preconditioned: bool = False,
        batch_norm: BatchNormPolicy | None = None,
    ) -> None:
        self.curves = curves
        self.preconditioned = preconditioned
        self.batch_norm = batch_norm

    @classmethod
    def from_estimators(
        cls,
        estimators: dict[str, Estimator],
        *,
        name: str = "stability",
        recorder: str | None = None,
        preconditioned: bool = False,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the records of fitted estimators.

        Parameters
        ----------
        estimators : dict of str to estimator
            Estimators fitted with a `TrainingRecorder`. Its ``measurements`` contain a `StabilityMeasurement`.
        name : str, default="stability"
            Name of the measurement in ``measurements``.
        recorder : str, default=None
            Name of the recorder, which is needed if there are several.
        preconditioned : bool, default=False
            Whether the optimiser is adaptive, for the label of the axis.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of ``Axes.plot`` for every line of eigenvalues.

        Returns
        -------
        StabilityTrajectoryDisplay
        """
        check_text("name", name)
        check_flag("preconditioned", preconditioned)
        keys = {f"{name}_eigenvalue": "name", f"{name}_threshold": "name"}
        recorded_by_name(estimators, keys, recorder)
        curves = {label: [stability_curve(recorded(one, recorder), f"{name}_")] for label, one in estimators.items()}
        return cls(curves, preconditioned=preconditioned).plot(ax=ax, **kwargs)

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the figure.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of ``Axes.plot`` for every line of eigenvalues.

        Returns
        -------
        self
        """
        ax = axes_for(ax, "StabilityTrajectoryDisplay.plot")
        self.lines_, self.thresholds_ = [], []
        updates, heights = [], []
        shared = _shared_threshold([curve for trials in self.curves.values() for curve in trials])
        style: dict[str, Any] = {"linestyle": ":", "linewidth": 1.4}
        for number, (label, trials) in enumerate(self.curves.items()):
            for i, (x, eigenvalues, threshold) in enumerate(trials):
                named = {"label": "_nolegend_"} if i else {}
                line = draw_records(ax, number, label, x, eigenvalues[:, 0], {**named, **kwargs})
                colour = line.get_color()
                self.lines_.append(line)
                ax.plot(x, eigenvalues[:, 1:], color=colour, alpha=0.35, linewidth=0.7)
                if i == 0 and shared is None and np.isfinite(threshold).any():
                    said = literal(f"{label}: threshold")
                    self.thresholds_ += ax.plot(x, threshold, color=colour, label=said, drawstyle="steps-pre", **style)
                updates.append(x)
                heights += [eigenvalues[:, 0], threshold]
        if shared is not None:
            self.thresholds_.append(ax.axhline(shared, color=GUIDE, label="threshold", **style))
        if updates and spans_decades(*updates):
            ax.set_xscale("log")
        if heights and spans_decades(*heights) and not any((h <= 0).any() for h in heights):
            ax.set_yscale("log")
        what = "largest eigenvalue, preconditioned" if self.preconditioned else "largest Hessian eigenvalue"
        dress(ax, "updates", with_policy(what, self.batch_norm))
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _shared_threshold(curves: list[StabilityCurve]) -> float | None:
    """Return the threshold if it is the same in all records, so that one line can show it."""
    values = np.concatenate([curve.threshold for curve in curves]) if curves else np.empty(0)
    constant = len(values) > 0 and np.isfinite(values).all() and np.ptp(values) <= 1e-9 * abs(values[0])
    return float(values[0]) if constant else None


def stability_curve(columns: dict[str, np.ndarray], prefix: str = "") -> StabilityCurve:
    """Return the curve of the recorded columns, without the records that hold no measurement."""
    names = [f"{prefix}eigenvalue"]
    while f"{prefix}eigenvalue_{len(names) + 1}" in columns:
        names.append(f"{prefix}eigenvalue_{len(names) + 1}")
    there = np.isfinite(columns[names[0]])
    eigenvalues = np.column_stack([columns[name] for name in names])
    return StabilityCurve(columns["n_updates"][there], eigenvalues[there], columns[f"{prefix}threshold"][there])
