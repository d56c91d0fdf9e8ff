import numpy as np
import pytest
import torch

from sklgap.inspection._krylov import BudgetSpent, Products, combination, dots, norm, orthonormalise
from sklgap.objective import Objective
from tests.cases import PROBLEMS

# n terms summed in blocks of 2 ** 14 float32 numbers: a rounding unit or two relative to the lengths.
SINGLE_SUMS = 3e-7


def test_sums_of_a_million_terms_in_float32():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 10**6, generator=generator)
    rows /= rows.double().norm(dim=1, keepdim=True).float()
    exact = rows.double() @ rows.double().T
    assert dots(rows, rows[1]).dtype == np.float64
    np.testing.assert_allclose(dots(rows, rows[1]), exact[1], atol=SINGLE_SUMS)
    np.testing.assert_allclose(dots(rows, rows.T), exact, atol=SINGLE_SUMS)
    assert norm(3 * rows[0]) == pytest.approx(3, rel=5 * SINGLE_SUMS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthonormalise(dtype):
    eps = torch.finfo(dtype).eps
    basis = torch.linalg.qr(torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=dtype))[0].T
    short = combination(np.ones(6), basis) + 100 * eps * torch.ones(500, dtype=dtype)  # almost within the span
    q = orthonormalise(short, basis[:3], basis[3:])
    assert q.dtype == dtype
    assert np.abs(dots(basis, q)).max() < 10 * eps
    assert norm(q) == pytest.approx(1, abs=10 * eps)
    assert not orthonormalise(torch.zeros(500, dtype=dtype), basis).any()


def test_products_are_counted_and_end():
    module, criterion, X, y = PROBLEMS["tanh"]()
    objective = Objective(module, criterion, (X, y))
    with Products(objective, np.random.RandomState(0), budget=2) as products:
        v = products.random()
        assert torch.equal(products(v), objective.hessian_operator()(v))
        products(v)
        with pytest.raises(BudgetSpent):
            products(v)
    assert products.n_products == 2
