"""Large-batch training that starts from small-batch weights: Keskar et al. (2017), Figure 5."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sklgap._checks import check_kind
from sklgap.inspection._plot._axes import axes_for, literal, plain_log_labels
from sklgap.inspection._plot._style import LB, SB, Style, fit_labels, legend_above, sharpness_style

if TYPE_CHECKING:
    from sklgap.experiments._warm_start import WarmStartCurve


class WarmStartDisplay:
    """Test score and sharpness against the number of small-batch epochs before large-batch training.

    Lines show means over the trials, and dots show single trials. Sharpness has a logarithmic scale.

    Parameters
    ----------
    small_epochs : ndarray of shape (n_points,)
        Numbers of small-batch epochs. 0 means large-batch training from scratch.
    score : dict of ndarrays of shape (n_points, n_trials)
        Test scores by name: first those of the small-batch training, then those of the large-batch training that
        starts from it. NaN stands for a missing score.
    sharpness : dict of ndarrays of shape (n_points, n_trials)
        Sharpness after large-batch training in percent, by name of the measurement.
    name : str, default="test accuracy"
        Name of the score.
    percent : bool, default=True
        Whether the score is a fraction. The figure then shows percentages.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        The axes of the score, then those of sharpness if sharpness was measured.
    figure_ : matplotlib Figure
        The figure.
    """

    def __init__(
        self,
        *,
        small_epochs: np.ndarray,
        score: dict[str, np.ndarray],
        sharpness: dict[str, np.ndarray],
        name: str = "test accuracy",
        percent: bool = True,
    ) -> None:
        self.small_epochs = small_epochs
        self.score = score
        self.sharpness = sharpness
        self.name = name
        self.percent = percent

    @classmethod
    def from_curve(cls, curve: "WarmStartCurve", *, axes: Any = None) -> Self:
        """Plot the result of `warm_start_curve`.

        Parameters
        ----------
        curve : WarmStartCurve
            Result of `warm_start_curve`.
        axes : sequence of matplotlib Axes, default=None
            Axes of the score and axes of sharpness. None means a new figure.

        Returns
        -------
        WarmStartDisplay
        """
        from sklgap.experiments._warm_start import WarmStartCurve

        check_kind("curve", curve, WarmStartCurve)
        small, large, score = curve.settings["small"], curve.settings["large"], curve.scores[0]
        values = {
            small: curve.quantity(f"small_test_{score.name}"),
            f"{large}, started from {small}": curve.quantity(f"test_{score.name}"),
        }
        names = curve.sharpness_names()
        sharpness = {name.removeprefix("sharpness "): curve.quantity(key) for key, name in names.items()}
        display = cls(
            small_epochs=curve.small_epochs,
            score=values,
            sharpness=sharpness,
            name=f"test {score.name}",
            percent=score.in_points,
        )
        return display.plot(axes=axes)

    def plot(self, axes: Any = None) -> Self:
        """Draw the figure.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, default=None
            Axes of the score and axes of sharpness. None means a new figure.

        Returns
        -------
        self
        """
        n_axes = 2 if self.sharpness else 1
        axes = axes_for(axes, "WarmStartDisplay.plot", 1, n_axes, figsize=(4.8 * n_axes, 3.8), squeeze=False)
        from matplotlib.ticker import MaxNLocator

        axes = np.ravel(axes)[:n_axes]
        factor = 100 if self.percent else 1
        (small, of_small), (large, of_large) = self.score.items()
        # The score before the first small-batch epoch would squeeze all others, so it is left out.
        trained = np.where(self.small_epochs[:, None] > 0, of_small, np.nan)
        self._draw(axes[0], factor * trained, Style(SB, "o", "-"), small)
        self._draw(axes[0], factor * of_large, Style(LB, "s", "--"), large)
        axes[0].set_ylabel(self.name + (" (%)" if self.percent else ""))
        legend_above(axes[0], title="mean; dots: trials")
        if self.sharpness:
            for number, (name, values) in enumerate(self.sharpness.items()):
                self._draw(axes[1], values, sharpness_style(number), name, logarithmic=True)
            axes[1].set_yscale("log" if self._positive() else "symlog")
            plain_log_labels(axes[1].yaxis)
            axes[1].set_ylabel("sharpness after the large batch (%)")
            legend_above(axes[1], title="epsilon; geometric mean" if self._positive() else "epsilon; mean")
        for ax in axes:
            ax.set_xlabel("small-batch epochs before (0: from scratch)")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(alpha=0.3)
        fit_labels(*axes[:n_axes])
        self.ax_, self.figure_ = axes, axes[0].figure
        return self

    def _positive(self) -> bool:
        return not any((values <= 0).any() for values in self.sharpness.values())

    def _draw(self, ax: Any, values: np.ndarray, style: Style, name: str, *, logarithmic: bool = False) -> None:
        """Draw every trial and a line through the means, which are geometric on a logarithmic scale."""
        logarithmic = logarithmic and self._positive()
        scaled = np.log(values) if logarithmic else values
        means = np.array([v[np.isfinite(v)].mean() if np.isfinite(v).any() else np.nan for v in scaled])
        means = np.exp(means) if logarithmic else means
        alone = (
            np.isfinite(values).sum(axis=1) == 1
        )  # the mean of one value is this value, without the rounding of its logarithm
        means[alone] = np.nansum(values[alone], axis=1)
        for trial in values.T:
            ax.plot(self.small_epochs, trial, ".", color=style.color, alpha=0.35, markersize=5)
        ax.plot(self.small_epochs, means, **style._asdict(), markersize=5, label=literal(name))
