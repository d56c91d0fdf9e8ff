import numpy as np
import pytest
import torch

from sklgap.inspection._krylov import BudgetSpent, Products, combination, dots, norm, orthonormalise, unit
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_used", [2, 3, 5])
def test_a_vector_of_the_span_leaves_no_direction(dtype, n_used):
    # All vectors have the same few coordinates, as the images of a Hessian of a net with dead units: once these are
    # spanned, what is left is rounding within them, and made as long as one it would be anything but orthogonal.
    generator = torch.Generator().manual_seed(0)
    vectors = torch.zeros(n_used + 4, 100, dtype=dtype)
    vectors[:, :n_used] = torch.randn(n_used + 4, n_used, generator=generator, dtype=dtype)
    basis = torch.zeros(n_used + 4, 100, dtype=dtype)
    for i, v in enumerate(vectors):
        basis[i] = orthonormalise(v, basis[:i])
    gram = dots(basis, basis.T)
    np.testing.assert_allclose(gram, np.diag([1.0] * n_used + [0.0] * 4), atol=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-30), (torch.float64, 1e-200), (torch.float32, 1e30)])
def test_a_unit_vector_whose_squares_are_not_numbers(dtype, size):
    v = size * torch.tensor([3.0, 4.0], dtype=dtype)
    torch.testing.assert_close(unit(v), torch.tensor([0.6, 0.8], dtype=dtype))
    assert not unit(torch.zeros(2, dtype=dtype)).any()


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
