"""The largest and smallest eigenvalues of the Hessian of the mean loss: the extreme curvatures at a solution."""

import numbers
import warnings
from dataclasses import dataclass, field
from typing import Unpack, get_args

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklgap._checks import check_arguments, check_integer, check_random_state, is_one_of, shown
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, EigenvalueEnd, Inputs
from sklgap.inspection._eigensolver import extreme_eigenpairs
from sklgap.inspection._krylov import Products
from sklgap.objective import Objective, RestrictedObjective, check_objective
from sklgap.objective._check import Measurable, ObjectiveOptions
from sklgap.objective._tensors import as_tensor


@dataclass(frozen=True)
class HessianEigenvalues:
    """Extreme eigenvalues of the Hessian, and how well they are known.

    Attributes
    ----------
    eigenvalues : ndarray of shape (n_eigenvalues,)
        Eigenvalues in descending order, counted with their multiplicity.
    eigenvectors : ndarray of shape (n_params, n_eigenvalues) or None
        Eigenvectors of unit length, one in each column.
    residuals : ndarray of shape (n_eigenvalues,)
        Measured norms ||H v - lambda v||. An eigenvalue of H lies within this distance of lambda.
    converged : numpy.bool
        Whether all residuals met the tolerance and the search for overlooked eigenvalues finished.
    status : str
        How the search ended, in words.
    n_products : int
        Number of Hessian-vector products.
    which : str
        The end of the spectrum.
    n_samples : int
        Number of samples over which the loss is averaged.
    batch_norm : str
        The batch-norm policy.
    second_derivatives : str
        ``"checked"`` if the second derivatives agreed with finite differences, or the reason why they were not
        compared; see `Objective`.
    preconditioned : bool
        Whether H is the preconditioned Hessian, ``P ** -0.5 @ Hessian @ P ** -0.5``.
    """

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray | None = field(repr=False)
    residuals: np.ndarray
    converged: np.bool
    status: str
    n_products: int
    which: EigenvalueEnd
    n_samples: int
    batch_norm: BatchNormPolicy
    second_derivatives: str = "not checked"
    preconditioned: bool = False

    def __str__(self) -> str:
        values = ", ".join(f"{value:.4g}" for value in self.eigenvalues)
        what = "Preconditioned Hessian" if self.preconditioned else "Hessian"
        return (
            f"{what} eigenvalues ({self.which}) {values} (residuals up to {self.residuals.max():.1e}; "
            f"{self.n_products} products, {self.n_samples:,} samples, batch norm: {self.batch_norm}; {self.status})"
        )


@using_threads()
def hessian_eigenvalues(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    k: int = 5,
    which: EigenvalueEnd = "largest",
    tol: float = 1e-4,
    max_iter: int | None = None,
    return_eigenvectors: bool = False,
    start: ArrayLike | None = None,
    preconditioner: ArrayLike | None = None,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> HessianEigenvalues:
    r"""Compute the largest or smallest eigenvalues of the Hessian of the mean loss at a solution.

    For small epsilon these eigenvalues govern the sharpness of Keskar et al. (2017). At a minimum, Metric 2.1 in the
    full space is the largest rise of a quadratic with this Hessian.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair (module, criterion),
        or an `Objective`. The Hessian of an `Objective` restricted to a subspace is :math:`A^T H A`.
    X, y : array-like
        Samples over which the loss is averaged. None with an `Objective`, which holds its data.
    k : int, default=5
        Number of eigenvalues at each end of the spectrum, at most n_params. ``"both"`` gives 2 k, or all if there are
        fewer.
    which : {"largest", "smallest", "both"}, default="largest"
        The end of the spectrum. ``"smallest"`` means the most negative eigenvalues.
    tol : float, default=1e-4
        An eigenpair has converged when ||H v - lambda v|| is at most tol * abs(lambda), or at most tol / 100 times the
        largest eigenvalue in magnitude, whichever is more. The error of the eigenvalue is then commonly of the order of
        tol squared. In float32, rounding leaves residuals of some 1e-6 times the largest eigenvalue, so they need not
        be below 3e-6 of it.
    max_iter : int, default=None
        Largest number of Hessian-vector products, at least one per eigenvalue. None means 200 plus 20 per eigenvalue.
    return_eigenvectors : bool, default=False
        Whether the record holds the eigenvectors.
    start : array-like of shape (n_params,) or (n_params, m), default=None
        Eigenvectors from an earlier call, one in each column, if the weights have moved only a little since. The search
        begins with their sum. That commonly saves a fifth of the products. Some of the saving is in the second search,
        which then overlooks an eigenvector with a probability of up to 0.05. None starts from a random vector.
    preconditioner : array-like of shape (n_params,), default=None
        The diagonal of a matrix P, with entries above 0. The eigenvalues are then those of :math:`P^{-1/2} H P^{-1/2}`,
        which are also those of :math:`P^{-1} H`. A parameter with ``inf`` is fixed, and its eigenvalue of 0 is left
        out. None gives the eigenvalues of H. See `stability_threshold` for the preconditioner of an optimiser.
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
    HessianEigenvalues
        The eigenvalues, with their residuals.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if the Hessian is not finite at the measured point.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If the search spent all its products before it finished. The record then holds the best pairs found.

    See Also
    --------
    hessian_spectral_density : All eigenvalues, as a density.
    ritz_values : Curvature in a random subspace.

    Notes
    -----
    The search is Lanczos' method with full orthogonalisation and restarts. A second search follows, in the orthogonal
    complement of the first result. It looks for eigenvalues that one start cannot see, above all multiple ones. It
    overlooks an eigenvector with a probability of about 0.001, or up to 0.05 with ``start``.

    At the upper end of the spectrum of a trained net, the eigenvalues are well separated. Five of them cost some 15
    products, plus 10 for the second search (F1 on MNIST). Where eigenvalues crowd, as they do near zero, the cost is
    hundreds of products. A product costs about two gradients, or three if the data are more than one chunk. It grows
    with samples times parameters. The memory is 4 vectors of n_params numbers per eigenvalue and 40 more, up to 48 more
    for the second search, and the memory of one product. In float32 one product takes 8 MB per sample of a chunk for C2
    on CIFAR-10, so ``chunk_size=2000`` fits into 24 GB. The policy ``"population"`` holds all chunks at once.

    The Hessian of a net with ReLU is that of the smooth piece on which the weights lie.

    References
    ----------
    .. [1] Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017,
       Section 2.2.2.
    .. [2] Wu and Simon, Thick-Restart Lanczos Method for Large Symmetric Eigenvalue Problems, SIAM J. Matrix Anal.
       Appl. 22, 2000.

    Examples
    --------
    This quadratic form has the curvatures 2, 2 and 0.5:

    >>> import torch
    >>> from sklgap.inspection import hessian_eigenvalues
    >>> net = torch.nn.Linear(3, 1, bias=False).double()
    >>> X, y = torch.diag(torch.tensor([3.0, 3.0, 0.75]).double().sqrt()), torch.zeros(3, 1)
    >>> record = hessian_eigenvalues((net, torch.nn.MSELoss()), X, y, k=2, random_state=0)
    >>> record.eigenvalues.round(6).tolist(), bool(record.converged)
    ([2.0, 2.0], True)
    """
    check_arguments(hessian_eigenvalues, locals())
    _check_parameters(k, which, tol, max_iter)
    rng = check_random_state(random_state)
    objective = check_objective(estimator, X, y, max_samples=max_samples, random_state=rng, **kwargs)
    first, scale = _check_start(start, objective), _check_preconditioner(preconditioner, objective)
    n_params = objective.n_params if scale is None else int(scale.count_nonzero())
    if k > n_params:
        moving = "" if n_params == objective.n_params else " with a finite preconditioner"
        raise ValueError(f"k must be at most {n_params}, the number of parameters{moving}; got {k}.")
    n_top = 0 if which == "smallest" else int(k)
    n_bottom = 0 if which == "largest" else min(int(k), n_params - n_top)
    budget = 200 + 20 * (n_top + n_bottom) if max_iter is None else int(max_iter)
    if budget < n_top + n_bottom:
        raise ValueError(
            f"max_iter must be at least {n_top + n_bottom}, the number of eigenvalues asked for; got {max_iter}."
        )

    with Products(objective, rng, verbose=verbose, budget=budget, scale=scale) as products:
        first = None if first is None else products.part(first)
        first = first if first is not None and bool(first.any()) else None
        pairs = extreme_eigenpairs(products, n_bottom, n_top, float(tol), first)
    if not pairs.converged:
        warnings.warn(
            f"The search for eigenvalues did not converge: {pairs.status} (max_iter={budget}). The residuals show how "
            "accurate the eigenvalues are.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return HessianEigenvalues(
        eigenvalues=pairs.values[::-1].copy(),
        eigenvectors=products.whole(pairs.vectors).flip(0).T.cpu().numpy() if return_eigenvectors else None,
        residuals=pairs.residuals[::-1].copy(),
        converged=np.bool(pairs.converged),
        status=pairs.status,
        n_products=products.n_products,
        which=which,
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        second_derivatives=objective.second_derivatives,
        preconditioned=scale is not None,
    )


def _check_start(start: ArrayLike | None, objective: Objective | RestrictedObjective) -> Tensor | None:
    """Return the sum of the start vectors, each scaled to unit length."""
    if start is None:
        return None
    columns = _numbers("start", start)
    if columns.ndim == 1:
        columns = columns[:, None]
    if columns.ndim != 2 or columns.shape[0] != objective.n_params or not columns.shape[1]:
        raise ValueError(
            f"start must have one number for each of the {objective.n_params} parameters, in one or several columns; "
            f"got an array of shape {np.shape(start)}."
        )
    if not np.isfinite(columns).all() or not np.any(columns, axis=0).all():
        raise ValueError("start must hold finite numbers, and no column may hold only zeros.")
    total = (columns / np.linalg.norm(columns, axis=0)).sum(axis=1)
    if not total.any():
        raise ValueError("start must not have columns whose sum is zero.")
    return torch.from_numpy(total).to(dtype=objective.dtype, device=objective.device)


def _check_preconditioner(
    preconditioner: ArrayLike | None, objective: Objective | RestrictedObjective
) -> Tensor | None:
    """Return the diagonal of P ** -0.5."""
    if preconditioner is None:
        return None
    diagonal = _numbers("preconditioner", preconditioner)
    if isinstance(objective, RestrictedObjective):
        raise ValueError("preconditioner must be None in a subspace, whose coordinates are not the parameters.")
    if diagonal.shape != (objective.n_params,) or not np.all(diagonal > 0):
        got = f"shape {diagonal.shape}" if diagonal.shape != (objective.n_params,) else "others"
        raise ValueError(
            f"preconditioner must hold one number above 0 for each of the {objective.n_params} parameters; got {got}."
        )
    if not np.isfinite(diagonal).any():
        raise ValueError("preconditioner must be finite for at least one parameter; otherwise all of them are fixed.")
    return torch.from_numpy(diagonal**-0.5).to(dtype=objective.dtype, device=objective.device)


def _numbers(name: str, given: ArrayLike) -> np.ndarray:
    try:
        tensor = as_tensor(given).cpu()
        if not tensor.is_complex():
            return np.asarray(tensor, dtype=float)
    except (TypeError, ValueError, RuntimeError):  # strings, ragged lists, or anything else that is not an array
        pass
    raise TypeError(f"{name} must be an array of real numbers; got {shown(given)}.")


def _check_parameters(k: int, which: str, tol: float, max_iter: int | None) -> None:
    check_integer("k", k, least=1)
    check_integer("max_iter", max_iter, least=1, or_none=True)
    if not is_one_of(which, get_args(EigenvalueEnd)):
        raise ValueError(f"which must be 'largest', 'smallest' or 'both'; got {which!r}.")
    check_tolerance(tol)


def check_tolerance(tol: float) -> None:
    """Raise a ValueError unless ``tol`` is a number between 0 and 1."""
    if isinstance(tol, bool) or not isinstance(tol, numbers.Real) or not 0 < tol < 1:
        raise ValueError(f"tol must be a number between 0 and 1; got {tol!r}.")
