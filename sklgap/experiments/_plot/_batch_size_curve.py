"""Test accuracy and sharpness against batch size: Keskar et al. (2017), Figure 4."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import WrongArgument, check_kind, is_integer, shown
from sklgap.inspection._plot._axes import axes_for, plain_log_labels
from sklgap.inspection._plot._style import ACCURACY, GUIDE, deviation, fit_labels, legend_above, sharpness_style

if TYPE_CHECKING:
    from sklgap.experiments._batch_size_curve import BatchSizeCurve

# Line styles and markers of test and validation scores, which share a colour.
_PARTS = (("-", "o"), ("--", "^"), (":", "D"))


class BatchSizeCurveDisplay:
    """A score (left axis) and sharpness (right axis, logarithmic) against batch size.

    Parameters
    ----------
    batch_sizes : sequence of int
        Batch sizes in ascending order.
    score : dict of ndarrays of shape (n_sizes, n_trials)
        Scores by the name of the data. NaN stands for a fit that had not finished.
    sharpness : dict of ndarrays of shape (n_sizes, n_trials)
        Sharpness in percent, by the name of the measurement.
    name : str, default="accuracy"
        Name of the score.
    percent : bool, default=True
        Whether the score is a fraction. The figure then shows percentages.
    safe : int or None
        Batch size to mark.
    confirmed : bool or None
        Whether other seeds confirm this batch size. None means that they were not tried.

    Attributes
    ----------
    ax_, sharpness_ax_ : matplotlib Axes
        Left and right axes. The right ones are None if no sharpness was measured.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        batch_sizes: Sequence[int],
        score: dict[str, np.ndarray],
        sharpness: dict[str, np.ndarray],
        *,
        name: str = "accuracy",
        percent: bool = True,
        safe: int | None = None,
        confirmed: bool | None = None,
    ) -> None:
        self.batch_sizes = batch_sizes
        self.score = score
        self.sharpness = sharpness
        self.name = name
        self.percent = percent
        self.safe = safe
        self.confirmed = confirmed

    @classmethod
    def from_curve(cls, curve: "BatchSizeCurve", *, safe: Any = None, ax: Any = None) -> Self:
        """Plot the result of `batch_size_curve`.

        Parameters
        ----------
        curve : BatchSizeCurve
            Result of `batch_size_curve`.
        safe : int or SafeBatchSize, default=None
            Batch size to mark.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        BatchSizeCurveDisplay
        """
        from sklgap.experiments._batch_size_curve import BatchSizeCurve
        from sklgap.experiments._safe_batch_size import SafeBatchSize

        check_kind("curve", curve, BatchSizeCurve)
        if not (safe is None or isinstance(safe, SafeBatchSize) or is_integer(safe, 1)):
            raise WrongArgument(f"safe must be None, a SafeBatchSize or a batch size; got {shown(safe)}.")
        score = curve.scores[0]
        parts = {"test": f"test_{score.name}", "validation": f"valid_{score.name}"}
        values = {name: curve.quantity(key) for name, key in parts.items() if curve.has(key)}
        sharpness = {f"{name} (%)": curve.quantity(key) for key, name in curve.sharpness_names().items()}
        display = cls(
            curve.batch_sizes,
            values,
            sharpness,
            name=score.name,
            percent=score.in_points,
            safe=None if safe is None else int(safe),
            confirmed=getattr(safe, "confirmed", None),
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw means over the trials, with standard deviations as error bars.

        A single trial has no error bar.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        self
        """
        ax = axes_for(ax, "BatchSizeCurveDisplay.plot", figsize=(6.4, 4.4))
        from matplotlib.ticker import NullLocator

        handles, factor = [], 100 if self.percent else 1
        for (name, values), (style, marker) in zip(self.score.items(), _PARTS, strict=False):
            options = {"linestyle": style, "marker": marker, "color": ACCURACY}
            handles.append(self._draw(ax, factor * values, f"{self.name}, {name}", options))
        self.sharpness_ax_ = None
        if self.sharpness:
            self.sharpness_ax_ = ax.twinx()
            for number, (name, values) in enumerate(self.sharpness.items()):
                handles.append(self._draw(self.sharpness_ax_, values, name, sharpness_style(number)._asdict()))
            positive = all((values[np.isfinite(values)] > 0).all() for values in self.sharpness.values())
            scale: dict[str, Any] = {"value": "log"} if positive else {"value": "symlog", "linthresh": 1e-2}
            self.sharpness_ax_.set_yscale(**scale)
            plain_log_labels(self.sharpness_ax_.yaxis)
            colour = sharpness_style(0).color
            self.sharpness_ax_.set_ylabel("sharpness (%)", color=colour)
            self.sharpness_ax_.tick_params(axis="y", which="both", labelcolor=colour)
        if self.safe is not None:
            mark = {"color": GUIDE, "linewidth": 6, "alpha": 0.25, "zorder": 0}
            found = {None: "", True: ", confirmed", False: ", NOT confirmed"}[self.confirmed]
            handles.append(ax.axvline(self.safe, label=f"largest shown safe: {self.safe:,}{found}", **mark))
        ax.set_xscale("log")
        ax.set_xticks(self.batch_sizes, [f"{size:,}" for size in self.batch_sizes])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("batch size (samples)")
        ax.set_ylabel(self.name + (" (%)" if self.percent else ""), color=ACCURACY)
        ax.tick_params(axis="y", labelcolor=ACCURACY)
        ax.grid(axis="y", alpha=0.3)
        legend_above(ax, handles, title=self._bars())
        fit_labels(*(one for one in (ax, self.sharpness_ax_) if one is not None))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _bars(self) -> str | None:
        """Return the title that explains the error bars, or None if a single trial has no bars."""
        several = any(values.shape[1] > 1 for values in [*self.score.values(), *self.sharpness.values()])
        return "mean ± standard deviation over trials" if several else None

    def _draw(self, ax: Any, values: np.ndarray, label: str, options: dict[str, Any]) -> Any:
        there = [row[np.isfinite(row)] for row in values if np.isfinite(row).any()]
        sizes = np.array(self.batch_sizes)[np.isfinite(values).any(axis=1)]
        means = np.array([row.mean() for row in there])
        return ax.errorbar(sizes, means, deviation(there), label=label, capsize=3, markersize=5, **options)
