"""A figure of a parameter search, with scores and sharpness of every candidate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, literal, plain_log_labels
from sklgap.inspection._plot._style import ACCURACY, GUIDE, Style, fit_labels, legend_above, sharpness_style

if TYPE_CHECKING:
    from sklgap.experiments._gap_report import GapReport

# Largest number of candidates with names, and of characters in all names before the names are slanted.
_MOST_NAMES, _LABEL_CHARACTERS = 30, 40


class GapReportDisplay:
    """Training score, test score and sharpness of every candidate of a search.

    Points are means over the folds, and error bars are standard deviations.

    Parameters
    ----------
    labels : sequence of str
        Names of the candidates.
    score : dict of ndarrays of shape (n_candidates, 2)
        Means and standard deviations of the scores, by "train" and "test". NaN stands for a missing score.
    sharpness : dict of ndarrays of shape (n_candidates, 2)
        Means and standard deviations of sharpness in percent, by the name of the measurement.
    name : str, default="accuracy"
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
        sharpness: dict[str, np.ndarray],
        name: str = "accuracy",
        percent: bool = True,
    ) -> None:
        self.labels = labels
        self.score = score
        self.sharpness = sharpness
        self.name = name
        self.percent = percent

    @classmethod
    def from_report(cls, report: "GapReport", *, axes: Any = None) -> Self:
        """Plot the result of `gap_report`.

        Parameters
        ----------
        report : GapReport
            Result of `gap_report`.
        axes : sequence of matplotlib Axes, default=None
            Axes of the score and axes of sharpness. None means a new figure.

        Returns
        -------
        GapReportDisplay
        """
        from sklgap.experiments._gap_report import GapReport

        check_kind("report", report, GapReport)
        name = report.settings["scoring"]

        def moments(key: str) -> np.ndarray:
            return np.array([[record[key], record[f"{key}_std"]] for record in report.records], dtype=float)

        return cls(
            labels=report.labels,
            score={part: moments(f"{part}_{name}") for part in ("train", "test")},
            sharpness={key: moments(key) for key in report.settings["sharpness"]},
            name=name,
            percent=report.settings["in_points"],
        ).plot(axes=axes)

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
        width = min(max(4.5, 0.6 * len(self.labels)), 12)
        axes = axes_for(axes, "GapReportDisplay.plot", 1, n_axes, figsize=(width * n_axes, 3.8), squeeze=False)
        axes = np.ravel(axes)
        styles = (Style(GUIDE, "^", "none"), Style(ACCURACY, "o", "none"))
        for (part, values), style in zip(self.score.items(), styles, strict=True):
            _draw(axes[0], (100 if self.percent else 1) * values, style, part)
        axes[0].set_ylabel(self.name + (" (%)" if self.percent else ""))
        if self.sharpness:
            for number, (name, values) in enumerate(self.sharpness.items()):
                _draw(axes[1], values, sharpness_style(number), name)
            axes[1].set_yscale("symlog", linthresh=1e-2) if self._not_positive() else axes[1].set_yscale("log")
            plain_log_labels(axes[1].yaxis)
            axes[1].set_ylabel("sharpness of the training samples (%)")
        for ax in axes[:n_axes]:
            self._name_candidates(ax)
            ax.grid(axis="y", alpha=0.3)
            legend_above(ax, title="mean ± standard deviation over folds" if self._has_bars() else None)
        fit_labels(*axes[:n_axes])
        self.ax_, self.figure_ = axes, axes[0].figure
        return self

    def _name_candidates(self, ax: Any) -> None:
        n = len(self.labels)
        if n > _MOST_NAMES:
            ax.set_xlabel("candidate")
        else:
            crowded = sum(map(len, self.labels)) > _LABEL_CHARACTERS
            ax.set_xticks(
                range(n),
                [literal(label) for label in self.labels],
                **({"rotation": 30, "ha": "right"} if crowded else {}),
            )
        ax.set_xlim(-0.5, n - 0.5)

    def _has_bars(self) -> bool:
        return any(np.isfinite(values[:, 1]).any() for values in [*self.score.values(), *self.sharpness.values()])

    def _not_positive(self) -> bool:
        # An error bar that reaches 0 has no lower end on a logarithmic axis.
        return any((means - np.nan_to_num(stds) <= 0).any() for means, stds in (v.T for v in self.sharpness.values()))


def _draw(ax: Any, values: np.ndarray, style: Style, name: str) -> None:
    means, stds = values.T
    bars = {"markersize": 5, "capsize": 3, "label": name}
    ax.errorbar(range(len(means)), means, np.nan_to_num(stds), **style.points, **bars)
