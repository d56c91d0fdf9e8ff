"""The spectral density of the Hessian by stochastic Lanczos quadrature."""

import dataclasses
import numbers
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import torch

from sklgap._checks import check_arguments, check_integer, check_random_state
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs
from sklgap.inspection._krylov import Products, dots, norm, orthonormalise
from sklgap.objective import check_objective
from sklgap.objective._check import Measurable, ObjectiveOptions

# Default width of the Gaussian smoothing, and the widths that the grid adds at both ends.
_WIDTH_PER_RANGE = 0.01
_WIDTHS_BEYOND = 7


@dataclass(frozen=True)
class SpectralDensity:
    """The distribution of the eigenvalues of the Hessian.

    Attributes
    ----------
    nodes, weights : ndarray of shape (n_vectors, n_steps)
        The quadrature of each start vector. For a function f, the sum of weights * f(nodes) estimates the mean of f
        over all eigenvalues. The weights of a row are positive or zero and sum to one.
    grid, density : ndarray of shape (n_points,)
        Eigenvalues, and the density there. The density is the mean, over the start vectors, of the nodes smoothed by a
        Gaussian. It integrates to one.
    standard_error : ndarray of shape (n_points,)
        Standard error of ``density`` over the start vectors. NaN for a single one.
    width : float
        Standard deviation of the Gaussian.
    n_params : int
        Number of eigenvalues.
    n_products : int
        Number of Hessian-vector products.
    n_samples : int
        Number of samples over which the loss is averaged.
    batch_norm : str
        The batch-norm policy.
    second_derivatives : str
        ``"checked"`` if the second derivatives agreed with finite differences, or the reason why they were not
        compared; see `Objective`.
    """

    nodes: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    grid: np.ndarray = field(repr=False)
    density: np.ndarray = field(repr=False)
    standard_error: np.ndarray = field(repr=False)
    width: float
    n_params: int
    n_products: int
    n_samples: int
    batch_norm: BatchNormPolicy
    second_derivatives: str = "not checked"

    @property
    def trace(self) -> float:
        """The trace that the quadratures estimate: n_params times the mean of their first moments."""
        return float(self.n_params * (self.weights * self.nodes).sum(axis=1).mean())

    def smoothed(self, width: float, n_points: int = 1000) -> "SpectralDensity":
        """Return the same density with another width and grid; this costs no products.

        Parameters
        ----------
        width : float
            Standard deviation of the Gaussian, above 0.
        n_points : int, default=1000
            Number of points of the grid, at least 2.

        Returns
        -------
        SpectralDensity
            A new record with the same nodes and weights.
        """
        _check_smoothing(width, n_points)
        return dataclasses.replace(self, **_smooth(self.nodes, self.weights, float(width), int(n_points)))


@using_threads()
def hessian_spectral_density(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    n_vectors: int = 5,
    n_steps: int = 80,
    width: float | None = None,
    n_points: int = 1000,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> SpectralDensity:
    r"""Estimate the density of the eigenvalues of the Hessian of the mean loss at a solution.

    The method is stochastic Lanczos quadrature. From a random unit vector v, m steps of Lanczos' method give m nodes
    :math:`t_j` and weights :math:`w_j`. They satisfy :math:`v^T f(H) v = \sum_j w_j f(t_j)` for polynomials f of degree
    up to 2 m - 1, and :math:`n v^T f(H) v` has the mean :math:`tr f(H)`. The density is

    .. math:: \frac{1}{n} \sum_i N(t; \lambda_i, \sigma^2) \approx \mathrm{mean}_v \sum_j w_j N(t; t_j, \sigma^2).

    Parameters
    ----------
    estimator : estimator or Objective
        A model or an `Objective`, as for `hessian_eigenvalues`.
    X, y : array-like
        Samples over which the loss is averaged. None with an `Objective`, which holds its data.
    n_vectors : int, default=5
        Number of start vectors. In n dimensions each start vector gives nearly the same density of a bulk of
        eigenvalues. The density of a single eigenvalue is as uncertain as the mean of n_vectors squares of normal
        numbers.
    n_steps : int, default=80
        Number of Lanczos steps from each start vector; [1]_ uses 90. It is cut to n_params if it is larger. With
        n_params steps the nodes are the eigenvalues.
    width : float, default=None
        Standard deviation sigma of the Gaussian, in units of the eigenvalues. None means 1 % of the range of the nodes.
    n_points : int, default=1000
        Number of points of the grid. They are equally spaced over the range of the nodes and 7 sigma beyond.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the start vectors.
    verbose : int, default=0
        1 shows a progress bar on stderr.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    SpectralDensity
        The density on a grid, with the nodes and weights behind it.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if the Hessian is not finite at the measured point.

    See Also
    --------
    SpectrumDisplay : Draws the density.
    hessian_eigenvalues : The largest and the smallest eigenvalues, exactly.

    Notes
    -----
    The cost is n_vectors * n_steps Hessian-vector products of about two gradients each (see `hessian_eigenvalues` for
    time and memory). The memory is n_steps vectors of n_params numbers, because every step is orthogonalised against
    all earlier steps. Without that, rounding makes copies of the largest eigenvalues. If Lanczos' method ends early,
    the remaining nodes repeat the last one with the weight 0.

    References
    ----------
    .. [1] Ghorbani, Krishnan and Xiao, An Investigation into Neural Net Optimization via Hessian Eigenvalue Density,
       ICML 2019.
    .. [2] Yao, Gholami, Keutzer and Mahoney, PyHessian: Neural Networks Through the Lens of the Hessian, IEEE Big
       Data 2020.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import hessian_spectral_density
    >>> net, X, y = torch.nn.Linear(3, 1, bias=False).double(), torch.eye(3).double(), torch.zeros(3, 1)
    >>> density = hessian_spectral_density((net, torch.nn.MSELoss()), X, y, random_state=0)
    >>> density.nodes.shape, round(density.trace, 6)
    ((5, 3), 2.0)
    """
    check_arguments(hessian_spectral_density, locals())
    check_integer("n_vectors", n_vectors, least=1)
    check_integer("n_steps", n_steps, least=1)
    _check_smoothing(width, n_points, optional=True)
    rng = check_random_state(random_state)
    objective = check_objective(estimator, X, y, max_samples=max_samples, random_state=rng, **kwargs)

    n_steps = min(int(n_steps), objective.n_params)
    with Products(objective, rng, verbose=verbose, total=int(n_vectors) * n_steps) as products:
        quadratures = [_quadrature(products, n_steps) for _ in range(n_vectors)]
    nodes, weights = (np.stack(part) for part in zip(*quadratures, strict=True))
    if width is None:
        extent = max(np.ptp(nodes), np.abs(nodes).max()) or 1.0  # the size of equal nodes; 1 if all are zero
        width = _WIDTH_PER_RANGE * extent
    return SpectralDensity(
        nodes=nodes,
        weights=weights,
        **_smooth(nodes, weights, float(width), int(n_points)),
        n_params=objective.n_params,
        n_products=products.n_products,
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        second_derivatives=objective.second_derivatives,
    )


def _quadrature(products: Products, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of Lanczos' method from one random unit vector, with full orthogonalisation."""
    basis = torch.empty((n_steps, products.n_params), dtype=products.dtype, device=products.device)
    diagonal, beside = np.zeros(n_steps), np.zeros(n_steps)
    direction = products.random()
    for step in range(n_steps):
        basis[step] = orthonormalise(direction, basis[:step])
        image = products(basis[step])
        diagonal[step] = dots(basis[step], image)
        direction = image - float(diagonal[step]) * basis[step]
        if step:
            direction -= float(beside[step - 1]) * basis[step - 1]
        beside[step] = norm(direction)
        if beside[step] <= 10 * torch.finfo(basis.dtype).eps * (np.abs(diagonal) + beside).max():
            break  # an invariant subspace, in which the quadrature is exact
    size = step + 1
    tridiagonal = np.diag(diagonal[:size]) + np.diag(beside[: size - 1], 1) + np.diag(beside[: size - 1], -1)
    nodes, vectors = np.linalg.eigh(tridiagonal)
    weights = vectors[0] ** 2
    return np.pad(nodes, (0, n_steps - size), mode="edge"), np.pad(weights / weights.sum(), (0, n_steps - size))


def _smooth(nodes: np.ndarray, weights: np.ndarray, width: float, n_points: int) -> dict[str, Any]:
    """Return the grid, the density, its standard error and the width."""
    grid = np.linspace(nodes.min() - _WIDTHS_BEYOND * width, nodes.max() + _WIDTHS_BEYOND * width, n_points)
    each = [
        np.exp(-0.5 * ((grid[:, None] - t) / width) ** 2) @ w / (width * np.sqrt(2 * np.pi))
        for t, w in zip(nodes, weights, strict=True)
    ]
    spread = np.std(each, axis=0, ddof=1) if len(each) > 1 else np.full(n_points, np.nan)
    return {
        "grid": grid,
        "density": np.mean(each, axis=0),
        "standard_error": spread / np.sqrt(len(each)),
        "width": width,
    }


def _check_smoothing(width: Any, n_points: int, optional: bool = False) -> None:
    number = isinstance(width, numbers.Real) and not isinstance(width, bool)
    if not (optional and width is None) and not (number and 0 < width < np.inf):
        raise ValueError(f"width must be {'None or ' if optional else ''}a number above 0; got {width!r}.")
    check_integer("n_points", n_points, least=2)
