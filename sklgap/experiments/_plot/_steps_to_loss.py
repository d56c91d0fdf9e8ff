"""Updates to a training loss against batch size, with the trade-off of McCandlish et al. (2018)."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import WrongArgument, shown
from sklgap.inspection._plot._axes import axes_for, plain_log_labels
from sklgap.inspection._plot._style import GUIDE, fit_labels, legend_above, other_style

if TYPE_CHECKING:
    from sklgap.experiments._steps_to_loss import StepsToLoss
    from sklgap.experiments._steps_tradeoff import StepsTradeoff

_COLOUR = other_style(0).color
_LEAST = GUIDE


class StepsToLossDisplay:
    """Updates to a training loss against batch size, with the fitted trade-off and its critical batch size.

    Each training is a point. Both scales are logarithmic. Dotted lines show the two limits of the trade-off. Along one
    of them half the batch size needs twice the updates. The other one is the smallest number of updates. The lines meet
    at the critical batch size.

    Parameters
    ----------
    batch_sizes, n_steps : ndarray of shape (n_points,)
        Batch sizes and numbers of updates of the trainings that reached the loss.
    tradeoff : StepsTradeoff or None
        Trade-off that was fitted to them.
    target_loss : float or None
        Training loss that they reached. None means that it is unknown.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        batch_sizes: np.ndarray,
        n_steps: np.ndarray,
        *,
        tradeoff: "StepsTradeoff | None" = None,
        target_loss: float | None = None,
    ) -> None:
        self.batch_sizes = batch_sizes
        self.n_steps = n_steps
        self.tradeoff = tradeoff
        self.target_loss = target_loss

    @classmethod
    def from_result(cls, result: "StepsToLoss | StepsTradeoff", *, ax: Any = None) -> Self:
        """Plot the result of `steps_to_loss` or `fit_steps_to_loss`.

        Parameters
        ----------
        result : StepsToLoss or StepsTradeoff
            Result of `steps_to_loss` or of `fit_steps_to_loss`.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        StepsToLossDisplay
        """
        from sklgap.experiments._steps_to_loss import StepsToLoss
        from sklgap.experiments._steps_tradeoff import StepsTradeoff

        tradeoff: StepsTradeoff | None
        if isinstance(result, StepsTradeoff):
            records, tradeoff, target = result.records, result, None
        elif isinstance(result, StepsToLoss):
            records = [record for record in result.records if record["chosen"] and record["reached"]]
            tradeoff, target = result.tradeoff, result.target_loss
        else:
            raise WrongArgument(f"result must be a StepsToLoss or a StepsTradeoff; got {shown(result)}.")
        sizes, steps = (
            np.array([record[name] for record in records], dtype=float) for name in ("batch_size", "n_steps")
        )
        return cls(sizes, steps, tradeoff=tradeoff, target_loss=target).plot(ax=ax)

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
        ax = axes_for(ax, "StepsToLossDisplay.plot", figsize=(5.2, 4.0))
        from matplotlib.ticker import NullLocator

        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.plot(self.batch_sizes, self.n_steps, "o", color=_COLOUR, alpha=0.6, markersize=5, label="trainings")
        if self.tradeoff is not None:
            self._draw_tradeoff(ax, self.tradeoff)
        until = "the training loss" if self.target_loss is None else f"a training loss of {self.target_loss:g}"
        ax.set_xlabel("batch size (samples)")
        ax.set_ylabel(f"updates to {until}")
        if len(self.batch_sizes):
            sizes = np.unique(self.batch_sizes)
            ax.set_xticks(sizes, [f"{size:,g}" for size in sizes])
            ax.xaxis.set_minor_locator(NullLocator())
        plain_log_labels(ax.yaxis)
        ax.grid(alpha=0.3)
        has_band = self.tradeoff is not None and self.tradeoff.critical_batch_size.has_interval
        legend_above(ax, title="band: 95 % interval" if has_band else None)
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_tradeoff(self, ax: Any, tradeoff: "StepsTradeoff") -> None:
        left, right = self.batch_sizes.min() / 1.5, self.batch_sizes.max() * 1.5
        sizes = np.geomspace(left, right, 100)
        ax.plot(sizes, tradeoff.steps(sizes), color=_COLOUR, label="fitted trade-off")
        if tradeoff.min_examples.value > 0:
            ax.plot(sizes, tradeoff.min_examples.value / sizes, ":", color=_LEAST)
        if tradeoff.min_steps.value > 0:
            ax.axhline(tradeoff.min_steps.value, linestyle=":", color=_LEAST)
        size = tradeoff.critical_batch_size
        if 0 < size.value < np.inf:
            ax.axvline(size.value, color=_COLOUR, linewidth=0.9, label=f"critical batch size: {size.value:,.0f}")
        low, high = max(size.low, left), min(size.high, right)
        if size.has_interval and low < high:
            ax.axvspan(low, high, color=_COLOUR, alpha=0.12, linewidth=0)
        ax.set_xlim(left, right)
        ax.set_ylim(0.6 * self.n_steps.min(), 1.6 * self.n_steps.max())
