import copy

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from sklgap import LBGapClassifier
from sklgap.inspection import rescale_layers, sharpness
from sklgap.nets import C1, C2, C3, C4, F1, F2, convert_to_ghost_batch_norm
from sklgap.objective import Objective
from tests.cases import DOUBLE, POLICIES, no_global_random_numbers, seeded_module
from tests.pairs import product
from tests.tiny import Mlp, TinyF1, blobs, small

IMAGE = (2, 6, 5)
STACKS = ((3, 4), (5,))


class Functional(nn.Module):
    """A forward pass with functions and methods, in another order than that of definition."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.dense = nn.Linear(12, 6)
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, X):
        hidden = functional.max_pool2d(torch.relu(self.conv(X)), 2, ceil_mode=True)
        hidden = hidden.view(hidden.size(0), -1)
        return self.head(functional.dropout(self.dense(hidden).relu(), training=self.training)).softmax(dim=1)


class Skip(nn.Module):
    """A skip connection around the second layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third, self.head = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, X):
        hidden = self.first(X).relu()
        return self.head((self.second(hidden) + hidden).relu() + self.third(X))


def _plain():
    layers = [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.LeakyReLU(0.3), nn.Dropout(), nn.Linear(6, 5)]
    return nn.Sequential(*layers, nn.PReLU(5), nn.Identity(), nn.Linear(5, 3))


def _nested():
    block = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
    return nn.Sequential(block, nn.Sequential(nn.Flatten(), nn.Linear(18, 5)), nn.Sigmoid(), nn.Linear(5, 3))


def _norms():
    layers = [nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 6), nn.GroupNorm(2, 6), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3))


# Net, shape of a row, and the pairs in it: first layer, second layer.
NETS = {
    "F1": (lambda: F1(7, 3, width=4), (7,), [(f"{3 * i + 2}", f"{3 * i + 4}") for i in range(5)]),
    "F2": (lambda: F2(7, 3, width=4), (7,), [(f"{3 * i + 2}", f"{3 * i + 4}") for i in range(7)]),
    "C1": (
        lambda: C1(IMAGE, 3, n_filters=3, hidden=(5, 4)),
        IMAGE,
        [("1", "4"), ("5", "9"), ("10", "13"), ("14", "17")],
    ),
    "C2": (lambda: C2(IMAGE, 3, STACKS, hidden=5), IMAGE, [("1", "4"), ("5", "8"), ("9", "14"), ("15", "18")]),
    "C3": (lambda: C3(IMAGE, 3, n_filters=3, hidden=(5,)), IMAGE, [("1", "4"), ("5", "9"), ("10", "13")]),
    "C4": (lambda: C4(IMAGE, 3, STACKS, hidden=5), IMAGE, [("1", "4"), ("5", "8"), ("9", "14"), ("15", "18")]),
    "ghost": (lambda: convert_to_ghost_batch_norm(TinyF1(4, 3), 8), (4,), [("2", "4"), ("5", "7")]),
    "plain": (_plain, (4,), [("0", "2"), ("2", "5"), ("5", "8")]),
    "nested": (_nested, IMAGE, [("0.0", "1.1")]),
    "norms": (_norms, (4,), [("1", "3"), ("4", "6")]),
    "functional": (Functional, IMAGE, [("conv", "dense"), ("dense", "head")]),
    "skip": (Skip, (4,), []),
    "tanh": (lambda: Mlp(), (4,), []),
}
WITH_PAIRS = [name for name, (_, _, pairs) in NETS.items() if pairs]


def _net(name):
    """Return a net in float64, rows, and its pairs with full names."""
    build, shape, pairs = NETS[name]
    module = seeded_module(build)
    prefix = "layers." if hasattr(module, "layers") else ""
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(23, *shape)))
    return module, X, [(prefix + first, prefix + second) for first, second in pairs]


def _parameters(module):
    return {name: p.detach() for name, p in module.named_parameters()}


@pytest.mark.parametrize(("name", "policy", "factor"), product(WITH_PAIRS, POLICIES, [0.3, 7]))
def test_the_function_is_the_same(name, policy, factor):
    module, X, _ = _net(name)
    y = torch.arange(len(X)) % 3
    before, after = (
        Objective(net, nn.CrossEntropyLoss(), (X, y), batch_norm=policy, chunk_size=7)
        for net in (module, rescale_layers(module, factor))
    )
    assert not torch.equal(after.theta0, before.theta0)
    assert after.evaluate() == pytest.approx(before.evaluate(), rel=1e-10)
    with torch.no_grad():
        expected = module.eval()(X)
        np.testing.assert_allclose(rescale_layers(module, factor)(X), expected, **DOUBLE)


@pytest.mark.parametrize("name", WITH_PAIRS)
def test_the_weights_are_others_as_predicted(name):
    module, _, pairs = _net(name)
    own, factor = _parameters(module), 3.0
    # Every layer once: a layer that is both first and second of two pairs multiplies and divides.
    powers = dict.fromkeys(own, 0)
    for first, second in pairs:
        powers[f"{first}.weight"] += 1
        powers[f"{second}.weight"] -= 1
        if f"{first}.bias" in powers:
            powers[f"{first}.bias"] += 1
    for key, value in _parameters(rescale_layers(module, factor)).items():
        torch.testing.assert_close(value, own[key] * factor ** powers[key], rtol=1e-14, atol=0)
        if powers[key] == 0:
            assert torch.equal(value, own[key])
        elif own[key].any():
            assert value.norm() == pytest.approx((factor ** powers[key] * own[key].norm()).item())


@pytest.mark.parametrize("name", WITH_PAIRS)
def test_a_power_of_two_changes_no_bit_of_the_outputs(name):
    module, X, _ = _net(name)
    module, X = module.float().eval(), X.float()
    with torch.no_grad():
        assert torch.equal(rescale_layers(module, 2**12)(X), module(X))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_dtype_there_and_back(dtype):
    module = seeded_module(_plain).to(dtype)
    back = rescale_layers(rescale_layers(module, 3.0), 1 / 3.0)
    for name, p in _parameters(back).items():
        torch.testing.assert_close(p, _parameters(module)[name], rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_dinh_et_al():
    # Two layers of a ReLU net: (a W1, a b1, W2 / a).
    net = seeded_module(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    other = rescale_layers(net, 5.0)
    assert torch.equal(other[0].weight, 5 * net[0].weight)
    assert torch.equal(other[0].bias, 5 * net[0].bias)
    assert torch.equal(other[2].weight, net[2].weight / 5)
    assert torch.equal(other[2].bias, net[2].bias)


def test_chosen_layers():
    module, X, pairs = _net("F1")
    own = _parameters(module)
    (_, _), (first, second), *_ = pairs
    other = rescale_layers(module, 2.0, layers=[first])
    changed = [name for name, p in _parameters(other).items() if not torch.equal(p, own[name])]
    assert changed == [f"{first}.weight", f"{first}.bias", f"{second}.weight"]
    np.testing.assert_allclose(other.eval()(X).detach(), module.eval()(X).detach(), **DOUBLE)
    # All of them one by one are all of them at once, and the way back leads back.
    one_by_one = module
    for first, _ in reversed(pairs):
        one_by_one = rescale_layers(one_by_one, 2.0, layers=(first,))
    at_once = rescale_layers(module, 2.0)
    for name, p in _parameters(at_once).items():
        assert torch.equal(p, _parameters(one_by_one)[name])
        assert torch.equal(_parameters(rescale_layers(at_once, 0.5))[name], own[name])


def test_factor_one_changes_nothing():
    module, _, _ = _net("C1")
    other = rescale_layers(module, 1)
    assert other is not module
    for name, value in other.state_dict().items():
        assert torch.equal(value, module.state_dict()[name])


@pytest.mark.parametrize("name", ["C1", "functional"])
def test_what_was_given_is_left_as_it_was(name):
    module, _, _ = _net(name)
    module.train()
    before, attributes = copy.deepcopy(module.state_dict()), set(vars(module))
    with no_global_random_numbers():
        other = rescale_layers(module, 10.0)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert set(vars(module)) == attributes
    assert module.training
    assert other.training
    assert all(p.requires_grad for p in other.parameters())
    shared = {p.data_ptr() for p in module.parameters()} & {p.data_ptr() for p in other.parameters()}
    assert not shared
    # Statistics before the scaled layers are those of the same activations.
    assert all(torch.equal(value, dict(module.named_buffers())[key]) for key, value in other.named_buffers())


# -- wrapped modules --------------------------------------------------------------------------------------------------


def _compiled(module):
    return torch.compile(module, backend="eager")


def _compiled_parts():
    first = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6))
    return nn.Sequential(_compiled(first), _compiled(nn.ReLU()), nn.Linear(6, 3))


def _compiled_in_place():
    net = _plain()
    net.compile(backend="eager")
    net[0].compile(backend="eager")
    return net


WRAPPED = {
    "compiled": lambda: _compiled(_plain()),
    "averaged": lambda: AveragedModel(_plain()),
    "averaged and compiled": lambda: _compiled(AveragedModel(_compiled(_plain()))),
    "compiled parts": _compiled_parts,
    "compiled in place": _compiled_in_place,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_module(name):
    module = WRAPPED[name]().double().eval()
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(23, 4)))
    with torch.no_grad():
        expected = module(X)  # compiles
    before = copy.deepcopy(module.state_dict())
    other = rescale_layers(module, 3.0)
    assert type(other) is type(module)
    with torch.no_grad():
        np.testing.assert_allclose(other(X), expected, **DOUBLE)
    changed = [name for name, p in other.named_parameters() if not torch.equal(p, before[name])]
    assert len(changed) >= 3
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    # The copy computes with its weights and not with those of the given module.
    with torch.no_grad():
        next(other.parameters()).zero_()
        assert not torch.allclose(other(X), expected)
        np.testing.assert_array_equal(module(X), expected)


def test_the_layers_of_a_compiled_module_have_their_names_in_the_module():
    module = _compiled(seeded_module(_plain))
    plain = rescale_layers(module._orig_mod, 3.0, layers=["2"])
    chosen = rescale_layers(module, 3.0, layers=["2"])
    assert all(torch.equal(p, _parameters(plain)[n.removeprefix("_orig_mod.")]) for n, p in _parameters(chosen).items())


def test_wrappers_that_cannot_be_rescaled():
    with pytest.raises(ValueError, match=r"estimator must be a plain module; got a DataParallel; pass its \.module"):
        rescale_layers(nn.DataParallel(_plain()), 2.0)


# -- estimators -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return blobs(60)


def _estimators():
    return {
        "classifier": small(),
        "pipeline": make_pipeline(StandardScaler(), small()),
        "search": GridSearchCV(small(), {"lr": [0.01]}, cv=2),
        "skorch": NeuralNetClassifier(
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
            criterion=nn.CrossEntropyLoss,
            max_epochs=1,
            verbose=0,
        ),
    }


@pytest.mark.parametrize("kind", ["classifier", "pipeline", "search", "skorch"])
def test_fitted_estimators_stay_fitted(kind, data):
    X, y = data
    with torch.random.fork_rng():
        model = _estimators()[kind].fit(X, y)
    other = rescale_layers(model, 8.0)
    assert type(other) is type(model)
    # A power of two: the predictions are the same to the last bit.
    np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    before, after = sharpness(model, X, y), sharpness(other, X, y)
    assert after.f0 == before.f0
    assert after.value > 2 * before.value


def test_a_pair(data):
    X, y = data
    pair = (seeded_module(lambda: TinyF1(4, 3)).float(), nn.CrossEntropyLoss())
    module, criterion = rescale_layers(pair, 4.0)
    assert isinstance(criterion, nn.CrossEntropyLoss)
    assert Objective(module, criterion, (X, y)).value() == Objective(*pair, (X, y)).value()


# -- what cannot be rescaled ------------------------------------------------------------------------------------------


class Untraceable(Mlp):
    def forward(self, X):
        return self.layers(X) if X.sum() > 0 else -self.layers(X)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, X):
        return self.second(torch.relu(self.first(self.first(X))))


class ReadsItsWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, X):
        return self.second(torch.relu(self.first(X))) + X @ self.first.weight


class Squared(nn.Linear):
    def forward(self, X):
        return super().forward(X) ** 2


def _tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    return net


def _hooked():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[1].register_forward_hook(lambda layer, inputs, output: output + 1)
    return net


def _patched():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[1].forward = torch.tanh
    return net


def _normalised():
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 4))


def _between(*layers):
    return lambda: nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 4))


NOT_PAIRS = {
    "skip": Skip,
    "used twice": Twice,
    "weight read": ReadsItsWeights,
    "tied": _tied,
    "hook": _hooked,
    "assigned forward": _patched,
    "spectral norm": _normalised,
    "subclass": _between(Squared(4, 4)),
    "tanh": _between(nn.Tanh()),
    "softplus": _between(nn.Softplus()),
    "relu6": _between(nn.ReLU6()),
    "alpha dropout": _between(nn.AlphaDropout()),
    "batch norm without scale": _between(nn.BatchNorm1d(4, affine=False), nn.ReLU()),
    "one layer": lambda: nn.Linear(4, 4),
}


@pytest.mark.parametrize("name", list(NOT_PAIRS))
def test_no_pair(name):
    with pytest.raises(
        ValueError, match=r"must have two layers with only positively homogeneous operations .*has no such pair"
    ):
        rescale_layers(NOT_PAIRS[name](), 2.0)


def test_the_pairs_beside_a_skip_connection():
    class Later(Skip):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)

        def forward(self, X):
            return self.last(torch.relu(super().forward(X)))

    module = seeded_module(Later)
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 4)))
    other = rescale_layers(module, 3.0)
    changed = [name for name, p in _parameters(other).items() if not torch.equal(p, _parameters(module)[name])]
    assert changed == ["head.weight", "head.bias", "last.weight"]
    np.testing.assert_allclose(other(X).detach(), module(X).detach(), **DOUBLE)


def test_an_order_that_cannot_be_known():
    with pytest.raises(ValueError, match="The order of the layers of Untraceable is unknown, because its forward"):
        rescale_layers(Untraceable(), 2.0)


@pytest.mark.parametrize("factor", [0, -1.0, np.inf, np.nan, True, "2", None])
def test_bad_factors(factor):
    with pytest.raises(ValueError, match="factor must be a positive finite number; got"):
        rescale_layers(_plain(), factor)


@pytest.mark.parametrize("factor", [1e300, 1e-300, 1e39])
def test_factors_beyond_the_dtype(factor):
    with pytest.raises(ValueError, match=r"factor=.* takes the weights of '0' out of the range of torch.float32"):
        rescale_layers(_plain(), factor)


@pytest.mark.parametrize("layers", [["1"], ["0", "nothing"], "0", []])
def test_bad_layers(layers):
    with pytest.raises(ValueError, match="layers must be None or a sequence of names from '0', '2', '5'; got"):
        rescale_layers(_plain(), 2.0, layers=layers)


@pytest.mark.parametrize("model", ["F1", 3, LogisticRegression(), F1])
def test_other_things(model):
    with pytest.raises(TypeError, match="estimator must be a torch module, a fitted LBGapClassifier"):
        rescale_layers(model, 2.0)


@pytest.mark.parametrize("kind", ["classifier", "pipeline", "search", "skorch"])
def test_not_fitted(kind):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        rescale_layers(_estimators()[kind], 2.0)


def test_the_metric_changes_at_will(data):
    # The point of Dinh et al.: the sharper of two solutions becomes the flatter one, with the same function.
    X, y = data
    flat, sharp = sorted(
        (small(batch_regime=size, max_epochs=20).fit(X, y) for size in (10, 60)),
        key=lambda model: sharpness(model, X, y).value,
    )
    other = rescale_layers(flat, 64.0)
    assert sharpness(other, X, y).value > sharpness(sharp, X, y).value > sharpness(flat, X, y).value
    assert isinstance(other, LBGapClassifier)


def test_weights_in_one_memory_are_refused():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    net[2].weight.data = net[0].weight.data
    with pytest.raises(ValueError, match=r"two parameters in the same memory.* '0\.weight' and '2\.weight'"):
        rescale_layers(net, 2.0)
