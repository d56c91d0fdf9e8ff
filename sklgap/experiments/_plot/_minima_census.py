"""The picture of a census: a test score against sharpness, a dot for each minimum."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, literal, plain_log_labels
from sklgap.inspection._plot._style import fit_labels, legend_above, regime_style

if TYPE_CHECKING:
    from sklgap.experiments._minima_census import MinimaCensus

# The ways to train a regime: full, empty, half of either kind.
_FILLS = ("full", "none", "left", "top", "right", "bottom")


class MinimaCensusDisplay:
    """A test score against sharpness of many minima: a style for each regime, a filling for each way to train it.

    Parameters
    ----------
    groups : dict of tuple of str to tuple (sharpness, score) of ndarrays of shape (n_minima,)
        By regime, initialisation and, where several are tried, learning rate. Sharpness in percent, test scores as they
        are. The filling of the marker is that of the initialisation and the learning rate.
    name : str, default="test accuracy"
        What the score is called.
    percent : bool, default=True
        Whether the score is a fraction that is drawn in percent.

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
        """Take the numbers from what `minima_census` returned, and plot."""
        from sklgap.experiments._minima_census import MinimaCensus

        check_kind("census", census, MinimaCensus)
        score, groups = census.scores[0], {}
        for group in census.groups:
            pairs = np.array([census.by_trial(group, key) for key in (census.sharpness_name, f"test_{score.name}")])
            sharpness, values = pairs[:, np.isfinite(pairs).all(axis=0)]
            groups[group] = (sharpness, values)
        return cls(groups, name=f"test {score.name}", percent=score.in_points).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.

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
