"""The picture of a census: test accuracy against sharpness, a dot for each minimum."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, plain_log_labels

if TYPE_CHECKING:
    from sklgap.experiments._census_result import MinimaCensus

_MARKERS = "o^sDvP*X"


class MinimaCensusDisplay:
    """Test accuracy against sharpness of many minima: a colour for each regime, a marker for each initialisation.

    Parameters
    ----------
    groups : dict of tuple (regime, init) to tuple (sharpness, accuracy) of ndarrays of shape (n_minima,)
        Sharpness in percent, test accuracies as fractions.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(self, groups: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]) -> None:
        self.groups = groups

    @classmethod
    def from_census(cls, census: "MinimaCensus", *, ax: Any = None) -> Self:
        """Take the numbers from what `minima_census` returned, and plot."""
        from sklgap.experiments._census_result import MinimaCensus

        check_kind("census", census, MinimaCensus)
        groups = {}
        for group in census.groups:
            pairs = np.array([census.by_seed(group, key) for key in (census.sharpness_name, "test_accuracy")])
            sharpness, accuracy = pairs[:, np.isfinite(pairs).all(axis=0)]
            groups[group] = (sharpness, accuracy)
        return cls(groups).plot(ax=ax)

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
        regimes, inits = (list(dict.fromkeys(group[i] for group in self.groups)) for i in (0, 1))
        positive = True
        for (regime, init), (sharpness, accuracy) in self.groups.items():
            colour, marker = f"C{regimes.index(regime)}", _MARKERS[inits.index(init) % len(_MARKERS)]
            label = f"{regime}, {init}"
            ax.plot(sharpness, 100 * accuracy, marker, color=colour, alpha=0.6, markersize=6, label=label)
            positive = positive and bool((sharpness > 0).all())
        ax.set_xscale("log") if positive else ax.set_xscale("symlog", linthresh=1e-2)
        plain_log_labels(ax.xaxis)
        ax.set_xlabel("sharpness (%)")
        ax.set_ylabel("test accuracy (%)")
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self
