"""The trace of the Hessian: the sum of all curvatures, estimated from products with random vectors."""

from dataclasses import dataclass
from typing import Literal, Unpack, get_args

import numpy as np
import torch
from scipy import stats

from sklgap._checks import check_arguments, check_integer, check_random_state, is_one_of
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs, TraceMethod
from sklgap.inspection._krylov import Products, dots, orthonormalise, remainder
from sklgap.objective import check_objective
from sklgap.objective._check import Measurable, ObjectiveOptions


@dataclass(frozen=True)
class HessianTrace:
    """The trace of the Hessian, and how well it is known.

    Attributes
    ----------
    value : float
        The estimate; unbiased.
    standard_error : float
        Of ``value``, given the sketch; 0 where it is exact.
    confidence_interval : tuple of two float
        At 95 %, by Student's t distribution.
    n_products : int
        Hessian-vector products made.
    method : str
        ``"hutch++"``, ``"hutchinson"``, or ``"exact"`` where there were as many products as parameters.
    n_samples : int
        Rows that the loss is the mean over.
    batch_norm : str
        The batch-norm policy.
    second_derivatives : str
        ``"checked"`` against finite differences, or why that was not possible; see `Objective`.
    """

    value: float
    standard_error: float
    confidence_interval: tuple[float, float]
    n_products: int
    method: TraceMethod | Literal["exact"]
    n_samples: int
    batch_norm: BatchNormPolicy
    second_derivatives: str = "not checked"

    def __str__(self) -> str:
        low, high = self.confidence_interval
        known = "exact" if self.method == "exact" else f"95 % interval [{low:.4g}, {high:.4g}] for new random vectors"
        method = "" if self.method == "exact" else f"{self.method}, "
        return (
            f"Hessian trace {self.value:.4g}, {known} ({method}{self.n_products} products, "
            f"{self.n_samples:,} samples, batch norm: {self.batch_norm})"
        )


@using_threads()
def hessian_trace(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    n_products: int = 60,
    method: TraceMethod = "hutch++",
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> HessianTrace:
    r"""Trace of the Hessian of the mean loss at a solution, with its standard error.

    ``"hutchinson"`` is the mean of :math:`g^T H g` over random sign vectors g. ``"hutch++"`` first takes out the
    directions of large curvature: with Q an orthonormal basis of :math:`H S` for a random S and
    :math:`P = I - Q Q^T`,

    .. math:: tr(H) = tr(Q^T H Q) + tr(P H P),

    the first term exactly, the second by Hutchinson's mean.

    Parameters
    ----------
    estimator : estimator or Objective
        As for `hessian_eigenvalues`.
    X, y : array-like
        Rows that the loss is the mean over. None with an `Objective`.
    n_products : int, default=60
        Hessian-vector products to spend, at least 4; ``"hutch++"`` spends a third each on H S, on Q and on
        Hutchinson's mean. With at least n_params of them the trace is computed exactly, from n_params products.
    method : {"hutch++", "hutchinson"}, default="hutch++"
        With few large eigenvalues, as in trained nets, Hutch++ has much the smaller error.
    max_samples : int, float or None, default=None
        Measure on so many samples (int), or on this fraction of them (float in (0, 1]); None: on all.
    random_state : int, RandomState or None, default=None
        Draws rows and random vectors.
    verbose : int, default=0
        1: a progress bar on stderr.
    **kwargs
        ``batch_norm``, ``chunk_size``, ``dtype`` and ``device`` of `Objective`.

    Returns
    -------
    HessianTrace

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, or a Hessian that is not finite at the point measured.

    Notes
    -----
    The standard error is that of Hutchinson's mean, whose terms are independent given Q. It speaks of the random
    vectors, not of the rows drawn by ``max_samples``. Cost: ``n_products`` products, each about two gradients (see
    `hessian_eigenvalues` for time and memory), and ``n_products / 3`` vectors of n_params.

    References
    ----------
    .. [1] Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines,
       Communications in Statistics 19, 1990.
    .. [2] Meyer, Musco, Musco and Woodruff, Hutch++: Optimal Stochastic Trace Estimation, SOSA 2021, algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import hessian_trace
    >>> net, X, y = torch.nn.Linear(3, 1, bias=False).double(), torch.eye(3).double(), torch.zeros(3, 1)
    >>> record = hessian_trace((net, torch.nn.MSELoss()), X, y, random_state=0)
    >>> round(record.value, 6), record.standard_error, record.method
    (2.0, 0.0, 'exact')
    """
    check_arguments(hessian_trace, locals())
    check_integer("n_products", n_products, least=4)
    if not is_one_of(method, get_args(TraceMethod)):
        raise ValueError(f"method must be 'hutch++' or 'hutchinson'; got {method!r}.")
    rng = check_random_state(random_state)
    objective = check_objective(estimator, X, y, max_samples=max_samples, random_state=rng, **kwargs)
    exact = n_products >= objective.n_params
    n_products = min(n_products, objective.n_params)
    with Products(objective, rng, verbose=verbose, total=n_products) as products:
        if exact:
            value, samples = sum(_diagonal(products)), np.zeros(0)
        else:
            value, samples = _hutch(products, n_products // 3 if method == "hutch++" else 0, n_products)
    standard_error, half_width = 0.0, 0.0
    if len(samples):
        value += samples.mean()
        standard_error = samples.std(ddof=1) / np.sqrt(len(samples))
        half_width = stats.t.ppf(0.975, len(samples) - 1) * standard_error
    return HessianTrace(
        value=float(value),
        standard_error=float(standard_error),
        confidence_interval=(float(value - half_width), float(value + half_width)),
        n_products=products.n_products,
        method="exact" if exact else method,
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        second_derivatives=objective.second_derivatives,
    )


def _diagonal(products: Products) -> list[float]:
    """Return the diagonal of the Hessian."""
    unit = torch.zeros(products.n_params, dtype=products.dtype, device=products.device)
    diagonal = []
    for i in range(products.n_params):
        unit[i] = 1
        diagonal.append(float(products(unit)[i]))
        unit[i] = 0
    return diagonal


def _hutch(products: Products, n_sketch: int, n_products: int) -> tuple[float, np.ndarray]:
    """Return the trace in the span of ``n_sketch`` images of random vectors, and samples of the trace outside."""
    basis = torch.empty((n_sketch, products.n_params), dtype=products.dtype, device=products.device)
    for i in range(n_sketch):
        basis[i] = orthonormalise(products(products.random().sign()), basis[:i])
    inside = sum(_quadratic_form(products, q) for q in basis)
    samples = []
    for _ in range(n_products - 2 * n_sketch):
        samples.append(_quadratic_form(products, remainder(products.random().sign(), basis)))
    return float(inside), np.array(samples)


def _quadratic_form(products: Products, v: torch.Tensor) -> float:
    return float(dots(v, products(v)))
