"""A waterfall chart of the parts of a gap."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from sklgap._checks import check_kind
from sklgap.experiments._estimate import Estimate
from sklgap.inspection._plot._axes import axes_for, literal
from sklgap.inspection._plot._style import ACCURACY, GUIDE, LB, SHARPNESS, fit_labels, legend_above

if TYPE_CHECKING:
    from sklgap.experiments._explain_gap import GapExplanation

# Colours of the gap, of a cause that reduces the gap, of one that adds to it, and of the unexplained part.
_TOTAL, _PART, _WORSE, _REST = LB, ACCURACY, SHARPNESS, GUIDE


class GapExplanationDisplay:
    """A waterfall chart of a gap: the total on the left, its causes, and the unexplained part on the right.

    Error bars show the intervals.

    Parameters
    ----------
    total : Estimate
        Estimate of the whole gap.
    parts : sequence of (str, Estimate)
        Parts of the gap by cause. The last one is the unexplained part.
    name : str, default="test accuracy"
        Name of the score.
    percent : bool, default=True
        Whether the score is a fraction. The figure then shows percentage points.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        total: Estimate,
        parts: Sequence[tuple[str, Estimate]],
        *,
        name: str = "test accuracy",
        percent: bool = True,
    ) -> None:
        self.total = total
        self.parts = parts
        self.name = name
        self.percent = percent

    @classmethod
    def from_explanation(cls, explanation: "GapExplanation", *, ax: Any = None) -> Self:
        """Plot the result of `explain_gap`.

        Parameters
        ----------
        explanation : GapExplanation
            Result of `explain_gap`.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        GapExplanationDisplay
        """
        from sklgap.experiments._explain_gap import GapExplanation

        check_kind("explanation", explanation, GapExplanation)
        if not explanation.total().n:
            raise ValueError("explanation must have at least one trial with a score at every step; got none.")
        score = explanation.scores[0]
        parts = list(explanation.parts().items())
        return cls(
            explanation.total(), parts, name=f"{explanation.judged_part} {score.name}", percent=score.in_points
        ).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the figure.

        The interval of a bar is that of its part alone.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.

        Returns
        -------
        self
        """
        ax = axes_for(ax, "GapExplanationDisplay.plot", figsize=(1.6 + 1.1 * (len(self.parts) + 1), 3.8))
        factor = 100 if self.percent else 1
        names = ["gap", *(name for name, _ in self.parts)]
        top = factor * self.total.value
        self._bar(ax, 0, 0.0, top, factor, self.total, _TOTAL, top)
        for i, (_, part) in enumerate(self.parts, start=1):
            value = factor * part.value
            last = i == len(self.parts)
            colour = _REST if last else _PART if value >= 0 else _WORSE
            ax.plot([i - 1.35, i + 0.35], [top, top], color="0.6", linewidth=0.8)
            self._bar(ax, i, top - value, value, factor, part, colour, top if last else top - value)
            top -= value
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(names)), [literal(name).replace(" ", "\n", 1) for name in names])
        ax.set_ylabel(f"loss of {self.name}" + (" (points)" if self.percent else ""))
        ax.margins(y=0.12)
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
        legend_above(ax, ax.get_legend_handles_labels()[0][:1])  # the bars look alike
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _bar(
        self, ax: Any, x: int, bottom: float, height: float, factor: int, part: Estimate, colour: str, end: float
    ) -> None:
        """Draw a bar, with its interval at the end that depends on the part."""
        ax.bar(x, height, bottom=bottom, width=0.7, color=colour)
        if part.has_interval:
            half = factor * (part.high - part.value)
            ax.errorbar(x, end, yerr=half, color="black", capsize=4, linewidth=1.2, label="95 % interval")
        ax.annotate(
            f"{height:+.1f}" if self.percent else f"{height:+.3g}",
            (x, max(bottom, bottom + height)),
            xytext=(4, 3),  # beside the error bar
            textcoords="offset points",
            ha="left",
            fontsize="small",
        )
