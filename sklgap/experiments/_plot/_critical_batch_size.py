"""The gradient noise scale during training and its average, the critical batch size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, plain_log_labels
from sklgap.inspection._plot._style import GUIDE, NOISE, fit_labels, legend_above

if TYPE_CHECKING:
    from sklgap.experiments._critical_batch_size import CriticalBatchSize
    from sklgap.experiments._estimate import Estimate


class CriticalBatchSizeDisplay:
    """Gradient noise scale of every trial against its updates, with the critical batch size.

    Both scales are logarithmic.

    Parameters
    ----------
    trials : sequence of dict of ndarrays
        For each trial, ``n_updates`` and ``noise_scale``. The noise scale is infinite if the noise hides the gradient.
        The figure leaves out these points.
    n_updates : sequence of float
        Number of updates of each trial that the critical batch size averages over.
    estimate : Estimate
        Estimate of the critical batch size.
    target_loss : float or None
        Training loss after these updates. None means that they are all updates of the training.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        trials: Sequence[dict[str, np.ndarray]],
        n_updates: Sequence[float],
        *,
        estimate: "Estimate",
        target_loss: float | None = None,
    ) -> None:
        self.trials = trials
        self.n_updates = n_updates
        self.estimate = estimate
        self.target_loss = target_loss

    @classmethod
    def from_result(cls, result: "CriticalBatchSize", *, ax: Any = None) -> Self:
        """Plot the result of `critical_batch_size`.

        Parameters
        ----------
        result : CriticalBatchSize
            Result of `critical_batch_size`.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        CriticalBatchSizeDisplay
        """
        from sklgap.experiments._critical_batch_size import CriticalBatchSize

        check_kind("result", result, CriticalBatchSize)
        ends = [record["n_updates"] for record in result.records]
        return cls(result.trials, ends, estimate=result.estimate, target_loss=result.settings["target_loss"]).plot(
            ax=ax
        )

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
        ax = axes_for(ax, "CriticalBatchSizeDisplay.plot", figsize=(5.2, 4.0))
        ax.set_xscale("symlog", linthresh=1, linscale=0.5)
        ax.set_yscale("log")
        size, shown = self.estimate, []
        for number, (trial, end) in enumerate(zip(self.trials, self.n_updates, strict=True)):
            known = np.isfinite(trial["noise_scale"]) & (trial["noise_scale"] > 0)
            shown += trial["noise_scale"][known].tolist()
            named = {"label": "noise scale of a trial"} if number == 0 else {}
            ax.plot(trial["n_updates"][known], trial["noise_scale"][known], color=NOISE, alpha=0.6, **named)
            what = "end of training" if self.target_loss is None else f"loss of {self.target_loss:g}"
            named = {"label": what} if number == 0 else {}
            ax.axvline(end, color=GUIDE, linestyle=":", linewidth=0.9, **named)
        if np.isfinite(size.value):
            ax.axhline(size.value, color=NOISE, linewidth=0.9, label=f"critical batch size: {size.value:,.0f}")
            shown.append(size.value)
        if shown:
            bottom, top = min(shown) / 1.5, 1.5 * max(shown)
            ax.set_ylim(bottom, top)
            low, high = max(size.low, bottom), min(size.high, top)
            if size.has_interval and low < high:
                ax.axhspan(low, high, color=NOISE, alpha=0.12, linewidth=0)
        ax.set_xlim(0, 2 * max(self.n_updates))
        plain_log_labels(ax.yaxis)
        ax.set_xlabel("updates")
        ax.set_ylabel("gradient noise scale (samples)")
        ax.grid(axis="y", alpha=0.3)
        legend_above(ax, title="band: 95 % interval" if size.has_interval else None)
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
