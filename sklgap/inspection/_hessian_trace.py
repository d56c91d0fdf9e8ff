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
        The estimate of the trace, which is unbiased.
    standard_error : float
        Standard error of ``value``, given the sketch. 0 if the value is exact.
    confidence_interval : tuple of two float
        The 95 % interval by Student's t distribution.
    n_products : int
        Number of Hessian-vector products.
    method : str
        ``"hutch++"``, ``"hutchinson"``, or ``"exact"`` if there were as many products as parameters.
    n_samples : int
        Number of samples over which the loss is averaged.
    batch_norm : str
        The batch-norm policy.
    second_derivatives : str
        ``"checked"`` if the second derivatives agreed with finite differences, or the reason why they were not
        compared; see `Objective`.
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
    r"""Estimate the trace of the Hessian of the mean loss at a solution, with its standard error.

    ``"hutchinson"`` is the mean of :math:`g^T H g` over random sign vectors g. ``"hutch++"`` first takes out the
    directions of large curvature. With Q an orthonormal basis of :math:`H S` for a random S, and :math:`P = I - Q Q^T`,

    .. math:: tr(H) = tr(Q^T H Q) + tr(P H P),

    where the first term is exact, and Hutchinson's mean estimates the second term.

    Parameters
    ----------
    estimator : estimator or Objective
        A model or an `Objective`, as for `hessian_eigenvalues`.
    X, y : array-like
        Samples over which the loss is averaged. None with an `Objective`, which holds its data.
    n_products : int, default=60
        Number of Hessian-vector products, at least 4. ``"hutch++"`` spends a third each on H S, on Q and on
        Hutchinson's mean. With at least n_params products the trace is exact and costs n_params products.
    method : {"hutch++", "hutchinson"}, default="hutch++"
        With few large eigenvalues, as in trained nets, Hutch++ has a much smaller error.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the random vectors.
    verbose : int, default=0
        1 shows a progress bar on stderr.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    HessianTrace
        The trace, with its standard error and interval.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if the Hessian is not finite at the measured point.

    Notes
    -----
    The standard error is that of Hutchinson's mean, whose terms are independent given Q. It covers the random vectors,
    but not the samples drawn by ``max_samples``. The cost is ``n_products`` products of about two gradients each (see
    `hessian_eigenvalues` for time and memory). The memory is ``n_products / 3`` vectors of n_params numbers.

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
    """Return the trace in the span of ``n_sketch`` images of random vectors, and samples of the trace outside of it."""
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
