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
    """Accuracy, or loss, against the epoch: a style per estimator, thin on training data, thick on test data.

    Parameters
    ----------
    curves : dict of dicts of ndarrays
        By name of the estimator: ``epoch``, and ``{dataset}_{quantity}`` for each of ``datasets``, as `recorded`
        returns them (accuracies as fractions).
    quantity : {"accuracy", "loss"}, default="accuracy"
        What to draw. Losses that span orders of magnitude get a logarithmic axis.
    datasets : sequence of one or two str, default=("train", "test")
        The names of training and test data in the recorder: a thin line, then a thick one with markers.
    batch_norm : str, default=None
        The batch-norm policy the values were recorded under, for the label of the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        Estimator by estimator, its datasets in turn.

    See Also
    --------
    sklgap.TrainingRecorder : Records the numbers.
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
        """Take the records of fitted estimators, and plot.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted with a `TrainingRecorder` that has ``datasets``; SB and LB in the paper.
        quantity : {"accuracy", "loss"}, default="accuracy"
            What to draw.
        datasets : sequence of one or two str, default=("train", "test")
            The names of training and test data in the recorder.
        recorder : str, default=None
            Name of the recorder; needed where there are several.
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.
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
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.
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
