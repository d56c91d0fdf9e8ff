"""A figure of the loss on a plane in parameter space."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np

from sklgap._checks import WrongArgument, is_one_of, shown
from sklgap._typing import ArrayLike, Inputs, Quantity, SurfaceKind
from sklgap.inspection._plot._axes import check_axes, literal
from sklgap.inspection._plot._lines import spans_decades
from sklgap.inspection._plot._style import fit_labels, regime_style
from sklgap.inspection._surface import LossSurface, loss_on_plane
from sklgap.objective._check import Measurable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

KINDS: tuple[SurfaceKind, ...] = get_args(SurfaceKind)
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
_LABELS = {"loss": "mean loss", "accuracy": "accuracy (%)"}
_RANDOM = {"filter": "random, filter-normalised", "gaussian": "random"}
# The largest numbers of labels on the contours and on the vertical axis of three dimensions.
_MAX_LEVELS, _MAX_HEIGHTS = 12, 7
_ABOVE = {"zorder": 10}
_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}


class LossSurfaceDisplay:
    """Loss or accuracy on a plane, as contours or as a surface in three dimensions.

    Markers show the models. The loss has logarithmically spaced levels if it spans more than a factor of 20. Points
    where the loss is not finite are blank.

    Parameters
    ----------
    surface : LossSurface
        Loss and accuracy on the plane.
    names : sequence of str, default=("model", "second", "third")
        Names of the models at (0, 0), (1, 0) and (0, 1).

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes. They have three dimensions for ``kind="surface"``.
    figure_ : matplotlib Figure
        The figure.
    artist_ : matplotlib QuadContourSet or Poly3DCollection
        The contour lines, or the surface.

    See Also
    --------
    loss_on_plane : Compute the numbers.
    ParametricPlotDisplay : Draw the loss along a path.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import LossSurfaceDisplay
    >>> net, loss = torch.nn.Linear(2, 2), torch.nn.CrossEntropyLoss()
    >>> X, y = torch.eye(2), torch.tensor([0, 1])
    >>> display = LossSurfaceDisplay.from_estimator((net, loss), X, y, random_state=0)
    >>> display.surface.loss.shape
    (21, 21)
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    artist_: Any

    def __init__(self, surface: LossSurface, *, names: Sequence[str] = ("model", "second", "third")) -> None:
        self.surface = surface
        self.names = names

    @classmethod
    def from_estimator(
        cls,
        estimator: Measurable,
        X: Inputs | None = None,
        y: ArrayLike | None = None,
        *,
        names: Sequence[str] = ("model", "second", "third"),
        kind: SurfaceKind = "contour",
        quantity: Quantity = "loss",
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Evaluate and plot the loss on a plane around a fitted estimator.

        Parameters
        ----------
        estimator : estimator or Objective
            Model at the point (0, 0) of the plane.
        X, y : array-like
            Samples of the mean loss. They must be None with an `Objective`.
        names : sequence of str, default=("model", "second", "third")
            Names of the models in the figure.
        kind : {"contour", "surface"}, default="contour"
            Contour lines with their levels, or a surface in three dimensions.
        quantity : {"loss", "accuracy"}, default="loss"
            Quantity to draw.
        ax : matplotlib Axes, default=None
            Axes to draw on, with ``projection="3d"`` for ``kind="surface"``. None means a new figure.
        **kwargs
            Arguments of `loss_on_plane`.

        Returns
        -------
        LossSurfaceDisplay
        """
        _check_choices(kind, quantity)
        return cls(loss_on_plane(estimator, X, y, **kwargs), names=names).plot(ax, kind=kind, quantity=quantity)

    def plot(
        self, ax: "Axes | None" = None, *, kind: SurfaceKind = "contour", quantity: Quantity = "loss", **kwargs: Any
    ) -> Self:
        """Draw the figure.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on, with ``projection="3d"`` for ``kind="surface"``. None means a new figure.
        kind : {"contour", "surface"}, default="contour"
            Contour lines with their levels, or a surface in three dimensions.
        quantity : {"loss", "accuracy"}, default="loss"
            Quantity to draw. The figure shows accuracy in percent.
        **kwargs
            Arguments of ``Axes.contour``, such as ``levels``, or of ``Axes3D.plot_surface``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``kind`` or ``quantity`` is unknown, the grid has fewer than 2 x 2 points, no value is finite, or a
            surface is drawn on flat axes.
        """
        from sklearn.utils._optional_dependencies import check_matplotlib_support

        check_matplotlib_support("LossSurfaceDisplay.plot")
        import matplotlib.pyplot as plt

        _check_choices(kind, quantity)
        alphas, betas, values = self._grid(quantity)
        if ax is None:
            options: dict[str, Any] = (
                {"figsize": (7, 6), "subplot_kw": {"projection": "3d"}} if kind == "surface" else {}
            )
            _, ax = plt.subplots(layout="constrained", **options)
        check_axes("ax", ax)
        if kind == "surface" and not hasattr(ax, "plot_surface"):
            raise ValueError("ax must have projection='3d' for kind='surface'; got flat axes.")
        draw = _draw_surface if kind == "surface" else _draw_contours
        models = list(zip(self.names, self.surface.positions.tolist(), strict=False))
        self.artist_ = draw(ax, alphas, betas, values, models, quantity == "loss", kwargs)
        size = "small" if kind == "surface" else "medium"  # in three dimensions long labels leave the figure
        ax.set_xlabel(f"alpha ({self._direction(0)})", fontsize=size)
        ax.set_ylabel(f"beta ({self._direction(1)})", fontsize=size)
        constant = f", {values.min():.4g} everywhere" if values.min() == values.max() else ""
        ax.set_title(f"{_LABELS[quantity]} (batch norm: {self.surface.batch_norm}){constant}", fontsize="medium")
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _direction(self, axis: int) -> str:
        kind = self.surface.directions[axis]
        return f"towards {self.names[axis + 1]}" if kind == "towards" else _RANDOM[kind]

    def _grid(self, quantity: Quantity) -> tuple[np.ndarray, np.ndarray, np.ma.MaskedArray]:
        """Return both axes in ascending order and the values on the grid. Values that are not finite are masked."""
        surface = self.surface
        if not isinstance(self.names, tuple | list) or len(self.names) < len(surface.positions):
            raise WrongArgument(f"names must name the {len(surface.positions)} models; got {shown(self.names)}.")
        if min(surface.loss.shape) < 2:
            raise ValueError(
                f"surface must have at least 2 x 2 points to be drawn; got {' x '.join(map(str, surface.loss.shape))}."
            )
        a, b = np.argsort(surface.alphas), np.argsort(surface.betas)
        values = np.ma.masked_invalid(surface.loss if quantity == "loss" else 100 * surface.accuracy)[np.ix_(a, b)]
        if values.count() == 0:
            raise ValueError(f"quantity={quantity!r} must have a finite value on the plane; all are NaN or infinite.")
        return surface.alphas[a], surface.betas[b], values


def _check_choices(kind: SurfaceKind, quantity: Quantity) -> None:
    for name, value, allowed in (("kind", kind, KINDS), ("quantity", quantity, QUANTITIES)):
        if not is_one_of(value, allowed):
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {shown(value)}.")


def _is_logarithmic(values: np.ma.MaskedArray, is_loss: bool) -> bool:
    return is_loss and bool(values.min() > 0) and spans_decades(values.compressed())


def _levels(values: np.ndarray, logarithmic: bool, at_most: int = _MAX_LEVELS) -> np.ndarray:
    """Return round levels within the range of the values.

    They are evenly spaced, or they are multiples of powers of ten by 1, 2 and 5, by 1 and 3, or by 1.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = values.min(), values.max()
    levels = np.asarray(MaxNLocator(8).tick_values(low, high))
    if logarithmic:
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            levels = np.outer(powers, steps).ravel()
            if np.sum((low <= levels) & (levels <= high)) <= at_most:
                break
    return levels[(low <= levels) & (levels <= high)]


def _draw_contours(
    ax: Any,
    alphas: np.ndarray,
    betas: np.ndarray,
    values: np.ma.MaskedArray,
    models: list[tuple[str, list[float]]],
    is_loss: bool,
    kwargs: dict[str, Any],
) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, LogNorm

    logarithmic = _is_logarithmic(values, is_loss)
    options: dict[str, Any] = {"levels": _levels(values, logarithmic)}
    if "colors" not in kwargs:
        dark = ListedColormap(colormaps["viridis"](np.linspace(0, 0.85, 256)))  # the light end is invisible on white
        options |= {"cmap": dark, "norm": LogNorm(values.min(), values.max()) if logarithmic else None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No contour levels were found")  # values that are all equal
        lines = ax.contour(alphas, betas, values.T, **{**options, **kwargs})
    ax.clabel(lines, fmt="%g", fontsize="small")
    for number, (name, (alpha, beta)) in enumerate(models):
        style = regime_style(name, number)
        ax.plot(alpha, beta, **style.points, **_ABOVE)
        place = {"textcoords": "offset points", "bbox": _BOX, "color": style.color}
        ax.annotate(literal(name), (alpha, beta), (5, 5), **place, **_ABOVE)
    return lines


def _draw_surface(
    ax: Any,
    alphas: np.ndarray,
    betas: np.ndarray,
    values: np.ma.MaskedArray,
    models: list[tuple[str, list[float]]],
    is_loss: bool,
    kwargs: dict[str, Any],
) -> Any:
    logarithmic = _is_logarithmic(values, is_loss)
    heights = np.ma.log10(values) if logarithmic else values  # axes of three dimensions have no logarithmic scale
    options = {"cmap": "viridis", "rcount": len(alphas), "ccount": len(betas)}
    artist = ax.plot_surface(
        *np.meshgrid(alphas, betas, indexing="ij"), heights.filled(np.nan), **{**options, **kwargs}
    )
    if logarithmic:
        levels = _levels(values, logarithmic, _MAX_HEIGHTS)
        ax.set_zticks(np.log10(levels), [f"{level:g}" for level in levels])
    ax.locator_params(axis="x", nbins=5)
    ax.locator_params(axis="y", nbins=5)
    for number, (name, (alpha, beta)) in enumerate(models):
        style = regime_style(name, number)
        height = heights[alphas == alpha][:, betas == beta].ravel()
        if height.size:  # a model that is not on the grid has no height
            ax.plot([alpha], [beta], [height[0]], **style.points, **_ABOVE)
            ax.text(alpha, beta, height[0], f"  {literal(name)}", color=style.color, **_ABOVE)
    return artist
