"""Kinds of modules that a fit takes, and those it refuses."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.dataset import ValidSplit
from torch import nn
from torch.nn import functional as F

from tests.tiny import Mlp, Probabilities, blobs, same_weights, small

X, Y = blobs()


class Tuple(Mlp):
    def forward(self, X):
        return super().forward(X), X.mean()


class List(Mlp):
    def forward(self, X):
        return [super().forward(X)]


class Dict(Mlp):
    def forward(self, X):
        return {"loss": None, "logits": super().forward(X)}


class Object(Mlp):
    def forward(self, X):
        return SimpleNamespace(logits=super().forward(X), hidden_states=None)


@pytest.mark.parametrize("net", [Tuple, List, Dict, Object])
@pytest.mark.parametrize(
    "params", [{}, {"train_split": ValidSplit(4)}, {"iterator_train__shuffle": False}], ids=["", "split", "own loader"]
)
def test_outputs_with_logits_in_them(net, params):
    """The hot loop takes the logits in objective/_loss.py, all the rest in ``TrainingNet.infer`` and ``outputs``."""
    model, plain = small(net=net, **params).fit(X, Y), small(net=Mlp, **params).fit(X, Y)
    assert same_weights(model, plain)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    assert model.train_score_ == plain.train_score_
    assert model.history_[:, "train_accuracy"] == plain.history_[:, "train_accuracy"]
    np.testing.assert_array_equal(model.net_.predict(X), plain.net_.predict(X))


class Nothing(Mlp):
    def forward(self, X):
        return {"out": super().forward(X)}


class DropsAlways(Mlp):
    def forward(self, X):
        return F.dropout(super().forward(X), 0.5)


class DropsLittle(Mlp):
    def forward(self, X):
        return self.layers(F.dropout(X, 0.05))


class Noisy(Mlp):
    def forward(self, X):
        return super().forward(X + 0.1 * torch.rand_like(X))


class NumpyNoise(Mlp):
    def forward(self, X):
        return super().forward(X) + float(np.random.default_rng().normal())


class Centred(Mlp):
    """Batch normalisation by hand."""

    def forward(self, X):
        return super().forward(X - X.mean(dim=0))


class WrongSoftmax(Mlp):
    def forward(self, X):
        return super().forward(X).softmax(dim=0)


class FunctionalNorm(Mlp):
    def forward(self, X):
        return super().forward(F.batch_norm(X, None, None, training=True))


def forgetful():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3))


def wrapped():
    return nn.DataParallel(Mlp())


def scripted():
    return torch.jit.trace(Mlp(), torch.zeros(2, 4))


class TwoInputs(Mlp):
    def forward(self, X, mask):
        return super().forward(X * mask)


REFUSED = {
    "two inputs": (TwoInputs, "net must take samples of shape .*'mask'"),
    "no parameters": (nn.Identity, "net must have parameters"),
    "no logits": (Nothing, "net must return 3 outputs.*'out'"),
    "dropout": (DropsAlways, "training=self.training"),
    "a little dropout": (DropsLittle, "training=self.training"),
    "noise": (Noisy, "same outputs for the same samples"),
    "noise of numpy": (NumpyNoise, "same outputs for the same samples"),
    "centred": (Centred, "every sample by itself"),
    "softmax over rows": (WrongSoftmax, "every sample by itself"),
    "functional batch norm": (FunctionalNorm, "every sample by itself"),
    "no running statistics": (forgetful, "track_running_stats=True"),
    "DataParallel": (wrapped, r"DataParallel; pass its \.module"),
    "traced": (scripted, "scripted or traced"),
    "a traced part": (lambda: nn.Sequential(scripted()), "its part '0'"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("instance", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case, instance):
    factory, words = REFUSED[case]
    state = torch.get_rng_state()
    net = factory() if instance else factory
    drawn = torch.get_rng_state()
    with pytest.raises(ValueError, match=words):
        small(net=net).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), drawn if instance else state)


class Unused(Mlp):
    """Draws, and predicts the same all the same."""

    def forward(self, X):
        torch.rand(3)
        return super().forward(X)


class ModeAware(Mlp):
    def forward(self, X):
        return super().forward(F.dropout(X, 0.5, training=self.training))


class Instance(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize("net", [Unused, ModeAware, Instance])
def test_accepted(net):
    assert same_weights(small(net=net).fit(X, Y), small(net=net).fit(X, Y))


# -- losses ------------------------------------------------------------------------------------------------------------


class Ends(Mlp):
    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, X):
        return self.end(super().forward(X))


@pytest.mark.parametrize(
    "end",
    [nn.LogSoftmax(dim=1), nn.Identity(), nn.Sigmoid(), nn.LogSigmoid(), nn.Softplus()],
    ids=["log-probabilities", "logits", "sigmoid", "log sigmoid", "positive"],
)
def test_nll_loss_needs_probabilities(end):
    with pytest.raises(ValueError, match=r"must return probabilities for .*NLLLoss.*CrossEntropyLoss"):
        small(net=lambda: Ends(end), criterion=nn.NLLLoss).fit(X, Y)


def test_nll_loss_with_probabilities_and_cross_entropy_with_anything():
    small(net=Probabilities, criterion=nn.NLLLoss).fit(X, Y)
    for end in (nn.LogSoftmax(dim=1), nn.Softmax(dim=1), nn.Identity()):
        small(net=lambda end=end: Ends(end)).fit(X, Y)


# -- two parameters in one memory --------------------------------------------------------------------------------------


class TiedByData(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.tie()

    def tie(self):
        self.b.weight.data = self.a.weight.data

    def forward(self, X):
        return self.out(torch.tanh(self.b(torch.tanh(self.a(X)))))


class Tied(TiedByData):
    def tie(self):
        self.b.weight = self.a.weight


class Flat(TiedByData):
    def tie(self):
        flat = torch.randn(32)
        self.a.weight.data, self.b.weight.data = flat[:16].view(4, 4), flat[16:].view(4, 4)


@pytest.mark.parametrize("instance", [False, True])
def test_weights_tied_by_memory_are_refused_and_those_tied_by_object_stay_tied(instance):
    def net(kind):
        torch.manual_seed(0)
        return kind() if instance else kind

    with pytest.raises(ValueError, match=r"^net must not have two parameters.*'a.weight' and 'b.weight'; assign"):
        small(net=net(TiedByData)).fit(X, Y)
    module = small(net=net(Tied)).fit(X, Y).module_
    assert module.a.weight is module.b.weight
    module = small(net=net(Flat)).fit(X, Y).module_
    assert not torch.equal(module.a.weight, module.b.weight)


def test_a_clone_does_not_separate_weights_tied_by_memory():
    with pytest.raises(ValueError, match=r"^net must not have two parameters in the same memory"):
        clone(small(net=TiedByData()))
    assert clone(small(net=Tied())).fit(X, Y).n_iter_ == 2


# -- copies ------------------------------------------------------------------------------------------------------------


class KeepsActivation(Mlp):
    """Holds a tensor with a graph, which copy.deepcopy refuses."""

    def forward(self, X):
        self.kept = super().forward(X)
        return self.kept


def used(module):
    module(torch.from_numpy(X))
    return module


def old_weight_norm():
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(module[0])
    return module


COPIED = {
    "activation": lambda: used(KeepsActivation()),
    "old weight norm": lambda: used(old_weight_norm()),
    "old spectral norm": lambda: used(nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 3)))),
    "pruned": lambda: used(nn.Sequential(nn.utils.prune.random_unstructured(nn.Linear(4, 3), "weight", 0.5))),
}


@pytest.mark.parametrize("case", COPIED)
def test_modules_that_are_no_plain_copies(case):
    module = COPIED[case]()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = small(net=module, warm_start=True)
    copied = clone(model)
    assert copied.net is not module
    model.fit(X, Y).fit(X, Y)  # the second one keeps a copy of the first
    assert model.n_iter_ == 4
    assert model.predict_proba(X).shape == (60, 3)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert copied.fit(X, Y).n_iter_ == 2


def test_a_compiled_module_trains_as_the_module_it_was_made_from():
    module = Mlp()
    compiled = torch.compile(copy.deepcopy(module), backend="eager")
    model = small(net=compiled).fit(X, Y)
    assert type(model.module_) is Mlp
    assert same_weights(model, small(net=module).fit(X, Y))
    in_place = copy.deepcopy(module)
    in_place.compile(backend="eager")
    assert same_weights(small(net=in_place).fit(X, Y), model)
    factory = small(net=lambda: torch.compile(Mlp(), backend="eager")).fit(X, Y)
    assert same_weights(factory, small(net=Mlp).fit(X, Y))
