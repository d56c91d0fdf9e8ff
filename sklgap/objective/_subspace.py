"""An affine subspace of parameter space, z -> theta0 + A z, which sharpness in a subspace and all plots share."""

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from sklgap._checks import WrongArgument, check_arguments, is_one_of, shown
from sklgap._typing import SubspaceKind


class Subspace:
    """The affine map ``z -> origin + A z`` with A of shape (n_params, dim).

    Parameters
    ----------
    origin : Tensor of shape (n_params,)
        The point at z = 0.
    basis : Tensor of shape (dim, n_params)
        The transpose of A, with one direction in each row. Rows are contiguous, so that products with A stream memory.
    """

    def __init__(self, origin: Tensor, basis: Tensor) -> None:
        self.origin = origin
        self.basis = basis
        self.dim = len(basis)

    def __call__(self, z: Tensor) -> Tensor:
        """Return origin + A z."""
        return self.origin + self.directions(z)

    def directions(self, z: Tensor) -> Tensor:
        """Return A z."""
        return z @ self.basis

    def transpose(self, vector: Tensor) -> Tensor:
        """Return A^T vector."""
        return self.basis @ vector

    def pseudo_inverse(self, vector: Tensor) -> Tensor:
        """Return A^+ vector, by the Gram matrix in float64; raise a ValueError if columns of A are dependent."""
        device = torch.device("cpu") if self.basis.device.type == "mps" else self.basis.device  # mps lacks float64
        gram = torch.zeros(self.dim, self.dim, dtype=torch.float64, device=device)
        projection = torch.zeros(self.dim, dtype=torch.float64, device=device)
        width = max(1, _BLOCK // self.dim)
        for start in range(0, self.basis.shape[1], width):
            block = self.basis[:, start : start + width].to(device).double()
            gram += block @ block.T
            projection += block @ vector[start : start + width].to(device).double()
        if torch.linalg.matrix_rank(gram, hermitian=True) < self.dim:
            raise ValueError("The directions of the subspace must be linearly independent; they are not.")
        return torch.linalg.solve(gram, projection).to(vector)


# Columns of A are converted to float64 in blocks of this many numbers (32 MB), never as a whole.
_BLOCK = 2**22


def random_subspace(
    origin: Tensor, dim: int, kind: SubspaceKind = "gaussian", random_state: int | np.random.RandomState | None = None
) -> Subspace:
    """Draw a random subspace through ``origin``.

    Parameters
    ----------
    origin : Tensor of shape (n_params,)
        The point at z = 0.
    dim : int
        Number of directions, between 1 and n_params.
    kind : {"gaussian", "orthonormal"}, default="gaussian"
        ``"gaussian"`` draws independent N(0, 1) entries. ``"orthonormal"`` takes an orthonormal basis of the span of
        such directions.
    random_state : int, RandomState or None
        Seed of the draw. The draw is made on the CPU, so that it is the same on every device.

    Returns
    -------
    Subspace
        The subspace, which holds dim * n_params numbers in the dtype of ``origin``.
    """
    check_arguments(random_subspace, locals())
    if not is_one_of(kind, get_args(SubspaceKind)):
        raise ValueError(f"subspace must be 'gaussian' or 'orthonormal'; got {shown(kind)}.")
    if not isinstance(origin, Tensor) or not origin.is_floating_point() or origin.ndim != 1 or not len(origin):
        raise WrongArgument(f"origin must be a tensor of floating-point numbers in one dimension; got {shown(origin)}.")
    n_params = origin.numel()
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or not 1 <= dim <= n_params:
        raise ValueError(
            f"subspace_dim must be an integer between 1 and {n_params}, the number of parameters; got {dim!r}."
        )
    if not isinstance(random_state, np.random.RandomState):
        random_state = np.random.RandomState(random_state)
    generator = torch.Generator().manual_seed(int(random_state.randint(2**31 - 1)))
    basis = torch.randn(int(dim), n_params, generator=generator, dtype=torch.float32).to(origin)
    if kind == "orthonormal":
        basis = torch.linalg.qr(basis.T)[0].T.contiguous()
    return Subspace(origin, basis)
