"""Figure 4 of Keskar et al.: test accuracy and sharpness against batch size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import WrongArgument, check_kind, is_integer, shown
from sklgap.inspection._plot._axes import axes_for, plain_log_labels

if TYPE_CHECKING:
    from sklgap.experiments._batch_size_curve import BatchSizeCurve

_ACCURACY_COLOUR = "tab:blue"
_SHARPNESS_COLOURS = ("tab:red", "tab:orange", "tab:purple", "tab:brown")


class BatchSizeCurveDisplay:
    """A score on the left, sharpness on a logarithmic scale on the right, against batch size.

    Parameters
    ----------
    batch_sizes : sequence of int
        In ascending order.
    score : dict of ndarrays of shape (n_sizes, n_trials)
        Scores by the name of the data; NaN where a fit had not finished.
    sharpness : dict of ndarrays of shape (n_sizes, n_trials)
        In percent, by the name of the measurement.
    name : str, default="accuracy"
        What the score is called.
    percent : bool, default=True
        Whether the score is a fraction that is drawn in percent.
    safe : int or None
        The batch size that is marked.
    confirmed : bool or None
        Whether other seeds confirm it; None: not asked.

    Attributes
    ----------
    ax_, sharpness_ax_ : matplotlib Axes
        Left and right; the right one is None where no sharpness was measured.
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
        """Take the numbers from what `batch_size_curve` returned, and plot.

        Parameters
        ----------
        curve : BatchSizeCurve
            The curve.
        safe : int or SafeBatchSize, default=None
            A batch size to mark.
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.

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
        """Draw means, and bars from the smallest to the largest trial.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        self
        """
        ax = axes_for(ax, "BatchSizeCurveDisplay.plot", figsize=(6.4, 4.4))
        from matplotlib.ticker import NullLocator

        handles, factor = [], 100 if self.percent else 1
        for (name, values), style in zip(self.score.items(), ("-", "--", ":"), strict=False):
            options = {"linestyle": style, "marker": "o", "color": _ACCURACY_COLOUR}
            handles.append(self._draw(ax, factor * values, f"{self.name}, {name}", options))
        self.sharpness_ax_ = None
        if self.sharpness:
            self.sharpness_ax_ = ax.twinx()
            for (name, values), colour in zip(self.sharpness.items(), _SHARPNESS_COLOURS, strict=False):
                handles.append(self._draw(self.sharpness_ax_, values, name, {"marker": "s", "color": colour}))
            positive = all((values[np.isfinite(values)] > 0).all() for values in self.sharpness.values())
            scale: dict[str, Any] = {"value": "log"} if positive else {"value": "symlog", "linthresh": 1e-2}
            self.sharpness_ax_.set_yscale(**scale)
            plain_log_labels(self.sharpness_ax_.yaxis)
            self.sharpness_ax_.set_ylabel("sharpness (%)", color=_SHARPNESS_COLOURS[0])
            self.sharpness_ax_.tick_params(axis="y", which="both", labelcolor=_SHARPNESS_COLOURS[0])
        if self.safe is not None:
            mark = {"color": "tab:green", "linewidth": 6, "alpha": 0.25, "zorder": 0}
            found = {None: "", True: ", confirmed", False: ", NOT confirmed"}[self.confirmed]
            handles.append(ax.axvline(self.safe, label=f"largest shown safe: {self.safe:,}{found}", **mark))
        ax.set_xscale("log")
        ax.set_xticks(self.batch_sizes, [f"{size:,}" for size in self.batch_sizes])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("batch size (samples)")
        ax.set_ylabel(self.name + (" (%)" if self.percent else ""), color=_ACCURACY_COLOUR)
        ax.tick_params(axis="y", labelcolor=_ACCURACY_COLOUR)
        ax.grid(axis="y", alpha=0.3)
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 2}
        ax.legend(handles=handles, frameon=False, fontsize="small", **place)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw(self, ax: Any, values: np.ndarray, label: str, options: dict[str, Any]) -> Any:
        there = [row[np.isfinite(row)] for row in values if np.isfinite(row).any()]
        sizes = np.array(self.batch_sizes)[np.isfinite(values).any(axis=1)]
        means = np.array([row.mean() for row in there])
        bars = np.array([[mean - row.min(), row.max() - mean] for mean, row in zip(means, there, strict=True)])
        # A mean of equal numbers may be off by a rounding.
        return ax.errorbar(sizes, means, np.maximum(bars.reshape(-1, 2).T, 0), label=label, capsize=3, **options)
