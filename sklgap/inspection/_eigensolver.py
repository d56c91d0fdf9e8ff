"""Extreme eigenpairs of a symmetric operator that is known by its products, including multiple eigenvalues.

The method is Rayleigh-Ritz in a subspace. The subspace grows by one product at a time, in the direction of the residual
of a wanted pair that has not converged. From one start this is Lanczos' method with full orthogonalisation. A full
subspace is reduced to its best Ritz vectors and grows again (thick restart: Wu and Simon, SIAM J. Matrix Anal. Appl.
22, 2000).

Such a subspace holds at most one vector of each eigenspace, so it never sees the second copy of a double eigenvalue.
Therefore, once all wanted pairs have converged, the solver sets everything it has found aside. It grows a second
subspace from a random start in the orthogonal complement. Any eigenvalue beyond the wanted ones that it sees there
joins the first subspace. The second search ends when an eigenvector beyond them would have shown itself. It need not
find the next eigenvalues, which are set aside too, so it takes a fraction of the first search, commonly about 10
products.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklgap.inspection._krylov import BudgetSpent, Products, combination, dots, norm, orthonormalise, remainder

# Number of vectors that a subspace holds in addition to twice the wanted ones. It is larger, up to the second number,
# if the vectors are so short that together they hold less than the third number of entries.
_SPARE, _MORE, _NUMBERS = 20, 100, 2**22
# Probability that the second search overlooks an eigenvector beyond the wanted ones. It need not be as small after a
# start from the eigenvectors of a nearby operator, which was searched too.
_OVERLOOKED, _OVERLOOKED_NEARBY = 1e-3, 0.05
# Residuals that rounding leaves, relative to the largest eigenvalue, measured on nets with batch norm.
_ATTAINABLE = {torch.float32: 3e-6, torch.float64: 1e-13}


class Eigenpairs(NamedTuple):
    """Eigenvalues in ascending order, eigenvectors as rows, residual norms, and how the search ended."""

    values: np.ndarray
    vectors: Tensor
    residuals: np.ndarray
    converged: bool
    status: str


class RitzSpace:
    """An orthonormal basis, its images under the operator, and the resulting Ritz pairs.

    Parameters
    ----------
    products : Products
        The operator.
    n_bottom, n_top : int
        Number of Ritz pairs at either end that must survive a restart.
    outside : Tensor of shape (m, n), default=None
        The basis stays orthogonal to these orthonormal rows, and residuals are taken without their components. The
        operator is then compressed to their orthogonal complement.

    Attributes
    ----------
    values : ndarray of shape (size,)
        Ritz values in ascending order.
    coefficients : ndarray of shape (size, size)
        Column i holds the coefficients of the Ritz vector i in the basis.
    n_grown : int
        Number of vectors added, including those that restarts removed.
    """

    def __init__(self, products: Products, n_bottom: int, n_top: int, outside: Tensor | None = None) -> None:
        self.products = products
        self.n_bottom, self.n_top = n_bottom, n_top
        self.outside = () if outside is None else (outside,)
        spare = min(max(_NUMBERS // products.n_params, _SPARE), _MORE)
        self.capacity = min(products.n_params, 2 * (n_bottom + n_top) + spare)
        shape = (self.capacity, products.n_params)
        self.basis = torch.empty(shape, dtype=products.dtype, device=products.device)
        self.images = torch.empty_like(self.basis)
        self.projected = np.zeros((self.capacity, self.capacity))
        self.values, self.coefficients = np.empty(0), np.empty((0, 0))
        self.size = self.n_grown = 0

    def grow(self, direction: Tensor) -> None:
        """Add a direction, or a random one if the span already holds it. This costs one product."""
        vector = orthonormalise(direction, *self.outside, self.basis[: self.size])
        if not vector.any():
            vector = orthonormalise(self.products.random(), *self.outside, self.basis[: self.size])
        self.add(vector, self.products(vector))

    def add(self, vector: Tensor, image: Tensor) -> None:
        """Add a unit vector that is orthogonal to the basis and whose image is known."""
        if self.size == self.capacity:
            self._restart()
        self.basis[self.size], self.images[self.size] = vector, image
        self.size += 1
        self.n_grown += 1
        column = dots(self.basis[: self.size], image)
        self.projected[: self.size, self.size - 1] = self.projected[self.size - 1, : self.size] = column
        self.values, self.coefficients = np.linalg.eigh(self.projected[: self.size, : self.size])

    def wanted(self) -> list[int]:
        """Return the indices of the wanted Ritz pairs that exist so far."""
        bottom, top = min(self.n_bottom, self.size), max(self.size - self.n_top, 0)
        return sorted({*range(bottom), *range(top, self.size)})

    def vector(self, i: int) -> Tensor:
        """Return the Ritz vector i."""
        return combination(self.coefficients[:, i], self.basis[: self.size])

    def image(self, i: int) -> Tensor:
        """Return the image of the Ritz vector i."""
        return combination(self.coefficients[:, i], self.images[: self.size])

    def residual(self, i: int) -> Tensor:
        """Return H v - value v of the Ritz pair i."""
        return remainder(self.image(i) - float(self.values[i]) * self.vector(i), *self.outside)

    def squared_residuals(self) -> np.ndarray:
        """Return the squared norms of all residuals, plus what rounding may hide."""
        images = self.images[: self.size]
        gram = dots(images, images.T)
        squares = np.einsum("ij,ik,kj->j", self.coefficients, gram, self.coefficients) - self.values**2
        return np.maximum(squares, 0) + torch.finfo(images.dtype).eps * np.abs(self.values).max() ** 2

    def keep(self, indices: list[int]) -> None:
        """Reduce the subspace to the span of these Ritz vectors."""
        rotation = self.coefficients[:, indices].T
        for rows in (self.basis, self.images):
            for block in rows.split(_BLOCK, dim=1):  # in place: a copy would double the memory
                block[: len(indices)] = combination(rotation, block[: self.size])
        self.values = self.values[indices]
        self.size = len(indices)
        self.coefficients = np.eye(self.size)
        self.projected[: self.size, : self.size] = np.diag(self.values)

    def _restart(self) -> None:
        """Reduce the subspace to the wanted pairs and, at their ends, half of the others."""
        wanted = self.n_bottom + self.n_top
        share = (self.capacity - wanted) // 2 / wanted
        bottom = self.n_bottom + int(share * self.n_bottom)
        top = self.n_top + int(share * self.n_top)
        self.keep([*range(bottom), *range(self.size - top, self.size)])


# Number of columns that are rotated at once.
_BLOCK = 2**16


def extreme_eigenpairs(
    products: Products, n_bottom: int, n_top: int, tol: float, start: Tensor | None = None
) -> Eigenpairs:
    """Find the ``n_bottom`` smallest and the ``n_top`` largest eigenvalues, counted with their multiplicity.

    Parameters
    ----------
    products : Products
        The operator, with a budget of at least n_bottom + n_top products.
    n_bottom, n_top : int
        Numbers of smallest and largest eigenvalues. Their sum is at least 1 and at most the dimension.
    tol : float
        Largest residual norm relative to the eigenvalue; see `tolerances`.
    start : Tensor of shape (dimension,), default=None
        A sum of eigenvectors of a nearby operator, from which the subspace starts. The second search is then shorter.
        It starts at random in any case, so that it finds what the sum lacks. None starts from a random vector.

    Returns
    -------
    Eigenpairs
        The wanted pairs and how the search ended.
    """
    space = RitzSpace(products, n_bottom, n_top)
    complete, share = False, 0.1
    chance = _OVERLOOKED if start is None else _OVERLOOKED_NEARBY
    try:
        space.grow(products.random() if start is None else start)
        while not complete:
            direction = _unconverged(space, tol)
            if space.size == products.n_params:
                complete = True
            elif direction is not None:
                space.grow(direction)
            elif space.size < n_bottom + n_top:
                space.grow(products.random())
            else:
                complete = not _add_overlooked(space, tol, share, chance)
                share /= 10  # no margin for a second false alarm
    except BudgetSpent:
        pass
    return _eigenpairs(space, tol, complete)


def tolerances(values: np.ndarray, tol: float, dtype: torch.dtype) -> np.ndarray:
    """Return the residual norms at which eigenvalues count as converged.

    The norm is ``tol`` times the eigenvalue. For eigenvalues below a hundredth of the largest one, it is tol / 100
    times the largest one. It is never less than what rounding allows.
    """
    sizes = np.abs(values)
    return np.maximum(tol * sizes, max(tol / 100, _ATTAINABLE[dtype]) * sizes.max())


def _unconverged(space: RitzSpace, tol: float) -> Tensor | None:
    """Return the residual of a wanted pair that has not converged; None if all pairs have.

    From one start all residuals are parallel. The inner ends of the wanted pairs converge last, so they come first
    here.
    """
    allowed = tolerances(space.values, tol, space.basis.dtype)
    for i in sorted(space.wanted(), key=lambda i: abs(i - space.size / 2)):
        residual = space.residual(i)
        if norm(residual) > allowed[i]:
            return residual
    return None


def _add_overlooked(space: RitzSpace, tol: float, share: float, chance: float) -> bool:
    """Look for eigenvectors beyond the wanted ones in the complement; add them, and say whether there were any."""
    ends = _ends(space, tol, share)
    _set_aside(space, ends)
    rounding = 10 * torch.finfo(space.basis.dtype).eps * np.abs(space.values).max()
    rest = RitzSpace(space.products, min(space.n_bottom, 1), min(space.n_top, 1), outside=space.basis[: space.size])
    rest.grow(space.products.random())
    while True:
        beyond, undecided = [], None
        for end in ends:
            distance = end.side * (end.bound - rest.values[end.position])
            if distance < 0:
                beyond.append(end.position)
            elif rest.size + space.size < space.products.n_params:
                residual = rest.residual(end.position)
                if not _decided(rest, distance, norm(residual), end.slack, rounding, chance):
                    undecided = residual
        if beyond or undecided is None:
            break
        rest.grow(undecided)
    for i in beyond:
        space.add(rest.vector(i), rest.image(i))
    return bool(beyond)


class _End(NamedTuple):
    """One end of the spectrum, for the search beyond it.

    ``position`` (0 or -1) and ``side`` (-1 or 1) locate its extreme eigenvalue. ``inner`` is the innermost wanted
    eigenvalue at this end, and ``slack`` its tolerance. ``margin`` is what setting pairs aside may cost. An eigenvalue
    of the complement beyond ``bound`` may be one that was overlooked.
    """

    position: int
    side: int
    inner: float
    slack: float
    margin: float
    bound: float


def _ends(space: RitzSpace, tol: float, share: float) -> list[_End]:
    allowed = tolerances(space.values, tol, space.basis.dtype)
    ends = []
    for side, n_wanted in ((1, space.n_top), (-1, space.n_bottom)):
        if n_wanted:
            order = np.argsort(-side * space.values)
            inner, slack = space.values[order[n_wanted - 1]], allowed[order[n_wanted - 1]]
            following = space.values[order[min(n_wanted, space.size - 1)]]
            margin = max(slack / 2, share * side * (inner - following))
            bound = inner + side * (slack - margin)
            ends.append(_End(-1 if side > 0 else 0, side, inner, slack, margin, bound))
    return ends


def _set_aside(space: RitzSpace, ends: list[_End]) -> None:
    """Reduce the space to the wanted pairs and to pairs whose coupling to the complement is weak.

    Let H have an eigenvalue mu beyond the wanted ones. If Ritz values t_i < mu with residuals r_i are set aside, the
    complement has an eigenvalue of at least mu - sum_i |r_i|^2 / (mu - t_i). So pairs are set aside while the sum is
    below the margin.
    """
    wanted = space.wanted()
    squares, costs = space.squared_residuals(), np.zeros(space.size)
    for end in ends:
        distances = np.maximum(end.side * (end.inner - space.values), 0)
        costs = np.maximum(costs, squares / np.maximum(distances * end.margin, 1e-150))
    costs[wanted] = 0
    order = np.argsort(costs)
    space.keep(sorted(order[np.cumsum(costs[order]) <= 1]))


def _decided(rest: RitzSpace, distance: float, residual: float, slack: float, rounding: float, chance: float) -> bool:
    """Say whether the extreme Ritz pair of the complement, ``distance`` inside the bound, rules out any beyond it.

    A random start in n dimensions has a component of at least delta / sqrt(n) along an eigenvector beyond the bound,
    except with a probability of delta, the ``chance``. Let the rest of the spectrum stay in an interval of width w that
    ends a gap g before the bound. Then m products magnify the component by the Chebyshev polynomial T_m(1 + 2 g / w) or
    more (Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1992). Once it stands out ten times, it would be
    the Ritz vector.
    """
    if residual <= rounding:  # an invariant subspace, in which every eigenspace of the complement has shown itself
        return True
    gap = distance - residual
    restarted = rest.n_grown > rest.size
    if gap > 0 and not restarted:
        width = rest.values[-1] - rest.values[0] + 2 * residual
        needed = np.arccosh(10 * np.sqrt(rest.products.n_params) / chance) / np.arccosh(1 + 2 * gap / width)
        if rest.size > needed:
            return True
    # The extreme eigenvalue of the complement nearly equals the bound, and no larger one converged before it.
    return residual <= slack and (gap <= 0 or rest.n_grown >= rest.capacity)


def _eigenpairs(space: RitzSpace, tol: float, complete: bool) -> Eigenpairs:
    wanted = space.wanted()
    vectors = torch.stack([space.vector(i) for i in wanted])
    residuals = np.array([norm(space.residual(i)) for i in wanted])
    within = residuals <= tolerances(space.values, tol, space.basis.dtype)[wanted]
    if complete and space.size == space.products.n_params:
        status = "all eigenpairs converged in the whole space"
    elif complete:
        status = "all eigenpairs converged, and a second search found no others"
    elif within.all() and len(wanted) == space.n_bottom + space.n_top:
        status = "all eigenpairs converged, but the budget of products ended before the second search for others did"
    else:
        n_asked = space.n_bottom + space.n_top
        status = f"{within.sum()} of {n_asked} eigenpairs converged before the budget of products ended"
    return Eigenpairs(space.values[wanted], vectors, residuals, complete, status)
