import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sklgap import check_objective
from sklgap.inspection import weight_distance
from tests.cases import TiedNet, no_global_random_numbers
from tests.tiny import Mlp, blobs, small

X, Y = blobs()


def _shifted(shift):
    """Return a net of 12 + 3, 3 + 3 and 3 parameters, all 0.25 + shift."""
    with torch.no_grad():
        net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1, bias=False))
        for parameter in net.parameters():
            parameter.fill_(0.25 + shift)
        net[1].running_mean.fill_(shift)
    return net


def test_closed_form():
    """15 + 6 + 3 parameters moved by 2; running statistics do not count."""
    assert weight_distance(_shifted(2.0), _shifted(0.0)) == 2 * math.sqrt(24)
    layers = weight_distance(_shifted(2.0), _shifted(0.0), per_layer=True)
    assert layers == {"0": 2 * math.sqrt(15), "1": 2 * math.sqrt(6), "2": 2 * math.sqrt(3)}
    assert weight_distance(_shifted(2.0), _shifted(2.0)) == 0


def test_symmetry_and_triangle():
    a, b, c = (Mlp() for _ in range(3))
    assert weight_distance(a, b) == weight_distance(b, a) > 0
    assert weight_distance(a, c) <= weight_distance(a, b) + weight_distance(b, c)


def test_differences_are_summed_in_double_precision():
    """10,000 squared is where float32 has no room for ones any more."""
    a, b = nn.Linear(1000, 1, bias=False), nn.Linear(1000, 1, bias=False)
    nn.init.zeros_(a.weight)
    nn.init.ones_(b.weight)
    with torch.no_grad():
        b.weight[0, 0] = 1e4
    assert weight_distance(a, b) == pytest.approx(math.sqrt(1e8 + 999), rel=1e-12)
    half = weight_distance(a.bfloat16(), b.bfloat16())
    assert half == pytest.approx(math.sqrt(float(torch.tensor(1e4).bfloat16()) ** 2 + 999), rel=1e-12)


def test_from_the_initial_weights_of_an_estimator():
    model = small(max_epochs=3).fit(X, Y)
    start = {name: value.double().numpy() for name, value in model.net_.module_start_.items()}
    squares = {name: np.square(p.detach().double().numpy() - start[name]).sum() for name, p in _named(model)}
    assert weight_distance(model) == pytest.approx(math.sqrt(sum(squares.values())), rel=1e-12)
    assert weight_distance(model) == pytest.approx(model.history_[-1, "weight_distance"], rel=1e-5)
    layers = weight_distance(model, per_layer=True)
    assert list(layers) == list(dict.fromkeys(name.rpartition(".")[0] for name, _ in _named(model)))
    assert math.hypot(*layers.values()) == pytest.approx(weight_distance(model), rel=1e-12)
    first = next(iter(layers))
    own = [square for name, square in squares.items() if name.rpartition(".")[0] == first]
    assert layers[first] == pytest.approx(math.sqrt(sum(own)), rel=1e-12)


def _named(model):
    return list(model.module_.named_parameters())


def test_between_estimators_modules_pipelines_searches_and_skorch_nets():
    one, two = small().fit(X, Y), small(batch_size=-1).fit(X, Y)
    expected = weight_distance(one.module_, two.module_)
    assert expected > 0
    for a, b in ((one, two), (one.net_, two), (one, two.module_)):
        assert weight_distance(a, b) == expected
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, Y)
    assert weight_distance(pipeline) == weight_distance(pipeline[-1])
    search = GridSearchCV(small(), {"lr": [0.01]}, cv=2).fit(X, Y)
    assert weight_distance(search) == weight_distance(one)
    skorch_net = NeuralNetClassifier(Mlp, criterion=nn.CrossEntropyLoss, verbose=0, max_epochs=1, train_split=None)
    skorch_net.fit(X, Y.astype(np.int64))
    assert weight_distance(skorch_net, skorch_net) == 0


def test_parameters_frozen_after_the_fit_do_not_count():
    model = small(net=Mlp).fit(X, Y)
    layers = weight_distance(model, per_layer=True)
    model.module_.layers[0].requires_grad_(False)
    assert weight_distance(model) == layers["layers.2"]


def test_frozen_parameters_do_not_count_and_shared_ones_count_once():
    a, b = _shifted(0.0), _shifted(2.0)
    for net in (a, b):
        net[0].requires_grad_(False)
    assert weight_distance(a, b) == 2 * math.sqrt(9)
    a, b = TiedNet(), TiedNet()
    with torch.no_grad():
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            q.copy_(p + 1)
    assert weight_distance(a, b) == pytest.approx(math.sqrt(20 + 15), rel=1e-6)


def test_a_model_is_left_as_it_was():
    model = small().fit(X, Y)
    before = check_objective(model, X, Y, batch_norm="running").value()
    with no_global_random_numbers():
        assert weight_distance(model) == weight_distance(model)
    assert check_objective(model, X, Y, batch_norm="running").value() == before
    assert all(p.requires_grad for p in model.module_.parameters())


def test_another_architecture():
    with pytest.raises(ValueError, match=r"layers.0.weight has shape \(8, 4\) in one and \(9, 4\) in the other"):
        weight_distance(Mlp(), Mlp(width=9))
    with pytest.raises(ValueError, match=r"layers.0.weight has shape \(8, 4\) in one and missing in the other"):
        weight_distance(Mlp(), _shifted(0.0))


def test_no_initial_weights():
    with pytest.raises(
        ValueError, match="reference must be given for a Mlp, which stores no initial weights; got None"
    ):
        weight_distance(Mlp())


@pytest.mark.parametrize("thing", [None, 3, {"a": 1}, torch.zeros(3)], ids=repr)
def test_not_a_model(thing):
    with pytest.raises(TypeError, match="estimator must be a torch module, a fitted LBGapClassifier or skorch net"):
        weight_distance(thing, Mlp())


def test_not_fitted():
    for unfitted in (small(), NeuralNetClassifier(Mlp), make_pipeline(StandardScaler(), small())):
        with pytest.raises(NotFittedError):
            weight_distance(unfitted)


def test_a_pair_is_its_module():
    a, b = (torch.nn.Linear(3, 2) for _ in range(2))
    loss = torch.nn.CrossEntropyLoss()
    assert weight_distance((a, loss), (b, loss)) == weight_distance(a, b) > 0


def test_a_reference_that_is_no_model():
    module = torch.nn.Linear(3, 1)
    with pytest.raises(TypeError, match=r"^reference must be a torch module, .*; got dict\.$"):
        weight_distance(module, dict(module.named_parameters()))


# -- wrapped modules --------------------------------------------------------------------------------------------------


def _compiled(module):
    return torch.compile(module, backend="eager")


def _compiled_part(module):
    module[0] = _compiled(module[0])
    return module


WRAPPERS = {
    "compiled": _compiled,
    "compiled part": _compiled_part,
    "compiled in place": lambda module: module.compile(backend="eager") or module,
    "averaged": AveragedModel,
    "data parallel": nn.DataParallel,
    "averaged and compiled": lambda module: _compiled(AveragedModel(module)),
    "compiled parts, averaged and compiled": lambda module: _compiled(AveragedModel(_compiled_part(module))),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_module_has_the_distance_of_the_module(name):
    wrapped, plain = WRAPPERS[name](_shifted(2.0)), _shifted(0.0)
    layers = {"0": 2 * math.sqrt(15), "1": 2 * math.sqrt(6), "2": 2 * math.sqrt(3)}
    for pair in ((wrapped, plain), (plain, wrapped), ((wrapped, nn.CrossEntropyLoss()), plain)):
        assert weight_distance(*pair) == 2 * math.sqrt(24)
        assert weight_distance(*pair, per_layer=True) == layers
    assert weight_distance(wrapped, wrapped) == 0
    assert weight_distance(wrapped, WRAPPERS["compiled"](_shifted(1.0))) == math.sqrt(24)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_a_scripted_module():
    assert weight_distance(torch.jit.script(_shifted(2.0)), _shifted(0.0)) == 2 * math.sqrt(24)


def test_a_compiled_module_of_another_architecture():
    with pytest.raises(ValueError, match=r"; layers.0.weight has shape \(8, 4\) in one and \(9, 4\) in the other"):
        weight_distance(_compiled(Mlp()), Mlp(width=9))


class WithScale(AveragedModel):
    """A wrapper with a parameter of the name that the parameter inside has."""

    def __init__(self, module):
        super().__init__(module)
        self.weight = nn.Parameter(torch.ones(1))


def test_a_wrapper_with_parameters_loses_no_parameter():
    one, two = WithScale(nn.Linear(1, 1, bias=False)), WithScale(nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        for shift, (p, q) in enumerate(zip(one.parameters(), two.parameters(), strict=True), start=3):
            q.copy_(p + shift)
    assert weight_distance(one, two) == pytest.approx(5, rel=1e-6)
