"""Gradient checkpointing: layers that are evaluated again while the gradient is computed."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from sklgap import LBGapClassifier
from sklgap.inspection import gradient_noise_scale, hessian_eigenvalues, hessian_trace, sharpness
from sklgap.monitor import BatchSizeMonitor
from sklgap.objective import Objective
from tests.cases import DOUBLE, POLICIES, seeded_module, vectors
from tests.pairs import product

CE = nn.CrossEntropyLoss()


class Net(nn.Module):
    """Two blocks, evaluated as ``how`` says."""

    def __init__(self, how="plain", norm=False):
        super().__init__()
        self.how = how
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        middle = nn.BatchNorm1d(6) if norm else nn.Identity()
        self.block = nn.Sequential(nn.Linear(5, 6), middle, nn.Tanh(), nn.Linear(6, 5), nn.Tanh())

    def forward(self, x):
        return self.last(self.again(torch.tanh(self.first(x))))

    def again(self, x):
        if self.how == "module":
            return checkpoint(self.block, x, use_reentrant=False)
        if self.how == "twice":  # the same layers at two places, one checkpoint in the other
            return checkpoint(
                lambda z: self.block(checkpoint(self.block, z, use_reentrant=False)), x, use_reentrant=False
            )
        if self.how == "plain twice":
            return self.block(self.block(x))
        if self.how == "sequential":
            return checkpoint_sequential(self.block, 2, x, use_reentrant=False)
        if self.how == "reentrant":
            return checkpoint(self.block, x, use_reentrant=True)
        if self.how == "no early stop":
            with torch.utils.checkpoint.set_checkpoint_early_stop(False):
                return checkpoint(self.block, x, use_reentrant=False, preserve_rng_state=False)
        return self.block(x)


KINDS = ["module", "sequential", "twice", "no early stop"]


def pair(how, norm=False):
    other = seeded_module(lambda: Net(how, norm))
    plain = copy.deepcopy(other)
    plain.how = "plain twice" if how == "twice" else "plain"
    return plain, other


def away(f, seed=1, scale=0.3):
    return f.theta0 + scale * torch.randn(f.n_params, generator=torch.Generator().manual_seed(seed), dtype=f.dtype)


def objectives(how, norm=False, **kwargs):
    return [Objective(net, CE, vectors(), **kwargs) for net in pair(how, norm)]


@pytest.mark.parametrize("chunk_size", [100, 7])
@pytest.mark.parametrize("how", KINDS)
def test_values_gradients_and_products(how, chunk_size):
    plain, other = objectives(how, chunk_size=chunk_size)
    theta, v = away(plain), away(plain, 2)
    assert other.value(theta) == plain.value(theta)
    torch.testing.assert_close(other.gradient(theta), plain.gradient(theta), **DOUBLE)
    torch.testing.assert_close(other.hvp(v, theta), plain.hvp(v, theta), **DOUBLE)
    torch.testing.assert_close(other.batch_gradient([3, 1, 8], theta), plain.batch_gradient([3, 1, 8], theta), **DOUBLE)


@pytest.mark.parametrize("how", KINDS)
def test_an_operator_outlives_evaluations_elsewhere(how):
    plain, other = objectives(how)
    products, vs = [], [away(plain, seed) for seed in range(4)]
    one, two = other.hessian_operator(away(plain, 5)), other.hessian_operator(away(plain, 6))
    for v in vs:
        products.append((one(v), two(v)))
        other.gradient(v)
        other.value(away(plain, 7))
        other.hvp(v, away(plain, 8))
    for v, (first, second) in zip(vs, products, strict=True):
        torch.testing.assert_close(first, plain.hvp(v, away(plain, 5)), **DOUBLE)
        torch.testing.assert_close(second, plain.hvp(v, away(plain, 6)), **DOUBLE)


@pytest.mark.parametrize(
    ("how", "policy", "chunk_size"), product(["module", "sequential", "no early stop"], POLICIES, [100, 7])
)
def test_batch_norm_inside(how, policy, chunk_size):
    plain, other = objectives(how, True, batch_norm=policy, chunk_size=chunk_size)
    theta, v = away(plain), away(plain, 2)
    for _ in range(2):
        assert other.value(theta) == pytest.approx(plain.value(theta), rel=1e-12)
        torch.testing.assert_close(other.gradient(theta), plain.gradient(theta), **DOUBLE)
    if policy == "population":
        for product in (lambda: other.hvp(v, theta), lambda: other.hessian_operator(theta)(v)):
            with pytest.raises(ValueError, match=r"batch_norm='population' .*gradient checkpointing"):
                product()
        torch.testing.assert_close(other.gradient(theta), plain.gradient(theta), **DOUBLE)
    else:
        torch.testing.assert_close(other.hvp(v, theta), plain.hvp(v, theta), **DOUBLE)
        torch.testing.assert_close(other.hessian_operator(theta)(v), plain.hvp(v, theta), **DOUBLE)


def test_measurements():
    plain, other = objectives("module")
    for measure in (
        lambda f: sharpness(f, random_state=0).value,
        lambda f: hessian_trace(f, random_state=0).value,
        lambda f: hessian_eigenvalues(f, k=2, random_state=0).eigenvalues.tolist(),
    ):
        assert measure(other) == pytest.approx(measure(plain), rel=1e-6)
    X, y = vectors(60)
    scales = [gradient_noise_scale((net, CE), X, y, random_state=0).noise_scale for net in pair("module")]
    assert scales[1] == pytest.approx(scales[0], rel=1e-6)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("remedies", [[], ["sam"], ["adversarial"], ["proximal"], ["sam", "adversarial"]])
def test_training(remedies, norm):
    X, y = vectors(40)
    states = []
    for net in pair("module", norm):
        model = LBGapClassifier(
            net.double(), batch_size=20, max_epochs=3, tol=None, remedies=remedies, lr=0.1, random_state=0
        ).fit(X.numpy(), y.numpy())
        states.append(dict(model.module_.named_parameters()))
    torch.testing.assert_close(*states, **DOUBLE)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("norm", [False, True])
def test_reentrant_is_refused(norm):
    _, net = pair("reentrant", norm)
    f = Objective(net, CE, vectors(), check=False)
    for call in (f.gradient, lambda: f.hvp(f.theta0), lambda: f.hessian_operator()(f.theta0)):
        with pytest.raises(ValueError, match="use_reentrant=False"):
            call()
    X, y = vectors(40)
    with pytest.raises(ValueError, match="use_reentrant=False"):
        LBGapClassifier(net, max_epochs=1, batch_size=20).fit(X.numpy(), y.numpy())
    with pytest.raises(ValueError, match="use_reentrant=False"):
        BatchSizeMonitor(net, CE, every=1).step((X, y))


class ReentrantFirst(nn.Module):
    """The inputs of the checkpoint need no gradient, so that torch gives none to its parameters."""

    def __init__(self):
        super().__init__()
        self.block, self.last = nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(checkpoint(self.block, x, use_reentrant=True))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_on_the_inputs_has_values_but_no_gradients():
    X, y = vectors()
    module = seeded_module(ReentrantFirst)
    f = Objective(module, CE, (X, y))
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
        expected = CE(module(X), y).item()
    assert f.value(f.theta0) == pytest.approx(expected, rel=1e-12)
    for call in (f.gradient, lambda: f.hvp(f.theta0), lambda: f.batch_gradient([1, 2]), lambda: f.hessian_operator()):
        with pytest.raises(ValueError, match="use_reentrant=False"):
            call()
