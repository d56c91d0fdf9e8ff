"""A figure of a ranking of measures, with Kendall's tau over all minima and at equal settings."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.experiments._estimate import Estimate
from sklgap.inspection._plot._axes import axes_for, literal
from sklgap.inspection._plot._style import fit_labels, legend_above, other_style

if TYPE_CHECKING:
    from sklgap.experiments._rank_measures import MeasureRanking

_KINDS = ("all minima", "one setting differs", "only the seed differs")


class MeasureRankingDisplay:
    """Kendall's tau between each measure and the test error.

    Each measure has a dot with an interval for each kind of pairs.

    Parameters
    ----------
    taus : dict of str to dict of str to Estimate
        Values by measure and then by kind of pairs: "all minima", "one setting differs" and "only the seed differs".
        The figure leaves out values that are not defined (NaN).
    name : str, default="test error"
        Name of the quantity that the measures should predict.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(self, taus: Mapping[str, Mapping[str, Estimate]], *, name: str = "test error") -> None:
        self.taus = taus
        self.name = name

    @classmethod
    def from_ranking(cls, ranking: "MeasureRanking", *, ax: Any = None) -> Self:
        """Plot the result of `rank_measures`.

        Parameters
        ----------
        ranking : MeasureRanking
            Result of `rank_measures`.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        MeasureRankingDisplay
        """
        from sklgap.experiments._rank_measures import MeasureRanking

        check_kind("ranking", ranking, MeasureRanking)
        taus = {
            name: dict(zip(_KINDS, (measure.plain, measure.granulated, measure.within), strict=True))
            for name, measure in ranking.measures.items()
        }
        return cls(taus, name="test error" if ranking.settings["target"] == "test" else "train-test gap").plot(ax=ax)

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
        ax = axes_for(ax, "MeasureRankingDisplay.plot", figsize=(6.4, 1.4 + 0.5 * len(self.taus)))
        offsets = dict(zip(_KINDS, (-0.22, 0.0, 0.22), strict=True))
        for number, kind in enumerate(_KINDS):
            style = other_style(number)
            found = [(i, own[kind]) for i, own in enumerate(self.taus.values()) if np.isfinite(own[kind].value)]
            if not found:
                continue
            values = np.array([tau.value for _, tau in found])
            ends = np.array([(tau.low, tau.high) if tau.has_interval else (tau.value, tau.value) for _, tau in found])
            ax.errorbar(
                values,
                [i + offsets[kind] for i, _ in found],
                xerr=np.abs(ends.T - values),
                **style.points,
                elinewidth=1.2,
                capsize=3,
                markersize=5,
                label=kind,
            )
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlim(-1.05, 1.05)
        ax.set_yticks(range(len(self.taus)), [literal(name) for name in self.taus])
        ax.set_ylim(len(self.taus) - 0.5, -0.5)
        ax.set_xlabel(f"Kendall's tau with the {self.name} (+1: flatter is always better)")
        ax.grid(axis="x", alpha=0.3)
        ax.set_axisbelow(True)
        intervals = any(tau.has_interval for own in self.taus.values() for tau in own.values())
        legend_above(ax, title="bars: 95 % intervals" if intervals else None)
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
