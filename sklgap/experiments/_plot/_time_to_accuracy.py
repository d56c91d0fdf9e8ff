"""A figure of the cost of an accuracy, with a point or a lower bound for every training."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind, is_one_of, shown
from sklgap.inspection._plot._axes import axes_for, literal, plain_log_labels
from sklgap.inspection._plot._style import GUIDE, fit_labels, legend_above, regime_style

if TYPE_CHECKING:
    from sklgap.experiments._time_to_accuracy import TimeToAccuracy


class TimeToAccuracyDisplay:
    """Cost of reaching a target for every training of every regime, on a logarithmic scale.

    An open triangle shows a training that did not reach the target. The triangle stands at the cost of the whole
    training, which is a lower bound.

    Parameters
    ----------
    cost : dict of ndarrays of shape (n_trials,)
        Costs by regime. NaN stands for an unknown cost.
    reached : dict of ndarrays of shape (n_trials,), bool
        Whether each training reached the target, by regime.
    name : str, default="seconds"
        Name of the cost.
    goal : str, default=""
        Target that the trainings had to reach.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self, *, cost: dict[str, np.ndarray], reached: dict[str, np.ndarray], name: str = "seconds", goal: str = ""
    ) -> None:
        self.cost = cost
        self.reached = reached
        self.name = name
        self.goal = goal

    @classmethod
    def from_times(cls, times: "TimeToAccuracy", *, cost: str = "seconds", ax: Any = None) -> Self:
        """Plot the result of `time_to_accuracy`.

        Parameters
        ----------
        times : TimeToAccuracy
            Result of `time_to_accuracy`.
        cost : {"seconds", "n_updates", "epochs"}, default="seconds"
            Cost to draw.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        TimeToAccuracyDisplay
        """
        from sklgap.experiments._time_to_accuracy import NOUNS, TimeToAccuracy

        check_kind("times", times, TimeToAccuracy)
        if not is_one_of(cost, NOUNS):
            raise ValueError(f"cost must be one of {', '.join(map(repr, NOUNS))}; got {shown(cost)}.")
        reached = {label: times.values(label, "reached") == 1 for label in times.labels}
        costs = {
            label: np.where(there, times.values(label, cost), times.values(label, f"trained_{cost}"))
            for label, there in reached.items()
        }
        return cls(cost=costs, reached=reached, name=NOUNS[cost], goal=times._goal()).plot(ax=ax)

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
        from matplotlib.lines import Line2D

        width = max(4.5, 0.9 * len(self.cost))
        ax = axes_for(ax, "TimeToAccuracyDisplay.plot", figsize=(width, 3.6))
        for position, (label, costs) in enumerate(self.cost.items()):
            style, there = regime_style(label, position), self.reached[label]
            places = np.full(len(costs), position)
            ax.plot(places[there], costs[there], **style.points, alpha=0.8)
            never = {"color": style.color, "markerfacecolor": "none", "alpha": 0.8}
            ax.plot(places[~there], costs[~there], "^", **never)
        reached = np.concatenate([*self.reached.values(), np.empty(0, dtype=bool)])
        kinds = ((True, "o", GUIDE, "reached"), (False, "^", "none", "never reached: above"))
        handles = [
            Line2D([], [], color=GUIDE, marker=marker, markerfacecolor=face, linestyle="none", label=name)
            for there, marker, face, name in kinds
            if (reached == there).any()
        ]
        ax.set_yscale("log")
        plain_log_labels(ax.yaxis)
        ax.set_xticks(range(len(self.cost)), [literal(label) for label in self.cost])
        ax.set_xlim(-0.5, len(self.cost) - 0.5)
        ax.set_ylabel(f"{self.name} to a {self.goal}" if self.goal else self.name)
        ax.grid(axis="y", alpha=0.3)
        legend_above(ax, handles)
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
