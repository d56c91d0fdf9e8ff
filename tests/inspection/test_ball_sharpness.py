import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import ball_sharpness
from sklgap.objective import Objective, random_subspace
from tests.cases import PROBLEMS, no_global_random_numbers
from tests.inspection.flat_nets import dense_hessian, relu_net, rescaled
from tests.landscapes import landscape, vector
from tests.references import flat


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_linear_function_rises_by_the_length_of_its_scaled_slope(adaptive):
    start, slope = vector(6, 0, -2, 2), vector(6, 1)
    module, criterion, X, y = landscape(lambda t: 5 + slope @ t, start)
    scaled = slope * start.abs() if adaptive else slope
    record = ball_sharpness((module, criterion), X, y, rho=0.3, adaptive=adaptive, random_state=0)
    assert record.value == pytest.approx(0.3 * float(scaled.norm()), rel=1e-9)
    assert record.parameters == {"rho": 0.3, "adaptive": adaptive, "normalize_logits": False}


@pytest.mark.parametrize("rho", [0.01, 2.0])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_leading_eigenvalue_at_a_minimum(rho, adaptive):
    root = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 8)))
    hessian, start = root @ root.T, vector(8, 2, -2, 2)
    module, criterion, X, y = landscape(lambda t: (t - start) @ hessian @ (t - start) / 2, start)
    scale = start.abs() if adaptive else torch.ones_like(start)
    largest = torch.linalg.eigvalsh(scale[:, None] * hessian * scale)[-1]
    record = ball_sharpness((module, criterion), X, y, rho=rho, adaptive=adaptive, random_state=0)
    assert record.value == pytest.approx(rho**2 / 2 * float(largest), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_nets_in_a_small_ball_follow_their_quadratic_model(seed):
    (net, criterion), X, y = relu_net(seed=seed)
    pair, rho = (nn.Sequential(net[0], nn.Tanh(), net[2]), criterion), 1e-3
    gradient = Objective(*pair, (X, y)).gradient()[1]
    values, vectors = torch.linalg.eigh(dense_hessian(pair, X, y))
    g = vectors.T @ gradient
    low, high = float(values[-1].clamp_min(0)), float(values[-1].clamp_min(0) + g.norm() / rho)
    for _ in range(200):  # (mu - H) e = g has the length rho
        middle = (low + high) / 2
        low, high = (middle, high) if (g / (middle - values)).norm() > rho else (low, middle)
    e = g / (high - values)
    assert ball_sharpness(pair, X, y, rho=rho, random_state=0).value == pytest.approx(
        float(g @ e + values @ e**2 / 2), rel=1e-5
    )


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_random_point_of_the_ball_is_higher(name):
    module, criterion, X, y = PROBLEMS[name]()
    objective = Objective(module, criterion, (X, y))
    record = ball_sharpness(objective, rho=0.5, random_state=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        step = torch.randn(objective.n_params, generator=generator, dtype=torch.float64)
        assert objective.value(objective.theta0 + 0.5 * step / step.norm()) - record.f0 < record.value


def test_a_larger_ball_has_a_larger_value():
    pair, X, y = relu_net()
    values = [ball_sharpness(pair, X, y, rho=rho, random_state=0).value for rho in (0.01, 0.05, 0.2, 1.0)]
    assert values == sorted(values)
    assert values[0] > 0


@pytest.mark.parametrize("scale", [0.25, 8.0])
@pytest.mark.parametrize("seed", range(2))
def test_adaptive_balls_do_not_see_rescaled_layers(scale, seed):
    pair, X, y = relu_net(seed=seed)
    other = rescaled(pair, scale)
    one, two = (ball_sharpness(p, X, y, adaptive=True, random_state=0).value for p in (pair, other))
    assert two == pytest.approx(one, rel=1e-8)
    one, two = (ball_sharpness(p, X, y, random_state=0).value for p in (pair, other))
    assert abs(two / one - 1) > 0.1


def test_default_radii():
    pair, X, y = relu_net()
    assert ball_sharpness(pair, X, y, random_state=0) == ball_sharpness(pair, X, y, rho=0.05, random_state=0)
    plain = ball_sharpness(pair, X, y, adaptive=True, random_state=0)
    assert plain == ball_sharpness(pair, X, y, rho=0.5, adaptive=True, random_state=0)


def test_the_module_is_as_before_and_no_global_number_is_drawn():
    (net, criterion), X, y = relu_net()
    net.train()
    before = copy.deepcopy(net.state_dict())
    with no_global_random_numbers():
        ball_sharpness((net, criterion), X, y, random_state=0)
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_the_cost_is_counted():
    pair, X, y = relu_net()
    objective = Objective(*pair, (X, y))
    objective.check_second_derivatives()  # once, on a few samples
    counted = {"gradient": 0, "value": 0}

    def counting(name, function):
        def call(*args):
            counted[name] += 1
            return function(*args)

        return call

    objective.gradient = counting("gradient", objective.gradient)
    objective.value = counting("value", objective.value)
    record = ball_sharpness(objective, n_products=6, random_state=0)
    assert record.n_gradients == pytest.approx(counted["gradient"] + counted["value"] / 3 + 2 * 6)


def test_a_module_without_second_derivatives_is_climbed_from_its_gradient():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 2 * ctx.saved_tensors[0] * gradient

    start = vector(4, 0)
    module, criterion, X, y = landscape(lambda t: Square.apply(t).sum(), start)
    record = ball_sharpness((module, criterion), X, y, rho=0.5, random_state=0)
    assert record.value == pytest.approx(float((start.norm() + 0.5) ** 2 - start.norm() ** 2), rel=1e-3)
    assert "without products with the Hessian" in record.status


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rho": 0}, r"^rho must be a number above 0; got 0\.$"),
        ({"rho": float("inf")}, r"^rho must be a number above 0"),
        ({"rho": "x"}, r"^rho must be a number above 0"),
        ({"max_iter": 0}, r"^max_iter must be an integer of at least 1"),
        ({"n_products": -1}, r"^n_products must be an integer of at least 0"),
        ({"random_state": "x"}, r"^random_state must be"),
        ({"normalize_logits": 1}, r"^normalize_logits must be True or False"),
    ],
)
def test_what_is_refused(given, sentence):
    pair, X, y = relu_net()
    with pytest.raises((ValueError, TypeError), match=sentence):
        ball_sharpness(pair, X, y, **given)


def test_points_that_cannot_be_measured():
    (net, criterion), X, y = relu_net()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    with pytest.raises(ValueError, match=r"^The weights must not all be zero with adaptive=True"):
        ball_sharpness((net, criterion), X, y, adaptive=True)
    with torch.no_grad():
        net[2].bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"^The loss must be finite at the measured point; got nan"):
        ball_sharpness((net, criterion), X, y)


def test_subspaces_are_refused():
    pair, X, y = relu_net()
    objective = Objective(*pair, (X, y))
    restricted = objective.restrict(random_subspace(objective.theta0, 3, random_state=0))
    with pytest.raises(TypeError, match=r"^estimator must be in the full space"):
        ball_sharpness(restricted)


def test_a_dead_net_says_so():
    (net, criterion), X, y = relu_net()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(-1e6)
        net[2].bias.zero_()
    parameters = {"parameters": ["0.*", "2.weight"]}  # the last bias would still move the outputs
    record = ball_sharpness((net, criterion), X, y, random_state=0, **parameters)
    assert record.value == 0
    assert any("The net is saturated or dead" in note for note in record.notes)
    assert "saturated or dead" in str(record)
    assert len(flat(net)) > 0
