"""The parametric plot of Keskar et al. (2017), Figure 3."""

from typing import TYPE_CHECKING, Any, Self

from sklgap._checks import WrongArgument, is_one_of, naming_data, shown
from sklgap._typing import ArrayLike, Inputs, PathKind
from sklgap.inspection._parametric import LossCurve, loss_along_arc, loss_along_line
from sklgap.inspection._plot._axes import axes_for
from sklgap.inspection._plot._lines import spans_decades
from sklgap.inspection._plot._style import ACCURACY, LOSS, fit_labels, legend_above, regime_style
from sklgap.objective._check import Measurable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

_PATHS = {"line": loss_along_line, "arc": loss_along_arc}


class ParametricPlotDisplay:
    """Loss (left axis) and accuracy (right axis) on a path between two solutions.

    Training data have solid lines, test data dashed ones. The loss has a logarithmic scale if it spans more than a
    factor of 20.

    Parameters
    ----------
    train : LossCurve
        Loss and accuracy on the training data.
    test : LossCurve, default=None
        Loss and accuracy on the test data.
    names : tuple of two str, default=("SB", "LB")
        Names of the solutions at alpha = 0 and alpha = 1.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the loss.
    accuracy_ax_ : matplotlib Axes
        The axes of the accuracy, which share the horizontal axis.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        Training loss, test loss, training accuracy and test accuracy. Without test data there are two lines.

    See Also
    --------
    loss_along_line, loss_along_arc : Compute the numbers.
    LossSurfaceDisplay : Draw the loss in two dimensions.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import ParametricPlotDisplay
    >>> a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> loss, X, y = torch.nn.CrossEntropyLoss(), torch.eye(2), torch.tensor([0, 1])
    >>> display = ParametricPlotDisplay.from_estimators((a, loss), (b, loss), X, y, path="arc")
    >>> display.ax_.get_xlabel()
    'alpha along the arc (0 = SB, 1 = LB)'
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    accuracy_ax_: "Axes"
    lines_: list["Line2D"]

    def __init__(
        self, train: LossCurve, test: LossCurve | None = None, *, names: tuple[str, str] = ("SB", "LB")
    ) -> None:
        self.train = train
        self.test = test
        self.names = names

    @classmethod
    def from_estimators(
        cls,
        start: Measurable,
        end: Measurable,
        X: Inputs,
        y: ArrayLike | None,
        X_test: Inputs | None = None,
        y_test: ArrayLike | None = None,
        *,
        path: PathKind = "line",
        names: tuple[str, str] = ("SB", "LB"),
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Evaluate and plot the loss along a path between two fitted estimators.

        Parameters
        ----------
        start, end : estimator
            Fitted estimators at alpha = 0 and at alpha = 1.
        X, y : array-like
            Training data.
        X_test, y_test : array-like, default=None
            Test data.
        path : {"line", "arc"}, default="line"
            Path of `loss_along_line` or of `loss_along_arc`.
        names : tuple of two str, default=("SB", "LB")
            Names of the two estimators.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of `loss_along_line`.

        Returns
        -------
        ParametricPlotDisplay
        """
        if not is_one_of(path, _PATHS):
            raise ValueError(f"path must be one of {', '.join(map(repr, _PATHS))}; got {path!r}.")
        if not isinstance(names, tuple | list) or len(names) != 2:
            raise WrongArgument(f"names must be a tuple of two names; got {shown(names)}.")
        if X_test is not None and y_test is None:
            raise WrongArgument("y_test must be given if X_test is given; got None.")
        train = _PATHS[path](start, end, X, y, **kwargs)
        test = None
        if X_test is not None:
            with naming_data("X_test", "y_test"):
                test = _PATHS[path](start, end, X_test, y_test, **kwargs)
        return cls(train, test, names=names).plot(ax=ax)

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
        ax = axes_for(ax, "ParametricPlotDisplay.plot")
        twin = ax.twinx()
        self.lines_ = []
        # The markers distinguish accuracy from loss without colours.
        for axes, quantity, scale, colour in ((ax, "loss", 1, LOSS), (twin, "accuracy", 100, ACCURACY)):
            marks = {"marker": "."} if quantity == "accuracy" else {}
            for curve, data, style in ((self.train, "train", "-"), (self.test, "test", "--")):
                if curve is not None:
                    values = scale * getattr(curve, quantity)
                    options = {"color": colour, "linestyle": style, **marks, "label": f"{quantity}, {data}", **kwargs}
                    self.lines_ += axes.plot(curve.alphas, values, **options)
            axes.tick_params(axis="y", which="both", labelcolor=colour)
        if spans_decades(self.train.loss):  # as that of a converged net
            ax.set_yscale("log")
        ax.set_ylabel(f"mean loss (batch norm: {self.train.batch_norm})", color=LOSS)
        twin.set_ylabel("accuracy (%)", color=ACCURACY)
        ax.set_xlabel(f"alpha along the {self.train.path} (0 = {self.names[0]}, 1 = {self.names[1]})")
        for alpha, name in enumerate(self.names):
            color, _, linestyle = regime_style(name, alpha)
            ax.axvline(alpha, color=color, linestyle=linestyle, linewidth=0.8, zorder=0)
        legend_above(ax, self.lines_)
        fit_labels(ax, twin)
        self.ax_, self.accuracy_ax_, self.figure_ = ax, twin, ax.figure
        return self
