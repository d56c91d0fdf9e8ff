"""A figure of the Hessian spectra at several solutions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np

from sklgap._checks import check_positive, check_random_state, check_text
from sklgap._typing import ArrayLike, Inputs
from sklgap.inspection._hessian import HessianEigenvalues, hessian_eigenvalues
from sklgap.inspection._plot._axes import axes_for, literal
from sklgap.inspection._plot._style import fit_labels, legend_above, regime_style
from sklgap.inspection._spectral_density import SpectralDensity, hessian_spectral_density
from sklgap.objective import check_objective
from sklgap.objective._check import Measurable, ObjectiveOptions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class SpectrumDisplay:
    """Density of the Hessian eigenvalues on a logarithmic scale, with marks at the largest ones.

    Parameters
    ----------
    densities : dict of str to SpectralDensity
        Densities by name of the model.
    eigenvalues : dict of str to HessianEigenvalues, default=None
        Eigenvalues to mark, by name of the model.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    lines_ : dict of str to matplotlib Line2D
        The density of each model.
    marks_ : dict of str to matplotlib Line2D
        The eigenvalues of each model, at the height of a single eigenvalue.

    See Also
    --------
    hessian_spectral_density, hessian_eigenvalues : Compute the numbers.
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    lines_: dict[str, "Line2D"]
    marks_: dict[str, "Line2D"]

    def __init__(
        self,
        densities: Mapping[str, SpectralDensity],
        eigenvalues: Mapping[str, HessianEigenvalues] | None = None,
    ) -> None:
        self.densities = densities
        self.eigenvalues = eigenvalues

    @classmethod
    def from_estimator(
        cls,
        estimator: Measurable,
        X: Inputs | None = None,
        y: ArrayLike | None = None,
        *,
        name: str | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Measure and plot the spectrum of one model.

        Parameters
        ----------
        estimator : estimator or Objective
            Model to measure.
        X, y : array-like
            Samples of the mean loss. They must be None with an `Objective`.
        name : str, default=None
            Name of the model in the figure. None means the name of its class.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of `from_estimators`.

        Returns
        -------
        SpectrumDisplay
        """
        check_text("name", name, or_none=True)
        return cls.from_estimators({name or type(estimator).__name__: estimator}, X, y, ax=ax, **kwargs)

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Measurable],
        X: Inputs | None = None,
        y: ArrayLike | None = None,
        *,
        k: int | None = 5,
        n_vectors: int = 5,
        n_steps: int = 80,
        width: float | None = None,
        n_points: int = 1000,
        max_samples: int | float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        ax: "Axes | None" = None,
        **kwargs: Unpack[ObjectiveOptions],
    ) -> Self:
        """Measure and plot the spectra of several models.

        Parameters
        ----------
        estimators : dict of str to estimator or Objective
            Models by name.
        X, y : array-like
            Samples of the mean loss. They must be None with Objectives.
        k : int or None, default=5
            Number of the largest eigenvalues to mark. None marks no eigenvalue.
        n_vectors : int, default=5
            Number of random start vectors of `hessian_spectral_density`.
        n_steps : int, default=80
            Number of Lanczos steps from each start vector.
        width : float, default=None
            Width of the kernel of `hessian_spectral_density`, the same for all models. None means 1 % of the widest
            range of nodes.
        n_points : int, default=1000
            Number of points of the density.
        max_samples : int, float or None, default=None
            Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples. All
            models are measured on the same samples.
        random_state : int, RandomState or None, default=None
            Seed of the samples and of the start vectors, which are the same for all models.
        verbose : int, default=0
            1 shows progress bars on stderr.
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

        Returns
        -------
        SpectrumDisplay
        """
        if not isinstance(estimators, dict):
            raise TypeError(f"estimators must be a dict of names to models; got {type(estimators).__name__}.")
        if not estimators:
            raise ValueError("estimators must be a dict with at least one model; got an empty dict.")
        if width is not None:
            check_positive("width", width)
        rng = check_random_state(random_state)
        seed = int(rng.randint(2**31 - 1))
        densities: dict[str, SpectralDensity] = {}
        eigenvalues: dict[str, HessianEigenvalues] | None = None if k is None else {}
        for name, estimator in estimators.items():
            objective = check_objective(estimator, X, y, max_samples=max_samples, random_state=seed, **kwargs)
            densities[name] = hessian_spectral_density(
                objective,
                n_vectors=n_vectors,
                n_steps=n_steps,
                width=width,
                n_points=n_points,
                random_state=seed,
                verbose=verbose,
            )
            if k is not None and eigenvalues is not None:
                eigenvalues[name] = hessian_eigenvalues(objective, k=k, random_state=seed, verbose=verbose)
        common = max(density.width for density in densities.values())
        densities = {name: density.smoothed(common, n_points) for name, density in densities.items()}
        return cls(densities, eigenvalues).plot(ax=ax)

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the figure.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means a new figure.
        **kwargs
            Arguments of ``Axes.plot`` for the densities.

        Returns
        -------
        self
        """
        ax = axes_for(ax, "SpectrumDisplay.plot")
        self.lines_, self.marks_ = {}, {}
        single = {name: 1 / (d.n_params * d.width * np.sqrt(2 * np.pi)) for name, d in self.densities.items()}
        for number, (name, density) in enumerate(self.densities.items()):
            color, _, linestyle = regime_style(name, number)
            options = {"color": color, "linestyle": linestyle, "label": literal(name), **kwargs}
            (line,) = ax.plot(density.grid, density.density, **options)
            self.lines_[name] = line
            record = (self.eigenvalues or {}).get(name)
            if record is not None:
                values = record.eigenvalues
                (self.marks_[name],) = ax.plot(
                    values, np.full(len(values), single[name]), "|", color=line.get_color(), markersize=14
                )
        ax.set_yscale("log")
        ax.set_ylim(min(single.values()) / 10, 3 * max(density.density.max() for density in self.densities.values()))
        policies = ", ".join(sorted({density.batch_norm for density in self.densities.values()}))
        ax.set_xlabel(f"eigenvalue of the Hessian (batch norm: {policies})")
        ax.set_ylabel("density")
        ax.grid(alpha=0.3)
        legend_above(ax)
        fit_labels(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
