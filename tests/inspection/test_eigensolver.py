import numpy as np
import pytest
import torch

from sklgap.inspection import _eigensolver
from sklgap.inspection._eigensolver import extreme_eigenpairs
from sklgap.inspection._krylov import Products
from tests.pairs import product

TOL = 1e-4


class Diagonal:
    """What Products wants of an objective, with a diagonal Hessian."""

    device = torch.device("cpu")

    def __init__(self, curvatures, dtype):
        self.curvatures = torch.as_tensor(curvatures, dtype=dtype)
        self.n_params, self.dtype = len(curvatures), dtype

    def hessian_operator(self):
        return lambda v: self.curvatures * v


def _solve(curvatures, n_bottom, n_top, seed=0, dtype=torch.float64, budget=5000):
    products = Products(Diagonal(curvatures, dtype), np.random.RandomState(seed), budget=budget)
    return extreme_eigenpairs(products, n_bottom, n_top, TOL), products.n_products


def _expected(curvatures, n_bottom, n_top):
    ordered = np.sort(curvatures)
    return np.r_[ordered[:n_bottom], ordered[len(ordered) - n_top :]]


BULK = np.linspace(-0.1, 0.1, 120)
SPECTRA = {
    "distinct": np.r_[5, 4, 3, 2, BULK, -1, -2],
    "double at the top": np.r_[5, 5, 3, 2, BULK, -1],
    "double at the border": np.r_[5, 4, 3, 3, 3, BULK],
    "triple at both ends": np.r_[5, 5, 5, 3, BULK, -2, -2, -2],
    "split by a trillionth": np.r_[5, 5 - 5e-12, 3, 3 - 3e-12, BULK],
    "twenty-fold": np.r_[[7.0] * 20, BULK],
    "all equal": np.full(120, 3.0),
    "all negative": -np.r_[5, 5, 4, 0.5, 0.5, np.linspace(0.6, 1, 120)],
    "of rank 3": np.r_[5, 5, 3, np.zeros(120)],
    "of rank 2 and definite signs": np.r_[5, -5, np.zeros(120)],
    "crowded, double": np.r_[5, 5 - 1e-9, 5 - 2e-3, 4.99, np.linspace(0, 4.9, 150)],
    "a power law of doubles": np.repeat(1 / np.arange(1, 76), 2),
    "zero": np.zeros(50),
}
ENDS = [(0, 1), (0, 3), (0, 5), (3, 0), (3, 3)]


WAYS = {"double": torch.float64, "single": torch.float32, "restarts": torch.float64}


@pytest.mark.parametrize(("name", "way", "ends"), product(SPECTRA, WAYS, ENDS))
def test_no_eigenvalue_is_missed_or_doubled(name, way, ends, monkeypatch):
    if way == "restarts":
        monkeypatch.setattr(_eigensolver, "_MORE", _eigensolver._SPARE)
    curvatures, dtype, (n_bottom, n_top) = SPECTRA[name], WAYS[way], ends
    if name == "a power law of doubles":
        n_bottom, n_top = 0, n_top or n_bottom  # its lower end is 1e-4 of the largest eigenvalue wide
    seed = ENDS.index(ends)
    pairs, n_products = _solve(curvatures, n_bottom, n_top, seed, dtype)
    assert pairs.converged, pairs.status
    expected = _expected(curvatures, n_bottom, n_top)
    np.testing.assert_allclose(pairs.values, expected, rtol=TOL, atol=TOL / 100 * np.abs(curvatures).max())
    gram = (pairs.vectors @ pairs.vectors.T).double().numpy()
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=100 * torch.finfo(dtype).eps)
    residuals = pairs.vectors * torch.as_tensor(curvatures, dtype=dtype) - (
        torch.from_numpy(pairs.values).to(dtype)[:, None] * pairs.vectors
    )
    np.testing.assert_allclose(pairs.residuals, residuals.norm(dim=1), rtol=1e-3, atol=3e-6 * np.abs(curvatures).max())
    assert n_products < 600


def test_random_spectra():
    # Overlooked with a probability of 0.001 each.
    rng = np.random.default_rng(0)
    for seed in range(30):
        repeated = np.repeat(rng.uniform(0.5, 3, size=4), rng.integers(1, 4, size=4))
        bulk = [0.2 * rng.normal(size=300), np.exp(-rng.exponential(3, size=300)) / 2, 1 / np.arange(2, 302)][seed % 3]
        curvatures, n_top = np.r_[repeated, bulk], int(rng.integers(1, 8))
        pairs, _ = _solve(curvatures, 0, n_top, seed, [torch.float64, torch.float32][seed % 2])
        np.testing.assert_allclose(pairs.values, _expected(curvatures, 0, n_top), rtol=TOL)


def test_few_products_where_eigenvalues_are_separate():
    curvatures = np.r_[16, 8, 4, 2, 1, np.linspace(-0.05, 0.05, 20_000)]
    pairs, n_products = _solve(curvatures, 0, 5)
    assert (pairs.converged, pairs.status) == (True, "all eigenpairs converged, and a second search found no others")
    assert n_products <= 25  # 5 eigenvalues in 9, and 7 more until none can have been overlooked


def test_the_whole_spectrum():
    curvatures = np.r_[3, 3, 1, 0, 0, -2]
    for n_bottom, n_top in ((6, 0), (0, 6), (2, 4)):
        pairs, n_products = _solve(curvatures, n_bottom, n_top)
        np.testing.assert_allclose(pairs.values, np.sort(curvatures), atol=1e-12)
        assert n_products == 6


def test_what_a_spent_budget_leaves():
    curvatures = np.r_[5, 4.9, 4.8, np.linspace(0, 4.7, 500)]
    pairs, n_products = _solve(curvatures, 0, 3, budget=12)
    assert (n_products, pairs.converged) == (12, False)
    assert pairs.status == "0 of 3 eigenpairs converged before the budget of products ended"
    exact = pairs.vectors * torch.from_numpy(curvatures) - torch.from_numpy(pairs.values)[:, None] * pairs.vectors
    np.testing.assert_allclose(pairs.residuals, exact.norm(dim=1), rtol=1e-10)


def test_a_budget_spent_in_the_second_search():
    curvatures = np.r_[16, 16, 4, 2, 1, np.linspace(-0.05, 0.05, 20_000)]
    _, enough = _solve(curvatures, 0, 2)
    pairs, n_products = _solve(curvatures, 0, 2, budget=enough - 1)
    assert (n_products, pairs.converged) == (enough - 1, False)
    assert (
        pairs.status
        == "all eigenpairs converged, but the budget of products ended before the second search for others did"
    )
    np.testing.assert_allclose(pairs.values, [16, 16], rtol=TOL)
