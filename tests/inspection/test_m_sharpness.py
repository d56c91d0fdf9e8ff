import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import ball_sharpness, m_sharpness
from sklgap.objective import Objective
from tests.cases import PROBLEMS, WITH_BATCH_NORM
from tests.inspection.flat_nets import relu_net, rescaled
from tests.references import flat, loss_of_flat


def by_a_loop(pair, X, y, m, rho, adaptive=False, seed=0):
    """One gradient step to the edge of the ball for each group, as in the paper; rises and sizes."""
    rises, sizes, theta = [], [], flat(pair[0])
    for rows in np.array_split(np.random.RandomState(seed).permutation(len(X)), -(-len(X) // m)):
        f = loss_of_flat(*pair, X[rows], y[rows])
        point = theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(f(point), point)
        scale = theta.abs() if adaptive else torch.ones_like(theta)
        step = rho * scale * (scale * gradient) / (scale * gradient).norm()
        with torch.no_grad():
            rises.append(float(f(theta + step) - f(theta)))
        sizes.append(len(rows))
    return np.array(rises), np.array(sizes)


@pytest.mark.parametrize("m", [1, 4, 7, 30, 1000])
@pytest.mark.parametrize("adaptive", [False, True])
def test_a_loop_over_the_groups(m, adaptive):
    pair, X, y = relu_net()
    rises, sizes = by_a_loop(pair, X, y, min(m, 30), 0.2, adaptive)
    record = m_sharpness(pair, X, y, m=m, rho=0.2, adaptive=adaptive, random_state=0)
    assert record.value == pytest.approx(np.average(rises, weights=sizes), rel=1e-9)
    assert record.parameters["m"] == sizes.max()
    if len(rises) == 1:
        assert record.standard_error is None
    else:
        assert record.standard_error == pytest.approx(rises.std(ddof=1) / len(rises) ** 0.5, rel=1e-9)
    assert record.n_gradients == 2


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
@pytest.mark.parametrize("policy", ["batch", "population"])
def test_batch_norm_uses_the_statistics_of_the_group(name, policy):
    module, criterion, X, y = PROBLEMS[name]()
    rises, sizes = by_a_loop((module, criterion), X, y, 6, 0.1)
    record = m_sharpness((module, criterion), X, y, m=6, rho=0.1, random_state=0, batch_norm=policy)
    assert record.value == pytest.approx(np.average(rises, weights=sizes), rel=1e-8)
    assert bool(record.notes) == (policy == "population")


def test_smaller_groups_have_a_larger_worst_case():
    """The mean of the maxima is at least the maximum of the mean, up to the maximiser."""
    pair, X, y = relu_net()
    values = [m_sharpness(pair, X, y, m=m, rho=0.05, n_steps=10, random_state=0).value for m in (1, 5, 15, 30)]
    assert values == sorted(values, reverse=True)


def test_more_steps_find_more_and_never_more_than_there_is():
    pair, X, y = relu_net()
    one, ten = (m_sharpness(pair, X, y, m=30, rho=0.5, n_steps=n, random_state=0).value for n in (1, 10))
    best = ball_sharpness(pair, X, y, rho=0.5, max_iter=100, random_state=0).value
    assert one <= ten <= best * (1 + 1e-6)


@pytest.mark.parametrize("n_steps", [1, 5])
@pytest.mark.parametrize("scale", [0.25, 8.0])
def test_adaptive_groups_do_not_see_rescaled_layers(n_steps, scale):
    pair, X, y = relu_net()
    options = {"m": 6, "adaptive": True, "n_steps": n_steps, "random_state": 0}
    one, two = (m_sharpness(p, X, y, **options).value for p in (pair, rescaled(pair, scale)))
    assert two == pytest.approx(one, rel=1e-8)


def test_class_weights_are_those_of_all_data():
    """The mean over the groups of f_M is f, so that f0 is the loss itself."""
    pair, X, y = relu_net(criterion=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)))
    record = m_sharpness(pair, X, y, m=7, random_state=0)
    assert record.f0 == pytest.approx(Objective(*pair, (X, y)).value(), rel=1e-9)


@pytest.mark.parametrize(("m", "sizes"), [(2, [3, 2, 2]), (3, [3, 2, 2]), (4, [4, 3]), (100, [7])])
def test_no_group_of_one_sample_under_batch_statistics(m, sizes):
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    _, X, y = relu_net()
    record = m_sharpness((module, nn.CrossEntropyLoss()), X[:7], y[:7], m=m, random_state=0)
    assert record.parameters["m"] == sizes[0]
    assert f"mean over {len(sizes)} group{'s' * (len(sizes) > 1)}, 1 step each" in record.status
    with pytest.raises(ValueError, match=r"^m must be at least 2 with batch_norm='batch'; got 1\.$"):
        m_sharpness((module, nn.CrossEntropyLoss()), X, y, m=1)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"m": 0}, r"^m must be an integer of at least 1; got 0\.$"),
        ({"m": 2.5}, r"^m must be an integer"),
        ({"rho": 0.0}, r"^rho must be a number above 0"),
        ({"n_steps": 0}, r"^n_steps must be an integer of at least 1"),
    ],
)
def test_what_is_refused(given, sentence):
    pair, X, y = relu_net()
    with pytest.raises((ValueError, TypeError), match=sentence):
        m_sharpness(pair, X, y, **given)


def test_losses_that_are_not_finite():
    (net, criterion), X, y = relu_net()
    with pytest.raises(
        ValueError, match=r"^rho must be so small that the loss stays finite; with rho=1e\+38 the loss is not"
    ):
        m_sharpness((net.float(), criterion), X.float(), y, rho=1e38, m=10, random_state=0)
    with torch.no_grad():
        net[2].bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"^The loss must be finite at the measured point"):
        m_sharpness((net, criterion), X.float(), y)


def test_groups_without_a_slope_count_as_zero_and_are_told():
    net = nn.Linear(4, 3).double()
    with torch.no_grad():
        net.weight.zero_()
    X, y = torch.zeros(6, 4, dtype=torch.float64), torch.arange(6) % 3
    record = m_sharpness((net, nn.CrossEntropyLoss()), X, y, m=3, parameters="weight", random_state=0)
    assert record.value == 0
    assert record.notes == ("The gradient is exactly zero in 2 of 2 groups, which count as 0.",)


class _Root(nn.Module):
    """Finite everywhere, but with no slope at its own weights."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x + self.scale.abs().sqrt()


def test_a_slope_that_is_not_finite_is_not_laid_on_rho():
    X, y = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
    for measure, options in ((m_sharpness, {"m": 5}), (m_sharpness, {"n_steps": 3}), (ball_sharpness, {})):
        with pytest.raises(ValueError, match="gradient must be finite at the measured point"):
            measure((_Root(), nn.CrossEntropyLoss()), X, y, random_state=0, **options)


@pytest.mark.parametrize("measure", [m_sharpness, ball_sharpness])
@pytest.mark.parametrize("adaptive", [False, True])
def test_slopes_whose_squares_underflow(measure, adaptive):
    """In float32 a slope of 1e-25 has no square, and is no zero."""

    def value(dtype):
        net = nn.Linear(3, 1, bias=False).to(dtype)
        nn.init.ones_(net.weight)
        X = torch.tensor([[1e-25, 3e-25, 0.0], [1e-25, -1e-25, 2e-25]], dtype=dtype)
        loss = nn.L1Loss()
        return measure((net, loss), X, torch.full((2, 1), -1e-24, dtype=dtype), adaptive=adaptive, random_state=0)

    single, double = value(torch.float32), value(torch.float64)
    assert single.value == pytest.approx(double.value, rel=1e-4)
    assert single.notes == double.notes == ()
