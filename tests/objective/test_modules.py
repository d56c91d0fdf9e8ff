"""Kinds of modules: each is measured as plain torch evaluates it, or refused in one sentence."""

import copy
import dataclasses
import functools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from sklgap import LBGapClassifier
from sklgap.inspection import hessian_eigenvalues, sharpness, weight_distance
from sklgap.objective import Objective
from sklgap.objective._copy import deepcopy
from tests.cases import no_global_random_numbers, vectors

CE = nn.CrossEntropyLoss()


def made(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().double()


def away(f, seed=1, scale=0.3):
    return f.theta0 + scale * torch.randn(f.n_params, generator=torch.Generator().manual_seed(seed), dtype=f.dtype)


def is_right(module, criterion=CE, data=None, second=True, **kwargs):
    """Compare the value with plain torch, gradients with differences of values, products with those of gradients."""
    X, y = vectors() if data is None else data
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        out = deepcopy(module).eval()(X)
    with no_global_random_numbers():
        f = Objective(module, criterion, (X, y), **kwargs)
        if isinstance(out, torch.Tensor):
            assert f.value() == pytest.approx(criterion(out, y).item(), rel=1e-6 if f.dtype == torch.float32 else 1e-12)
        agrees_with_differences(f, second)
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in module.parameters())
    return f


def agrees_with_differences(f, second=True):
    theta, v = away(f), away(f, 2, 1.0)
    step = 1e-5
    up, down = theta + step * v, theta - step * v
    difference = (f.value(up) - f.value(down)) / (2 * step)
    assert float(f.gradient(theta)[1] @ v) == pytest.approx(difference, rel=1e-6, abs=1e-8)
    if second:
        differences = (f.gradient(up)[1] - f.gradient(down)[1]) / (2 * step)
        torch.testing.assert_close(f.hvp(v, theta), differences, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(f.hessian_operator(theta)(v), differences, rtol=1e-4, atol=1e-7)


# -- complex numbers ---------------------------------------------------------------------------------------------------


class ComplexBuffer(nn.Module):
    """Rotary embedding: pairs of features are turned."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("turn", torch.polar(torch.ones(3), torch.arange(3.0)))

    def forward(self, x):
        pairs = torch.view_as_complex(self.a(x).reshape(len(x), 3, 2).contiguous())
        return self.b(torch.view_as_real(pairs * self.turn).flatten(1))


class ComplexWeight(nn.Module):
    """A spectral layer: the weights of the frequencies."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.cfloat))
        self.b = nn.Linear(4, 3)

    def forward(self, x):
        return self.b(torch.tanh(torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=4)))


class ComplexLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3, dtype=torch.cfloat)

    def forward(self, x):
        return self.a(x.to(self.a.weight.dtype)).abs().square()


def as_complex(build):
    """In float64, without nn.Module.double, which leaves complex tensors in single precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


COMPLEX = [ComplexBuffer, ComplexWeight, ComplexLinear]


@pytest.mark.parametrize("build", COMPLEX)
def test_complex_numbers(build):
    module = as_complex(build)
    X, y = vectors()
    f = Objective(module, CE, (X, y), dtype=torch.float64)
    assert f.value() == pytest.approx(CE(module(X.float()), y).item(), rel=1e-5)
    agrees_with_differences(f)
    single = Objective(module, CE, (X, y))
    assert single.dtype == torch.float32
    assert single.value() == pytest.approx(f.value(), rel=1e-5)
    assert sharpness(f, random_state=0).value > 0
    assert hessian_eigenvalues(f, k=2, random_state=0).converged


@pytest.mark.parametrize("remedies", [[], ["sam"], ["proximal"]])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("build", COMPLEX)
def test_training_with_complex_numbers(build, optimizer, remedies):
    X, y = vectors(40)
    module = as_complex(build)
    model = LBGapClassifier(
        module, optimizer=optimizer, lr=0.01, batch_size=-1, max_epochs=2, tol=None, remedies=remedies, random_state=0
    ).fit(X.numpy().astype("float32"), y.numpy())
    before = [p for p in module.parameters() if p.is_complex()]
    after = [p for p in model.module_.parameters() if p.is_complex()]
    for a, b in zip(before, after, strict=True):
        assert bool((a.imag != b.imag).any())
    buffers = zip(module.buffers(), model.module_.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in buffers)
    if not remedies:
        plain = copy.deepcopy(module)
        stepper = optimizer(plain.parameters(), lr=0.01)
        for _ in range(2):
            stepper.zero_grad()
            CE(plain(X.float()), y).backward()
            stepper.step()
        for a, b in zip(plain.parameters(), model.module_.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_distance_of_complex_weights():
    a, b = ComplexWeight(), ComplexWeight()
    b.load_state_dict(a.state_dict())
    with torch.no_grad():
        b.weight += 3j
    assert weight_distance(a, b) == pytest.approx(27**0.5, rel=1e-6)


# -- what cannot be deep-copied as it is -------------------------------------------------------------------------------


class Keeps(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how, self.kept = nn.Linear(4, 4), nn.Linear(4, 3), how, [] if how == "list" else {}

    def forward(self, x):
        hidden = torch.tanh(self.a(x))
        if self.how == "list":
            self.kept.append(hidden)
        elif self.how == "dict":
            self.kept["hidden"] = {"inner": (hidden, hidden[:1])}
        elif self.how == "attribute":
            self.hidden, self.view = hidden, hidden.T
        elif self.how == "weight":
            self.last_weight = self.a.weight.T
        else:
            self.kept_by = Record(hidden)
        return self.b(hidden)


@dataclasses.dataclass
class Record:
    tensor: torch.Tensor


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("how", ["list", "dict", "attribute", "weight", "object"])
def test_kept_activations(how, used):
    module = made(lambda: Keeps(how))
    if used:
        module(vectors()[0])
    f = Objective(module, CE, vectors())
    plain = made(lambda: Keeps("list"))
    g = Objective(plain, CE, vectors())
    assert f.value(away(f)) == g.value(away(f))
    agrees_with_differences(f)


def old_weight_norm(dim=0):
    layer = nn.Linear(4, 5)
    with pytest.warns(FutureWarning):
        return nn.Sequential(nn.utils.weight_norm(layer, dim=dim), nn.Tanh(), nn.Linear(5, 3))


def new_weight_norm(dim=0):
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 5), dim=dim), nn.Tanh(), nn.Linear(5, 3))


def old_spectral_norm():
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 5), n_power_iterations=9), nn.Tanh(), nn.Linear(5, 3))
    net(torch.zeros(2, 4))  # the singular vectors are found in training mode
    return net


def new_spectral_norm():
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))


def pruned():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    prune.l1_unstructured(net[0], "weight", 0.5)
    prune.random_unstructured(net[2], "bias", 0.4)
    return net


def conv_weight_norm(dim=0):
    return nn.Sequential(
        nn.Unflatten(1, (2, 2)), parametrizations.weight_norm(nn.Conv1d(2, 4, 2), dim=dim), nn.Tanh(), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip


class Symmetric(nn.Module):
    def forward(self, w):
        return w.triu() + w.triu(1).T


def symmetric():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    return net


def orthogonal():
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 3))


COMPUTED = {
    "old weight norm": old_weight_norm,
    "old weight norm, whole": lambda: old_weight_norm(None),
    "old weight norm, columns": lambda: old_weight_norm(1),
    "weight norm": new_weight_norm,
    "weight norm, whole": lambda: new_weight_norm(None),
    "weight norm, columns": lambda: new_weight_norm(1),
    "weight norm, last": lambda: new_weight_norm(-1),
    "convolution": conv_weight_norm,
    "convolution, second": lambda: conv_weight_norm(1),
    "convolution, last": lambda: conv_weight_norm(2),
    "old spectral norm": old_spectral_norm,
    "spectral norm": new_spectral_norm,
    "pruned": pruned,
    "symmetric": symmetric,
    "orthogonal": orthogonal,
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", COMPUTED)
def test_computed_weights(kind, used):
    module = made(COMPUTED[kind])
    if used:
        module(vectors()[0])
    f = is_right(module)
    assert hessian_eigenvalues(f, k=1, random_state=0).converged


# -- shared, lazy, and computed buffers --------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        if how == "weight":
            self.b.weight = self.a.weight
        elif how == "layer":
            self.b = self.a
        else:
            self.weights = nn.ParameterList([self.a.weight, self.b.weight])

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))


@pytest.mark.parametrize("how", ["weight", "layer", "list"])
def test_tied_weights(how):
    module = made(lambda: Tied(how))
    f = is_right(module)
    assert f.n_params == sum(p.numel() for p in module.parameters())


LAZY = {
    "linear": lambda: nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(3)),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.LazyBatchNorm1d(), nn.Linear(5, 3)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.LazyConv1d(3, 2), nn.Flatten()),
}


@pytest.mark.parametrize("kind", LAZY)
def test_lazy_modules(kind):
    module = LAZY[kind]()
    X, y = vectors()
    with pytest.raises(ValueError, match="is lazy and gets its shape from the first batch; call the module on a few"):
        Objective(module, CE, (X, y))
    module(X.float())
    assert Objective(module, CE, (X, y), dtype=torch.float64).value() > 0
    agrees_with_differences(Objective(module, CE, (X, y), dtype=torch.float64, batch_norm="running"))


class Counts(nn.Module):
    """Writes into its buffers as ``how`` says; in evaluation mode too where ``always``."""

    def __init__(self, how, always=True):
        super().__init__()
        self.a, self.how, self.always = nn.Linear(4, 3), how, always
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x):
        if self.training or self.always:
            new = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            if self.how == "in place":
                self.mean.copy_(new)
                self.seen += 1
            elif self.how == "assigned":
                self.mean = new
                self.seen = self.seen + 1
            else:
                self.register_buffer("mean", new)
                self._buffers["seen"] = self.seen + 1
        return self.a(x)


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("how", ["in place", "assigned", "registered"])
def test_buffers_that_do_not_matter(how, always):
    """Counters and means for a report."""
    is_right(made(lambda: Counts(how, always)))


class Drifts(Counts):
    """Evaluates with its buffers first, and then changes them: the next evaluation is another function."""

    def forward(self, x):
        out = self.a(x - self.mean)
        super().forward(x)
        return out


class DriftsFirst(Counts):
    def forward(self, x):
        super().forward(x)
        return self.a(x - self.mean)


@pytest.mark.parametrize("chunk_size", [100, 7])
@pytest.mark.parametrize("module", [Drifts, DriftsFirst])
@pytest.mark.parametrize("how", ["in place", "assigned", "registered"])
def test_buffers_that_matter_start_from_the_same_in_every_evaluation(module, how, chunk_size):
    net = made(lambda: module(how))
    f = Objective(net, CE, vectors(), chunk_size=chunk_size)
    assert f.value() == f.value()
    agrees_with_differences(f)
    assert f.value() == f.value()
    assert int(net.seen) == 0
    kept = made(lambda: module(how, False))
    g = Objective(kept, CE, vectors(), chunk_size=chunk_size)
    agrees_with_differences(g)


# -- parameters that change in the forward pass ------------------------------------------------------------------------


class Words(nn.Module):
    def __init__(self, table, bag=False):
        super().__init__()
        self.table, self.out, self.bag = table, nn.Linear(5, 3), bag

    def forward(self, words):
        return self.out(self.table(words) if self.bag else self.table(words).mean(1))


def words(n=23):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 7, (n, 4), generator=generator), torch.randint(0, 3, (n,), generator=generator)


TABLES = {
    "embedding": lambda **kw: Words(nn.Embedding(7, 5, **kw)),
    "unused rows": lambda **kw: Words(nn.Embedding(9, 5, **kw)),
    "bag": lambda **kw: Words(nn.EmbeddingBag(7, 5, **kw), True),
    "sum": lambda **kw: Words(nn.EmbeddingBag(7, 5, mode="sum", **kw), True),
}


@pytest.mark.parametrize("kind", TABLES)
def test_embeddings(kind):
    bag = kind in ("bag", "sum")
    f = is_right(made(TABLES[kind]), data=words(), second=not bag)
    if bag:
        with pytest.raises(ValueError, match=r"no second derivatives.*_embedding_bag_backward"):
            f.hvp(f.theta0)


def test_the_row_of_padding_has_no_gradient_as_in_torch():
    module = made(lambda: Words(nn.Embedding(7, 5, padding_idx=0)))
    X, y = words()
    _, gradient = Objective(module, CE, (X, y)).gradient()
    plain = copy.deepcopy(module)
    CE(plain(X), y).backward()
    torch.testing.assert_close(gradient, torch.cat([p.grad.flatten() for p in plain.parameters()]))
    assert not gradient[:5].any()


@pytest.mark.parametrize("kind", TABLES)
def test_embeddings_with_bounded_norm(kind):
    module = made(lambda: TABLES[kind](max_norm=0.5))
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=r"changes its parameter 'table.weight'.*max_norm=None, or freeze"):
        Objective(module, CE, words())
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    module.table.requires_grad_(False)
    agrees_with_differences(Objective(module, CE, words()))
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


@pytest.mark.parametrize("remedies", [[], ["sam"]])
def test_training_of_embeddings_with_bounded_norm(remedies):
    class FromFloats(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = Words(nn.Embedding(7, 5, max_norm=0.5))

        def forward(self, X):
            return self.words(X.long())

    X, y = (t.numpy() for t in words(40))
    model = LBGapClassifier(
        FromFloats, batch_size=10, max_epochs=3, tol=None, lr=0.5, remedies=remedies, random_state=0
    ).fit(X, y)
    assert model.train_score_ == model.score(X, y)
    with pytest.raises(ValueError, match="module changes its parameter"):
        sharpness(model, X, y)


class Clips(nn.Module):
    """Its weights are clipped in its forward pass, as in the first Wasserstein networks."""

    def __init__(self, how):
        super().__init__()
        self.a, self.how = nn.Linear(4, 3), how

    def forward(self, x):
        with torch.no_grad():
            if self.how == "in place":
                self.a.weight.clamp_(-0.1, 0.1)
            elif self.how == "data":
                self.a.weight.data = self.a.weight.data.clamp(-0.1, 0.1)
            else:
                self.a.weight.data.clamp_(-0.1, 0.1)
        return self.a(x)


@pytest.mark.parametrize("how", ["in place", "data", "data in place"])
def test_parameters_changed_in_the_forward_pass(how):
    module = made(lambda: Clips(how))
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=r"module changes its parameter 'a.weight' in its forward pass"):
        Objective(module, CE, vectors())
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


# -- other ways to a parameter -----------------------------------------------------------------------------------------


def with_hook():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    net[0].register_forward_hook(lambda module, args, out: out * net[2].bias.sum())
    return net


def with_patch():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    first = net[0]
    first.forward = lambda x: F.linear(x, first.weight) ** 2
    return net


def with_partial():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    net.forward = functools.partial(lambda me, x: me[2](me[0](x).sin()), net)
    weight = net[0].weight
    net[1].forward = lambda x: x * weight.sum()
    net[0].register_forward_pre_hook(lambda module, args: (args[0] * weight[0, 0],))
    return net


@pytest.mark.parametrize("build", [with_hook, with_patch, with_partial])
def test_other_ways_to_a_parameter_are_refused(build):
    module = made(build)
    X, y = vectors()
    f = Objective(module, CE, (X, y))
    assert f.value() == pytest.approx(CE(module(X), y).item(), rel=1e-12)  # at its own parameters it is right
    for call in (f.gradient, lambda: f.value(f.theta0 + 1), lambda: f.hvp(f.theta0), lambda: f.batch_gradient([0, 1])):
        with pytest.raises(ValueError, match=r"module does not reach its parameter .* through its attributes"):
            call()


class Scales(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
        self.scale = nn.Parameter(torch.tensor(1.5))
        if how == "bound method":
            self.net[0].register_forward_hook(self.times)
        elif how == "own module":
            self.net[0].register_forward_hook(lambda module, args, out: out * module.bias.sum())
        elif how == "method":
            self.run = self.other

    def times(self, module, args, out):
        return out * self.scale

    def other(self, x):
        return self.net(x) * self.scale

    def forward(self, x):
        return self.run(x) if hasattr(self, "run") else self.net(x)


@pytest.mark.parametrize("how", ["bound method", "own module", "method"])
def test_hooks_and_methods_that_are_copied_with_the_module(how):
    is_right(made(lambda: Scales(how)))


# -- compiled, scripted, parallel --------------------------------------------------------------------------------------


def tanh_net():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def compiled_part():
    return nn.Sequential(torch.compile(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), backend="eager"), nn.Linear(5, 3))


def compiled_in_place():
    net = tanh_net()
    net.compile(backend="eager")
    return net


def part_compiled_in_place():
    net = tanh_net()
    net[0].compile(backend="eager")
    return net


COMPILED = {
    "module": lambda: torch.compile(tanh_net(), backend="eager"),
    "in place": compiled_in_place,
    "a part": compiled_part,
    "a part in place": part_compiled_in_place,
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", COMPILED)
def test_compiled_modules(kind, used):
    module, plain = made(COMPILED[kind]), made(tanh_net)
    if used:
        module(vectors()[0])
    f, g = Objective(module, CE, vectors()), Objective(plain, CE, vectors())
    theta = away(g)
    torch.testing.assert_close(f.gradient(theta), g.gradient(theta), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(f.hvp(theta), g.hvp(theta), rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.jit.script(tanh_net()),
        lambda: torch.jit.trace(tanh_net(), torch.zeros(2, 4)),
        lambda: nn.Sequential(torch.jit.script(nn.Linear(4, 4)), nn.Linear(4, 3)),
    ],
    ids=["script", "trace", "a part"],
)
def test_scripted_modules_are_refused(build):
    with pytest.raises(ValueError, match=r"scripted or traced module.*pass the module that it was made from"):
        Objective(build(), CE, vectors())


@pytest.mark.parametrize("build", [nn.DataParallel, lambda net: torch.compile(nn.DataParallel(net), backend="eager")])
def test_data_parallel_is_refused(build):
    with pytest.raises(ValueError, match=r"got a DataParallel; pass its \.module instead"):
        Objective(build(tanh_net()), CE, vectors())


# -- precision ---------------------------------------------------------------------------------------------------------


def test_modules_in_double_precision():
    module = made(tanh_net)
    f = Objective(module, CE, tuple(t.numpy() for t in vectors()))
    assert f.dtype == torch.float64
    agrees_with_differences(f)


class MakesTensors(nn.Module):
    """Makes tensors of the default type in its forward pass."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)) * torch.linspace(0, 1, 4) + torch.zeros(4))


@pytest.mark.parametrize("build", [tanh_net, MakesTensors])
def test_default_type_is_double(build):
    X, y = vectors()
    module = made(build)
    expected = CE(module.float()(X.float()), y).item()
    torch.set_default_dtype(torch.float64)
    try:
        again = made(build)
        again.load_state_dict(module.state_dict())
        f = Objective(again, CE, vectors())
        assert f.dtype == torch.float64
        assert f.value() == pytest.approx(expected, rel=1e-6)
        agrees_with_differences(f)
        if build is tanh_net:
            single = Objective(again, CE, vectors(), dtype=torch.float32)
            assert single.value() == pytest.approx(expected, rel=1e-5)
            assert hessian_eigenvalues(single, k=1, random_state=0).converged
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_a_wider_copy(dtype):
    module = tanh_net().to(dtype)
    with pytest.raises(ValueError, match=r"pass dtype=torch\.float32 to measure a copy of it in single precision"):
        Objective(module, CE, vectors())
    f = Objective(module, CE, vectors(), dtype=torch.float64)
    X, y = vectors()
    assert f.value() == pytest.approx(CE(copy.deepcopy(module).double()(X), y).item(), rel=1e-12)
    assert next(module.parameters()).dtype == dtype


@pytest.mark.parametrize("first", [torch.float32, torch.bfloat16])
def test_mixed_precision_modules(first):
    module = nn.Sequential(nn.Linear(4, 5).to(first), nn.Tanh(), nn.Linear(5, 3).to(torch.bfloat16))
    X, y = vectors()
    f = Objective(module, CE, (X, y), dtype=torch.float64)
    assert f.value() == pytest.approx(CE(copy.deepcopy(module).double()(X), y).item(), rel=1e-12)
    agrees_with_differences(f)


class InFloat32(nn.Module):
    """Computes in single precision whatever it is given."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how = nn.Linear(4, 5), nn.Linear(5, 3), how

    def forward(self, x):
        if self.how == "input":
            return self.b(torch.tanh(self.a(x.float())))
        if self.how == "constant":
            return self.b(torch.tanh(self.a(x)) @ torch.ones(5, 5))
        if self.how == "casts":
            return self.b(torch.tanh(self.a(x)).float().to(x.dtype))
        out = torch.empty(len(x), 5)
        return self.b(torch.mm(torch.tanh(self.a(x)), torch.eye(5), out=out))


@pytest.mark.parametrize("how", ["input", "constant"])
def test_modules_that_cannot_be_evaluated_in_double_precision(how):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = InFloat32(how)
    f = Objective(module, CE, vectors())
    v = away(f)
    f.hvp(v)
    assert (
        "symmetric; not compared with finite differences, because in float64 the module raises" in f.second_derivatives
    )


# -- outputs -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    loss: object = None


class Ends(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.net, self.end = tanh_net(), end

    def forward(self, x):
        return self.end(self.net(x))


ENDS = {
    "tuple": lambda out: (out, out.sum()),
    "list": lambda out: [out],
    "dict": lambda out: {"loss": None, "logits": out},
    "dataclass": lambda out: Output(out),
}


@pytest.mark.parametrize("end", ENDS)
def test_outputs(end):
    f, g = Objective(made(lambda: Ends(ENDS[end])), CE, vectors()), Objective(made(tanh_net), CE, vectors())
    assert f.evaluate(away(f)) == g.evaluate(away(f))
    torch.testing.assert_close(f.hvp(away(f)), g.hvp(away(f)))


@pytest.mark.parametrize("end", [lambda out: {"scores": out}, lambda out: None, lambda out: (None, out)])
def test_outputs_without_logits_are_refused(end):
    with pytest.raises(TypeError, match="The module must return a tensor, a tuple whose first element is a tensor, or"):
        Objective(made(lambda: Ends(end)), CE, vectors())


@pytest.mark.parametrize(
    ("module", "criterion"),
    [
        (nn.Linear(5, 3), CE),
        (Ends(lambda out: out["logits"]), CE),
        (Ends(lambda out: {}["logits"]), CE),
        (Ends(lambda out: out.nothing), CE),
        (tanh_net(), lambda net, batch: net(batch[0])),
        (tanh_net(), nn.BCEWithLogitsLoss()),
    ],
    ids=["shape", "index", "key", "attribute", "another function", "target"],
)
def test_what_does_not_fit_together_is_refused_in_one_sentence(module, criterion):
    with pytest.raises(ValueError, match=r"must accept the data, inputs|must be the same as input size"):
        Objective(module, criterion, vectors())


# -- functions that are none -------------------------------------------------------------------------------------------


class Random(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = tanh_net(), how
        self.generator, self.numbers = torch.Generator().manual_seed(0), np.random.default_rng(0)

    def forward(self, x):
        if self.how == "dropout":
            return self.net(F.dropout(x, 0.5))
        if self.how == "little dropout":
            return self.net(F.dropout(x, 0.02))
        if self.how == "noise":
            return self.net(x + 0.01 * torch.randn_like(x))
        if self.how == "numpy":
            return self.net(x + float(np.random.normal()))  # noqa: NPY002
        if self.how == "python":
            return self.net(x * random.random())
        if self.how == "own generator":
            return self.net(x + torch.rand(len(x), 1, generator=self.generator))
        if self.how == "own numbers":
            return self.net(x + self.numbers.normal())
        if self.how == "fresh numbers":
            return self.net(x + np.random.default_rng().normal())
        if self.how == "seldom":
            return self.net(x.flip(1) if torch.rand(()) < 0.1 else x)
        if self.how == "seldom, python":
            return self.net(x.flip(1) if random.random() < 0.1 else x)
        if self.how == "seldom, numpy":
            return self.net(x.flip(1) if np.random.rand() < 0.1 else x)  # noqa: NPY002
        if self.how == "seldom, rows":
            return self.net(torch.where(torch.rand(len(x), 1) < 0.1, x.flip(1), x))
        return self.net(x)


NOISE = [
    "dropout", "little dropout", "noise", "numpy", "python", "own generator", "own numbers", "fresh numbers", "seldom",
    "seldom, python", "seldom, numpy", "seldom, rows",
]  # fmt: skip


@pytest.mark.parametrize("how", NOISE)
def test_random_functions_are_refused(how):
    module = made(lambda: Random(how))
    state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    with pytest.raises(ValueError, match="module must be a deterministic function in evaluation mode"):
        Objective(module, CE, vectors())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert random.getstate() == python_state


class RemembersWeights(nn.Module):
    """Computes with what it made of its weights when it first saw them."""

    def __init__(self, how, layers=1):
        super().__init__()
        self.layers = nn.ParameterList(torch.randn(4, 4) for _ in range(layers))
        self.how, self.saved = how, {}

    def forward(self, x):
        for i, weight in enumerate(self.layers):
            if torch.is_grad_enabled():
                x = x @ F.normalize(weight, dim=0)
                continue
            version = weight._version if self.how == "by version" else None
            held = self.saved.get(i)
            if held is None or held[0] is not weight or held[1] != version:
                self.saved[i] = weight, version, F.normalize(weight + weight**2, dim=0)
            x = x @ self.saved[i][2]
        return x


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_weights_that_are_saved_and_not_read_again_are_refused(layers):
    with pytest.raises(ValueError, match="module must read its parameters in every evaluation"):
        Objective(made(lambda: RemembersWeights("by identity", layers)), CE, vectors())


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_weights_that_are_saved_until_they_change_are_measured(layers):
    module = made(lambda: RemembersWeights("by version", layers))
    f = Objective(module, CE, vectors())
    theta = f.theta0 + 0.5
    before, moved = f.value(), f.value(theta)
    assert before != moved
    fresh = copy.deepcopy(module)
    nn.utils.vector_to_parameters(theta, fresh.parameters())
    assert moved == pytest.approx(Objective(fresh, CE, vectors()).value(), rel=1e-12)


class DrawsInVain(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = tanh_net(), how

    def forward(self, x):
        if self.how == "torch":
            torch.rand(3)
        elif self.how == "python":
            random.random()
        elif self.how == "zero":
            x = F.dropout(x, 0.0)
        else:
            x = F.dropout(x, 0.9, self.training)
        return self.net(x)


@pytest.mark.parametrize("how", ["torch", "python", "zero", "training"])
def test_random_numbers_without_effect(how):
    is_right(made(lambda: DrawsInVain(how)))


# -- sequences and attention -------------------------------------------------------------------------------------------


def sequences(n=23, length=3, features=4):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, length, features, generator=generator, dtype=torch.float64)
    return X, torch.randint(0, 3, (n,), generator=generator)


class Recurrent(nn.Module):
    def __init__(self, kind, **kwargs):
        super().__init__()
        self.layer = kind(4, 4, batch_first=True, **kwargs)
        self.out = nn.Linear(8 if kwargs.get("bidirectional") else 4, 3)

    def forward(self, x):
        return self.out(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("kwargs", [{}, {"num_layers": 2, "dropout": 0.3}, {"bidirectional": True}], ids=str)
def test_recurrent_layers(kind, kwargs):
    is_right(made(lambda: Recurrent(kind, **kwargs)), data=sequences())


class Attends(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.out = how, nn.Linear(4, 3)
        self.qkv = nn.Linear(4, 12)
        if how in ("multihead", "multihead, weights"):
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True, dropout=0.1)
        elif how == "encoder":
            layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
            self.attention = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        elif how == "decoder":
            self.attention = nn.TransformerDecoderLayer(4, 2, 8, dropout=0.1, batch_first=True, activation="gelu")

    def forward(self, x):
        if self.how.startswith("multihead"):
            return self.out(self.attention(x, x, x, need_weights="weights" in self.how)[0].mean(1))
        if self.how == "encoder":
            return self.out(self.attention(x).mean(1))
        if self.how == "decoder":
            return self.out(self.attention(x, x.flip(1)).mean(1))
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        masks = {
            "boolean mask": torch.ones(3, 3, dtype=torch.bool).tril(),
            "added mask": torch.zeros(3, 3, dtype=x.dtype).masked_fill(
                torch.ones(3, 3, dtype=torch.bool).triu(1), -9.0
            ),
        }
        y = F.scaled_dot_product_attention(q, k, v, masks.get(self.how), is_causal=self.how == "causal", scale=0.4)
        return self.out(y.transpose(1, 2).flatten(2).mean(1))


ATTENTION = ["multihead", "multihead, weights", "encoder", "decoder", "plain", "boolean mask", "added mask", "causal"]


@pytest.mark.parametrize("how", ATTENTION)
def test_attention(how):
    f = is_right(made(lambda: Attends(how)), data=sequences())
    assert f.second_derivatives == "checked"


# -- parts of a module -------------------------------------------------------------------------------------------------


def test_frozen_parameters_and_none():
    module = made(tanh_net)
    module[0].requires_grad_(False)
    f = is_right(module)
    assert f.n_params == 18


def test_a_parameter_that_is_not_used():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.spare = tanh_net(), nn.Linear(3, 3)
            self.register_parameter("none", None)

        def forward(self, x):
            return self.net(x)

    is_right(made(Unused))


class PlainList(nn.Module):
    """Layers in a plain list are no parameters: constants."""

    def __init__(self):
        super().__init__()
        self.hidden = [nn.Linear(4, 4).double()]
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden[0](x)))


def test_layers_in_a_plain_list_are_constants():
    assert is_right(made(PlainList)).n_params == 15
