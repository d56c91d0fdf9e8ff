"""Shared by all measurements of curvature: counted Hessian-vector products, and orthogonalisation."""

import sys
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm


class BudgetSpent(Exception):
    """The budget of products is spent."""


class NotFinite(ValueError):
    """The Hessian is not finite, because the training diverged or the loss overflows."""


class Products:
    """The Hessian of an objective as a function v -> H v that counts its calls. Use it in a ``with`` statement.

    Parameters
    ----------
    objective : Objective or RestrictedObjective
        The objective, whose Hessian is taken at the module's own parameters.
    rng : RandomState
        Seeds the vectors of `random`.
    verbose : int
        1 shows a progress bar of the products on stderr.
    total : int or None
        The final number of products, if known.
    budget : int or None
        Number of products after which the next one raises `BudgetSpent`.
    scale : Tensor of shape (n_params,) or None
        The operator is S H S, where S is the diagonal matrix of these numbers. Parameters with 0 are left out. None
        means H.

    Attributes
    ----------
    n_params : int
        Dimension of the operator.
    """

    def __init__(
        self,
        objective: Any,
        rng: np.random.RandomState,
        *,
        verbose: int = 0,
        total: int | None = None,
        budget: int | None = None,
        scale: Tensor | None = None,
    ) -> None:
        self.n_params, self.dtype, self.device = objective.n_params, objective.dtype, objective.device
        product = objective.hessian_operator()
        self.free = None if scale is None or bool(scale.all()) else scale > 0
        if self.free is not None:
            self.n_params = int(self.free.sum())
        self.product = product if scale is None else lambda v: self.part(scale * product(scale * self.whole(v)))
        self.generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
        self.bar = tqdm(total=total, unit="product", disable=not verbose, file=sys.stderr)
        self.budget = budget
        self.n_products = 0

    def __call__(self, v: Tensor) -> Tensor:
        """Return the image of v."""
        if self.n_products == self.budget:
            raise BudgetSpent
        image = self.product(v)
        if not torch.isfinite(image).all():
            raise NotFinite("The Hessian must be finite at the measured point; a product with it is not.")
        self.n_products += 1
        self.bar.update()
        return image

    def part(self, v: Tensor) -> Tensor:
        """Return the entries of the parameters that are not left out."""
        return v if self.free is None else v[self.free]

    def whole(self, v: Tensor) -> Tensor:
        """Return vectors with zeros for the parameters that are left out."""
        if self.free is None:
            return v
        found = v.new_zeros((*v.shape[:-1], len(self.free)))
        found[..., self.free] = v
        return found

    def random(self) -> Tensor:
        """Return a vector of independent N(0, 1) numbers. It is drawn on the CPU, so it is the same on every device."""
        return torch.randn(self.n_params, generator=self.generator).to(dtype=self.dtype, device=self.device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()


def dots(rows: Tensor, vectors: Tensor) -> np.ndarray:
    """Return ``rows @ vectors`` in float64.

    The sum is computed in blocks. torch's float32 sums over a million terms are wrong in the fifth digit. That is
    enough to make a basis lose its orthogonality and a search its convergence.
    """
    parts = [r @ v for r, v in zip(rows.split(_BLOCK, dim=-1), vectors.split(_BLOCK), strict=True)]
    return torch.stack(parts).cpu().double().sum(0).numpy()


# Number of terms that torch may sum in float32.
_BLOCK = 2**14


def norm(v: Tensor) -> float:
    """Return the Euclidean length, as exactly as `dots`."""
    return float(np.sqrt(dots(v, v)))


def unit(v: Tensor) -> Tensor:
    """Return v scaled to length one, even if the squares of its entries underflow. Zero stays zero."""
    largest = v.abs().max()
    scaled = v / torch.where(largest > 0, largest, 1.0)
    return scaled / (norm(scaled) or 1.0)


def combination(coefficients: np.ndarray, rows: Tensor) -> Tensor:
    """Return ``coefficients @ rows`` in the dtype of the rows."""
    return torch.from_numpy(np.ascontiguousarray(coefficients)).to(rows) @ rows


def remainder(v: Tensor, *bases: Tensor) -> Tensor:
    """Return v without its components along the orthonormal rows of the bases."""
    for basis in bases:
        v = v - combination(dots(basis, v), basis)
    return v


def orthonormalise(v: Tensor, *bases: Tensor) -> Tensor:
    """Return v made orthogonal to the orthonormal rows of the bases, with length one; zero if it is in their span.

    There are two rounds of Gram-Schmidt, because one round leaves the magnified rounding errors of a short remainder. A
    vector that the second round shortens by more than half is nothing but rounding (Kahan, in Parlett, The Symmetric
    Eigenvalue Problem, 1998, Section 6.9). Then v is in the span as far as can be computed.
    """
    for _ in range(2):
        v = remainder(v, *bases)
        length = norm(v)
        v = v / (length or 1.0)
    return v if not bases or length > _NOT_ROUNDING else torch.zeros_like(v)


# The second round does not change the length, one, of a remainder that is orthogonal to the bases.
_NOT_ROUNDING = 0.5
