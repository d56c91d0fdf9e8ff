"""A figure of a comparison, with a point for every trial and lines between paired trials."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, literal, plain_log_labels
from sklgap.inspection._plot._style import GUIDE, fit_labels, legend_above, regime_style

if TYPE_CHECKING:
    from sklgap.experiments._compare_regimes import RegimeComparison

# The names of regimes are slanted if together they have more characters than this.
_LABEL_CHARACTERS = 40
# Fillings of the markers, which distinguish several measurements of sharpness.
_FILLS = ("full", "none", "left", "right", "top", "bottom")


class RegimeComparisonDisplay:
    """Test score and sharpness of every trial of every regime, with sharpness on a logarithmic scale.

    Parameters
    ----------
    labels : sequence of str
        Names of the regimes.
    score : dict of ndarrays
        Test scores of all trials by regime. NaN stands for a fit that had not finished.
    sharpness : dict of dicts of ndarrays
        Sharpness in percent, by name of the measurement and then by regime.
    name : str, default="test accuracy"
        Name of the score.
    percent : bool, default=True
        Whether the score is a fraction. The figure then shows percentages.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        The axes of the score, then those of sharpness if sharpness was measured.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        *,
        labels: Sequence[str],
        score: dict[str, np.ndarray],
        sharpness: dict[str, dict[str, np.ndarray]],
        name: str = "test accuracy",
        percent: bool = True,
    ) -> None:
        self.labels = labels
        self.score = score
        self.sharpness = sharpness
        self.name = name
        self.percent = percent

    @classmethod
    def from_comparison(cls, comparison: "RegimeComparison", *, axes: Any = None) -> Self:
        """Plot the result of `compare_regimes`.

        Parameters
        ----------
        comparison : RegimeComparison
            Result of `compare_regimes`.
        axes : sequence of matplotlib Axes, default=None
            Axes of the score and axes of sharpness. None means a new figure.

        Returns
        -------
        RegimeComparisonDisplay
        """
        from sklgap.experiments._compare_regimes import RegimeComparison

        check_kind("comparison", comparison, RegimeComparison)
        labels, score = comparison.done, comparison.scores[0]
        sharpness = {
            name.removeprefix("sharpness "): {label: comparison.by_trial(label, key) for label in labels}
            for key, name in comparison.sharpness_names().items()
        }
        values = {label: comparison.by_trial(label, f"test_{score.name}") for label in labels}
        name = f"test {score.name}"
        return cls(labels=labels, score=values, sharpness=sharpness, name=name, percent=score.in_points).plot(axes=axes)

    def plot(self, axes: Any = None) -> Self:
        """Draw the figure.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, default=None
            Axes of the score and axes of sharpness. None means a new figure.

        Returns
        -------
        self
        """
        n_axes = 2 if self.sharpness else 1
        width = max(4.5, 0.6 * len(self.labels))
        axes = axes_for(axes, "RegimeComparisonDisplay.plot", 1, n_axes, figsize=(width * n_axes, 3.6), squeeze=False)
        axes = np.ravel(axes)
        positions = np.arange(len(self.labels))
        values = [(100 if self.percent else 1) * self.score[label] for label in self.labels]
        _draw(axes[0], self.labels, values, _FILLS[0])
        legend_above(axes[0], [_mark("o", 5, "trial"), _mark("_", 14, "mean")])
        axes[0].set_ylabel(self.name + (" (%)" if self.percent else ""))
        if self.sharpness:
            handles = []
            for fill, (name, of_labels) in zip(cycle(_FILLS), self.sharpness.items(), strict=False):
                _draw(axes[1], self.labels, [of_labels[label] for label in self.labels], fill)
                handles.append(_mark("o", 5, name, fillstyle=fill))
            axes[1].set_yscale("symlog", linthresh=1e-2) if self._not_positive() else axes[1].set_yscale("log")
            plain_log_labels(axes[1].yaxis)
            axes[1].set_ylabel("sharpness (%)")
            legend_above(axes[1], handles, title="epsilon")
        for ax in axes[: 2 if self.sharpness else 1]:
            crowded = sum(map(len, self.labels)) > _LABEL_CHARACTERS
            ax.set_xticks(
                positions,
                [literal(label) for label in self.labels],
                **({"rotation": 30, "ha": "right"} if crowded else {}),
            )
            ax.set_xlim(-0.5, len(self.labels) - 0.5)
            ax.grid(axis="y", alpha=0.3)
        fit_labels(*axes[:n_axes])
        self.ax_, self.figure_ = axes, axes[0].figure
        return self

    def _not_positive(self) -> bool:
        return any((values <= 0).any() for by_label in self.sharpness.values() for values in by_label.values())


def _mark(marker: str, size: float, label: str, **options: Any) -> Any:
    """Return the legend's marker of a measurement, in a neutral colour that stands for all regimes."""
    from matplotlib.lines import Line2D

    look = {"color": GUIDE, "linestyle": "none", "markersize": size, "markeredgewidth": 1.5, **options}
    return Line2D([], [], marker=marker, label=literal(label), **look)


def _draw(ax: Any, labels: Sequence[str], values: list[np.ndarray], fill: str) -> None:
    """Draw every trial and the means. Thin lines join the trials that all regimes have."""
    by_trial = np.array(values)
    paired = by_trial[:, np.isfinite(by_trial).all(axis=0)]
    if paired.shape[1] and len(values) > 1:
        ax.plot(np.arange(len(values)), paired, color=GUIDE, alpha=0.3, linewidth=1)
    for position, (label, v) in enumerate(zip(labels, values, strict=True)):
        style = regime_style(label, position)
        there = v[np.isfinite(v)]
        ax.plot(np.full(len(there), position), there, **style.points, fillstyle=fill, alpha=0.6, markersize=4)
        if len(there):
            ax.plot(position, there.mean(), "_", color=style.color, markersize=22, markeredgewidth=2.5)
