"""Curvature in a random subspace: the Ritz values of the Hessian, a companion of Metric 2.1 in a subspace."""

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from sklgap._checks import check_arguments, check_random_state
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs
from sklgap.inspection._krylov import Products
from sklgap.objective import RestrictedObjective, Subspace, check_objective, random_subspace
from sklgap.objective._check import Measurable, ObjectiveOptions


@dataclass(frozen=True)
class RitzValues:
    """Ritz values of the Hessian in a subspace.

    Attributes
    ----------
    values : ndarray of shape (subspace_dim,)
        Ritz values in descending order.
    subspace_dim : int
        Dimension of the subspace.
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

    values: np.ndarray
    subspace_dim: int
    n_products: int
    n_samples: int
    batch_norm: BatchNormPolicy
    second_derivatives: str = "not checked"


@using_threads()
def ritz_values(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    subspace_dim: int | None = None,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> RitzValues:
    r"""Compute the Ritz values of the Hessian in a random subspace: the eigenvalues of :math:`Q^T H Q`.

    Q is an orthonormal basis of the range of a random A. Keskar et al. (2017) link Metric 2.1 in a subspace to the Ritz
    values. Unlike the metric, the Ritz values do not depend on the scaling of A.

    Parameters
    ----------
    estimator : estimator or Objective
        A model or an `Objective`, as for `hessian_eigenvalues`. An `Objective` that is restricted to a subspace is
        measured in that subspace.
    X, y : array-like
        Samples over which the loss is averaged. None with an `Objective`, which holds its data.
    subspace_dim : int, default=None
        Dimension of the subspace. None means 100, the number in the paper, or n_params if that is smaller. It must be
        None for an Objective that is already restricted.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and of A. With the same seed, A is that of ``sharpness(..., subspace_dim=subspace_dim)``.
    verbose : int, default=0
        1 shows a progress bar on stderr.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    RitzValues
        The Ritz values. They lie between the smallest and the largest eigenvalue of H.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if the directions are linearly dependent.

    See Also
    --------
    hessian_eigenvalues : Eigenvalues in the full space.
    sharpness : Metric 2.1.

    Notes
    -----
    The cost is ``subspace_dim`` Hessian-vector products. The memory is that of Q, subspace_dim * n_params numbers.

    References
    ----------
    Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017,
    Section 2.2.2.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import ritz_values
    >>> net, X, y = torch.nn.Linear(3, 1, bias=False).double(), torch.eye(3).double() * 3 ** 0.5, torch.zeros(3, 1)
    >>> ritz_values((net, torch.nn.MSELoss()), X, y, subspace_dim=2, random_state=0).values.round(6).tolist()
    [2.0, 2.0]
    """
    check_arguments(ritz_values, locals())
    rng = check_random_state(random_state)
    objective = check_objective(estimator, X, y, max_samples=max_samples, random_state=rng, **kwargs)
    if isinstance(objective, RestrictedObjective):
        if subspace_dim is not None:
            raise ValueError("subspace_dim must be None for an Objective that is already restricted to a subspace.")
        full, subspace = objective.objective, objective.subspace
    else:
        dim = min(_PAPER_DIM, objective.n_params) if subspace_dim is None else subspace_dim
        full, subspace = objective, random_subspace(objective.theta0, dim, random_state=rng)

    restricted = full.restrict(Subspace(subspace.origin, _orthonormal_basis(subspace)))
    with Products(restricted, rng, verbose=verbose, total=subspace.dim) as products:
        columns = torch.stack([products(unit) for unit in torch.eye(subspace.dim).to(restricted.theta0)])
    hessian = columns.double().cpu().numpy()
    return RitzValues(
        values=np.linalg.eigvalsh((hessian + hessian.T) / 2)[::-1].copy(),
        subspace_dim=subspace.dim,
        n_products=products.n_products,
        n_samples=restricted.n_samples,
        batch_norm=restricted.batch_norm,
        second_derivatives=restricted.second_derivatives,
    )


# Keskar et al. (2017), Table 4.
_PAPER_DIM = 100


def _orthonormal_basis(subspace: Subspace) -> Tensor:
    """Return an orthonormal basis of the range of A, one vector in each row."""
    basis, triangle = torch.linalg.qr(subspace.basis.T)
    sizes = triangle.diagonal().abs()
    if not sizes.min() > 100 * torch.finfo(sizes.dtype).eps * subspace.basis.norm(dim=1).max():
        raise ValueError("The directions of the subspace must be linearly independent; they are not.")
    return basis.T.contiguous()
