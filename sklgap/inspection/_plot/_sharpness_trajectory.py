"""Sharpness against the loss during training: Keskar et al. (2017), Figure 6."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_text
from sklgap._typing import BatchNormPolicy, Estimator
from sklgap.inspection._plot._axes import axes_for, plain_log_labels
from sklgap.inspection._plot._lines import draw_records, dress, with_policy
from sklgap.inspection._records import recorded_by_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class SharpnessTrajectoryDisplay:
    """Sharpness against the loss during training, with one line per estimator.

    Both axes are logarithmic. Training goes from the right (a large loss) to the left. A star marks the last record.

    Parameters
    ----------
    curves : dict of tuples (loss, sharpness) of ndarrays
        Values by name of the estimator, in the order of training. Sharpness is in percent.
    batch_norm : str, default=None
        Batch-norm policy of the recorded loss, for the label of the axis.
    trials : dict of lists of tuples (loss, sharpness), default=None
        Values of the single trials by the same names. ``curves`` then holds their means. The trials have thin lines if
        there are several.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        One per estimator.

    See Also
    --------
    sklgap.sharpness_trajectory : Train, measure and draw in one call.
    sklgap.TrainingRecorder : Record the numbers during training.
    sharpness : Measure sharpness.
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    lines_: list["Line2D"]

    def __init__(
        self,
        curves: dict[str, tuple[np.ndarray, np.ndarray]],
        *,
        batch_norm: BatchNormPolicy | None = None,
        trials: dict[str, list[tuple[np.ndarray, np.ndarray]]] | None = None,
    ) -> None:
        self.curves = curves
        self.batch_norm = batch_norm
        self.trials = trials

    @classmethod
    def from_estimators(
        cls,
        estimators: dict[str, Estimator],
        *,
        loss: str = "train_loss",
        sharpness: str = "sharpness",
        recorder: str | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the records of fitted estimators.

        Parameters
        ----------
        estimators : dict of str to estimator
            Estimators fitted with a `TrainingRecorder` that has ``measurements``. The paper shows SB and LB.
        loss, sharpness : str, default="train_loss", "sharpness"
            Names of loss and sharpness in the records.
        recorder : str, default=None
            Name of the recorder, which is needed if there are several.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of ``Axes.plot`` for every line.

        Returns
        -------
        SharpnessTrajectoryDisplay
        """
        check_text("loss", loss)
        check_text("sharpness", sharpness)
        columns, batch_norm = recorded_by_name(estimators, {sharpness: "sharpness", loss: "loss"}, recorder)
        curves = {label: (values[loss], values[sharpness]) for label, values in columns.items()}
        return cls(curves, batch_norm=batch_norm).plot(ax=ax, **kwargs)

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the figure.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of ``Axes.plot`` for every line.

        Returns
        -------
        self
        """
        ax = axes_for(ax, "SharpnessTrajectoryDisplay.plot")
        self.lines_ = []
        for number, (label, (loss, sharpness)) in enumerate(self.curves.items()):
            self.lines_.append(draw_records(ax, number, label, loss, sharpness, kwargs))
            colour = self.lines_[-1].get_color()
            ax.plot(loss[-1:], sharpness[-1:], "*", color=colour, markersize=11)
            single = (self.trials or {}).get(label, [])
            for curve in single if len(single) > 1 else []:
                ax.plot(*curve, color=colour, alpha=0.35, linewidth=0.7)
        ax.set_xscale("log")
        ax.set_yscale("log")
        plain_log_labels(ax.xaxis, ax.yaxis)
        loss_label = with_policy("mean loss", self.batch_norm)
        dress(ax, f"{loss_label} (training goes to the left; star: its end)", "sharpness (%)")
        self.ax_, self.figure_ = ax, ax.figure
        return self
