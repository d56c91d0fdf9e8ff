"""A figure of the parallel model, with the efficiency that large batches need and the speed-up that they give."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for
from sklgap.inspection._plot._style import GUIDE, fit_labels, legend_above, other_style

if TYPE_CHECKING:
    from sklgap.experiments._parallel_model import Efficiency, ParallelModel


class ParallelModelDisplay:
    """Parallel efficiency that each batch size needs, and its speed-up against the number of processors.

    The needed efficiency is drawn against the efficiency of the reference batch size.

    Parameters
    ----------
    batch_sizes : ndarray of shape (n_sizes,)
        Batch sizes.
    efficiency_needed : ndarray of shape (n_sizes,)
        Ratio of the needed efficiency to that of the reference. The figure leaves out NaN.
    reference : int
        Position of the reference in ``batch_sizes``.
    n_processors : ndarray of shape (n,), default=None
        Numbers of processors for ``speed_up``.
    speed_up : ndarray of shape (n_sizes, n), default=None
        Speed-up over the reference, as a ratio.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        The axes of the efficiency, then those of the speed-up if it is given.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        *,
        batch_sizes: np.ndarray,
        efficiency_needed: np.ndarray,
        reference: int,
        n_processors: np.ndarray | None = None,
        speed_up: np.ndarray | None = None,
    ) -> None:
        self.batch_sizes = batch_sizes
        self.efficiency_needed = efficiency_needed
        self.reference = reference
        self.n_processors = n_processors
        self.speed_up = speed_up

    @classmethod
    def from_model(
        cls, model: "ParallelModel", *, efficiency: "float | Efficiency | None" = None, axes: Any = None
    ) -> Self:
        """Plot the result of `parallel_model`.

        Parameters
        ----------
        model : ParallelModel
            Result of `parallel_model`.
        efficiency : callable or float, default=None
            Efficiency for ``ParallelModel.speed_up``. The figure shows the speed-up for up to as many processors as the
            largest batch has samples. None draws no speed-up.
        axes : sequence of matplotlib Axes, default=None
            Axes of the efficiency, and axes of the speed-up if ``efficiency`` is given. None means a new figure.

        Returns
        -------
        ParallelModelDisplay
        """
        from sklgap.experiments._parallel_model import ParallelModel

        check_kind("model", model, ParallelModel)
        processors = speed_up = None
        if efficiency is not None:
            processors = np.geomspace(1, model.batch_sizes.max(), 200)
            speed_up = model.speed_up(efficiency, processors)
        return cls(
            batch_sizes=model.batch_sizes,
            efficiency_needed=model.efficiency_needed,
            reference=model.reference,
            n_processors=processors,
            speed_up=speed_up,
        ).plot(axes=axes)

    def plot(self, axes: Any = None) -> Self:
        """Draw the figure.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        self
        """
        n_axes = 1 if self.speed_up is None else 2
        axes = axes_for(axes, "ParallelModelDisplay.plot", 1, n_axes, figsize=(5 * n_axes, 4), squeeze=False)
        axes = np.ravel(axes)
        name = f"batches of {self.batch_sizes[self.reference]:,.0f}"
        self._draw_needed(axes[0], name)
        if self.speed_up is not None:
            self._draw_speed_up(axes[1], name)
        for ax in axes[:n_axes]:
            ax.grid(alpha=0.3)
            legend_above(ax)
        fit_labels(*axes[:n_axes])
        self.ax_, self.figure_ = axes, axes[0].figure
        return self

    def _others(self) -> list[int]:
        there = np.isfinite(self.efficiency_needed)
        return [i for i in range(len(self.batch_sizes)) if i != self.reference and there[i]]

    def _draw_needed(self, ax: Any, name: str) -> None:
        own = np.array([0.0, 100.0])
        ax.plot(own, own, "--", color=GUIDE, linewidth=1, label=f"as efficient as {name}")
        for number, i in enumerate(self._others()):
            color, _, linestyle = other_style(number)
            ratio = self.efficiency_needed[i]
            label = f"batches of {self.batch_sizes[i]:,.0f}"
            ax.plot(own, ratio * own, color=color, linestyle=linestyle, label=label)
            ends = [0, 100 / ratio, 100] if ratio > 1 else [0, 100]
            low = np.minimum(ratio * np.array(ends), 100)
            ax.fill_between(ends, low, 100, color=color, alpha=0.1, linewidth=0)
        ax.set(xlim=(0, 100), ylim=(0, 100))
        ax.set_xlabel(f"parallel efficiency of {name} (%)")
        ax.set_ylabel("parallel efficiency; wins above its line (%)")

    def _draw_speed_up(self, ax: Any, name: str) -> None:
        from matplotlib.ticker import LogLocator

        ax.axhline(1, linestyle="--", color=GUIDE, linewidth=1, label=name)
        assert self.speed_up is not None
        for number, i in enumerate(self._others()):
            color, _, linestyle = other_style(number)
            label = f"batches of {self.batch_sizes[i]:,.0f}"
            ax.plot(self.n_processors, self.speed_up[i], color=color, linestyle=linestyle, label=label)
        ax.set(xscale="log", yscale="log")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if axis is ax.yaxis else (1,)))
            axis.set_major_formatter("{x:,g}")
        ax.minorticks_off()
        ax.set_xlabel("processors")
        ax.set_ylabel("speed-up (times), efficiencies as assumed")
