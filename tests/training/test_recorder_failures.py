"""Measurements of `TrainingRecorder` that fail, and its bad parameters."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback

from sklgap.inspection import recorded
from tests.tiny import same_weights, small
from tests.training.recordings import X, Y, recording

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
    "datasets pairs": (
        {"datasets": {"a": X}},
        TypeError,
        r"datasets\['a'\] must be a pair \(X, y\), a Dataset or a DataLoader; got ndarray",
    ),
    "columns": ({"datasets": {"a": (X[:, :3], Y)}}, ValueError, r"datasets\['a'\]: X must have samples of shape"),
    "labels": ({"datasets": {"a": (X, Y + 1)}}, ValueError, r"datasets\['a'\]: y must have the labels seen in fit"),
    "rows": ({"datasets": {"a": (X, Y[1:])}}, ValueError, r"datasets\['a'\]: X and y must have the same number of"),
    "nan": ({"datasets": {"a": (X * np.nan, Y)}}, ValueError, r"datasets\['a'\]: Input X contains NaN"),
    "batch_norm": ({"datasets": {"a": (X, Y)}, "batch_norm": "mean"}, ValueError, "batch_norm must be one of"),
    "chunk_size": ({"datasets": {"a": (X, Y)}, "chunk_size": 0}, ValueError, "chunk_size must be an integer of at"),
    "chunks of 1": (
        {"datasets": {"a": (X, Y)}, "chunk_size": 1},
        ValueError,
        "needs at least two samples in every chunk",
    ),
    "max_samples": ({"datasets": {"a": (X, Y)}, "max_samples": 0}, ValueError, "max_samples must be None, an integer"),
    "random_state": ({"random_state": None}, ValueError, "random_state must be an integer of at least 0; got None."),
    "measurements": ({"measurements": [len]}, TypeError, "measurements must be None or a dict with names as keys"),
    "no function": ({"measurements": {"a": 1}}, TypeError, r"measurements\['a'\] must be a function of the net; got 1"),
    "reserved": (
        {"measurements": {"epoch": len}},
        ValueError,
        "must not have a name that the recorder uses itself; got 'e",
    ),
    "twice": (
        {"datasets": {"a": (X, Y)}, "measurements": {"a_loss": len}},
        ValueError,
        "measurements must not have a name that the recorder uses itself; got 'a_loss'",
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
