"""`TrainingRecorder`: what it records is right, and training does not notice."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklgap import (
    ExponentialAveraging,
    LatestAveraging,
    SwitchBatch,
    TrainingRecorder,
    WeightAveraging,
    check_objective,
    sharpness,
)
from sklgap.inspection import recorded, weight_distance
from tests.tiny import Mlp, TinyC1, blobs, small
from tests.training.recordings import IMAGE_LABELS, IMAGES, LABELS, X, Y, recording

X_TEST, Y_TEST = blobs(30, seed=1)


# -- the values are right ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", ["batch", "population", "running"])
def test_epochs_are_those_of_shorter_trainings(batch_norm):
    """Identity: what is recorded after epoch k is measured on a training that ends there."""
    options = {"batch_norm": batch_norm, "chunk_size": 25}
    data = {"train": (X, LABELS), "test": (X_TEST.astype(np.float64).tolist(), LABELS[Y_TEST].tolist())}
    fixed = {"max_epochs": 3, "recompute_batch_norm": False}
    columns = recorded(small(callbacks=recording(data, **options), **fixed).fit(X, LABELS))
    assert columns["epoch"].tolist() == [1, 2, 3]
    for k in range(3):
        shorter = small(**{**fixed, "max_epochs": k + 1}).fit(X, LABELS)
        assert columns["n_updates"][k] == shorter.n_updates_
        assert columns["weight_distance"][k] == weight_distance(shorter)
        for name, rows in data.items():
            expected = check_objective(shorter, *rows, **options).evaluate()
            assert (columns[f"{name}_loss"][k], columns[f"{name}_accuracy"][k]) == expected


class Weights(Callback):
    """Keeps the module after every update."""

    def on_train_begin(self, net, **kwargs):
        self.modules_ = [copy.deepcopy(net.module_)]

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.modules_.append(copy.deepcopy(net.module_))


def test_updates_within_an_epoch():
    recorder = TrainingRecorder({"train": (X, Y)}, every=None, at_updates=(11, 0, 3))  # in any order
    model = small(callbacks=[("weights", Weights()), ("recorder", recorder)]).fit(X, Y)
    columns = recorded(model)
    assert columns["n_updates"].tolist() == [0, 3, 11]
    assert columns["epoch"].tolist() == [0, 3 * 8 / 60, 1 + 3 * 8 / 60]
    assert columns["weight_distance"][0] == 0
    modules = dict(model.net_.callbacks_)["weights"].modules_
    for n, loss, accuracy in zip((0, 3, 11), columns["train_loss"], columns["train_accuracy"], strict=True):
        assert check_objective((modules[n], nn.CrossEntropyLoss()), X, Y).evaluate() == (loss, accuracy)
    expected = [weight_distance(modules[n], modules[0]) for n in (0, 3, 11)]
    np.testing.assert_array_equal(columns["weight_distance"], expected)


def test_at_the_initial_weights_statistics_are_those_of_the_module():
    """Closed form: all weights 0 give log 3, and the first class for every row."""
    net = Mlp()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    model = small(net=net, callbacks=recording({"train": (X, LABELS)}, at_updates=[0])).fit(X, LABELS)
    columns = recorded(model)
    assert columns["train_loss"][0] == pytest.approx(np.log(3), abs=1e-12)
    assert columns["train_accuracy"][0] == np.mean(Y == 0)


def test_rows_are_drawn_once():
    data = {"train": (X, Y)}
    columns, again = (
        recorded(small(callbacks=recording(data, max_samples=20, random_state=seed)).fit(X, Y)) for seed in (0, 0)
    )
    np.testing.assert_array_equal(columns["train_loss"], again["train_loss"])
    expected = check_objective(small().fit(X, Y), X, Y, max_samples=20, random_state=0).evaluate()
    assert (columns["train_loss"][-1], columns["train_accuracy"][-1]) == expected
    other = recorded(small(callbacks=recording(data, max_samples=20, random_state=1)).fit(X, Y))
    assert not np.isin(columns["train_loss"], other["train_loss"]).any()


def test_a_measurement_takes_the_users_rows_and_labels():
    """Strings for labels, flat rows for a convolutional net."""
    flat, labels = IMAGES.reshape(40, -1), np.array(["left", "right"])[IMAGE_LABELS]

    def measure(net):
        assert not net.module_.training
        return {
            "value": sharpness(net, flat, labels, max_iter=3).value,
            "f0": check_objective(net, flat, labels).value(),
        }

    shape = {"net": TinyC1, "input_shape": (1, 8, 8)}
    model = small(callbacks=recording(None, {"sharpness": measure}), **shape).fit(flat, labels)
    columns = recorded(model)
    for k in (1, 2):
        shorter = small(max_epochs=k, **shape).fit(flat, labels)
        assert columns["sharpness_value"][k - 1] == sharpness(shorter, flat, labels, max_iter=3).value
        assert columns["sharpness_f0"][k - 1] == check_objective(shorter, flat, labels).value()


def test_data_frames():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = small(callbacks=recording({"train": (frame, Y)})).fit(frame, Y)
    array = small(callbacks=recording({"train": (X, Y)})).fit(X, Y)
    np.testing.assert_array_equal(recorded(model)["train_loss"], recorded(array)["train_loss"])
    with pytest.raises(ValueError, match=r"datasets\['train'\]: X must have the columns \['a', 'b', 'c', 'd'\] of fit"):
        small(callbacks=recording({"train": (frame[["b", "a", "c", "d"]], Y)})).fit(frame, Y)


# -- when --------------------------------------------------------------------------------------------------------------


def _updates(n_epochs=2, **kwargs):
    when = {name: kwargs.pop(name) for name in ("every", "at_updates") if name in kwargs}
    model = small(callbacks=recording(**when), max_epochs=n_epochs, batch_size=kwargs.pop("batch_size", 8), **kwargs)
    columns = recorded(model.fit(X, Y))
    return columns["n_updates"].tolist(), columns["epoch"].tolist()


def test_logarithmically_spaced_updates():
    updates, epochs = _updates(32, every=None, at_updates="log")
    assert updates == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256]
    assert epochs[5:8] == [1, 1 + 3 * 8 / 60, 2]


def test_every_epoch_and_the_last():
    assert _updates(5) == ([8, 16, 24, 32, 40], [1, 2, 3, 4, 5])
    assert _updates(5, every=2) == ([16, 32, 40], [2, 4, 5])
    assert _updates(2, every=7) == ([16], [2])
    assert _updates(4, every=2) == ([16, 32], [2, 4])


def test_one_record_where_epoch_and_update_meet():
    assert _updates(2, at_updates=[5, 8, 16, 99]) == ([5, 8, 16], [5 * 8 / 60, 1, 2])
    # Whole batches only, 56 of 60 rows: the end of the epoch is the end nevertheless.
    dropping = {"iterator_train__drop_last": True, "iterator_train__shuffle": True}
    assert _updates(1, at_updates=[6, 7], **dropping) == ([6, 7], [6 * 8 / 60, 1])


def test_several_steps_a_batch_are_recorded_at_its_end():
    assert _updates(1, every=None, at_updates=[1, 2, 7, 8], proximal_lambda=0.0)[0] == [3, 9]
    assert _updates(1, every=None, at_updates="log", proximal_lambda=0.0)[0] == [3, 6, 9, 12, 18, 24]


def test_a_regime_that_varies():
    updates, epochs = _updates(2, batch_size=None, batch_regime=SwitchBatch(1, 10, 30), at_updates=[3, 6, 7])
    assert (updates, epochs) == ([3, 6, 7, 8], [0.5, 1, 1.5, 2])


def test_the_last_epoch_is_the_one_that_training_ends_with():
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, threshold_mode="abs", sink=lambda text: None)
    callbacks = [stop, *recording(every=2)]
    model = small(callbacks=callbacks, max_epochs=30).fit(X, Y)
    assert recorded(model)["epoch"].tolist() == [2, 3]
    assert recorded(model)["n_updates"][-1] == model.n_updates_


# -- kept and found ----------------------------------------------------------------------------------------------------


def _count(net):
    return len(net.history)


def _same(first, second):
    assert list(first) == list(second)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_warm_start_goes_on():
    data = {"train": (X, Y)}
    whole = small(callbacks=recording(data, at_updates="log"), max_epochs=4).fit(X, Y)
    parts = small(callbacks=recording(data, at_updates="log"), warm_start=True, recompute_batch_norm=False)
    parts.fit(X, Y)
    assert recorded(parts)["epoch"][-1] == 2
    _same(recorded(parts.fit(X, Y)), recorded(whole))
    at_start = small(callbacks=recording(every=None, at_updates=[0]), warm_start=True).fit(X, Y).fit(X, Y)
    assert recorded(at_start)["n_updates"].tolist() == [0]
    parts.set_params(warm_start=False).fit(X, Y)
    assert recorded(parts)["epoch"][-1] == 2  # a fit from the start forgets


def test_records_survive_copies_and_pickles_and_clones_have_none():
    recorder = TrainingRecorder({"train": (X, Y)}, {"count": _count})
    model = small(callbacks=[("recorder", recorder)]).fit(X, Y)
    assert not hasattr(recorder, "records_")
    _same(recorded(pickle.loads(pickle.dumps(model))), recorded(model))
    copied = copy.deepcopy(model)
    _same(recorded(copied), recorded(model))
    copied.set_params(warm_start=True).fit(X, Y)
    assert (len(recorded(copied)["epoch"]), len(recorded(model)["epoch"])) == (4, 2)
    fresh = clone(model)
    assert not hasattr(fresh.callbacks[0][1], "records_")
    assert fresh.callbacks[0][1].get_params() == recorder.get_params()
    _same(recorded(fresh.fit(X, Y)), recorded(model))


def test_copies_share_the_data():
    """Else a search would hold the data once more for every candidate."""
    recorder = TrainingRecorder({"train": (X, Y)}, {"count": _count})
    model = small(callbacks=[("recorder", recorder)])
    in_net = dict(clone(model).fit(X, Y).net_.callbacks_)["recorder"]
    assert in_net is not recorder
    for name in ("datasets", "measurements"):
        assert getattr(in_net, name) is getattr(recorder, name)


class PickleWhileTraining(Callback):
    def on_epoch_end(self, net, **kwargs):
        self.copied_ = pickle.loads(pickle.dumps(net))


def test_a_net_can_be_pickled_while_it_trains():
    callbacks = [*recording({"train": (X, Y)}), ("pickle", PickleWhileTraining())]
    model = small(callbacks=callbacks).fit(X, Y)
    _same(recorded(dict(model.net_.callbacks_)["pickle"].copied_), recorded(model))


def test_searches_and_pipelines():
    data = {"test": (X_TEST, Y_TEST)}
    search = GridSearchCV(small(callbacks=recording(data)), {"batch_size": [8, 20]}, cv=2).fit(X, Y)
    _same(recorded(search), recorded(search.best_estimator_))
    assert recorded(search)["n_updates"][0] == 60 / search.best_params_["batch_size"] // 1 + (
        60 % search.best_params_["batch_size"] > 1
    )
    pipeline = make_pipeline(StandardScaler(), small(callbacks=recording())).fit(X, Y)
    _same(recorded(pipeline), recorded(pipeline[-1]))
    nested = small(callbacks=recording(), callbacks__recorder__every=2).fit(X, Y)
    assert recorded(nested)["epoch"].tolist() == [2]


def test_a_plain_skorch_net():
    torch.manual_seed(0)
    labels = Y.astype(np.int64)
    net = NeuralNetClassifier(
        Mlp,
        criterion=nn.CrossEntropyLoss,
        max_epochs=2,
        batch_size=16,
        lr=0.1,
        verbose=0,
        callbacks=[
            ("weights", Weights()),
            ("recorder", TrainingRecorder({"train": (X, labels)}, {"count": _count}, at_updates=[0, 2])),
        ],
    ).fit(X, labels)
    columns = recorded(net)
    n_rows = 48  # skorch holds out a fifth
    assert columns["n_updates"].tolist() == [0, 2, 3, 6]
    assert columns["epoch"].tolist() == [0, 2 * 16 / n_rows, 1, 2]
    modules = dict(net.callbacks_)["weights"].modules_
    for n, moved, loss in zip((0, 2, 3, 6), columns["weight_distance"], columns["train_loss"], strict=True):
        assert moved == weight_distance(modules[n], modules[0])
        assert loss == check_objective((modules[n], nn.CrossEntropyLoss()), X, labels).value()
    assert loss == check_objective(net, X, labels).value()
    net.fit(X, labels)  # from other weights
    assert recorded(net)["weight_distance"][0] == 0
    start = dict(net.callbacks_)["weights"].modules_[0]
    net.partial_fit(X, labels)
    assert recorded(net)["n_updates"].tolist() == [0, 2, 3, 6, 9, 12]
    assert recorded(net)["weight_distance"][-1] == weight_distance(net, start)


# -- bad parameters ----------------------------------------------------------------------------------------------------


def test_array_of_updates():
    assert _updates(1, every=None, at_updates=np.array([2, 4]))[0] == [2, 4]


# -- the net as what is measured ---------------------------------------------------------------------------------------


def test_the_net_is_measured_as_its_estimator_is():
    model = small().fit(X, LABELS)
    assert check_objective(model.net_, X, LABELS).value() == check_objective(model, X, LABELS).value()
    with pytest.raises(NotFittedError, match="call 'fit' of its estimator first"):
        check_objective(clone(model.net_), X, LABELS)
    with pytest.raises(ValueError, match="y must have the labels seen in fit"):
        check_objective(model.net_, X, Y.astype(str))


def test_weights_are_those_measured_in_the_end():
    model = small(callbacks=recording({"train": (X, Y)}), recompute_batch_norm=False)
    columns = recorded(model.fit(X, Y))
    assert columns["train_loss"][-1] == check_objective(model, X, Y).value()
    assert columns["weight_distance"][-1] == weight_distance(model)
    assert columns["weight_distance"][-1] == pytest.approx(model.history_[-1, "weight_distance"], rel=1e-5)


AVERAGES = {
    "SWA": lambda: WeightAveraging(start=0.0),
    "latest": lambda: LatestAveraging(n_latest=2),
    "exponential": lambda: ExponentialAveraging(decay=0.9),
}


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("first", [False, True])
def test_the_last_record_is_one_of_the_training_and_not_of_an_average(name, first):
    def last(callbacks):
        model = small(max_epochs=3, callbacks=callbacks).fit(X, Y)
        return model, recorded(model)

    _, alone = last(recording({"train": (X, Y)}, every=2))
    callbacks = [*recording({"train": (X, Y)}, every=2), ("average", AVERAGES[name]())]
    model, beside = last(callbacks[::-1] if first else callbacks)
    for key, values in alone.items():
        np.testing.assert_array_equal(values, beside[key])
    assert beside["n_updates"][-1] == model.history_[-1, "n_updates"]
    assert check_objective(model, X, Y).value() != pytest.approx(beside["train_loss"][-1], rel=1e-6)
