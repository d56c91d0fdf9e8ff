import copy
import math

import pytest
import torch
from torch import nn

from sklgap._typing import Aux
from sklgap.objective._autodiff import value_and_grad
from sklgap.remedies import EntropySGD
from tests.cases import DOUBLE, PLAIN, PROBLEMS
from tests.remedies.steps import assert_equal, check_neutral, gradient, stepped


def _no_gradient(params, buffers, batch):
    raise AssertionError


def test_neutral():
    rng = torch.Generator()
    state = rng.get_state()
    remedy = EntropySGD(n_steps=0)
    assert remedy.transform_grad(_no_gradient, remedy.begin_batch({}, rng)) is _no_gradient
    assert torch.equal(rng.get_state(), state)
    check_neutral(remedy)


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_step_without_noise_is_a_multiple_of_the_gradient(name):
    module, criterion, X, y = PROBLEMS[name]()
    remedy = EntropySGD(n_steps=1, gamma=0.3, step_size=0.2, noise=0, averaging=1)
    gradients, _, _ = stepped(PROBLEMS[name](), [remedy])
    expected = gradient(module, criterion(module(X), y))
    assert_equal(gradients, {n: 0.3 * 0.2 * g for n, g in expected.items()}, DOUBLE)


@pytest.mark.parametrize("name", PROBLEMS)
def test_against_the_algorithm_of_the_paper(name):
    """Algorithm 1 on one batch, with the paper's names, without noise."""
    module, criterion, X, y = PROBLEMS[name]()
    L, gamma, eta, alpha = 5, 0.3, 0.2, 0.75
    gradients, _, _ = stepped(PROBLEMS[name](), [EntropySGD(L, gamma, eta, noise=0, averaging=alpha)])

    x = dict(module.named_parameters())
    walker = copy.deepcopy(module)
    mu = {n: p.detach().clone() for n, p in x.items()}
    for _ in range(L):
        g = gradient(walker, criterion(walker(X), y))
        with torch.no_grad():
            for n, p in walker.named_parameters():
                p -= eta * (g[n] - gamma * (x[n] - p))
                mu[n] = (1 - alpha) * mu[n] + alpha * p
    assert_equal(gradients, {n: gamma * (x[n] - mu[n]).detach() for n in mu}, DOUBLE)


def _walk(loss, x, remedy, seed=0):
    """Return the gradient that the remedy makes of a loss of one vector."""

    def loss_fn(params, buffers, batch):
        value = loss(params["x"])
        return value, Aux(value.detach(), value, buffers)

    params = {"x": x.clone().requires_grad_()}
    state = remedy.begin_batch(params, torch.Generator().manual_seed(seed))
    return remedy.transform_grad(value_and_grad(loss_fn), state)(params, {}, None)[0]["x"]


@pytest.mark.parametrize("n_steps", [1, 2, 7, 400])
def test_closed_form_on_a_quadratic(n_steps):
    h, gamma, eta = torch.tensor([0.5, 2.0], dtype=torch.float64), 1.5, 0.1
    x = torch.tensor([3.0, -2.0], dtype=torch.float64)
    found = _walk(lambda z: (h * z**2).sum() / 2, x, EntropySGD(n_steps, gamma, eta, noise=0, averaging=1))
    centre = gamma * x / (h + gamma)  # the minimum of f(x') + gamma / 2 |x - x'|^2
    end = centre + (x - centre) * (1 - eta * (h + gamma)) ** n_steps
    assert_equal(found, gamma * (x - end), DOUBLE)
    if n_steps == 400:  # the gradient of the local entropy, which is a Gaussian integral here
        assert_equal(found, gamma * h / (gamma + h) * x, DOUBLE)


@pytest.mark.parametrize("n_steps", [1, 5])
def test_noise_of_the_walk(n_steps):
    """Where the loss is flat the walk is autoregressive: each step adds eta noise^2 to (1 - eta gamma)^2 times it."""
    n, gamma, eta, noise = 40_000, 0.5, 0.4, 0.3
    x = torch.ones(n, dtype=torch.float64)
    found = _walk(lambda z: 0 * z.sum(), x, EntropySGD(n_steps, gamma, eta, noise, averaging=1)) / gamma
    variance = eta * noise**2 * sum((1 - eta * gamma) ** (2 * k) for k in range(n_steps))
    # Five standard errors.
    assert abs(found.mean()) < 5 * math.sqrt(variance / n)
    assert abs(found.var() - variance) < 5 * variance * math.sqrt(2 / n)


def test_the_noise_is_drawn_once_per_batch():
    x, remedy = torch.ones(50, dtype=torch.float64), EntropySGD(2, noise=1.0)
    rng, batches = torch.Generator().manual_seed(0), []
    for _ in range(2):
        state = remedy.begin_batch({}, rng)

        def loss_fn(params, buffers, batch):
            return params["x"].sum(), Aux(torch.zeros(()), params["x"], buffers)

        grad_fn = remedy.transform_grad(value_and_grad(loss_fn), state)
        first, again = (grad_fn({"x": x.clone().requires_grad_()}, {}, None)[0]["x"] for _ in range(2))
        assert_equal(first, again)
        batches.append(first)
    assert not torch.equal(*batches)


class SkipsSometimes(nn.Module):
    """Uses its branch in every other call, as nets of random depth do."""

    def __init__(self, first):
        super().__init__()
        self.trunk, *_ = PLAIN["tanh"]()
        self.branch = nn.Linear(4, 3).double()
        self.used = first

    def forward(self, X):
        use, self.used = self.used, not self.used
        return self.trunk(X) + self.branch(X) if use else self.trunk(X)


@pytest.mark.parametrize("first", [True, False])
def test_a_layer_that_is_skipped_at_some_steps(first):
    _, criterion, X, y = PLAIN["tanh"]()
    module = SkipsSometimes(first)
    gradients, _, _ = stepped((module, criterion, X, y), [EntropySGD(3)])
    assert ("branch.weight" in gradients) == first
    assert all(g.isfinite().all() for g in gradients.values())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_steps": -1}, "n_steps must be an integer of at least 0; got -1"),
        ({"n_steps": 2.0}, "n_steps must be an integer of at least 0; got 2.0"),
        ({"gamma": 0}, "gamma must be a number above 0; got 0"),
        ({"step_size": 0.0}, "step_size must be a number above 0; got 0.0"),
        ({"step_size": math.inf}, "step_size must be a number above 0; got inf"),
        ({"noise": -1}, "noise must be a number of at least 0; got -1"),
        ({"averaging": 0}, r"averaging must be a number in \(0, 1\]; got 0"),
        ({"averaging": 1.5}, r"averaging must be a number in \(0, 1\]; got 1.5"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=f"^{message}\\.$"):
        EntropySGD(**params).check()


def test_defaults_are_those_of_the_paper_and_allowed():
    EntropySGD().check()
    defaults = {"n_steps": 20, "gamma": 0.03, "step_size": 0.1, "noise": 1e-4, "averaging": 0.75}
    assert EntropySGD().get_params() == defaults
