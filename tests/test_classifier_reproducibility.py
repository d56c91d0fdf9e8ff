"""random_state, the global generators, equal starting points, and training in several fits."""

import copy
import pickle
import random
from functools import cache

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import ValidSplit

from sklgap.regimes import GrowingBatch, SwitchBatch
from sklgap.remedies import Augmentation, Proximal
from tests.ids import plain
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small, weights

X, Y = blobs()
IMAGES, IMAGE_Y = images()

# Each draws random numbers in another place: order of rows, dropout, remedies, split, skorch's own loader.
CASES = {
    "f1": {},
    "class": {"net": Mlp, "init": "torch"},
    "dropout": {"net": TinyC1, "input_shape": (1, 8, 8)},
    "augmentation": {"augmentation": Augmentation(flip=False), "input_shape": (1, 8, 8)},
    "split": {"train_split": ValidSplit(5)},
    "skorch's loader": {"iterator_train__shuffle": True},
}


def data_of(case):
    return (IMAGES.reshape(len(IMAGES), -1), IMAGE_Y) if "input_shape" in CASES[case] else (X, Y)


def global_states():
    kind, keys, position, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), (kind, keys.tolist(), position, *rest), torch.get_rng_state().tolist()


@pytest.mark.parametrize("case", CASES)
def test_repeats_bit_for_bit_whatever_the_global_generators(case):
    data = data_of(case)
    model = small(**CASES[case]).fit(*data)
    torch.manual_seed(12345)
    np.random.seed(54321)  # noqa: NPY002 - the global generator is meant
    random.seed(1)
    other = small(**CASES[case]).fit(*data)
    assert same_weights(model, other)
    assert list(model.history_[:, "train_loss"]) == list(other.history_[:, "train_loss"])
    np.testing.assert_array_equal(model.predict_proba(data[0]), other.predict_proba(data[0]))
    assert not same_weights(model, small(**CASES[case], random_state=1).fit(*data))


def test_fitting_again_gives_the_same_model():
    model = small().fit(X, Y)
    first = weights(model)
    model.fit(X, Y)
    assert model.n_iter_ == 2
    assert all(torch.equal(value, first[name]) for name, value in weights(model).items())


@pytest.mark.parametrize("random_state", [0, None])
@pytest.mark.parametrize("case", CASES)
def test_global_generators_are_left_as_they_were(case, random_state):
    data = data_of(case)
    model = small(**{**CASES[case], "random_state": random_state})
    before = global_states()
    model.fit(*data)
    assert global_states() == before
    model.predict(data[0])
    model.predict_proba(data[0])
    model.score(*data)
    assert global_states() == before


def test_without_a_seed_fits_differ():
    model = small(random_state=None)
    np.random.seed(0)  # noqa: NPY002 - the global generator is meant
    torch.manual_seed(0)
    first = weights(model.fit(X, Y))
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    second = weights(model.fit(X, Y))
    assert not torch.equal(first["layers.1.weight"], second["layers.1.weight"])


def test_random_state_instance():
    """As in scikit-learn: an instance is drawn from, so that fits differ, but the sequence of fits repeats."""

    def fits():
        model = small(random_state=np.random.RandomState(3))
        return [weights(model.fit(X, Y))["layers.1.weight"] for _ in range(2)]

    (first, second), again = fits(), fits()
    assert not torch.equal(first, second)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


@pytest.mark.parametrize("integer", [np.int64(0), np.uint32(0)])
def test_numpy_integers_are_integers(integer):
    assert same_weights(small(random_state=integer).fit(X, Y), small().fit(X, Y))


@cache
def start_of_training():
    return small(max_epochs=1).fit(X, Y).net_.module_start_


@pytest.mark.parametrize(
    "params",
    [
        {"batch_regime": "LB"},
        {"batch_size": -1},
        {"batch_regime": SwitchBatch(1, 10, 20)},
        {"proximal_lambda": 0.1},
        {"ghost_batch_size": 4, "batch_size": 20},
        {"lr": 0.1, "lr_scaling": "linear"},
        {"optimizer": torch.optim.SGD},
        {"train_split": ValidSplit(5)},
        {"regime_adaptation": True, "batch_size": 30},
        {"callbacks": [LRScheduler("StepLR", step_size=1)], "verbose": 0},
        {"remedies": [Proximal()], "micro_batch_size": 3},
    ],
    ids=plain,
)
def test_regimes_with_one_seed_start_from_the_same_weights(params):
    start = start_of_training()
    other = small(**params).fit(X, Y)
    assert all(torch.equal(value, other.net_.module_start_[name]) for name, value in start.items())
    assert not torch.equal(weights(other)["layers.1.weight"], start["layers.1.weight"])


def test_starting_point_does_not_move_with_training():
    model = small(max_epochs=1).fit(X, Y)
    start = copy.deepcopy(model.net_.module_start_)
    longer = small(max_epochs=4).fit(X, Y)
    assert all(torch.equal(value, longer.net_.module_start_[name]) for name, value in start.items())


def test_longer_training_begins_like_a_shorter_one():
    shorter, longer = small(max_epochs=2).fit(X, Y), small(max_epochs=4).fit(X, Y)
    assert longer.history_[:2, "train_loss"] == shorter.history_[:, "train_loss"]


# -- training in several fits ------------------------------------------------------------------------------------------

WARM_CASES = {
    **{name: params for name, params in CASES.items() if name != "skorch's loader"},
    "switch": {"batch_regime": SwitchBatch(switch_epoch=2, first=10, then=0.5)},
    "growing": {"batch_regime": GrowingBatch(initial=8, every=2, largest=0.5), "lr_scaling": "sqrt"},
    "momentum": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    "proximal": {"proximal_lambda": 0.1},
    "ghost": {"ghost_batch_size": 4},
}


@pytest.mark.parametrize("case", WARM_CASES)
def test_warm_start_equals_uninterrupted_training(case):
    """Bit for bit, also where batch size, learning rate or random streams depend on the epoch."""
    params = {**WARM_CASES[case], "recompute_batch_norm": False}
    data = data_of(case) if case in CASES else (X, Y)
    whole = small(**params, max_epochs=4).fit(*data)
    begun = small(**params, max_epochs=2, warm_start=True).fit(*data)
    for model in (pickle.loads(pickle.dumps(begun)), begun):
        model.set_params(max_epochs=2).fit(*data)
        assert_same_training(model, whole)


def assert_same_training(model, whole):
    assert model.n_iter_ == len(model.history_) == 4
    assert model.n_updates_ == whole.n_updates_
    assert model.history_[:, "batch_size"] == whole.history_[:, "batch_size"]
    assert model.history_[:, "train_loss"] == whole.history_[:, "train_loss"]
    assert model.history_[:, "weight_distance"] == whole.history_[:, "weight_distance"]
    assert same_weights(model, whole)
    assert model.train_score_ == whole.train_score_


def test_warm_start_is_off_by_default():
    model = small().fit(X, Y)
    net = model.net_
    model.fit(X, Y)
    assert model.net_ is not net
    assert model.n_iter_ == 2


def test_first_warm_fit_is_a_fit():
    assert same_weights(small(warm_start=True).fit(X, Y), small().fit(X, Y))


def test_warm_start_with_fewer_classes_keeps_them_all():
    labels = np.array(["a", "b", "c"])[Y]
    model = small(warm_start=True).fit(X, labels)
    model.fit(X[Y > 0], labels[Y > 0])
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.n_iter_ == 4
    assert model.train_score_ == model.score(X[Y > 0], labels[Y > 0])


@pytest.mark.parametrize(
    ("params", "column", "expected"),
    [
        ({"lr": 0.125}, "lr", [0.01, 0.01, 0.125, 0.125]),
        ({"batch_size": 30}, "batch_size", [8, 8, 30, 30]),
        ({"batch_regime": "LB"}, "batch_size", [8, 8, 6, 6]),
    ],
    ids=plain,
)
def test_warm_start_takes_changed_parameters(params, column, expected):
    """As in scikit-learn and skorch: what was set since the last fit holds for the next one."""
    model = small(warm_start=True).fit(X, Y)
    model.set_params(**params).fit(X, Y)
    assert model.history_[:, column] == expected


def test_warm_start_takes_a_changed_stopping_rule():
    model = small(warm_start=True).fit(X, Y)
    model.set_params(target_loss=100.0, max_epochs=5).fit(X, Y)
    assert model.n_iter_ == 3
    assert model.converged_


# -- pickles -----------------------------------------------------------------------------------------------------------


def test_pickle_holds_the_module_once():
    model = small().fit(X, Y)
    assert not {"module_", "history_"} & vars(model).keys()
    loaded = pickle.loads(pickle.dumps(model))
    assert loaded.module_ is loaded.net_.module_
    assert loaded.history_ is loaded.net_.history
    assert same_weights(loaded, model)
    # 40,003 numbers of 4 bytes, four times: weights, starting point, and Adam's two moments.
    assert len(pickle.dumps(small(net=Mlp, module__width=5000).fit(X, Y))) < 4.5 * 4 * 40_003


class Pickle(Callback):
    """Notes how many bytes the net takes that is in training."""

    def on_epoch_end(self, net, **kwargs):
        # With a split skorch's scoring holds the predictions for the rows held out until the training ends.
        net.history.record("bytes", 0 if net.train_split else len(pickle.dumps(net)))


@pytest.mark.parametrize("params", [{}, {"net": Mlp}, {"train_split": ValidSplit(5)}], ids=plain)
def test_pickle_does_not_grow_with_the_data(params):
    """540 rows more would be 8,640 bytes; a few are digits of counts."""

    def sizes(n):
        model = small(**params, callbacks=[Pickle()], batch_size=n // 10).fit(*blobs(n))
        return np.array([len(pickle.dumps(model)), *model.history_[:, "bytes"]])

    assert np.abs(sizes(600) - sizes(60)).max() < 200
