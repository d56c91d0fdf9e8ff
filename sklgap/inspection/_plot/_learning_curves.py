"""Learning curves: Keskar et al. (2017), Figure 2."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np

from sklgap._checks import is_flat, is_one_of, shown
from sklgap._typing import BatchNormPolicy, Estimator, Quantity
from sklgap.inspection._plot._axes import axes_for, literal
from sklgap.inspection._plot._lines import dress, spans_decades, with_policy
from sklgap.inspection._plot._style import regime_style
from sklgap.inspection._records import recorded_by_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class LearningCurvesDisplay:
    """Accuracy or loss against the epoch.

    Each estimator has a style. Thin lines show the training data, thick lines the test data.

    Parameters
    ----------
    curves : dict of dicts of ndarrays
        For each name of an estimator, the columns ``epoch`` and ``{dataset}_{quantity}`` of each data set in
        ``datasets``. `recorded` returns such columns. Accuracies are fractions.
    quantity : {"accuracy", "loss"}, default="accuracy"
        Quantity to draw. The axis is logarithmic if the losses span more than a factor of 20.
    datasets : sequence of one or two str, default=("train", "test")
        Names of training and test data in the recorder. The last line is thick with markers.
    batch_norm : str, default=None
        Batch-norm policy of the recorded values, for the label of the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        The lines of the first estimator, one for each data set, then those of the second one, and so on.

    See Also
    --------
    sklgap.TrainingRecorder : Record the numbers during training.
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    lines_: list["Line2D"]

    def __init__(
        self,
        curves: dict[str, dict[str, np.ndarray]],
        *,
        quantity: Quantity = "accuracy",
        datasets: Sequence[str] = ("train", "test"),
        batch_norm: BatchNormPolicy | None = None,
    ) -> None:
        self.curves = curves
        self.quantity = quantity
        self.datasets = datasets
        self.batch_norm = batch_norm

    @classmethod
    def from_estimators(
        cls,
        estimators: dict[str, Estimator],
        *,
        quantity: Quantity = "accuracy",
        datasets: Sequence[str] = ("train", "test"),
        recorder: str | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the records of fitted estimators.

        Parameters
        ----------
        estimators : dict of str to estimator
            Estimators fitted with a `TrainingRecorder` that records ``datasets``. The paper shows SB and LB.
        quantity : {"accuracy", "loss"}, default="accuracy"
            Quantity to draw.
        datasets : sequence of one or two str, default=("train", "test")
            Names of training and test data in the recorder.
        recorder : str, default=None
            Name of the recorder, which is needed if there are several.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of ``Axes.plot`` for every line.

        Returns
        -------
        LearningCurvesDisplay
        """
        if not is_one_of(quantity, get_args(Quantity)):
            raise ValueError(f"quantity must be 'accuracy' or 'loss'; got {quantity!r}.")
        named = is_flat(datasets) and all(isinstance(name, str) for name in datasets)
        if not named or not 1 <= len(datasets) <= 2:
            raise ValueError(f"datasets must be the names of one or two datasets; got {shown(datasets)}.")
        keys = dict.fromkeys(["epoch", *(f"{name}_{quantity}" for name in datasets)], "datasets")
        curves, batch_norm = recorded_by_name(estimators, keys, recorder)
        return cls(curves, quantity=quantity, datasets=datasets, batch_norm=batch_norm).plot(ax=ax, **kwargs)

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
        ax = axes_for(ax, "LearningCurvesDisplay.plot")
        self.lines_ = []
        scale = 100 if self.quantity == "accuracy" else 1
        for number, (label, columns) in enumerate(self.curves.items()):
            color, marker, linestyle = regime_style(label, number)
            thin = {"linewidth": 1.0, "alpha": 0.6}
            thick = {"linewidth": 1.8, "marker": marker, "markersize": 3.5}
            for data, weight in zip(self.datasets, (thin, thick)[-len(self.datasets) :], strict=True):
                values = scale * columns[f"{data}_{self.quantity}"]
                options = {"color": color, "linestyle": linestyle, "label": literal(f"{label}, {data}")}
                self.lines_ += ax.plot(columns["epoch"], values, **{**options, **weight, **kwargs})
        if self.quantity == "loss" and spans_decades(*(line.get_ydata() for line in self.lines_)):
            ax.set_yscale("log")
        quantity = "accuracy (%)" if self.quantity == "accuracy" else "mean loss"
        dress(ax, "epoch", with_policy(quantity, self.batch_norm), grid="y")
        ax.locator_params(axis="x", integer=True)
        self.ax_, self.figure_ = ax, ax.figure
        return self
