"""A figure of a census, with the test score of each minimum against its sharpness."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, literal, plain_log_labels
from sklgap.inspection._plot._style import fit_labels, legend_above, regime_style

if TYPE_CHECKING:
    from sklgap.experiments._minima_census import MinimaCensus

# Fillings of the markers, one for each way to train a regime.
_FILLS = ("full", "none", "left", "top", "right", "bottom")


class MinimaCensusDisplay:
    """Test score against sharpness of many minima.

    Each regime has a style. Each combination of initialisation and learning rate has a filling of its markers.

    Parameters
    ----------
    groups : dict of tuple of str to tuple (sharpness, score) of ndarrays of shape (n_minima,)
        Values by regime and initialisation, and by learning rate if the census has several. Sharpness is in percent.
        Test scores are not scaled.
    name : str, default="test accuracy"
        Name of the score.
    percent : bool, default=True
        Whether the score is a fraction. The figure then shows percentages.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        groups: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]],
        *,
        name: str = "test accuracy",
        percent: bool = True,
    ) -> None:
        self.groups = groups
        self.name = name
        self.percent = percent

    @classmethod
    def from_census(cls, census: "MinimaCensus", *, ax: Any = None) -> Self:
        """Plot the result of `minima_census`.

        Parameters
        ----------
        census : MinimaCensus
            Result of `minima_census`.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        MinimaCensusDisplay
        """
        from sklgap.experiments._minima_census import MinimaCensus

        check_kind("census", census, MinimaCensus)
        score, groups = census.scores[0], {}
        for group in census.groups:
            pairs = np.array([census.by_trial(group, key) for key in (census.sharpness_name, f"test_{score.name}")])
            sharpness, values = pairs[:, np.isfinite(pairs).all(axis=0)]
            groups[group] = (sharpness, values)
        return cls(groups, name=f"test {score.name}", percent=score.in_points).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the figure.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        self
        """
        ax = axes_for(ax, "MinimaCensusDisplay.plot")
        regimes = list(dict.fromkeys(group[0] for group in self.groups))
        starts = list(dict.fromkeys(group[1:] for group in self.groups))
        positive = True
        for group, (sharpness, score) in self.groups.items():
            style = regime_style(group[0], regimes.index(group[0]))
            fill = _FILLS[starts.index(group[1:]) % len(_FILLS)]
            label = ", ".join(group)
            values = 100 * score if self.percent else score
            look = {"fillstyle": fill, "markersize": 6, "alpha": 0.7}
            ax.plot(sharpness, values, **style.points, **look, label=literal(label))
            positive = positive and bool((sharpness > 0).all())
        ax.set_xscale("log") if positive else ax.set_xscale("symlog", linthresh=1e-2)
        plain_log_labels(ax.xaxis)
        ax.set_xlabel("sharpness (%)")
        ax.set_ylabel(self.name + (" (%)" if self.percent else ""))
        ax.grid(alpha=0.3)
        legend_above(ax)
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
