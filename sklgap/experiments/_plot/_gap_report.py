"""The picture of a search that is read as a study of batch sizes: scores and sharpness of every candidate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, literal, plain_log_labels
from sklgap.inspection._plot._style import ACCURACY, GUIDE, Style, fit_labels, legend_above, sharpness_style

if TYPE_CHECKING:
    from sklgap.experiments._gap_report import GapReport

# Names of more candidates, or longer ones, would run into one another.
_MOST_NAMES, _LABEL_CHARACTERS = 30, 40


class GapReportDisplay:
    """Training and test score of every candidate, and sharpness: means over the folds with standard deviations.

    Parameters
    ----------
    labels : sequence of str
        The candidates.
    score : dict of ndarrays of shape (n_candidates, 2)
        Mean and standard deviation by "train" and "test"; NaN where there is none.
    sharpness : dict of ndarrays of shape (n_candidates, 2)
        In percent, by the name of the measurement.
    name : str, default="accuracy"
        What the score is called.
    percent : bool, default=True
        Whether the score is a fraction that is drawn in percent.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        The score, then sharpness (where it was measured).
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
        """Take the numbers from what `gap_report` returned, and plot."""
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
        """Draw.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, default=None
            One for the score and one for sharpness; None: a new figure.

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
        # An error bar that reaches 0 has no end on a logarithmic axis either.
        return any((means - np.nan_to_num(stds) <= 0).any() for means, stds in (v.T for v in self.sharpness.values()))


def _draw(ax: Any, values: np.ndarray, style: Style, name: str) -> None:
    means, stds = values.T
    bars = {"markersize": 5, "capsize": 3, "label": name}
    ax.errorbar(range(len(means)), means, np.nan_to_num(stds), **style.points, **bars)
