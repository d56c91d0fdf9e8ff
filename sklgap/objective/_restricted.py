"""The loss on an affine subspace, which `Objective.restrict` returns."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sklgap.objective._objective import Evaluation, Objective, Vector
    from sklgap.objective._row_loss import RowLoss
    from sklgap.objective._subspace import Subspace


class RestrictedObjective:
    """The loss on an affine subspace, ``z -> f(theta0 + A z)``, with the interface of `Objective` in z-space.

    `Objective.restrict` returns it. ``theta0`` is the zero vector of shape (n_params,), and ``n_params`` is the
    dimension of the subspace.

    Parameters
    ----------
    objective : Objective
        The loss f in the full space.
    subspace : Subspace
        The affine map z -> theta0 + A z.
    """

    def __init__(self, objective: "Objective", subspace: "Subspace") -> None:
        self.objective = objective
        self.subspace = subspace
        self.n_params = subspace.dim
        self.n_samples = objective.n_samples
        self.batch_norm, self.dtype, self.device = objective.batch_norm, objective.dtype, objective.device
        self.theta0 = torch.zeros(subspace.dim, dtype=objective.dtype, device=objective.device)

    def value(self, theta: "Vector | None" = None) -> float:
        """Return f at z."""
        return self.objective.value(self._lift(theta))

    def evaluate(self, theta: "Vector | None" = None) -> "Evaluation":
        """Return mean loss and accuracy at z."""
        return self.objective.evaluate(self._lift(theta))

    def gradient(self, theta: "Vector | None" = None) -> tuple[float, Tensor]:
        """Return f at z and its gradient in z: A^T times the gradient in theta."""
        value, gradient = self.objective.gradient(self._lift(theta))
        return value, self.subspace.transpose(gradient)

    @property
    def loss(self) -> "RowLoss":
        """The loss of the module's outputs."""
        return self.objective.loss

    def using_loss(self, loss: "RowLoss") -> contextlib.AbstractContextManager[None]:
        """Return a context in which f is the mean of another loss; see `Objective.using_loss`."""
        return self.objective.using_loss(loss)

    def hvp(self, v: "Vector", theta: "Vector | None" = None) -> Tensor:
        """Return A^T H A v."""
        return self.subspace.transpose(self.objective.hvp(self._direction(v), self._lift(theta)))

    def hessian_operator(self, theta: "Vector | None" = None) -> "Callable[[Vector], Tensor]":
        """Return the function v -> A^T H A v at z; see `Objective.hessian_operator`."""
        product = self.objective.hessian_operator(self._lift(theta))
        return lambda v: self.subspace.transpose(product(self._direction(v)))

    @property
    def second_derivatives(self) -> str:
        """The state of the check of second derivatives; see `Objective.second_derivatives`."""
        return self.objective.second_derivatives

    def _direction(self, v: "Vector") -> Tensor:
        return self.subspace.directions(torch.as_tensor(v, dtype=self.dtype, device=self.device))

    def _lift(self, z: "Vector | None") -> Tensor:
        z = self.theta0 if z is None else torch.as_tensor(z, dtype=self.dtype, device=self.device)
        return self.subspace(z)
