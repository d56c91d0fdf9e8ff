"""Extreme eigenpairs of a symmetric operator that is known by its products, multiple eigenvalues included.

Rayleigh-Ritz in a subspace that grows by one product at a time, in the direction of the residual of a wanted pair that
has not converged. From one start this is Lanczos' method with full orthogonalisation; a full subspace is reduced to
its best Ritz vectors and grows again (thick restart: Wu and Simon, SIAM J. Matrix Anal. Appl. 22, 2000).

Such a subspace holds one vector of each eigenspace at most: of a double eigenvalue it never sees the second copy. So
once all wanted pairs have converged, everything found is set aside and a second subspace is grown from a random start
in the orthogonal complement. What it sees beyond the wanted eigenvalues joins the first subspace; it ends when an
eigenvector beyond them would have shown itself. Since the second subspace need not find the next eigenvalues, which
are set aside too, that takes a fraction of the first search, commonly about 10 products.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklgap.inspection._krylov import BudgetSpent, Products, combination, dots, norm, orthonormalise, remainder

# Vectors that a subspace holds beside twice those wanted: more, up to the second number, where they are short enough
# to be less than the third in numbers.
_SPARE, _MORE, _NUMBERS = 20, 100, 2**22
# Probability that the second search overlooks an eigenvector beyond the wanted ones; after a start from those of an
# operator nearby, which was searched too, it need not be as small.
_OVERLOOKED, _OVERLOOKED_NEARBY = 1e-3, 0.05
# Residuals that rounding leaves, relative to the largest eigenvalue: measured on nets with batch norm.
_ATTAINABLE = {torch.float32: 3e-6, torch.float64: 1e-13}


class Eigenpairs(NamedTuple):
    """Eigenvalues in ascending order, eigenvectors as rows, residual norms, and how the search ended."""

    values: np.ndarray
    vectors: Tensor
    residuals: np.ndarray
    converged: bool
    status: str


class RitzSpace:
    """An orthonormal basis, its images under the operator, and the Ritz pairs of the two.

    Parameters
    ----------
    products : Products
        The operator.
    n_bottom, n_top : int
        Ritz pairs at either end that a restart must keep.
    outside : Tensor of shape (m, n), default=None
        The basis stays orthogonal to these orthonormal rows, and residuals are taken without their components: the
        operator is its compression to their orthogonal complement.

    Attributes
    ----------
    values : ndarray of shape (size,)
        Ritz values, ascending.
    coefficients : ndarray of shape (size, size)
        Column i: the Ritz vector i in the basis.
    n_grown : int
        Vectors added, those that restarts removed included.
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
        """Add a direction, or a random one where that is in the span already: one product."""
        vector = orthonormalise(direction, *self.outside, self.basis[: self.size])
        if not vector.any():
            vector = orthonormalise(self.products.random(), *self.outside, self.basis[: self.size])
        self.add(vector, self.products(vector))

    def add(self, vector: Tensor, image: Tensor) -> None:
        """Add a unit vector orthogonal to the basis, whose image is known."""
        if self.size == self.capacity:
            self._restart()
        self.basis[self.size], self.images[self.size] = vector, image
        self.size += 1
        self.n_grown += 1
        column = dots(self.basis[: self.size], image)
        self.projected[: self.size, self.size - 1] = self.projected[self.size - 1, : self.size] = column
        self.values, self.coefficients = np.linalg.eigh(self.projected[: self.size, : self.size])

    def wanted(self) -> list[int]:
        """Return the indices of the wanted Ritz pairs, as far as there are so many."""
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
        """Return the squared norms of all residuals, with what rounding may hide added."""
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
        """Keep the wanted pairs and, at their ends, half of the others."""
        wanted = self.n_bottom + self.n_top
        share = (self.capacity - wanted) // 2 / wanted
        bottom = self.n_bottom + int(share * self.n_bottom)
        top = self.n_top + int(share * self.n_top)
        self.keep([*range(bottom), *range(self.size - top, self.size)])


# Columns rotated at once.
_BLOCK = 2**16


def extreme_eigenpairs(
    products: Products, n_bottom: int, n_top: int, tol: float, start: Tensor | None = None
) -> Eigenpairs:
    """Find the ``n_bottom`` smallest and the ``n_top`` largest eigenvalues, each as often as it is one.

    Parameters
    ----------
    products : Products
        The operator, with a budget of at least n_bottom + n_top products.
    n_bottom, n_top : int
        Together at least 1 and at most the dimension.
    tol : float
        Largest residual norm relative to the eigenvalue; see `tolerances`.
    start : Tensor of shape (dimension,), default=None
        A sum of eigenvectors of an operator nearby: the subspace begins with it, and the second search is shorter. It
        begins at random in any case, so that what the sum lacks is found. None: a random vector.

    Returns
    -------
    Eigenpairs
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

    ``tol`` times the eigenvalue; for those below a hundredth of the largest, tol / 100 times the largest; and never
    less than what rounding allows.
    """
    sizes = np.abs(values)
    return np.maximum(tol * sizes, max(tol / 100, _ATTAINABLE[dtype]) * sizes.max())


def _unconverged(space: RitzSpace, tol: float) -> Tensor | None:
    """Return the residual of a wanted pair that has not converged; None if all have.

    From one start all residuals are parallel. The inner ends of the wanted pairs converge last and are looked at first.
    """
    allowed = tolerances(space.values, tol, space.basis.dtype)
    for i in sorted(space.wanted(), key=lambda i: abs(i - space.size / 2)):
        residual = space.residual(i)
        if norm(residual) > allowed[i]:
            return residual
    return None


def _add_overlooked(space: RitzSpace, tol: float, share: float, chance: float) -> bool:
    """Look for eigenvectors beyond the wanted ones in the orthogonal complement; add them and say whether there are."""
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

    ``position`` (0 or -1) and ``side`` (-1 or 1) of its extreme eigenvalue; the ``inner`` most wanted eigenvalue there
    and its tolerance ``slack``; the ``margin`` that setting aside may cost; and the ``bound``: an eigenvalue of the
    complement beyond it may be one that was overlooked.
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
    """Reduce the space to the wanted pairs and to those whose coupling to the complement is weak.

    Let H have an eigenvalue mu beyond the wanted ones. With Ritz values t_i < mu and residuals r_i set aside, the
    complement has one of at least mu - sum_i |r_i|^2 / (mu - t_i): pairs are set aside while the sum is below margin.
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
    """Say whether the extreme Ritz pair of the complement, ``distance`` inside the bound, shows that none is beyond.

    An eigenvector beyond the bound has, in a random start in n dimensions, a component of at least delta / sqrt(n) but
    for a probability of delta, the ``chance``. While the rest of the spectrum keeps to an interval of width w that ends
    a gap g before the bound, m products magnify it by the Chebyshev polynomial T_m(1 + 2 g / w) or more (Kuczynski and
    Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1992): by then it stands out ten times and would be the Ritz vector.
    """
    if residual <= rounding:  # an invariant subspace: every eigenspace of the complement has shown itself
        return True
    gap = distance - residual
    restarted = rest.n_grown > rest.size
    if gap > 0 and not restarted:
        width = rest.values[-1] - rest.values[0] + 2 * residual
        needed = np.arccosh(10 * np.sqrt(rest.products.n_params) / chance) / np.arccosh(1 + 2 * gap / width)
        if rest.size > needed:
            return True
    # The complement's extreme eigenvalue all but equals the bound: no larger one before it converged.
    return residual <= slack and (gap <= 0 or rest.n_grown >= rest.capacity)


def _eigenpairs(space: RitzSpace, tol: float, complete: bool) -> Eigenpairs:
    wanted = space.wanted()
    vectors = torch.stack([space.vector(i) for i in wanted])
    residuals = np.array([norm(space.residual(i)) for i in wanted])
    within = residuals <= tolerances(space.values, tol, space.basis.dtype)[wanted]
    if complete and space.size == space.products.n_params:
        status = "all converged in the whole space"
    elif complete:
        status = "all converged, and a second search found no others"
    elif within.all() and len(wanted) == space.n_bottom + space.n_top:
        status = "all converged, but the products were spent before the second search for others ended"
    else:
        n_asked = space.n_bottom + space.n_top
        status = f"{within.sum()} of {n_asked} converged when the products were spent"
    return Eigenpairs(space.values[wanted], vectors, residuals, complete, status)
