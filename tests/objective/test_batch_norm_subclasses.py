"""Batch-norm layers of one's own: what they do around the normalisation stays, under every policy."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklgap import LBGapClassifier, WeightAveraging
from sklgap.estimator._evaluation import recompute_batch_norm
from sklgap.nets import convert_to_ghost_batch_norm
from sklgap.objective import Objective
from tests.cases import DIFFERENCES, DOUBLE, POLICIES, seeded_module, vectors
from tests.pairs import product

CE = nn.CrossEntropyLoss()
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def fused_activation(dim):
    class Layer(NORMS[dim]):
        def forward(self, x):
            return torch.tanh(super().forward(x))

    return Layer, lambda n: nn.Sequential(NORMS[dim](n), nn.Tanh())


def activation_first(dim):
    class Layer(NORMS[dim]):
        def forward(self, x):
            return super().forward(F.silu(x))

    return Layer, lambda n: nn.Sequential(nn.SiLU(), NORMS[dim](n))


def fused_dropout(dim):
    class Layer(NORMS[dim]):
        def forward(self, input):
            return F.dropout(super().forward(input), 0.5, self.training)

    return Layer, NORMS[dim]


def written_out(dim):
    """As image backbones have it: a copy of torch's code, with modules for dropout and activation."""

    class Layer(NORMS[dim]):
        def __init__(self, n):
            super().__init__(n)
            self.drop, self.act = nn.Dropout(0.3), nn.ELU()

        def forward(self, x):
            factor = 0.0 if self.momentum is None else self.momentum
            if self.training and self.track_running_stats and self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            by_batch = self.training or (self.running_mean is None and self.running_var is None)
            use = not self.training or self.track_running_stats
            x = F.batch_norm(
                x,
                self.running_mean if use else None,
                self.running_var if use else None,
                self.weight,
                self.bias,
                by_batch,
                factor,
                self.eps,
            )
            return self.act(self.drop(x))

    return Layer, lambda n: nn.Sequential(NORMS[dim](n), nn.ELU())


def by_keywords(dim):
    class Layer(NORMS[dim]):
        def forward(self, x, scale=2.0):
            x = F.batch_norm(
                input=x,
                running_mean=self.running_mean,
                running_var=self.running_var,
                eps=1e-3,
                training=self.training,
                bias=self.bias,
                weight=self.weight,
            )
            return scale * x

    class Times(nn.Module):
        def forward(self, x):
            return 2.0 * x

    return Layer, lambda n: nn.Sequential(NORMS[dim](n, eps=1e-3), Times())


def by_torch(dim):
    """Calls torch.batch_norm, which the function in torch.nn.functional calls too."""

    class Layer(NORMS[dim]):
        def forward(self, x):
            return torch.batch_norm(
                x, self.weight, self.bias, self.running_mean, self.running_var, self.training, 0.1, self.eps, False
            ).sigmoid()

    return Layer, lambda n: nn.Sequential(NORMS[dim](n), nn.Sigmoid())


def patched(dim):
    """The layer of one instance has another forward pass."""

    def build(n):
        layer = NORMS[dim](n)

        def forward(self, x):
            return torch.relu(NORMS[dim].forward(self, x)) + 0.1 * x

        layer.forward = forward.__get__(layer)
        return layer

    class Both(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.norm = NORMS[dim](n)

        def forward(self, x):
            return torch.relu(self.norm(x)) + 0.1 * x

    return build, Both


KINDS = [fused_activation, activation_first, fused_dropout, written_out, by_keywords, by_torch, patched]


def net(layer, dim):
    """A linear map, the layer, a linear map; of 4 features."""

    def make():
        shape, inner = {1: ((4,), 4), 2: ((4, 2, 1), 8), 3: ((4, 2, 1, 1), 8)}[dim]
        return nn.Sequential(nn.Linear(4, inner), nn.Unflatten(1, shape), layer(4), nn.Flatten(), nn.Linear(inner, 3))

    return seeded_module(make)


def twins(kind, dim=1):
    """The net with a layer of this kind, and the same function of plain layers, with the same tensors."""
    layer, plain = kind(dim)
    ours, theirs = net(layer, dim), net(plain, dim)
    for mine, its in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        its.copy_(mine)
    return ours, theirs


def away(f, scale=0.1):
    generator = torch.Generator().manual_seed(1)
    return f.theta0 + scale * torch.randn(f.n_params, generator=generator, dtype=f.dtype)


@pytest.mark.parametrize(("kind", "dim", "policy", "chunk_size"), product(KINDS, [1, 2, 3], POLICIES, [100, 7]))
def test_the_same_function_as_plain_layers(kind, dim, policy, chunk_size):
    a, b = (Objective(n, CE, vectors(), batch_norm=policy, chunk_size=chunk_size) for n in twins(kind, dim))
    theta = away(a)
    assert a.value(theta) == pytest.approx(b.value(theta), rel=1e-12)
    torch.testing.assert_close(a.gradient(theta), b.gradient(theta), **DOUBLE)
    torch.testing.assert_close(a.hvp(theta, theta), b.hvp(theta, theta), **DOUBLE)
    product = a.hessian_operator(theta)
    torch.testing.assert_close(product(theta), b.hvp(theta, theta), **DOUBLE)


@pytest.mark.parametrize("kind", [fused_activation, activation_first, by_torch, patched])
@pytest.mark.parametrize("policy", ["batch", "population"])
def test_one_chunk_is_the_training_mode_of_plain_torch(kind, policy):
    module, _ = twins(kind)
    X, y = vectors()
    value = CE(copy.deepcopy(module).train()(X), y).item()
    assert Objective(module, CE, (X, y), batch_norm=policy).value() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_statistics(kind):
    ours, theirs = twins(kind, 2)
    X, y = vectors()
    for module in (ours, theirs):
        recompute_batch_norm(module, X, y)
    for mine, its in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, its, **DOUBLE)


@pytest.mark.parametrize("kind", [fused_activation, activation_first, by_torch])
def test_training_and_weight_averaging(kind):
    X, y = vectors(60)
    scores, weights = [], []
    for module in twins(kind):
        model = LBGapClassifier(
            module,
            max_epochs=4,
            tol=None,
            batch_size=20,
            lr=0.05,
            random_state=0,
            init=lambda net: None,
            callbacks=[WeightAveraging(start=2)],
        ).fit(X.numpy(), y.numpy())
        scores.append(model.train_score_)
        weights.append(
            torch.cat([t.flatten() for t in model.module_.state_dict().values() if t.dtype.is_floating_point])
        )
    assert scores[0] == scores[1]
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-8)


class Twice(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 4), layer, nn.Linear(4, 3)

    def forward(self, x):
        return self.b(self.norm(self.norm(self.a(x)) + x))


@pytest.mark.parametrize("kind", [fused_activation, by_keywords, written_out])
@pytest.mark.parametrize("policy", ["batch", "population"])
def test_a_layer_used_twice(kind, policy):
    layer, plain = kind(1)
    nets = [seeded_module(lambda make=make: Twice(make(4))) for make in (layer, plain)]
    a, b = (Objective(n, CE, vectors(), batch_norm=policy, chunk_size=7) for n in nets)
    torch.testing.assert_close(a.gradient(away(a)), b.gradient(away(b)), **DOUBLE)


class OwnCode(nn.BatchNorm1d):
    """Normalises without torch's batch_norm."""

    def forward(self, x):
        mean, var = (x.mean(0), x.var(0)) if self.training else (self.running_mean, self.running_var)
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias


class Native(nn.BatchNorm1d):
    def forward(self, x):
        return torch.native_batch_norm(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.training, 0.1, self.eps
        )[0]


class Skipped(nn.BatchNorm1d):
    def forward(self, x):
        return x


@pytest.mark.parametrize("layer", [OwnCode, Native, Skipped])
@pytest.mark.parametrize("policy", ["batch", "population"])
def test_normalisation_in_own_code_is_refused(layer, policy):
    module = net(layer, 1)
    with pytest.raises(
        ValueError, match=f"batch_norm='{policy}' cannot be used, because layer '2', a {layer.__name__}"
    ):
        Objective(module, CE, vectors(), batch_norm=policy)
    X, y = vectors()
    f = Objective(module, CE, (X, y), batch_norm="running")
    assert f.value() == pytest.approx(CE(module.eval()(X), y).item(), rel=1e-12)


@pytest.mark.parametrize("layer", [OwnCode, Native])
def test_training_with_normalisation_in_own_code(layer):
    X, y = vectors(60)
    models = []
    for each in (layer, nn.BatchNorm1d):
        model = LBGapClassifier(
            net(each, 1), batch_size=20, max_epochs=2, tol=None, random_state=0, lr=0.05, recompute_batch_norm=True
        )
        if each is layer:
            with pytest.warns(UserWarning, match=r"statistics of batch norm remain as .*: layer '2', a .* own code"):
                model.fit(X.numpy(), y.numpy())
        else:
            model.fit(X.numpy(), y.numpy())
        models.append(model)
    assert models[0].predict(X.numpy()).shape == (60,)
    assert all(t.isfinite().all() for t in models[0].module_.state_dict().values())


class Halves(nn.BatchNorm1d):
    """Normalises each half of the features by a call of its own."""

    def forward(self, x):
        parts = [slice(0, 2), slice(2, 4)]
        return torch.cat(
            [
                F.batch_norm(
                    x[:, p], self.running_mean[p], self.running_var[p], self.weight[p], self.bias[p], self.training
                )
                for p in parts
            ],
            1,
        )


def test_normalisation_in_parts():
    ours, plain = net(Halves, 1), net(nn.BatchNorm1d, 1)
    a, b = (Objective(n, CE, vectors()) for n in (ours, plain))
    torch.testing.assert_close(a.gradient(), b.gradient(), **DOUBLE)
    with pytest.raises(ValueError, match="layer '2', a Halves, normalises its features in several parts"):
        Objective(ours, CE, vectors(), batch_norm="population")


class Frozen(nn.BatchNorm1d):
    """Stays in evaluation mode, as in object detection."""

    def train(self, mode=True):
        return super().train(False)


class FrozenForward(nn.BatchNorm1d):
    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class FrozenKeyword(nn.BatchNorm1d):
    def forward(self, x):
        return torch.relu(F.batch_norm(x, self.running_mean, self.running_var, training=False))


@pytest.mark.parametrize("layer", [Frozen, FrozenForward, FrozenKeyword])
@pytest.mark.parametrize("policy", POLICIES)
def test_frozen_layers_use_their_buffers(layer, policy):
    module = seeded_module(lambda: nn.Sequential(nn.Linear(4, 4), layer(4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    X, y = vectors()
    f = Objective(module, CE, (X, y), batch_norm=policy)
    plain = copy.deepcopy(module).train(policy != "running")
    assert f.value() == pytest.approx(CE(plain(X), y).item(), rel=1e-12)
    before = module[1].running_mean.clone()
    recompute_batch_norm(module, X, y)
    assert torch.equal(module[1].running_mean, before)
    only = seeded_module(lambda: nn.Sequential(nn.Linear(4, 4), layer(4), nn.Linear(4, 3)))
    f = Objective(only, CE, (X, y), batch_norm=policy, chunk_size=9)
    assert f.value() == pytest.approx(CE(copy.deepcopy(only).train()(X), y).item(), rel=1e-12)
    v = away(f)
    step = 1e-6
    difference = (f.value(f.theta0 + step * v) - f.value(f.theta0 - step * v)) / (2 * step)
    assert float(f.gradient()[1] @ v) == pytest.approx(difference, **{"rel": 1e-6, "abs": DIFFERENCES["atol"]})


class AuxiliaryHead(nn.Module):
    """A second output, through batch norm, that the loss does not use."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head, self.other = (
            nn.Linear(4, 4),
            nn.BatchNorm1d(4),
            nn.Linear(4, 3),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        x = torch.tanh(self.body(x))
        return self.head(x), self.other(self.norm(x))


@pytest.mark.parametrize("chunk_size", [100, 7])
def test_a_layer_that_the_loss_does_not_use(chunk_size):
    f, g = (
        Objective(seeded_module(AuxiliaryHead), CE, vectors(), batch_norm=policy, chunk_size=chunk_size)
        for policy in ("running", "population")
    )
    torch.testing.assert_close(f.gradient(away(f)), g.gradient(away(f)), **DOUBLE)
    torch.testing.assert_close(f.hvp(away(f)), g.hvp(away(f)), **DOUBLE)


FORGETFUL = {
    "plain": partial(nn.BatchNorm1d, track_running_stats=False),
    "no weights": partial(nn.BatchNorm1d, track_running_stats=False, affine=False),
    "fused": lambda n: fused_activation(1)[0](n, track_running_stats=False),
}


@pytest.mark.parametrize("kind", FORGETFUL)
def test_layers_without_running_statistics(kind):
    X, y = vectors()
    module = net(FORGETFUL[kind], 1)
    expected = CE(copy.deepcopy(module)(X), y).item()
    for policy in ("batch", "population"):
        f = Objective(module, CE, (X, y), batch_norm=policy)
        assert f.value() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="layer '2' has track_running_stats=False; use batch_norm='batch'"):
        Objective(module, CE, (X, y), batch_norm="running")


@pytest.mark.parametrize("kind", [fused_activation, activation_first, written_out, patched])
def test_ghost_batch_norm_refuses_what_it_would_forget(kind):
    module = net(kind(2)[0], 2)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=r"ghost_batch_size must be None .*layer '2'"):
        convert_to_ghost_batch_norm(module, 8)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    X, y = vectors(60)
    with pytest.raises(ValueError, match="ghost_batch_size must be None"):
        LBGapClassifier(module, batch_size=-1, ghost_batch_size=8, max_epochs=1).fit(X.numpy(), y.numpy())
