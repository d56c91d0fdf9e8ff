import json
import math

import numpy as np
import pytest
from scipy import stats

from sklgap import TrainingRecorder, time_to_accuracy
from sklgap.inspection import recorded
from tests.tiny import blobs, small


def history(accuracies, dur=2.0, updates=10, name="valid_acc"):
    return [{name: accuracy, "dur": dur, "n_updates": (i + 1) * updates} for i, accuracy in enumerate(accuracies)]


def test_the_first_record_at_the_target():
    found = time_to_accuracy({"SB": history([0.5, 0.9, 0.8, 0.95])}, 0.9, quantity="valid_acc")
    (record,) = found.records
    assert record == {
        "label": "SB", "trial": 0, "reached": True, "seconds": 4.0, "n_updates": 20.0, "epochs": 2.0, "best": 0.95,
    }  # fmt: skip


def test_ratios_over_pairs_that_both_reached():
    models = {
        "SB": [history([0.9]), history([0.1, 0.9]), history([0.9]), history([0.1])],
        "LB": [history([0, 0.9], 3, 1), history([0, 0, 0.9], 3, 1), history([0.1]), history([0.9])],
    }
    found = time_to_accuracy(models, 0.9, quantity="valid_acc")
    np.testing.assert_array_equal(found.values("LB", "seconds"), [6, 9, np.nan, 2])
    logs = np.log([6 / 2, 9 / 4])  # the first two trials
    mean, low, high = found.ratio("LB")
    interval = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx(tuple(np.exp([logs.mean(), interval.low, interval.high])))
    assert found.ratio("LB", "epochs")[0] == pytest.approx(math.sqrt(2 * 1.5))
    assert found.ratio("LB", "n_updates")[0] == pytest.approx(math.sqrt(2 / 10 * 3 / 20))
    assert "* Ratios are geometric means over paired trainings, in brackets their 95 % intervals." in str(found)
    other = time_to_accuracy(models, 0.9, quantity="valid_acc", reference="LB")
    assert other.ratio("SB")[0] == pytest.approx(1 / mean)


def test_never_reached_is_said():
    models = {"SB": history([0.9]), "LB": history([0.3, 0.6, math.nan])}
    found = time_to_accuracy(models, 0.9, quantity="valid_acc")
    record = found.records[1]
    assert not record["reached"]
    assert np.isnan([record["seconds"], record["n_updates"], record["epochs"]]).all()
    assert record["best"] == 0.6
    assert np.isnan(found.ratio("LB")).all()
    text = str(found)
    assert text.split("LB")[1].split()[:6] == ["0", "of", "1", "-", "-", "-"]
    assert "* LB never reached it" in text
    assert "LB against SB" not in text
    assert json.loads(found.to_json())["records"][1]["seconds"] is None


def test_reached_sometimes_is_said():
    models = {"SB": [history([0.9])] * 2, "LB": [history([0.9]), history([0.2])]}
    text = str(time_to_accuracy(models, 0.9, quantity="valid_acc"))
    assert "* LB did not reach it in 1 of 2 trainings" in text
    assert "LB against SB: 1 times the seconds, 1 times the updates, 1 times the epochs" in text
    assert "95 %" not in text
    assert "One training each" not in text


@pytest.fixture(scope="module")
def trained():
    X, y = blobs(n=120)
    models = {}
    for label, size in (("SB", 10), ("LB", 0.5)):
        recorder = TrainingRecorder({"test": (X, y)}, at_updates=[1, 3, 5])
        models[label] = small(batch_size=size, max_epochs=6, callbacks=[("recorder", recorder)]).fit(X, y)
    return models


def test_real_trainings(trained):
    columns = {label: recorded(model) for label, model in trained.items()}
    target = float(columns["LB"]["test_accuracy"].max())
    found = time_to_accuracy(trained, target)
    for label, model in trained.items():
        i = np.flatnonzero(columns[label]["test_accuracy"] >= target)[0]
        (record,) = [r for r in found.records if r["label"] == label]
        assert record["n_updates"] == columns[label]["n_updates"][i]
        assert record["epochs"] == columns[label]["epoch"][i]
        whole, part = divmod(record["epochs"], 1)
        durations = [row["dur"] for row in model.history_]
        expected = sum(durations[: int(whole)]) + (part * durations[int(whole)] if part else 0)
        assert record["seconds"] == pytest.approx(expected)
    frame = found.to_frame()
    assert list(frame["label"]) == ["SB", "LB"]


def test_from_the_histories_of_real_trainings(trained, tmp_path):
    histories = {label: model.history_ for label, model in trained.items()}
    found = time_to_accuracy(histories, 0.2, quantity="train_accuracy")
    for label, model in trained.items():
        epoch = next(i for i, row in enumerate(model.history_) if row["train_accuracy"] >= 0.2)
        assert found.values(label, "n_updates") == [model.history_[epoch, "n_updates"]]
    assert found.to_json(tmp_path / "times.json") + "\n" == (tmp_path / "times.json").read_text()


def test_a_history_without_updates_is_one_of_another_net():
    rows = [{"valid_acc": 0.9, "dur": 1.0}]
    found = time_to_accuracy({"a": rows, "b": rows}, 0.5, quantity="valid_acc")
    assert found.values("a", "seconds") == [1]
    assert np.isnan(found.values("a", "n_updates")).all()
    assert "b against a: 1 times the seconds, 1 times the epochs" in str(found)


@pytest.mark.parametrize(
    ("models", "parameters", "error", "message"),
    [
        ({"SB": history([1])}, {"target": 95}, ValueError, r"^target must be a number in \(0, 1\]; got 95\.$"),
        ({"SB": history([1])}, {"target": 0}, ValueError, "^target must be"),
        ({}, {}, TypeError, "models must be a dict of names to .*; got an empty one"),
        ([history([1])], {}, TypeError, "models must be a dict of names to .*; got list"),
        ({"SB": []}, {}, ValueError, r"models\['SB'\] must have at least one training; got none"),
        ({"SB": history([1])}, {"reference": "LB"}, ValueError, r"^reference must be one of 'SB'; got 'LB'\.$"),
        (
            {"SB": history([1])},
            {},
            ValueError,
            r"must have records of 'test_accuracy', which quantity asks for; got epoch",
        ),
    ],
)
def test_bad_input(models, parameters, error, message):
    with pytest.raises(error, match=message):
        time_to_accuracy(models, **{"target": 0.5, **parameters})


def test_an_estimator_without_a_recorder():
    X, y = blobs()
    with pytest.raises(ValueError, match="recorder must be the name of a TrainingRecorder"):
        time_to_accuracy({"SB": small().fit(X, y)}, 0.5)
