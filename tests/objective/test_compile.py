"""``compile`` of an objective: the same loss surface, compiled where that can be done and as it is elsewhere."""

import copy
import pickle
import threading
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from sklgap._typing import Batch
from sklgap.objective import CompileWarning, Objective, check_objective
from sklgap.objective._compile import MAX_SHAPES, CompiledCalls, check_compile
from tests.tiny import small

CE = nn.CrossEntropyLoss()
EAGER, AOT = {"backend": "eager"}, {"backend": "aot_eager"}
NETS = {
    "dense": lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.Flatten(), nn.Linear(8, 3)),
}


def data(n=30):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=generator, dtype=torch.float64), torch.arange(n) % 3


def made(net):
    torch.manual_seed(1)
    return NETS[net]().double()


def pair(net, n=30, compile=AOT, **kwargs):
    module = made(net) if isinstance(net, str) else net
    return Objective(module, CE, data(n), compile=compile, **kwargs), Objective(module, CE, data(n), **kwargs)


def code(objective):
    return list(objective._fn.compiled._code.values())


@pytest.mark.parametrize(
    ("net", "backend", "batch_norm"),
    [
        *((net, "eager", "batch") for net in NETS),
        ("dense", "aot_eager", "batch"),
        ("batch norm", "aot_eager", "running"),
        ("convolution", "aot_eager", "running"),
    ],
)
def test_losses_and_gradients_are_those_of_the_module(net, backend, batch_norm):
    f, g = pair(net, compile={"backend": backend}, batch_norm=batch_norm)
    for theta in (None, g.theta0 + 0.1):
        torch.testing.assert_close(f.gradient(theta), g.gradient(theta), rtol=1e-12, atol=1e-14)
        assert f.evaluate(theta) == pytest.approx(g.evaluate(theta), rel=1e-12)
    assert len(code(f)) == 2  # with gradients and without
    assert all(code(f))


def test_each_size_of_a_chunk_is_compiled_and_no_other():
    f, g = pair("dense", n=31, chunk_size=16)
    torch.testing.assert_close(f.gradient(), g.gradient(), rtol=1e-12, atol=1e-14)
    assert len(code(f)) == 2
    for rows in (range(3), range(7), range(16)):
        torch.testing.assert_close(f.batch_gradient(list(rows)), g.batch_gradient(list(rows)), rtol=1e-12, atol=1e-14)
    assert len(code(f)) == 2


@pytest.mark.parametrize("net", ["dense", "batch norm", "convolution"])
def test_second_derivatives_are_never_compiled(net):
    f, g = pair(net)
    v = torch.linspace(-1, 1, g.n_params, dtype=torch.float64)
    assert torch.equal(f.hvp(v), g.hvp(v))
    assert torch.equal(f.hessian_operator()(v), g.hessian_operator()(v))
    f.gradient()
    assert torch.equal(f.hvp(v), g.hvp(v))
    assert all(code(f))


def test_gradients_of_single_rows_are_never_compiled():
    f, g = pair("dense")
    assert torch.equal(f.row_gradient_norms(range(5)), g.row_gradient_norms(range(5)))
    assert not code(f)


def test_statistics_of_the_population_are_never_compiled():
    f, g = pair("batch norm", batch_norm="population")
    assert f._fn.compiled is None
    assert f.gradient()[0] == g.gradient()[0]


def test_one_code_for_all_sizes():
    f, g = pair("dense", compile={**AOT, "dynamic": True})
    for n in (4, 5, 9):
        torch.testing.assert_close(f.batch_gradient(range(n)), g.batch_gradient(range(n)), rtol=1e-12, atol=1e-14)
    assert len(code(f)) == 1


# -- what cannot be compiled is evaluated as it is, with one sentence --------------------------------------------------


def missing(graph, inputs):
    raise RuntimeError("no compiler was found")


def wrong(graph, inputs):
    return lambda *args: [2 * output for output in graph(*args)]


class Breaks(nn.Linear):
    def forward(self, x):
        torch._dynamo.graph_break()
        return super().forward(x)


def hooked():
    net = made("dense")
    net[0].register_forward_hook(lambda *_: None)
    return net


FALLBACKS = {
    "no compiler": (lambda: made("dense"), missing, "torch.compile raises RuntimeError: no compiler was found"),
    "other outputs": (lambda: made("dense"), wrong, "the compiled code gives other outputs"),
    "not as a whole": (lambda: nn.Sequential(Breaks(6, 3)).double(), "eager", "torch.compile raises Unsupported"),
    "hooks": (hooked, "eager", "the net has hooks, which compiled code would not call"),
    "no such compiler": (lambda: made("dense"), "gcc", "torch.compile raises InvalidBackend"),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_what_cannot_be_compiled(case):
    build, backend, sentence = FALLBACKS[case]
    f, g = pair(build(), compile={"backend": backend})
    with pytest.warns(CompileWarning, match=f"compile: the net is evaluated without torch.compile, because {sentence}"):
        value, gradient = f.gradient()
    assert value == g.gradient()[0]
    assert torch.equal(gradient, g.gradient()[1])
    assert f.evaluate() == g.evaluate()  # and says nothing again


def test_the_warning_can_be_filtered():
    f, g = pair("dense", compile={"backend": missing})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompileWarning)
        assert f.value() == g.value()


def test_a_forked_process_does_not_compile(monkeypatch):
    monkeypatch.setattr("sklgap.objective._compile.is_forked", lambda: True)
    f, g = pair("dense")
    with pytest.warns(CompileWarning, match="this process was forked"):
        assert f.value() == g.value()


def test_code_that_was_compiled_before_the_fork_is_not_called_after_it(monkeypatch):
    f, g = pair("dense")
    assert f.gradient()[0] == pytest.approx(g.gradient()[0])
    monkeypatch.setattr("sklgap.objective._compile.is_forked", lambda: True)
    calls = dict.fromkeys(f._fn.compiled._code, lambda *_: pytest.fail("it would wait for threads of its parent"))
    f._fn.compiled._code = calls
    with pytest.warns(CompileWarning, match="this process was forked"):
        assert f.gradient()[0] == g.gradient()[0]
    assert f.value() == g.value()


@pytest.mark.parametrize("net", ["dense", "batch norm", "convolution"])
def test_gradients_of_the_rows_are_taken_of_the_module_itself(net):
    f, g = pair(net)
    X, y = data()
    found = []
    for objective in (f, g):
        inputs = X.clone().requires_grad_()
        with (
            pytest.warns(CompileWarning, match="gradients with respect to the inputs")
            if objective is f
            else nullcontext()
        ):
            loss = objective._loss_at(objective._leaves, chunk=Batch(inputs, y))
        (slope,) = torch.autograd.grad(loss, inputs, retain_graph=True)
        found.append((slope, *torch.autograd.grad(loss, list(objective._leaves.values()))))
    assert all(map(torch.equal, *found))


def test_a_compiler_that_fails_later():
    f, g = pair("dense")
    f.gradient()
    (key,) = f._fn.compiled._code

    def fails(*_):
        raise torch._dynamo.exc.FailOnRecompileLimitHit("recompile_limit reached")

    f._fn.compiled._code[key] = fails
    with pytest.warns(CompileWarning, match="FailOnRecompileLimitHit: recompile_limit reached"):
        assert torch.equal(f.gradient()[1], g.gradient()[1])
    assert code(f) == [None]


def test_errors_of_the_module_are_raised_as_they_are():
    calls = CompiledCalls(made("dense"), check_compile(EAGER), [4])
    calls(torch.zeros(4, 6, dtype=torch.float64))
    with pytest.warns(CompileWarning), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        calls(torch.zeros(4, 7, dtype=torch.float64))


def test_inputs_of_many_shapes():
    net = nn.Sequential(nn.AdaptiveAvgPool1d(6), nn.Linear(6, 3))
    calls = CompiledCalls(net, check_compile(EAGER), [2])
    for length in range(1, MAX_SHAPES + 1):
        calls(torch.ones(2, length))
    with pytest.warns(CompileWarning, match=f"more than {MAX_SHAPES} shapes; compile__dynamic=True"):
        calls(torch.ones(2, 50))
    assert len(calls._code) == MAX_SHAPES


# -- what is compiled leaves everything as it was ----------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
def test_the_module_and_the_random_numbers_are_left_alone(net):
    module = made(net).train()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    Objective(module, CE, data(), compile=EAGER).gradient()
    assert torch.equal(state, torch.get_rng_state())
    assert module.training
    assert module._compiled_call_impl is None
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("net", ["batch norm", "dropout"])
def test_trying_what_is_compiled_draws_and_writes_nothing(net, train):
    modules = [made(net).train(train) for _ in range(2)]
    calls = [CompiledCalls(modules[0], check_compile(EAGER), [30]), modules[1]]
    outputs = []
    for call in calls:
        torch.manual_seed(3)
        outputs.append([call(data()[0]) for _ in range(3)][-1])
    assert torch.equal(*outputs)
    for own, other in zip(modules[0].buffers(), modules[1].buffers(), strict=True):
        assert torch.equal(own, other)


def test_a_hook_that_comes_later_is_called():
    module, seen = made("dense"), []
    calls = CompiledCalls(module, check_compile(EAGER), [30])
    calls(data()[0])
    handle = module[0].register_forward_hook(lambda *_: seen.append(1))
    with pytest.warns(CompileWarning, match="the net has hooks"):
        calls(data()[0])
    handle.remove()
    calls(data()[0])
    assert seen == [1]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda calls: pickle.loads(pickle.dumps(calls))])
def test_code_is_no_part_of_copies(copied):
    calls = CompiledCalls(made("dense"), check_compile(EAGER), [30])
    expected = calls(data()[0])
    other = copied(calls)
    assert calls._code
    assert not other._code
    assert torch.equal(other(data()[0]), expected)
    assert other._code


def test_frozen_parameters_and_parts():
    module = made("dense")
    module[0].bias.requires_grad_(False)
    f, g = pair(module, parameters=["0.*"])
    torch.testing.assert_close(f.gradient(), g.gradient(), rtol=1e-12, atol=1e-14)
    assert f.n_params == g.n_params == 30
    assert all(code(f))


def test_objectives_in_threads_at_once():
    found, modules = {}, {net: made(net) for net in NETS}

    def measure(net):
        found[net] = pair(modules[net])[0].gradient()

    threads = [threading.Thread(target=measure, args=(net,)) for net in NETS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for net, (value, gradient) in found.items():
        expected = pair(modules[net])[1].gradient()
        assert value == pytest.approx(expected[0], rel=1e-12)
        torch.testing.assert_close(gradient, expected[1], rtol=1e-12, atol=1e-14)
    assert len(found) == len(NETS)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [None, 1, "yes", ["eager"], 0.0])
def test_bad_options(bad):
    with pytest.raises((TypeError, ValueError), match="compile must be True, False or a dict of options"):
        Objective(made("dense"), CE, data(), compile=bad)


def test_a_mode_and_options_exclude_each_other():
    with pytest.raises(ValueError, match=r"'mode' or 'options' of torch.compile; got both"):
        check_compile({"mode": "default", "options": {"fallback_random": True}})


def test_what_an_estimator_says_holds_unless_something_else_is_asked_for():
    model = small(max_epochs=1, compile=True, compile__backend="eager")
    X, y = data(60)
    model.fit(X.numpy(), y.numpy())
    told = check_objective(model, X.numpy(), y.numpy())
    assert told._fn.compiled.options["backend"] == "eager"
    assert check_objective(model, X.numpy(), y.numpy(), compile=False)._fn.compiled is None
    model.set_params(compile=False)
    plain = check_objective(model, X.numpy(), y.numpy())
    assert plain._fn.compiled is None
    assert told.value() == plain.value()
    assert torch.equal(told.gradient()[1], plain.gradient()[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.parametrize(
    ("net", "batch_norm"), [("batch norm", "batch"), ("dropout", "batch"), ("convolution", "running")]
)
def test_inductor(net, batch_norm):
    f, g = pair(net, compile=True, batch_norm=batch_norm)
    torch.testing.assert_close(f.gradient(), g.gradient(), rtol=1e-10, atol=1e-12)
    assert all(code(f))


@pytest.mark.parametrize("compile", [False, EAGER])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_copies_of_an_objective_measure_the_same(copied, compile):
    f = Objective(made("dense"), nn.functional.cross_entropy, data(), compile=compile)
    for before in (None, f.theta0 + 1):  # whatever was evaluated last
        expected = f.gradient(before), f.value(f.theta0 - 1)
        other = copied(f)
        assert (other.gradient(before)[0], other.value(f.theta0 - 1)) == (expected[0][0], expected[1])
        assert torch.equal(other.gradient(before)[1], expected[0][1])
        assert torch.equal(f.gradient(before)[1], expected[0][1])


class Kink(nn.Module):
    """A layer whose units stand at the kink of the ReLU; compiled, rounding moves them off it in some types."""

    def __init__(self, moved):
        super().__init__()
        self.first, self.second, self.moved = nn.Linear(6, 8, bias=False), nn.Linear(6, 3), moved
        self.head = nn.Linear(8, 3)

    def forward(self, X):
        hidden = self.first(X)
        hidden = hidden - hidden.detach()
        if torch.compiler.is_compiling() and X.dtype in self.moved:
            hidden = hidden + 1e-9
        return self.second(X) + self.head(torch.relu(hidden))


@pytest.mark.parametrize("train", [True, False])
def test_rounding_at_a_kink_is_told_from_a_wrong_gradient(train):
    X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    rounding = CompiledCalls(Kink([torch.float32]).train(train), check_compile(EAGER), [20])
    rounding(X)
    assert all(rounding._code.values())
    wrong = CompiledCalls(Kink([torch.float32, torch.float64]).train(train), check_compile(EAGER), [20])
    with pytest.warns(CompileWarning, match="other gradients"):
        wrong(X)
    assert not any(wrong._code.values())


def test_other_outputs_are_refused_whatever_float64_gives():
    class Shifted(nn.Linear):
        def forward(self, X):
            found = super().forward(X)
            return found + 1 if torch.compiler.is_compiling() and X.dtype is torch.float32 else found

    calls = CompiledCalls(Shifted(6, 3), check_compile(EAGER), [20])
    with pytest.warns(CompileWarning, match="other outputs"):
        calls(torch.ones(20, 6))
