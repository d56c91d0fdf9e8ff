"""What all averages of weights have in common."""

import copy
import pickle

import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, EarlyStopping
from skorch.dataset import ValidSplit

from sklgap.training import ExponentialAveraging, LatestAveraging, WeightAveraging
from tests.tiny import Mlp, blobs, same_weights, small, weights

X, Y = blobs()
ALL = {
    "swa": WeightAveraging(0),
    "exponential": ExponentialAveraging(0.7),
    "exponential, rarely": ExponentialAveraging(0.7, every=3),
    "latest": LatestAveraging(3),
    "latest, rarely": LatestAveraging(2, every=2),
}
NEUTRAL = {"swa": WeightAveraging(1.0), "exponential": ExponentialAveraging(0), "latest": LatestAveraging(1)}


def callback(model):
    return dict(model.net_.callbacks_)["averaging"]


def averaged(averaging, **params):
    return small(callbacks=[("averaging", averaging)], batch_size=20, **params)


@pytest.mark.parametrize("averaging", NEUTRAL.values(), ids=NEUTRAL)
def test_the_last_weights_alone_are_plain_training(averaging):
    assert same_weights(averaged(averaging, max_epochs=3).fit(X, Y), small(max_epochs=3, batch_size=20).fit(X, Y))


@pytest.mark.parametrize("averaging", ALL.values(), ids=ALL)
def test_it_changes_nothing_of_the_training(averaging):
    plain, other = small(max_epochs=4, batch_size=20).fit(X, Y), averaged(averaging, max_epochs=4).fit(X, Y)
    for column in ("train_loss", "weight_distance", "lr"):
        assert plain.history_[:, column] == other.history_[:, column]
    assert not same_weights(plain, other)
    assert all(torch.equal(callback(other).last_[name], p) for name, p in plain.module_.named_parameters())
    assert other.train_score_ == other.score(X, Y)  # batch norm has statistics of the average


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("other", [EarlyStopping(load_best=True), Checkpoint(dirname="none", load_best=True)])
@pytest.mark.parametrize("averaging", ALL.values(), ids=ALL)
def test_the_best_epoch_and_an_average_cannot_both_be_the_end(averaging, other, first):
    callbacks = [("averaging", averaging), ("best", other)][:: 1 if first else -1]
    model = small(callbacks=callbacks, batch_size=20, max_epochs=4, train_split=ValidSplit(4))
    with pytest.raises(ValueError, match=r"^callbacks must not hold both \w+Averaging and \w+\(load_best=True\)"):
        model.fit(X, Y)
    model.set_params(callbacks__best__load_best=False, callbacks__best=EarlyStopping(patience=2)).fit(X, Y)


@pytest.mark.parametrize("between", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("averaging", ALL.values(), ids=ALL)
def test_a_resumed_training_is_the_uninterrupted_one(averaging, between):
    whole = averaged(averaging, max_epochs=6).fit(X, Y)
    parts = between(averaged(averaging, max_epochs=4, warm_start=True).fit(X, Y))
    before = weights(parts)
    assert same_weights(parts.set_params(max_epochs=2).fit(X, Y), whole)
    assert any(not torch.equal(before[name], w) for name, w in weights(parts).items())


@pytest.mark.parametrize("averaging", ALL.values(), ids=ALL)
def test_a_clone_starts_afresh_and_the_users_object_is_left_alone(averaging):
    own = dict(vars(averaging))
    model = averaged(averaging, max_epochs=3).fit(X, Y)
    assert same_weights(clone(model).fit(X, Y), model)
    assert vars(averaging) == own


def test_at_most_one():
    callbacks = [("one", WeightAveraging(0)), ("two", LatestAveraging())]
    with pytest.raises(ValueError, match="at most one that averages weights; got WeightAveraging, LatestAveraging"):
        small(callbacks=callbacks).fit(X, Y)


@pytest.mark.parametrize("averaging", ALL.values(), ids=ALL)
def test_another_net(averaging):
    net = NeuralNetClassifier(Mlp, callbacks=[averaging], max_epochs=1, train_split=None)
    with pytest.raises(TypeError, match="Averaging needs the net of an LBGapClassifier; got NeuralNetClassifier"):
        net.fit(X, Y)


class Lookup(torch.nn.Module):
    """Has parameters that nothing can train: integers, and truth values."""

    def __init__(self):
        super().__init__()
        self.layer = Mlp()
        self.order = torch.nn.Parameter(torch.arange(4).flip(0), requires_grad=False)
        self.used = torch.nn.Parameter(torch.tensor([True, True, False, True]), requires_grad=False)

    def forward(self, x):
        return self.layer(x[:, self.order] * self.used)


@pytest.mark.parametrize("averaging", ALL.values(), ids=ALL)
def test_integers_have_no_average(averaging):
    model = small(net=Lookup, callbacks=[("averaging", averaging)], batch_size=20, max_epochs=3).fit(X, Y)
    assert model.module_.order.tolist() == [3, 2, 1, 0]
    assert model.module_.used.tolist() == [True, True, False, True]
    plain = small(net=Lookup, batch_size=20, max_epochs=3).fit(X, Y)
    assert model.history_[:, "weight_distance"] == plain.history_[:, "weight_distance"]
    assert not same_weights(model, plain)
