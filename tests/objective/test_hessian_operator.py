import numpy as np
import pytest
import torch
from torch import nn

from sklgap.objective import Objective, Subspace
from tests.cases import DOUBLE, FOUR_CHUNKS, ONE_CHUNK, POLICIES, PROBLEMS, SINGLE, vectors
from tests.inspection.curvature import exact_hessian
from tests.landscapes import landscape, linear, vector
from tests.pairs import product


def _objective(problem, **kwargs):
    module, criterion, X, y = problem
    return Objective(module, criterion, (X, y), **kwargs)


@pytest.mark.parametrize(("name", "policy", "chunk_size"), product(PROBLEMS, POLICIES, [ONE_CHUNK, FOUR_CHUNKS]))
def test_products_equal_those_of_the_dense_hessian(name, policy, chunk_size):
    problem = PROBLEMS[name]()
    hessian = exact_hessian(name, policy, chunk_size)
    product = _objective(problem, batch_norm=policy, chunk_size=chunk_size).hessian_operator()
    for seed in range(3):  # the graph serves several products
        v = vector(len(hessian), seed)
        torch.testing.assert_close(product(v), hessian @ v, **DOUBLE)


@pytest.mark.parametrize("chunk_size", [ONE_CHUNK, FOUR_CHUNKS])
def test_at_another_point_which_then_moves(chunk_size):
    objective = _objective(PROBLEMS["batch_norm"](), chunk_size=chunk_size)
    theta, v = objective.theta0 + 0.1 * vector(objective.n_params, 0), vector(objective.n_params, 1)
    expected = objective.hvp(v, theta)
    product = objective.hessian_operator(theta)
    theta.zero_()
    torch.testing.assert_close(product(v), expected, **DOUBLE)
    assert not torch.allclose(objective.hvp(v), expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_float32(policy):
    problem = PROBLEMS["batch_norm"]()
    exact, rough = (_objective(problem, batch_norm=policy, dtype=dtype) for dtype in (torch.float64, torch.float32))
    v = vector(exact.n_params, 0)
    product = rough.hessian_operator()(v.numpy())
    assert product.dtype == torch.float32
    torch.testing.assert_close(product.double(), exact.hessian_operator()(v), **SINGLE)


@pytest.mark.parametrize("chunk_size", [ONE_CHUNK, FOUR_CHUNKS])
def test_in_a_subspace(chunk_size):
    problem = PROBLEMS["tanh"]()
    hessian = exact_hessian("tanh")
    objective = _objective(problem, chunk_size=chunk_size)
    basis = torch.stack([vector(objective.n_params, seed) for seed in range(4)])
    restricted = objective.restrict(Subspace(objective.theta0, basis))
    product = restricted.hessian_operator()
    for v in (vector(4, 0), vector(4, 1)):
        torch.testing.assert_close(product(v.numpy()), basis @ hessian @ basis.T @ v, **DOUBLE)
        torch.testing.assert_close(restricted.hvp(v), product(v), **DOUBLE)


def test_a_linear_function_has_none():
    (module, criterion, X, y), *_ = linear()
    product = Objective(module, criterion, (X, y)).hessian_operator()
    assert product(torch.ones(6)).tolist() == [0.0] * 6


def test_a_parameter_without_effect():
    module, criterion, X, y = landscape(lambda theta: theta[:2].square().sum(), [1.0, 2.0, 3.0])
    product = Objective(module, criterion, (X, y)).hessian_operator()
    assert product(torch.ones(3)).tolist() == [2.0, 2.0, 0.0]


class Counting(nn.Module):
    """A linear model that counts the forward passes of all its copies."""

    n_passes = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, X):
        Counting.n_passes += 1
        return self.layer(X)


@pytest.mark.parametrize(("chunk_size", "n_passes"), [(ONE_CHUNK, 1), (FOUR_CHUNKS, 3 * 4)])
def test_one_chunk_is_evaluated_once(chunk_size, n_passes):
    objective = _objective((Counting(), nn.CrossEntropyLoss(), *vectors()), chunk_size=chunk_size)
    objective.check_second_derivatives()
    Counting.n_passes = 0
    product = objective.hessian_operator()
    for _ in range(3):
        product(torch.ones(objective.n_params))
    assert Counting.n_passes == n_passes


def test_the_module_is_left_alone():
    problem = PROBLEMS["batch_norm"]()
    before = {name: tensor.clone() for name, tensor in problem[0].state_dict().items()}
    objective = _objective(problem)
    objective.hessian_operator()(np.ones(objective.n_params))
    assert all(torch.equal(tensor, before[name]) for name, tensor in problem[0].state_dict().items())
    assert all(p.grad is None for p in problem[0].parameters())


def test_a_vector_of_another_length():
    product = _objective(PROBLEMS["tanh"]()).hessian_operator()
    with pytest.raises(ValueError, match=r"must have shape \(43,\); got \(2,\)"):
        product(torch.ones(2))
