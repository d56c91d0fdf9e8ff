import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import ritz_values, sharpness
from sklgap.objective import Objective, Subspace, check_objective, random_subspace
from tests.cases import FOUR_CHUNKS, POLICIES, PROBLEMS, no_global_random_numbers, seeded_module, vectors
from tests.inspection.curvature import exact_hessian
from tests.landscapes import vector

# The basis is orthonormal to rounding.
DOUBLE = {"rtol": 1e-9, "atol": 1e-12}


def _reference(hessian, basis):
    q = np.linalg.qr(np.asarray(basis, dtype=float).T)[0]
    return np.linalg.eigvalsh(q.T @ hessian.numpy() @ q)[::-1]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["tanh", "batch_norm"])
def test_against_the_dense_hessian(name, policy):
    module, criterion, X, y = PROBLEMS[name]()
    hessian = exact_hessian(name, policy, FOUR_CHUNKS)
    options = {"batch_norm": policy, "chunk_size": FOUR_CHUNKS}
    record = ritz_values((module, criterion), X, y, subspace_dim=7, random_state=3, **options)
    A = random_subspace(Objective(module, criterion, (X, y)).theta0, 7, random_state=3)
    np.testing.assert_allclose(record.values, _reference(hessian, A.basis), **DOUBLE)
    assert (record.subspace_dim, record.n_products, record.n_samples, record.batch_norm) == (7, 7, 23, policy)


def test_rows_and_directions_are_drawn_as_sharpness_draws_them():
    module, criterion, X, y = PROBLEMS["tanh"]()
    rng = np.random.RandomState(3)
    objective = check_objective((module, criterion), X, y, max_samples=15, random_state=rng)
    restricted = objective.restrict(random_subspace(objective.theta0, 7, random_state=rng))
    record = ritz_values((module, criterion), X, y, subspace_dim=7, max_samples=15, random_state=3)
    np.testing.assert_allclose(record.values, ritz_values(restricted).values, rtol=1e-9)
    options = {"epsilon": 0.1, "solver": "power", "max_samples": 15, "random_state": 3}
    full, own = (
        sharpness((module, criterion), X, y, subspace_dim=7, **options),
        sharpness(restricted, epsilon=0.1, solver="power"),
    )
    assert full.value == pytest.approx(own.value, rel=1e-12)


def test_the_full_space_has_the_eigenvalues():
    module, criterion, X, y = PROBLEMS["tanh"]()
    hessian = exact_hessian("tanh")
    record = ritz_values((module, criterion), X, y, subspace_dim=43)
    np.testing.assert_allclose(record.values, torch.linalg.eigvalsh(hessian).flip(0), atol=1e-10)
    assert ritz_values((module, criterion), X, y).subspace_dim == 43  # 100, or as many as there are


def test_the_default_is_the_papers():
    module, (X, y) = seeded_module(lambda: nn.Linear(40, 3)), vectors(n_features=40)
    assert ritz_values((module, nn.CrossEntropyLoss()), X, y).values.shape == (100,)


def test_an_objective_that_is_restricted_already_whatever_its_scaling():
    module, criterion, X, y = PROBLEMS["tanh"]()
    hessian = exact_hessian("tanh")
    objective = Objective(module, criterion, (X, y))
    basis = torch.stack([vector(43, seed) for seed in range(5)])
    mixed = (vector(25, 9).reshape(5, 5) + 3 * torch.eye(5)) @ basis * 1e3
    for rows in (basis, mixed):
        record = ritz_values(objective.restrict(Subspace(objective.theta0, rows)))
        np.testing.assert_allclose(record.values, _reference(hessian, basis), rtol=1e-8)
    elsewhere = ritz_values(objective.restrict(Subspace(objective.theta0 + 1, basis)))
    assert not np.allclose(elsewhere.values, record.values)


def test_float32():
    module, criterion, X, y = PROBLEMS["batch_norm"]()
    exact, rough = (
        ritz_values((module, criterion), X, y, subspace_dim=5, random_state=0, dtype=dtype).values
        for dtype in (torch.float64, torch.float32)
    )
    np.testing.assert_allclose(rough, exact, atol=1e-4 * np.abs(exact).max())


def test_repeatable_and_progress(capsys):
    module, criterion, X, y = PROBLEMS["tanh"]()
    with no_global_random_numbers():
        first, again, other = (
            ritz_values((module, criterion), X, y, subspace_dim=5, max_samples=15, random_state=seed)
            for seed in (0, 0, 1)
        )
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
    assert first.n_samples == 15
    assert capsys.readouterr() == ("", "")
    ritz_values((module, criterion), X, y, subspace_dim=5, verbose=1)
    assert "5/5" in capsys.readouterr().err


@pytest.mark.parametrize("dim", [0, 44, 2.0])
def test_a_bad_dimension(dim):
    module, criterion, X, y = PROBLEMS["tanh"]()
    with pytest.raises(ValueError, match="subspace_dim must be an integer between 1 and 43, the number of parameters"):
        ritz_values((module, criterion), X, y, subspace_dim=dim)


def test_a_dimension_beside_a_restricted_objective():
    module, criterion, X, y = PROBLEMS["tanh"]()
    objective = Objective(module, criterion, (X, y))
    restricted = objective.restrict(Subspace(objective.theta0, torch.ones(1, 43)))
    with pytest.raises(ValueError, match="subspace_dim must be None for an Objective that is already restricted"):
        ritz_values(restricted, subspace_dim=1)


def test_dependent_directions():
    module, criterion, X, y = PROBLEMS["tanh"]()
    objective = Objective(module, criterion, (X, y))
    for rows in ([[1.0] * 43, [2.0] * 43], [[0.0] * 43]):
        with pytest.raises(ValueError, match="must be linearly independent"):
            ritz_values(objective.restrict(Subspace(objective.theta0, torch.tensor(rows).double())))
