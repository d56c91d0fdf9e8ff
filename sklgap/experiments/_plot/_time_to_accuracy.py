"""The picture of what an accuracy costs: every training a point, or a bound where it never got there."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind, is_one_of, shown
from sklgap.inspection._plot._axes import axes_for, literal, plain_log_labels

if TYPE_CHECKING:
    from sklgap.experiments._time_to_accuracy import TimeToAccuracy


class TimeToAccuracyDisplay:
    """The cost of reaching a target, of every training of every regime, on a logarithmic scale.

    A training that never reached it is an open triangle at what it was trained for: its cost lies above.

    Parameters
    ----------
    cost : dict of ndarrays of shape (n_trials,)
        By regime; NaN where it is not known.
    reached : dict of ndarrays of shape (n_trials,), bool
        By regime.
    name : str, default="seconds"
        What is counted.
    goal : str, default=""
        What was to be reached.

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
        """Take the numbers from what `time_to_accuracy` returned, and plot.

        Parameters
        ----------
        times : TimeToAccuracy
            The times.
        cost : {"seconds", "n_updates", "epochs"}, default="seconds"
            What is counted.
        ax : matplotlib Axes, default=None
            None: a new figure.
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
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        self
        """
        width = max(4.5, 0.9 * len(self.cost))
        ax = axes_for(ax, "TimeToAccuracyDisplay.plot", figsize=(width, 3.6))
        for there, marker, face, name in ((True, "o", "C0", "reached"), (False, "^", "none", "never reached: above")):
            points = [
                (position, cost)
                for position, label in enumerate(self.cost)
                for cost in self.cost[label][self.reached[label] == there]
            ]
            if points:
                ax.plot(*zip(*points, strict=True), marker, color="C0", markerfacecolor=face, alpha=0.8, label=name)
        ax.set_yscale("log")
        plain_log_labels(ax.yaxis)
        ax.set_xticks(range(len(self.cost)), [literal(label) for label in self.cost])
        ax.set_xlim(-0.5, len(self.cost) - 0.5)
        ax.set_ylabel(f"{self.name} to a {self.goal}" if self.goal else self.name)
        ax.grid(axis="y", alpha=0.3)
        ax.legend(frameon=False, fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self
