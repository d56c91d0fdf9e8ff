"""Critical batch sizes along a training run, by branches and by the gradient noise scale."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, plain_log_labels
from sklgap.inspection._plot._style import GUIDE, NOISE, fit_labels, legend_above, other_style

if TYPE_CHECKING:
    from sklgap.experiments._branched_critical_batch_size import BranchedCriticalBatchSize
    from sklgap.experiments._estimate import Estimate


class BranchedCriticalBatchSizeDisplay:
    """Critical batch sizes, on a logarithmic scale, at the checkpoints of a training run.

    Parameters
    ----------
    branched : dict of str to Estimate
        For each checkpoint, the largest batch size that loses nothing. An interval without an upper bound ends with an
        arrow at ``largest``.
    noise_scales : dict of str to Estimate
        For each checkpoint, the gradient noise scale. The figure leaves out infinite values.
    own : int
        Batch size of the training run.
    largest : int
        Largest batch size of the branches.
    unit : str or None
        Unit of the checkpoints, such as "epoch".

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        branched: "Mapping[str, Estimate]",
        noise_scales: "Mapping[str, Estimate]",
        *,
        own: int,
        largest: int,
        unit: str | None = None,
    ) -> None:
        self.branched = branched
        self.noise_scales = noise_scales
        self.own = own
        self.largest = largest
        self.unit = unit

    @classmethod
    def from_result(cls, result: "BranchedCriticalBatchSize", *, ax: Any = None) -> Self:
        """Plot the result of `branched_critical_batch_size`.

        Parameters
        ----------
        result : BranchedCriticalBatchSize
            Result of `branched_critical_batch_size`.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        BranchedCriticalBatchSizeDisplay
        """
        from sklgap.experiments._branched_critical_batch_size import BranchedCriticalBatchSize

        check_kind("result", result, BranchedCriticalBatchSize)
        sizes = result.batch_sizes
        branched = {str(label): found for label, found in result.estimates.items()}
        scales = {str(label): found for label, found in result.noise_scales.items() if label in result.estimates}
        return cls(branched, scales, own=sizes[0], largest=sizes[-1], unit=result.settings["unit"]).plot(ax=ax)

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
        ax = axes_for(ax, "BranchedCriticalBatchSizeDisplay.plot", figsize=(5.2, 4.0))
        ax.set_yscale("log")
        labels = list(self.branched)
        branches = other_style(0)
        for estimates, name, colour, line, shift in (
            (self.branched, "loses nothing (branches)", branches.color, f"{branches.marker}-", -0.06),
            (self.noise_scales, "twice the samples (noise scale)", NOISE, "o--", 0.06),
        ):
            drawn = [
                (labels.index(label) + shift, found) for label, found in estimates.items() if math.isfinite(found.value)
            ]
            if not drawn:
                continue
            ax.plot([x for x, _ in drawn], [found.value for _, found in drawn], line, color=colour, label=name)
            for x, found in drawn:
                self._interval(ax, x, found, colour)
        ax.axhline(self.own, color=GUIDE, linestyle=":", linewidth=0.9, label="batch size of the run")
        ax.set_xticks(range(len(labels)), labels)
        ax.set_xlim(-0.5, len(labels) - 0.5)
        plain_log_labels(ax.yaxis)
        ax.set_xlabel("checkpoint" if self.unit is None else f"{self.unit}s")
        ax.set_ylabel("batch size (samples)")
        ax.grid(axis="y", alpha=0.3)
        intervals = any(found.has_interval for found in [*self.branched.values(), *self.noise_scales.values()])
        legend_above(ax, title="bars: 95 % intervals" if intervals else None)
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _interval(self, ax: Any, x: float, found: "Estimate", colour: str) -> None:
        if not found.has_interval:
            return
        low = found.low if found.low > 0 else self.own
        if math.isfinite(found.high):
            ax.plot([x, x], [low, found.high], color=colour, linewidth=1.2)
            return
        high = max(self.largest, found.value)
        ax.plot([x, x], [low, high], color=colour, linewidth=1.2)
        ax.plot([x], [high], "^", color=colour, markersize=5)
