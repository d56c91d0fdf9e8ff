import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize, prune

from sklgap.nets import C1, F1, GhostBatchNorm, convert_to_ghost_batch_norm
from sklgap.objective import Objective
from tests.cases import BIT_FOR_BIT, DOUBLE, POLICIES, WITH_BATCH_NORM
from tests.references import ghost_batch_norm, ghost_slices

SHAPES = {2: (3,), 3: (3, 2), 4: (3, 2, 4)}


def _pair(ghost_size, *, momentum=0.1, n_dims=2, affine=True, eps=1e-3, dtype=torch.float64):
    """Return a ghost layer and the plain one with the same weights and buffers."""
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[n_dims]
    plain = kind(3, eps=eps, momentum=momentum, affine=affine).to(dtype)
    ghost = GhostBatchNorm(3, eps, momentum, affine, ghost_batch_size=ghost_size).to(dtype)
    if affine:
        nn.init.uniform_(plain.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(0))
        nn.init.uniform_(plain.bias, -1, 1, generator=torch.Generator().manual_seed(1))
    ghost.load_state_dict(plain.state_dict())
    return ghost, plain


def _inputs(n_rows, n_dims=2, dtype=torch.float64, seed=0):
    return torch.randn(n_rows, *SHAPES[n_dims], generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_references_ghosts_by_hand():
    assert ghost_slices(5, 8) == [slice(0, 5)]
    assert ghost_slices(8, 8) == [slice(0, 8)]
    assert ghost_slices(9, 8) == [slice(0, 9)]
    assert ghost_slices(12, 4) == [slice(i, 12, 3) for i in range(3)]
    assert ghost_slices(14, 4) == [slice(i, 12, 3) for i in range(3)] + [slice(12, 14)]
    assert ghost_slices(13, 4) == [slice(0, 8, 2), slice(1, 8, 2), slice(8, 13)]


@given(
    n_rows=st.integers(2, 50),
    ghost_size=st.integers(2, 20),
    n_dims=st.sampled_from([2, 3, 4]),
    momentum=st.sampled_from([0.1, 0.5, 1.0, None]),
    affine=st.booleans(),
)
def test_it_is_plain_batch_norm_on_every_ghost_batch(n_rows, ghost_size, n_dims, momentum, affine):
    ghost, plain = _pair(ghost_size, momentum=momentum, n_dims=n_dims, affine=affine)
    for seed in range(2):  # the second batch meets buffers that have moved
        x, z = (_inputs(n_rows, n_dims, seed=seed).requires_grad_() for _ in range(2))
        out, expected = ghost(x), ghost_batch_norm(plain, z, ghost_size)
        torch.testing.assert_close(out, expected, **DOUBLE)
        pull = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape).sin()
        (out * pull).sum().backward()
        (expected * pull).sum().backward()
        torch.testing.assert_close(x.grad, z.grad, **DOUBLE)
        for p, q in zip(ghost.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, **DOUBLE)
        torch.testing.assert_close(ghost.running_mean, plain.running_mean, **DOUBLE)
        torch.testing.assert_close(ghost.running_var, plain.running_var, **DOUBLE)
        assert ghost.num_batches_tracked == plain.num_batches_tracked


@pytest.mark.parametrize("n_dims", [2, 4])
def test_float32(n_dims):
    ghost, plain = _pair(4, n_dims=n_dims, dtype=torch.float32)
    x = _inputs(18, n_dims, torch.float32)
    # Rounding of sums of at most 32 terms of order one in float32.
    torch.testing.assert_close(ghost(x), ghost_batch_norm(plain, x, 4), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ghost.running_var, plain.running_var, rtol=1e-5, atol=1e-6)
    assert ghost.running_var.dtype == torch.float32


def test_the_momentum_compounds_in_closed_form():
    ghost, _ = _pair(2, momentum=0.5)
    x = torch.zeros(6, 3, dtype=torch.float64)
    x[[0, 3]], x[[1, 4]], x[[2, 5]] = 1.0, 2.0, 4.0  # three ghosts by stride 3: means 1, 2, 4
    ghost(x)
    expected = ((0 * 0.5 + 0.5 * 1) * 0.5 + 0.5 * 2) * 0.5 + 0.5 * 4
    torch.testing.assert_close(ghost.running_mean, torch.full((3,), expected, dtype=torch.float64), **DOUBLE)
    torch.testing.assert_close(ghost.running_var, torch.full((3,), 0.125, dtype=torch.float64), **DOUBLE)


@pytest.mark.parametrize("n_dims", [2, 4])
@pytest.mark.parametrize(("n_rows", "ghost_size"), [(5, 8), (8, 8), (9, 8)])
def test_one_ghost_is_plain_batch_norm_bit_for_bit(n_rows, ghost_size, n_dims):
    ghost, plain = _pair(ghost_size, n_dims=n_dims, dtype=torch.float32)
    x = _inputs(n_rows, n_dims, torch.float32)
    torch.testing.assert_close(ghost(x), plain(x), **BIT_FOR_BIT)
    torch.testing.assert_close(dict(ghost.state_dict()), dict(plain.state_dict()), **BIT_FOR_BIT)


def test_evaluation_mode_is_plain_batch_norm_bit_for_bit():
    ghost, plain = _pair(4)
    ghost(_inputs(18))
    plain.load_state_dict(ghost.state_dict())
    before = {name: t.clone() for name, t in ghost.state_dict().items()}
    x = _inputs(18, seed=1)
    torch.testing.assert_close(ghost.eval()(x), plain.eval()(x), **BIT_FOR_BIT)
    torch.testing.assert_close(dict(ghost.state_dict()), before, **BIT_FOR_BIT)


@pytest.mark.parametrize("problem", WITH_BATCH_NORM)
@pytest.mark.parametrize("policy", POLICIES)
def test_measuring_is_that_of_plain_batch_norm_bit_for_bit(problem, policy):
    module, criterion, *data = WITH_BATCH_NORM[problem]()
    plain, ghost = (
        Objective(net, criterion, data, batch_norm=policy, chunk_size=11)
        for net in (module, convert_to_ghost_batch_norm(copy.deepcopy(module), 2))
    )
    assert ghost.value() == plain.value()
    assert torch.equal(ghost.gradient()[1], plain.gradient()[1])


def test_the_cumulative_average_counts_every_ghost_batch_alike():
    ghost, _ = _pair(2, momentum=None)
    x = torch.arange(24, dtype=torch.float64).view(8, 3)
    ghost.running_mean.fill_(float("1e300"))  # forgotten by the first batch
    ghost(x)
    torch.testing.assert_close(ghost.running_mean, x.mean(0), **DOUBLE)
    ghost(x + 6)
    torch.testing.assert_close(ghost.running_mean, x.mean(0) + 3, **DOUBLE)
    assert ghost.num_batches_tracked == 8


def test_an_input_that_is_not_contiguous():
    ghost, plain = _pair(4, n_dims=4)
    x = _inputs(12, 4).to(memory_format=torch.channels_last)
    torch.testing.assert_close(ghost(x), ghost_batch_norm(plain, x, 4), **DOUBLE)


def test_one_dimension_is_an_error():
    with pytest.raises(ValueError, match="GhostBatchNorm needs an input of at least 2 dimensions; got 1"):
        _pair(4)[0](torch.zeros(3, dtype=torch.float64))


# -- the converter ---------------------------------------------------------------------------------------------------


def _ghosts(module):
    return [m for m in module.modules() if isinstance(m, GhostBatchNorm)]


@pytest.mark.parametrize("build", [lambda: F1(4, 3, width=5), lambda: C1((1, 6, 6), 3, 2, (4,))], ids=["F1", "C1"])
@pytest.mark.parametrize("training", [True, False])
def test_convert_keeps_weights_buffers_and_mode(build, training):
    module = build().double().train(training)
    for p in module.parameters():
        nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(module)
    converted = convert_to_ghost_batch_norm(module, 4)
    assert converted is module
    plain = [m for m in before.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(_ghosts(module)) == len(plain)
    for ghost, layer in zip(_ghosts(module), plain, strict=True):
        assert (ghost.eps, ghost.momentum, ghost.ghost_batch_size) == (layer.eps, layer.momentum, 4)
        assert ghost.training is training
    torch.testing.assert_close(dict(module.state_dict()), dict(before.state_dict()), **BIT_FOR_BIT)
    assert {t.dtype for t in module.state_dict().values()} == {torch.float64, torch.int64}
    X = torch.zeros(10, *((4,) if isinstance(module, F1) else (1, 6, 6)), dtype=torch.float64)
    torch.testing.assert_close(module.eval()(X), before.eval()(X), **BIT_FOR_BIT)


def test_convert_a_layer_itself():
    converted = convert_to_ghost_batch_norm(nn.BatchNorm2d(3), 4)
    assert isinstance(converted, GhostBatchNorm)


def test_convert_a_layer_without_statistics():
    layer = convert_to_ghost_batch_norm(nn.BatchNorm1d(3, track_running_stats=False), 4)
    assert layer.running_mean is None
    layer(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))
    assert layer.running_mean is None


def test_convert_keeps_statistics_that_are_switched_off():
    layer = nn.BatchNorm1d(3).double()
    layer.track_running_stats = False
    before = copy.deepcopy(layer.state_dict())
    convert_to_ghost_batch_norm(layer, 4)(_inputs(12))
    torch.testing.assert_close(dict(layer.state_dict()), dict(before), **BIT_FOR_BIT)


def test_convert_keeps_the_dtype_of_a_layer_without_weights():
    layer = convert_to_ghost_batch_norm(nn.BatchNorm1d(3, affine=False).double(), 4)
    assert layer.running_var.dtype == torch.float64


def test_convert_keeps_frozen_weights_frozen():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).requires_grad_(False))
    convert_to_ghost_batch_norm(module, 4)
    assert [name for name, p in module.named_parameters() if p.requires_grad] == ["0.weight", "0.bias"]


def test_convert_keeps_a_shared_layer_shared():
    shared = nn.BatchNorm1d(3)
    module = nn.Sequential(shared, nn.Linear(3, 3), shared)
    convert_to_ghost_batch_norm(module, 4)
    assert isinstance(module[2], GhostBatchNorm)
    assert module[0] is module[2]


def _net():
    """Return a net in float64 with batch norm at index 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2)).double()


HOOKS = {
    "forward": lambda layer: layer.register_forward_hook(lambda layer, inputs, output: 3 * output),
    "forward with kwargs": lambda layer: layer.register_forward_hook(
        lambda layer, inputs, kwargs, output: output.relu(), with_kwargs=True
    ),
    "before forward": lambda layer: layer.register_forward_pre_hook(lambda layer, inputs: inputs[0].clamp(min=0)),
    "backward": lambda layer: layer.register_full_backward_hook(lambda layer, below, above: (2 * below[0],)),
    "before backward": lambda layer: layer.register_full_backward_pre_hook(lambda layer, above: (2 * above[0],)),
    "gradient": lambda layer: layer.weight.register_hook(lambda gradient: 2 * gradient),
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", amount=2),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_convert_keeps_hooks(hook):
    results = []
    for convert in (lambda net: net, lambda net: convert_to_ghost_batch_norm(net, 9)):
        net, x = _net(), _inputs(9)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # pruning draws
            HOOKS[hook](net[1])
        out = convert(net)(x)
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad for _, p in sorted(net.named_parameters()))])
    plain, ghost = results
    torch.testing.assert_close(ghost, plain, **BIT_FOR_BIT)
    usual = _net()(_inputs(9))
    assert torch.equal(plain[0], usual) == (hook in ("backward", "before backward", "gradient"))


def test_convert_keeps_hooks_on_the_state():
    net, seen = _net(), []
    net[1].register_state_dict_post_hook(lambda *args: seen.append("post"))
    net[1].register_state_dict_pre_hook(lambda *args: seen.append("pre"))
    net[1].register_load_state_dict_post_hook(lambda *args: seen.append("load"))
    convert_to_ghost_batch_norm(net, 4).load_state_dict(net.state_dict())
    assert seen == ["pre", "post", "load"]


class Listed(nn.Module):
    """Layers that are also in other objects than the dict of the parts."""

    def __init__(self, kind):
        super().__init__()
        self.first, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.held = {
            "list": [self.first, self.norm],
            "dict": {"norm": [self.norm], "first": (self.first,)},
            "closure": [lambda x: self.first(x), lambda x, norm=self.norm: norm(x)],
            "call": [self.first, self.norm.__call__],
        }[kind]
        self.kind = kind

    def forward(self, x):
        steps = [*self.held["first"], *self.held["norm"]] if self.kind == "dict" else self.held
        for step in steps:
            x = step(x)
        return x


@pytest.mark.parametrize("kind", ["list", "dict", "closure", "call"])
def test_convert_reaches_a_layer_wherever_it_is_held(kind):
    module = Listed(kind).double()
    x = _inputs(12)
    expected = ghost_batch_norm(copy.deepcopy(module.norm), module.first(x), 4)
    convert_to_ghost_batch_norm(module, 4)
    torch.testing.assert_close(module(x), expected, **DOUBLE)


@pytest.mark.parametrize("in_place", [True, False])
def test_convert_a_compiled_module_that_has_run(in_place):
    net, x = _net(), _inputs(12)
    if in_place:
        net[1].compile(backend="eager")
    compiled = net if in_place else torch.compile(net, backend="eager")
    with torch.no_grad():
        expected = convert_to_ghost_batch_norm(_net(), 4)(x)
        compiled(x)
        torch.testing.assert_close(convert_to_ghost_batch_norm(compiled, 4)(x), expected, **DOUBLE)


def test_convert_keeps_attributes_and_the_net_can_be_copied_and_pickled():
    net = _net()
    net[1].scale = 3.0
    convert_to_ghost_batch_norm(net, 4)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(other[1]) is GhostBatchNorm
        assert (other[1].scale, other[1].ghost_batch_size) == (3.0, 4)
        torch.testing.assert_close(other(_inputs(12)), copy.deepcopy(net)(_inputs(12)), **BIT_FOR_BIT)


def test_convert_ghosts_of_another_size():
    net = convert_to_ghost_batch_norm(convert_to_ghost_batch_norm(_net(), 8), 4)
    assert [layer.ghost_batch_size for layer in _ghosts(net)] == [4]


class OtherDefaults(nn.BatchNorm1d):
    """A subclass that changes no method of the forward pass."""

    def __init__(self, n):
        super().__init__(n, momentum=0.5)

    def _check_input_dim(self, input):
        pass


def test_convert_a_subclass_with_other_defaults():
    layer = convert_to_ghost_batch_norm(OtherDefaults(3), 4)
    assert (type(layer), layer.momentum) == (GhostBatchNorm, 0.5)


class Extended(nn.BatchNorm1d):
    limit = 3

    def extra(self, x):
        return x


class Frozen(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(False)


class Mixed(Extended):
    pass


class ExtendedGhosts(GhostBatchNorm):
    def extra(self, x):
        return x


def _parametrized(n):
    layer = nn.BatchNorm1d(n)
    parametrize.register_parametrization(layer, "weight", nn.Softplus())
    return layer


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (Extended, r"that add methods or .* a Extended, which adds extra, limit; move them to the module"),
        (Frozen, r"that add methods or .* a Frozen, which adds train; move"),
        (Mixed, r"that add methods or .* a Mixed, which adds extra, limit; move"),
        (ExtendedGhosts, r"that add methods or .* a ExtendedGhosts, which adds extra; move"),
        (_parametrized, r"with parametrizations; layer '1' has one of weight; call .*remove_parametrizations"),
    ],
)
def test_convert_refuses_what_a_layer_would_lose(build, sentence):
    module = nn.Sequential(nn.BatchNorm1d(3), build(3))
    with pytest.raises(ValueError, match=r"^ghost_batch_size must be None for batch-norm layers " + sentence):
        convert_to_ghost_batch_norm(module, 4)
    assert type(module[0]) is nn.BatchNorm1d


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("build", [torch.jit.script, lambda net: nn.Sequential(torch.jit.script(net))])
def test_convert_refuses_a_scripted_module(build):
    with pytest.raises(ValueError, match=r"^module must not be a scripted or traced module, or have one as a part"):
        convert_to_ghost_batch_norm(build(_net()), 4)


@pytest.mark.parametrize("kind", [nn.LazyBatchNorm1d, nn.LazyBatchNorm2d])
def test_convert_a_lazy_layer(kind):
    module = nn.Sequential(nn.Identity(), kind())
    sentence = (
        f"module must have no lazy batch-norm layers; layer '1' is a {kind.__name__}, which has no size yet; call"
    )
    with pytest.raises(ValueError, match=sentence):
        convert_to_ghost_batch_norm(module, 4)
    module(_inputs(6, 2 if kind is nn.LazyBatchNorm1d else 4, torch.float32))
    assert len(_ghosts(convert_to_ghost_batch_norm(module, 4))) == 1


@pytest.mark.parametrize("build", [lambda: nn.Linear(3, 2), lambda: nn.GroupNorm(1, 3), lambda: nn.InstanceNorm1d(3)])
def test_convert_a_net_without_batch_norm_warns(build):
    with pytest.warns(UserWarning, match="^ghost_batch_size=4 changes nothing, because the net has no "):
        assert not _ghosts(convert_to_ghost_batch_norm(build(), 4))


# -- autocast ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("n_rows", [8, 14])
def test_statistics_are_not_rounded_by_autocast(momentum, affine, n_rows):
    """Rows that have been rounded to bfloat16 leave the statistics that they have in float32."""
    lower, plain = (_pair(4, momentum=momentum, affine=affine, dtype=torch.float32)[0].train() for _ in range(2))
    rounded = _inputs(n_rows, dtype=torch.float32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lower(rounded)
    expected = plain(rounded.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2**-7, atol=2**-7)  # eight bits
    torch.testing.assert_close(lower.running_mean, plain.running_mean)
    torch.testing.assert_close(lower.running_var, plain.running_var)


def test_a_layer_in_half_precision_computes_in_it():
    layer = _pair(4, dtype=torch.bfloat16)[0].train()
    assert layer(_inputs(8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer.running_mean.dtype == torch.bfloat16
