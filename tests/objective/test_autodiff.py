from pathlib import Path

import pytest
import torch

import sklgap
from sklgap._typing import Aux, Batch
from sklgap.objective._autodiff import gradient_of, hessian_vector_product, pulled_back, value_and_grad
from tests.cases import DOUBLE

A = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, -1.0], [0.0, -1.0, 5.0]], dtype=torch.float64)
THETA = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
V = torch.tensor([0.3, 0.1, -1.0], dtype=torch.float64)


def quadratic(theta):
    return 0.5 * theta @ A @ theta + theta.sum()


def of_leaves(leaves):
    return quadratic(torch.cat([leaves["matrix"].flatten(), leaves["bias"]]))


def leaves():
    cut = {"unused": torch.ones(2), "matrix": THETA[:2].reshape(2, 1), "bias": THETA[2:]}
    return {name: p.to(THETA).clone().requires_grad_() for name, p in cut.items()}


def test_a_quadratic_in_closed_form():
    value, gradient = gradient_of(of_leaves, leaves())
    torch.testing.assert_close(value, quadratic(THETA), **DOUBLE)
    torch.testing.assert_close(gradient, torch.cat([torch.zeros(2).to(THETA), A @ THETA + 1]), **DOUBLE)
    torch.testing.assert_close(hessian_vector_product(quadratic, THETA, V), A @ V, **DOUBLE)
    assert not value.requires_grad
    assert not gradient.requires_grad


@pytest.mark.parametrize("function", [torch.sum, lambda theta: 2 * theta[0]])
def test_the_hessian_of_a_linear_function_is_zero(function):
    assert hessian_vector_product(function, THETA, V).tolist() == [0, 0, 0]


def test_it_works_under_no_grad_and_leaves_theta_alone():
    theta, parts = THETA.clone().requires_grad_(), leaves()
    with torch.no_grad():
        _, gradient = gradient_of(of_leaves, parts)
        product = hessian_vector_product(quadratic, theta, V)
    torch.testing.assert_close(gradient[2:], A @ THETA + 1, **DOUBLE)
    assert all(p.grad is None for p in parts.values())
    torch.testing.assert_close(product, A @ V, **DOUBLE)
    assert theta.grad is None


def test_value_and_grad_leaves_out_what_the_loss_does_not_depend_on():
    def loss_fn(params, buffers, batch):
        loss = (params["used"] * batch.X).sum()
        return loss, Aux(loss.detach(), batch.X, buffers)

    params = {"unused": torch.ones(2, requires_grad=True), "used": torch.ones(3, requires_grad=True)}
    buffers = {"b": torch.zeros(1)}
    gradients, aux = value_and_grad(loss_fn)(params, buffers, Batch(torch.arange(3.0), torch.zeros(3)))
    assert list(gradients) == ["used"]
    assert gradients["used"].tolist() == [0, 1, 2]
    assert aux.loss == 3
    assert aux.buffers is buffers
    assert all(p.grad is None for p in params.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shapes", [[(3,)], [(3,), ()], [(2, 3), (3,), (3, 1)]])
def test_vectors_times_a_jacobian_are_those_of_grad_outputs(dtype, shapes):
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(3, generator=generator, dtype=dtype).requires_grad_()
    outputs = [(theta * torch.randn((*shape, 3), generator=generator, dtype=dtype)).sin().sum(-1) for shape in shapes]
    vectors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    expected = torch.autograd.grad(outputs, [theta], vectors, retain_graph=True)
    torch.testing.assert_close(pulled_back(outputs, [theta], vectors), expected)


def test_products_of_one_output_are_those_of_grad_outputs_bit_for_bit():
    theta = THETA.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((theta**3).sum().exp(), [theta], create_graph=True)
    (expected,) = torch.autograd.grad(gradient, [theta], [V], retain_graph=True)
    with torch.no_grad():
        (found,) = pulled_back([gradient], [theta], [V], retain_graph=True)
    assert torch.equal(found, expected)
    assert torch.equal(pulled_back([gradient], [theta], [V])[0], expected)  # the graph was kept


def test_an_input_that_is_not_used_is_none():
    theta, other = THETA.clone().requires_grad_(), THETA.clone().requires_grad_()
    assert pulled_back([2 * theta], [other], [V], allow_unused=True) == (None,)


def test_no_other_file_differentiates():
    package = Path(sklgap.__file__).parent
    assert [p.name for p in package.rglob("*.py") if "torch.autograd.grad(" in p.read_text()] == ["_autodiff.py"]
