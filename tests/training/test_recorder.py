"""`TrainingRecorder`: what it records is right, and training does not notice."""

import copy
import pickle
import warnings

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
from skorch.dataset import ValidSplit
from torch import nn

from sklgap import SwitchBatch, TrainingRecorder, check_objective, sharpness
from sklgap.inspection import recorded, weight_distance
from tests.cases import no_global_random_numbers
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small

X, Y = blobs()
LABELS = np.array(["no", "perhaps", "yes"])[Y]
X_TEST, Y_TEST = blobs(30, seed=1)


def recording(*args, **kwargs):
    """Return the callbacks of a fit with one recorder."""
    return [("recorder", TrainingRecorder(*args, **kwargs))]


def disturb(net):
    """Do all that a measurement should not do."""
    net.module_.train()
    torch.rand(7)
    with torch.no_grad():
        for parameter in net.module_.parameters():
            parameter.zero_()
    for buffer in net.module_.buffers():
        buffer.zero_()
    net.predict_proba(np.zeros((2, *net.encoding_.net_shape), dtype=np.float32))
    net.module_(torch.zeros(2, *net.encoding_.net_shape)).sum().backward()
    return 1.0


# -- training does not notice ------------------------------------------------------------------------------------------

IMAGES, IMAGE_LABELS = images()


def _noise(batch):
    return batch + 0.1 * torch.rand_like(batch)  # from torch's global generator


FITS = {
    "plain": lambda **kwargs: small(**kwargs).fit(X, Y),
    "labels": lambda **kwargs: small(**kwargs).fit(X, LABELS),
    "switch": lambda **kwargs: small(batch_regime=SwitchBatch(1, 8, 30), **kwargs).fit(X, Y),
    "ghost batch norm": lambda **kwargs: small(ghost_batch_size=4, **kwargs).fit(X, Y),
    "micro-batches": lambda **kwargs: small(micro_batch_size=5, **kwargs).fit(X, Y),
    "proximal": lambda **kwargs: small(proximal_lambda=1e-3, **kwargs).fit(X, Y),
    "dropout and flat images": lambda **kwargs: small(net=TinyC1, input_shape=(1, 8, 8), **kwargs).fit(
        IMAGES.reshape(40, -1), IMAGE_LABELS
    ),
    "augmentation": lambda **kwargs: small(net=TinyC1, augmentation=_noise, **kwargs).fit(IMAGES, IMAGE_LABELS),
    "train split": lambda **kwargs: small(train_split=ValidSplit(3), **kwargs).fit(X, Y),
    "skorch's data path": lambda **kwargs: small(iterator_train__shuffle=True, **kwargs).fit(X, Y),
    "momentum, lr scaling": lambda **kwargs: small(
        optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr_scaling="sqrt", batch_size=16, **kwargs
    ).fit(X, Y),
    "regime adaptation": lambda **kwargs: small(regime_adaptation=True, batch_size=30, **kwargs).fit(X, Y),
    "early stopping": lambda **kwargs: small(max_epochs=9, target_loss=0.8, **kwargs).fit(X, Y),
}
WHEN = [{"at_updates": "log"}, {"every": 2}, {"every": None, "at_updates": [0, 3, 7]}]


def _rows(history):
    return [{key: value for key, value in row.items() if key != "dur"} for row in history]


@pytest.mark.parametrize("when", WHEN, ids=str)
@pytest.mark.parametrize("fit", FITS)
def test_training_is_bit_for_bit_the_same(fit, when):
    plain = FITS[fit]()
    rows = X if plain.n_features_in_ == 4 else IMAGES.reshape(40, -1) if "flat" in fit else IMAGES
    labels = IMAGE_LABELS if plain.n_features_in_ != 4 else LABELS if fit == "labels" else Y
    with no_global_random_numbers():
        measured = FITS[fit](callbacks=recording({"train": (rows, labels)}, {"disturbance": disturb}, **when))
    assert len(recorded(measured)["disturbance"]) >= 1
    assert same_weights(plain, measured)
    assert _rows(plain.history_) == _rows(measured.history_)
    assert plain.n_updates_ == measured.n_updates_
    first, second = (model.net_.optimizer_.state_dict()["state"] for model in (plain, measured))
    assert first.keys() == second.keys()
    for number, state in first.items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(second[number][name])), name
    for p, q in zip(plain.module_.parameters(), measured.module_.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_measurements_that_draw_are_repeatable_and_leave_the_global_generator_alone():
    with no_global_random_numbers():
        first, again = (small(callbacks=recording(None, {"draw": lambda net: torch.rand(())})).fit(X, Y) for _ in "12")
    draws = recorded(first)["draw"]
    np.testing.assert_array_equal(draws, recorded(again)["draw"])
    assert len(set(draws)) == 2
    other = small(callbacks=recording(None, {"draw": lambda net: torch.rand(())}, random_state=1)).fit(X, Y)
    assert set(draws).isdisjoint(recorded(other)["draw"])


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


# -- measurements that fail --------------------------------------------------------------------------------------------


class Fails:
    """Raises in its calls number ``at``, counted from 1."""

    def __init__(self, at, error, values=2.0):
        self.at, self.error, self.values, self.calls = at, error, values, 0

    def __call__(self, net):
        self.calls += 1
        if self.calls in self.at:
            raise self.error
        return self.values


def test_a_measurement_that_fails_while_training_is_nan():
    failing = {
        "one": Fails([2, 3], RuntimeError("no luck")),
        "many": Fails([2], KeyError("x"), {"a": 1, "b": 2}),
        "never": Fails([1, 2, 3, 4], OSError("gone")),
        "good": lambda net: 3,
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = small(callbacks=recording(None, failing), max_epochs=4).fit(X, Y)
    assert [str(warning.message) for warning in caught] == [
        "measurements['never'] failed after 8 updates, and is recorded as NaN: OSError: gone",
        "measurements['one'] failed after 16 updates, and is recorded as NaN: RuntimeError: no luck",
        "measurements['many'] failed after 16 updates, and is recorded as NaN: KeyError: 'x'",
    ]
    columns = recorded(model)
    assert "many" not in columns
    np.testing.assert_array_equal(columns["one"], [2, np.nan, np.nan, 2])
    np.testing.assert_array_equal(columns["many_a"], [1, np.nan, 1, 1])
    np.testing.assert_array_equal(columns["many_b"], [2, np.nan, 2, 2])
    assert np.isnan(columns["never"]).all()
    assert columns["good"].tolist() == [3] * 4
    assert same_weights(model, small(max_epochs=4).fit(X, Y))


@pytest.mark.parametrize("value", [None, "much", [1.0, 2.0], {"a": "much"}, np.zeros(2)], ids=repr)
def test_a_measurement_that_is_no_number(value):
    with pytest.warns(UserWarning, match="must return a number or a dict of numbers; got"):
        model = small(callbacks=recording(None, {"m": lambda net: value})).fit(X, Y)
    assert np.isnan(recorded(model)["m"]).all()


@pytest.mark.parametrize("value", [1, True, np.float32(1), torch.ones(1)], ids=repr)
def test_what_counts_as_a_number(value):
    assert recorded(small(callbacks=recording(None, {"m": lambda net: value})).fit(X, Y))["m"].tolist() == [1, 1]


class NoBatches(Callback):
    def on_batch_begin(self, net, **kwargs):
        pytest.fail("a batch")


def test_a_measurement_that_fails_on_the_initial_weights_fails_the_fit_before_training():
    failing = recording(None, {"mine": Fails([1], RuntimeError("no luck"))}, at_updates=[0])
    model = small(callbacks=[NoBatches(), *failing])
    with pytest.raises(ValueError, match=r"^measurements\['mine'\] fails on the initial weights: no luck$"):
        model.fit(X, Y)
    with pytest.raises(NotFittedError):
        model.predict(X)


@pytest.mark.parametrize(
    ("when", "at", "n_epochs", "n_records"),
    [
        ({"every": None, "at_updates": [3, 11, 13]}, 2, 1, 1),  # within the second epoch
        ({}, 2, 2, 1),  # at the end of the second epoch
        ({}, 4, 4, 3),  # at the end of the last epoch
        ({"every": 3}, 2, 4, 1),  # at the end of the fit
    ],
)
def test_ctrl_c_while_measuring(when, at, n_epochs, n_records):
    """It is Ctrl-C, not skorch's way of stopping early: raised by fit, which keeps the epochs that are done."""
    model = small(callbacks=recording(None, {"m": Fails([at], KeyboardInterrupt())}, **when), max_epochs=4)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert model.n_iter_ == n_epochs
    assert len(recorded(model)["m"]) == n_records
    assert model.score(X, Y) == model.train_score_
    model.set_params(warm_start=True, max_epochs=1).fit(X, Y)
    assert model.n_iter_ == n_epochs + 1


# -- bad parameters ----------------------------------------------------------------------------------------------------

BAD = {
    "every=0": ({"every": 0}, ValueError, "every must be None or an integer of at least 1; got 0."),
    "every=1.0": ({"every": 1.0}, ValueError, "every must be None or an integer of at least 1; got 1.0."),
    "every=True": ({"every": True}, ValueError, "every must be None or an integer of at least 1; got True."),
    "at_updates=lin": ({"at_updates": "lin"}, ValueError, "at_updates must be None, 'log' or a sequence of integers"),
    "at_updates=5": ({"at_updates": 5}, ValueError, "at_updates must be None, 'log' or a sequence of integers"),
    "at_updates=[]": ({"at_updates": []}, ValueError, "at_updates must be None, 'log' or a sequence of integers"),
    "at_updates=[-1]": ({"at_updates": [1, -1]}, ValueError, "sequence of integers of at least 0; got"),
    "at_updates=[0.5]": ({"at_updates": [0.5]}, ValueError, "sequence of integers of at least 0; got"),
    "never": ({"every": None}, ValueError, "every and at_updates must not both be None"),
    "datasets": ({"datasets": (X, Y)}, TypeError, "datasets must be None or a dict with names as keys; got"),
    "datasets names": ({"datasets": {1: (X, Y)}}, TypeError, "datasets must have names as keys; got the key 1."),
    "datasets pairs": ({"datasets": {"a": X}}, TypeError, r"datasets\['a'\] must be a pair \(X, y\); got ndarray"),
    "columns": ({"datasets": {"a": (X[:, :3], Y)}}, ValueError, r"datasets\['a'\]: X must have rows of shape \(4,\)"),
    "labels": ({"datasets": {"a": (X, Y + 1)}}, ValueError, r"datasets\['a'\]: y must have the labels seen in fit"),
    "rows": ({"datasets": {"a": (X, Y[1:])}}, ValueError, r"datasets\['a'\]: X and y must have the same number of"),
    "nan": ({"datasets": {"a": (X * np.nan, Y)}}, ValueError, r"datasets\['a'\]: Input X contains NaN"),
    "batch_norm": ({"datasets": {"a": (X, Y)}, "batch_norm": "mean"}, ValueError, "batch_norm must be one of"),
    "chunk_size": ({"datasets": {"a": (X, Y)}, "chunk_size": 0}, ValueError, "chunk_size must be an integer of at"),
    "chunks of 1": ({"datasets": {"a": (X, Y)}, "chunk_size": 1}, ValueError, "needs at least two rows in every chunk"),
    "max_samples": ({"datasets": {"a": (X, Y)}, "max_samples": 0}, ValueError, "max_samples must be None, an integer"),
    "random_state": ({"random_state": None}, ValueError, "random_state must be an integer of at least 0; got None."),
    "measurements": ({"measurements": [len]}, TypeError, "measurements must be None or a dict with names as keys"),
    "no function": ({"measurements": {"a": 1}}, TypeError, r"measurements\['a'\] must be a function of the net; got 1"),
    "reserved": ({"measurements": {"epoch": len}}, ValueError, "must not have a name that is recorded anyway; got 'e"),
    "twice": (
        {"datasets": {"a": (X, Y)}, "measurements": {"a_loss": len}},
        ValueError,
        "measurements must not have a name that is recorded anyway; got 'a_loss'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_parameters_are_one_sentence_before_training(case):
    given, kind, sentence = BAD[case]
    model = small(callbacks=[NoBatches(), *recording(**given)])
    with pytest.raises(kind, match=sentence) as caught:
        model.fit(X, Y)
    assert "\n" not in str(caught.value)
    with pytest.raises(NotFittedError):
        model.predict(X)


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
