"""Second derivatives: right, replaced, or refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklgap.inspection import (
    hessian_eigenvalues,
    hessian_spectral_density,
    hessian_trace,
    ritz_values,
    sharpness,
)
from sklgap.objective import Objective
from tests.cases import POLICIES, seeded_module, vectors

CE = nn.CrossEntropyLoss()


def net_with(function, width=5):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, width), nn.Linear(width, 3)

        def forward(self, x):
            return self.b(function(self.a(x)))

    return seeded_module(Net)


class Square(torch.autograd.Function):
    """Right: the backward pass is made of operations that can be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Detached(Square):
    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * grad


class Data(Square):
    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            factor = 2 * x
        return factor * grad


class Attribute(Square):
    """Keeps the input on the context, where its graph is lost."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.clone()
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.x * grad


class Numpy(Square):
    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(2 * x.detach().numpy()) * grad


class WrongTwice(torch.autograd.Function):
    """The backward pass has a backward pass of its own, which is wrong by a factor."""

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, grad):
            ctx.save_for_backward(x, grad)
            return 2 * x * grad

        @staticmethod
        def backward(ctx, grad2):
            x, grad = ctx.saved_tensors
            return 2.2 * grad * grad2, 2 * x * grad2

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return WrongTwice.Backward.apply(ctx.saved_tensors[0], grad)


class Once(Square):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


MEASUREMENTS = {
    "hvp": lambda f: f.hvp(torch.ones(f.n_params)),
    "operator": lambda f: f.hessian_operator()(torch.ones(f.n_params)),
    "eigenvalues": lambda f: hessian_eigenvalues(f, k=1, random_state=0),
    "trace": lambda f: hessian_trace(f, random_state=0),
    "density": lambda f: hessian_spectral_density(f, random_state=0),
    "ritz values": lambda f: ritz_values(f, random_state=0),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_function_whose_backward_can_be_differentiated(policy):
    f, g = (Objective(net_with(h), CE, vectors(), batch_norm=policy) for h in (Square.apply, torch.square))
    v = torch.ones(f.n_params)
    torch.testing.assert_close(f.hvp(v), g.hvp(v))
    assert f.second_derivatives == "checked"


@pytest.mark.parametrize("measurement", MEASUREMENTS)
@pytest.mark.parametrize("function", [Detached, Data, Attribute, Numpy, WrongTwice, Once])
def test_a_wrong_second_derivative_is_refused(function, measurement):
    f = Objective(net_with(function.apply), CE, vectors())
    with pytest.raises(ValueError, match=r"module (computes wrong|has no) second derivatives"):
        MEASUREMENTS[measurement](f)
    assert sharpness(f, random_state=0).value > 0  # needs gradients only


@pytest.mark.parametrize("policy", ["batch", "population"])
def test_wrong_second_derivatives_beside_batch_norm(policy):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

        def forward(self, x):
            return self.b(Detached.apply(self.norm(self.a(x))))

    f = Objective(seeded_module(Net), CE, vectors(), batch_norm=policy, chunk_size=9)
    with pytest.raises(ValueError, match="module computes wrong second derivatives"):
        f.hvp(f.theta0)


def test_in_single_precision_too():
    f = Objective(net_with(Detached.apply), CE, vectors(), dtype=torch.float32)
    with pytest.raises(ValueError, match="module computes wrong second derivatives"):
        f.hvp(f.theta0)


class SingleOnly(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, 5), nn.Linear(5, 3), function

    def forward(self, x):
        return self.b(self.function(self.a(x.float())))


class Twisted(torch.autograd.Function):
    """A backward pass whose derivative is asymmetric: it uses its neighbour's input without a graph."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 3 * x.detach() * x * grad + 0.5 * (x.roll(1, 1) - x.roll(1, 1).detach())


def test_where_double_precision_is_not_possible():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = [SingleOnly(function.apply) for function in (Square, Twisted)]
    right, wrong = (Objective(module, CE, vectors()) for module in modules)
    right.hvp(right.theta0)
    assert right.second_derivatives.startswith("symmetric; not compared with finite differences, because in float64")
    with pytest.raises(ValueError, match="wrong second derivatives, because its Hessian is not symmetric"):
        wrong.hvp(wrong.theta0)


@pytest.mark.parametrize("name", ["hardsigmoid", "multi_margin_loss"])
def test_operations_of_torch_without_second_derivatives(name):
    criterion = nn.MultiMarginLoss() if name == "multi_margin_loss" else CE
    f = Objective(net_with(F.hardsigmoid if name == "hardsigmoid" else torch.tanh), criterion, vectors())
    f.gradient()
    with pytest.raises(ValueError, match=f"module has no second derivatives.*{name}"):
        f.hvp(f.theta0)


# -- kinks are no error ------------------------------------------------------------------------------------------------


def kinked(seed):
    """A random net with kinks, and data that put many units on one: zero rows, zero biases, equal weights, ties."""
    rng = np.random.default_rng(seed)
    activation = [nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.PReLU, nn.ELU][rng.integers(6)]
    if rng.integers(3) == 0:
        pool = [nn.MaxPool2d(4), nn.AdaptiveMaxPool2d(1), nn.AvgPool2d(4)][rng.integers(3)]
        norm = [nn.Identity(), nn.BatchNorm2d(3)][rng.integers(2)]
        layers = [nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 3, padding=1), norm, activation(), pool, nn.Flatten()]
        layers.append(nn.Linear(3, 3))
    else:
        width = int(rng.choice([1, 4, 30]))
        norm = [nn.Identity(), nn.BatchNorm1d(width)][rng.integers(2)]
        layers = [nn.Linear(16, width), norm, activation(), nn.Linear(width, width), activation(), nn.Linear(width, 3)]
    module = nn.Sequential(*layers)
    start = rng.integers(5)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.4)
            if start == 0 and p.ndim == 1:
                p.zero_()
            elif start == 1 and p.ndim == 1:
                p.sub_(3)  # dead units
            elif start == 2:
                p.copy_(p.sign() / 2)
            elif start == 3:
                p.mul_(10)
    X = torch.randn(int(rng.choice([2, 20, 90])), 16, generator=generator)
    X = [X, X.round(), X * 100, (X > 1).float(), X * (torch.arange(len(X)) % 2)[:, None]][rng.integers(5)]
    y = torch.randint(0, 3, (len(X),), generator=generator)
    criterion = [CE, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 30])), nn.L1Loss(), nn.HuberLoss()][
        rng.integers(4)
    ]
    if isinstance(criterion, nn.L1Loss | nn.HuberLoss):
        y = torch.randn(len(X), 3, generator=generator).round()
    return module, criterion, (X, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("policy", POLICIES)
def test_kinks_are_never_taken_for_wrong_derivatives(policy, dtype):
    for seed in range(25):
        module, criterion, data = kinked(seed)
        f = Objective(module, criterion, data, batch_norm=policy, dtype=dtype, chunk_size=31)
        f.hvp(f.theta0)
        assert f.second_derivatives == "checked"
