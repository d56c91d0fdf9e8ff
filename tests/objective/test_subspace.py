import numpy as np
import pytest
import torch

from sklgap.objective import Subspace, _subspace, random_subspace
from tests.cases import BIT_FOR_BIT, DOUBLE, SINGLE, no_global_random_numbers


def _origin(n=17, dtype=torch.float64):
    return torch.linspace(-1, 1, n, dtype=dtype)


def test_the_affine_map_its_transpose_and_its_directions():
    rng = np.random.default_rng(0)
    A, z, v = (torch.from_numpy(rng.normal(size=shape)) for shape in ((17, 3), 3, 17))
    subspace = Subspace(_origin(), A.T)
    assert subspace.dim == 3
    torch.testing.assert_close(subspace(z), _origin() + A @ z, **DOUBLE)
    torch.testing.assert_close(subspace.directions(z), A @ z, **DOUBLE)
    torch.testing.assert_close(subspace.transpose(v), A.T @ v, **DOUBLE)


@pytest.mark.parametrize("block", [2**22, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
def test_pseudo_inverse_against_numpy(monkeypatch, block, dtype, tolerance):
    monkeypatch.setattr(_subspace, "_BLOCK", block)  # 8: blocks of two columns, the last of one
    subspace = random_subspace(_origin(dtype=dtype), 4, random_state=0)
    v = torch.from_numpy(np.random.default_rng(1).normal(size=17)).to(dtype)
    expected = np.linalg.pinv(subspace.basis.double().numpy().T) @ v.double().numpy()
    result = subspace.pseudo_inverse(v)
    assert result.dtype == dtype
    torch.testing.assert_close(result, torch.from_numpy(expected).to(dtype), **tolerance)


def test_pseudo_inverse_undoes_directions():
    subspace = random_subspace(_origin(), 5, random_state=0)
    z = torch.arange(5.0, dtype=torch.float64)
    torch.testing.assert_close(subspace.pseudo_inverse(subspace.directions(z)), z, **DOUBLE)


def test_dependent_columns():
    row = torch.ones(1, 17, dtype=torch.float64)
    subspace = Subspace(_origin(), torch.cat([row, 2 * row]))
    with pytest.raises(ValueError, match="directions of the subspace must be linearly independent; they are not"):
        subspace.pseudo_inverse(_origin())


def test_gaussian_entries():
    basis = random_subspace(torch.zeros(4000), 5, random_state=0).basis
    # 20,000 entries of N(0, 1): five standard errors of the mean and of the mean square.
    assert abs(basis.mean()) < 5 / 20_000**0.5
    assert abs(basis.square().mean() - 1) < 5 * (2 / 20_000) ** 0.5


@pytest.mark.parametrize("dim", [1, 5, 17])
def test_orthonormal_spans_what_gaussian_spans(dim):
    gaussian = random_subspace(_origin(), dim, random_state=3).basis
    orthonormal = random_subspace(_origin(), dim, "orthonormal", random_state=3).basis
    torch.testing.assert_close(orthonormal @ orthonormal.T, torch.eye(dim, dtype=torch.float64), **DOUBLE)
    torch.testing.assert_close(gaussian @ orthonormal.T @ orthonormal, gaussian, **DOUBLE)
    assert orthonormal.is_contiguous()


@pytest.mark.parametrize("kind", ["gaussian", "orthonormal"])
def test_seeded_and_no_global_random_numbers(kind):
    rng = np.random.RandomState(0)
    with no_global_random_numbers():
        random_subspace(_origin(), 3, kind)
        first, again, other = (random_subspace(_origin(), 3, kind, random_state=seed).basis for seed in (0, 0, 1))
        stream = [random_subspace(_origin(), 3, kind, random_state=rng).basis for _ in range(2)]
    torch.testing.assert_close(first, again, **BIT_FOR_BIT)
    assert not torch.allclose(first, other)
    torch.testing.assert_close(stream[0], first, **BIT_FOR_BIT)
    assert not torch.allclose(stream[0], stream[1])


def test_dtype_follows_the_origin_and_the_draw_is_the_same():
    single = random_subspace(_origin(dtype=torch.float32), 3, random_state=0).basis
    double = random_subspace(_origin(), 3, random_state=0).basis
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, **BIT_FOR_BIT)


@pytest.mark.parametrize("dim", [0, 18, 2.0, True, "3", None])
def test_bad_dim(dim):
    with pytest.raises(
        ValueError, match="subspace_dim must be an integer between 1 and 17, the number of parameters; got "
    ):
        random_subspace(_origin(), dim)


def test_bad_kind():
    with pytest.raises(ValueError, match="subspace must be 'gaussian' or 'orthonormal'; got 'sphere'"):
        random_subspace(_origin(), 3, "sphere")
