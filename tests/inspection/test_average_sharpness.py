import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import average_sharpness, rescale_layers
from sklgap.objective import Objective
from tests.inspection.flat_nets import dense_hessian, relu_net, rescaled
from tests.landscapes import landscape, vector


def quadratic(n=8, seed=0, slope=1.0):
    root = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, n)))
    hessian, start, gradient = root @ root.T, vector(n, seed, -2, 2), slope * vector(n, seed + 1)
    problem = landscape(lambda t: 3 + gradient @ (t - start) + (t - start) @ hessian @ (t - start) / 2, start)
    module, criterion, X, y = problem
    return Objective(module, criterion, (X, y)), hessian, start


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("slope", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_closed_form_on_quadratics(adaptive, slope, sigma):
    """Mean and variance of a quadratic form of normal numbers; the slope cancels in each pair."""
    objective, hessian, start = quadratic(slope=slope)
    scale = start.abs() if adaptive else torch.ones_like(start)
    form = sigma**2 / 2 * scale[:, None] * hessian * scale
    record = average_sharpness(objective, sigma=sigma, adaptive=adaptive, n_pairs=500, random_state=0)
    assert abs(record.value - form.trace()) < 4 * record.standard_error
    assert record.standard_error == pytest.approx(float((2 * form.square().sum() / 500).sqrt()), rel=0.2)


def test_a_loop_over_the_same_steps():
    objective, hessian, _ = quadratic()
    record = average_sharpness(objective, sigma=0.2, n_pairs=5, random_state=3)
    generator = torch.Generator().manual_seed(int(np.random.RandomState(3).randint(2**31 - 1)))
    steps = [0.2 * torch.randn(8, generator=generator).double() for _ in range(5)]
    rises = np.array([float(step @ hessian @ step / 2) for step in steps])
    assert record.value == pytest.approx(rises.mean(), rel=1e-9)
    assert record.standard_error == pytest.approx(rises.std(ddof=1) / 5**0.5, rel=1e-9)
    assert record.n_gradients == pytest.approx(11 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_the_trace_of_the_hessian_for_small_steps(seed):
    (net, criterion), X, y = relu_net(seed=seed)
    pair = (nn.Sequential(net[0], nn.Tanh(), net[2]), criterion)  # at the kinks of ReLU the curvature is infinite
    record = average_sharpness(pair, X, y, sigma=1e-3, n_pairs=300, random_state=0)
    trace = dense_hessian(pair, X, y).trace()
    assert abs(record.value - 1e-6 / 2 * trace) < 4 * record.standard_error


@pytest.mark.parametrize("scale", [0.25, 8.0])
def test_adaptive_steps_do_not_see_rescaled_layers(scale):
    pair, X, y = relu_net()
    other = rescaled(pair, scale)
    one, two = (average_sharpness(p, X, y, adaptive=True, random_state=0).value for p in (pair, other))
    assert two == pytest.approx(one, rel=1e-9)
    one, two = (average_sharpness(p, X, y, random_state=0).value for p in (pair, other))
    assert abs(two / one - 1) > 0.1


def test_the_public_rescaling():
    pair, X, y = relu_net()
    other = rescale_layers(pair, 5.0)
    one, two = (average_sharpness(p, X, y, adaptive=True, random_state=0).value for p in (pair, other))
    assert two == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sigma": 0}, r"^sigma must be a number above 0; got 0\.$"),
        ({"sigma": float("nan")}, r"^sigma must be a number above 0"),
        ({"sigma": -1.0}, r"^sigma must be a number above 0"),
        ({"n_pairs": 1}, r"^n_pairs must be an integer of at least 2; got 1\.$"),
        ({"adaptive": "yes"}, r"^adaptive must be True or False"),
    ],
)
def test_what_is_refused(given, sentence):
    pair, X, y = relu_net()
    with pytest.raises((ValueError, TypeError), match=sentence):
        average_sharpness(pair, X, y, **given)


def test_a_loss_that_is_not_finite_after_a_step():
    module, criterion, X, y = landscape(lambda t: torch.log(t[0]), torch.tensor([0.5], dtype=torch.float64))
    with pytest.raises(
        ValueError, match=r"^sigma must be so small that the loss stays finite; with sigma=1 the loss is not finite"
    ):
        average_sharpness((module, criterion), X, y, sigma=1.0, random_state=0)


def test_rounding_and_flat_losses_are_said():
    pair, X, y = relu_net()
    small = average_sharpness((pair[0].float(), pair[1]), X.float(), y, sigma=1e-7, random_state=0)
    assert "rounding" in small.notes[0] or "same after every step" in small.notes[0]
    module, criterion, X, y = landscape(lambda t: 2 + 0 * t.sum(), vector(3, 0))
    flat = average_sharpness((module, criterion), X, y, random_state=0)
    assert flat.value == flat.standard_error == 0
    assert "same after every step" in flat.notes[0]
