"""Parameters that are frozen and thawed while a net trains: as with plain skorch, with every remedy."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Freezer, Initializer, ParamMapper, Unfreezer
from torch import nn

from sklgap import WeightAveraging
from sklgap.inspection import weight_distance
from sklgap.remedies._check import SHORTHANDS
from sklgap.training import TrainingNet
from tests.tiny import blobs, same_weights, small, weights

X, Y = blobs()
# Two ways to the same float32 numbers.
FLOAT32 = 1e-5


class TwoParts(nn.Module):
    def __init__(self, frozen=False):
        super().__init__()
        torch.manual_seed(3)
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.body.requires_grad_(not frozen)

    def forward(self, X):
        return self.head(self.body(X).tanh())


def constant(p):
    nn.init.constant_(p, 0.25)


def halves(net):
    """Freeze in even epochs, thaw in odd ones."""
    even = len(net.history) % 2 == 0
    return lambda p: p.requires_grad_(not even)


CALLBACKS = {
    "frozen": (False, lambda: Freezer("body.*")),
    "frozen later": (False, lambda: Freezer("body.*", at=3)),
    "thawed": (True, lambda: Unfreezer("body.*", at=3)),
    "born frozen": (True, lambda: Callback()),
    "initialised": (False, lambda: Initializer("body.weight", fn=constant, at=2)),
    "in turns": (False, lambda: ParamMapper("head.*", schedule=halves)),
}
OPTIMIZERS = {
    "momentum": (torch.optim.SGD, {"optimizer__momentum": 0.9, "optimizer__weight_decay": 0.1}),
    "Adam": (torch.optim.Adam, {}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", CALLBACKS)
def test_as_with_plain_skorch(case, optimizer):
    frozen, callback = CALLBACKS[case]
    kind, options = OPTIMIZERS[optimizer]
    params = {"optimizer": kind, "lr": 0.1, "max_epochs": 5, "callbacks": [callback()], "batch_size": -1, **options}
    model = small(net=TwoParts(frozen), **params).fit(X, Y)
    plain = NeuralNetClassifier(
        TwoParts(frozen),
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        verbose=0,
        **{**params, "callbacks": [callback()]},
    ).fit(X, Y.astype(np.int64))
    for name, value in plain.module_.state_dict().items():
        torch.testing.assert_close(weights(model)[name], value, rtol=FLOAT32, atol=FLOAT32)


@pytest.mark.parametrize("remedy", sorted(set(SHORTHANDS) - {"augmentation", "batchaugmentation"}))
@pytest.mark.parametrize("case", ["frozen later", "thawed"])
def test_with_every_remedy(case, remedy):
    frozen, callback = CALLBACKS[case]
    start = {name: value.clone() for name, value in TwoParts().state_dict().items()}
    params = {"net": TwoParts(frozen), "remedies": (remedy,), "callbacks": [callback()], "lr": 0.05, "batch_size": 20}
    ends = {epochs: weights(small(**params, max_epochs=epochs).fit(X, Y)) for epochs in (2, 4)}
    moved_early = not torch.equal(ends[2]["body.weight"], start["body.weight"])
    moved_late = not torch.equal(ends[4]["body.weight"], ends[2]["body.weight"])
    assert (moved_early, moved_late) == ((True, False) if case == "frozen later" else (False, True))
    assert not torch.equal(ends[4]["head.weight"], ends[2]["head.weight"])


@pytest.mark.parametrize("case", CALLBACKS)
def test_distance_from_the_start_counts_every_parameter(case):
    frozen, callback = CALLBACKS[case]
    model = small(net=TwoParts(frozen), callbacks=[callback()], max_epochs=4, lr=0.1).fit(X, Y)
    start = TwoParts().state_dict()
    moved = sum((value - start[name]).square().sum().item() for name, value in weights(model).items()) ** 0.5
    assert model.history_[-1, "weight_distance"] == pytest.approx(moved, rel=1e-5)
    trained = {name: p for name, p in model.module_.named_parameters() if p.requires_grad}
    moved = sum((p.detach() - start[name]).square().sum().item() for name, p in trained.items()) ** 0.5
    assert weight_distance(model) == pytest.approx(moved, rel=1e-5)


class FreezeInTheMiddle(Callback):
    """Freezes the body after so many batches, in the middle of an epoch."""

    def __init__(self, after):
        self.after = after

    def on_train_begin(self, net, **kwargs):
        self.seen = 0

    def on_batch_begin(self, net, **kwargs):
        if self.seen == self.after:
            net.module_.body.requires_grad_(False)
            self.weight = net.module_.body.weight.detach().clone()
        self.seen += 1


def test_frozen_in_the_middle_of_an_epoch():
    model = small(net=TwoParts(), callbacks=[("middle", FreezeInTheMiddle(4))], batch_size=20).fit(X, Y)
    assert torch.equal(model.module_.body.weight, dict(model.net_.callbacks_)["middle"].weight)
    assert not torch.equal(model.module_.body.weight, TwoParts().body.weight)


def test_nothing_left_to_train_is_refused():
    with pytest.raises(ValueError, match="all parameters are frozen"):
        small(net=TwoParts(), callbacks=[Freezer("*")]).fit(X, Y)


class Killed(RuntimeError):
    pass


@pytest.mark.parametrize("case", ["frozen", "thawed"])
def test_an_unfinished_fit_goes_on_with_the_same_parameters_frozen(case, tmp_path, monkeypatch):
    change = {"frozen": Freezer, "thawed": Unfreezer}[case]
    params = {"net": TwoParts(case == "thawed"), "callbacks": [change("body.*", at=2)], "max_epochs": 6}
    whole = small(**params).fit(X, Y)
    run_epoch = TrainingNet.run_single_epoch

    def killed_in_the_fifth(self, *args, **kwargs):
        if len(self.history) == 5:
            raise Killed
        run_epoch(self, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "run_single_epoch", killed_in_the_fifth)
    with pytest.raises(Killed):
        small(memory=tmp_path, **params).fit(X, Y)
    monkeypatch.undo()
    assert same_weights(small(memory=tmp_path, **params).fit(X, Y), whole)


def test_a_warm_start_and_a_pickle_remember_what_is_frozen():
    params = {"net": TwoParts(), "callbacks": [Freezer("body.*", at=2)], "warm_start": True}
    model = small(**params).fit(X, Y)
    body = weights(model)["body.weight"]
    assert torch.equal(weights(model.fit(X, Y))["body.weight"], body)


def test_averaging_with_frozen_layers():
    model = small(net=TwoParts(True), callbacks=[WeightAveraging(start=0.0)], max_epochs=4).fit(X, Y)
    assert torch.equal(model.module_.body.weight, TwoParts().body.weight)
