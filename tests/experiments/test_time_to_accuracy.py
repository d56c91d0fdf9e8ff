import json
import math

import numpy as np
import pytest

from sklgap import TrainingRecorder, time_to_accuracy
from sklgap.inspection import recorded
from tests.tiny import blobs, small


def history(accuracies, dur=2.0, updates=10, name="valid_acc"):
    return [{name: accuracy, "dur": dur, "n_updates": (i + 1) * updates} for i, accuracy in enumerate(accuracies)]


def test_the_first_record_at_the_target():
    found = time_to_accuracy({"SB": history([0.5, 0.9, 0.8, 0.95])}, 0.9, quantity="valid_acc")
    (record,) = found.records
    assert record == {
        "label": "SB", "trial": 0, "reached": True, "seconds": 4.0, "n_updates": 20.0, "epochs": 2.0,
        "trained_seconds": 8.0, "trained_n_updates": 40.0, "trained_epochs": 4.0, "best": 0.95,
    }  # fmt: skip


def times(first, *, censored=(), length=20):
    """Histories that reach 0.9 in these epochs, but for the trials that are censored after as many."""
    return [
        history([0.1] * epochs) if i in censored else history([0.1] * (epochs - 1) + [0.9] + [0.8] * (length - epochs))
        for i, epochs in enumerate(first)
    ]


def test_the_ratio_is_the_median_over_pairs():
    models = {"SB": times([1, 2, 4, 5, 2]), "LB": times([2, 6, 4, 20, 3])}
    found = time_to_accuracy(models, 0.9, quantity="valid_acc")
    ratio = found.ratio("LB", "epochs")  # 2, 3, 1, 4, 1.5
    assert (ratio.value, ratio.low, ratio.high, ratio.level) == (2, 1, 4, 0.9375)
    assert "LB 2 times [1, 4]" in found._verdict()[0]
    assert "93.75 % interval" in str(found)
    assert any("95 % needs 6 pairs" in sentence for sentence in found.notes)
    assert found.ratio("LB").value == found.ratio("LB", "n_updates").value == 2  # each epoch costs the same here
    turned = time_to_accuracy(models, 0.9, quantity="valid_acc", reference="LB").ratio("SB", "epochs")
    assert (turned.value, turned.low, turned.high) == (1 / 2, 1 / 4, 1)


@pytest.mark.parametrize(
    ("censored", "expected"),
    [
        ({"LB": [4]}, (2, 1, math.inf)),  # at least 8
        ({"SB": [2]}, (2, 0, 8)),  # at most 1
        ({"LB": [4], "SB": [4]}, (None, None, None)),
        ({"LB": [2, 3, 4]}, (None, 1, math.inf)),
    ],
    ids=["large", "small", "both", "most of the large"],
)
def test_a_training_that_never_got_there_is_a_bound(censored, expected):
    models = {
        label: times(first, censored=censored.get(label, ()))
        for label, first in {"SB": [2, 2, 2, 2, 2], "LB": [4, 6, 2, 2, 16]}.items()
    }
    ratio = time_to_accuracy(models, 0.9, quantity="valid_acc").ratio("LB", "epochs")
    value, low, high = expected
    assert math.isnan(ratio.value) if value is None else ratio.value == value
    assert math.isnan(ratio.low) if low is None else ratio.low == low
    assert math.isnan(ratio.high) if high is None else ratio.high == high
    assert ratio.level == 0.9375


def test_six_pairs_have_their_95_percent():
    models = {"SB": times([1] * 6), "LB": times([1, 2, 3, 4, 5, 6])}
    found = time_to_accuracy(models, 0.9, quantity="valid_acc")
    assert found.ratio("LB").level == 1 - 2**-5
    assert not any("pairs" in sentence for sentence in found.notes)


def test_how_long_a_training_is_known_not_to_have_got_there():
    # After the last record of the quantity it may have got there unseen.
    found = time_to_accuracy({"LB": history([0.3, 0.6, math.nan])}, 0.9, quantity="valid_acc")
    (record,) = found.records
    assert not record["reached"]
    assert np.isnan([record["seconds"], record["n_updates"], record["epochs"]]).all()
    assert (record["trained_epochs"], record["trained_n_updates"], record["trained_seconds"]) == (2, 20, 4)
    assert record["best"] == 0.6
    assert "0 of 1 trainings" in found._verdict()[0]
    assert json.loads(found.to_json())["records"][0]["seconds"] is None


def test_never_and_not_always_are_told_apart():
    models = {"SB": times([1, 1]), "LB": times([2, 3], censored=[1]), "XL": times([4, 4], censored=[0, 1])}
    found = time_to_accuracy(models, 0.9, quantity="valid_acc")
    never, some = (
        [s for s in found.notes if words in s] for words in ("never reached", "Some trainings did not reach")
    )
    assert ["XL" in s and "LB" not in s for s in never] == [True]
    assert ["LB (in 1 training of 2)" in s for s in some] == [True]
    assert found.ratio("XL", "epochs").low == 4
    assert "median not known [4, inf] times" in found._verdict()[0]
    rows = {row[0]: row for row in found._table()}
    assert rows["XL"][1:5] == ["0 of 2", "-", "-", "-"]
    assert rows["LB"][1:3] == ["1 of 2", "4.00"]


def test_one_training_each_has_no_interval():
    found = time_to_accuracy({1: times([1]), 2: times([3])}, 0.9, quantity="valid_acc", reference=1)
    assert found.ratio(2).value == 3
    assert not found.ratio("2").has_interval
    assert "2 3 times." in found._verdict()[0]
    assert "in brackets" not in str(found)
    assert any("There is one training for each regime" in sentence for sentence in found.notes)


def test_trainings_without_a_partner_are_left_out():
    found = time_to_accuracy({"SB": times([1, 1, 1]), "LB": times([2, 4])}, 0.9, quantity="valid_acc")
    assert found.ratio("LB").n == 2
    assert any("without a partner" in sentence for sentence in found.notes)


@pytest.mark.parametrize(
    ("name", "values", "target", "better", "epoch"),
    [
        ("valid_loss", [2.0, 1.0, 0.4, 0.3], 0.5, None, 3),
        ("negative_loss", [-2.0, -1.0, -0.4, -0.3], -0.5, True, 3),
        ("weight_distance", [1.0, 5.0, 20.0, 30.0], 10, None, 3),
        ("sharpness", [9.0, 4.0, 2.0, 1.0], 2, False, 3),
    ],
)
def test_any_quantity_may_be_reached(name, values, target, better, epoch):
    models = {"SB": history(values, name=name), "LB": history(values[:2], name=name)}
    found = time_to_accuracy(models, target, quantity=name, greater_is_better=better)
    assert found.values("SB", "epochs") == [epoch]
    assert not found.records[1]["reached"]
    assert found.records[1]["best"] == values[1]
    assert f"of {target:g};" in str(found)
    assert "%" not in found._table()[0][-1]


def test_what_was_there_at_the_start_has_no_ratio():
    at_once = [{"valid_acc": 0.9, "dur": 0.0, "n_updates": 0}]
    found = time_to_accuracy({"SB": at_once, "LB": history([0.9])}, 0.5, quantity="valid_acc")
    assert math.isnan(found.ratio("LB").value)
    assert "not known" in found._verdict()[0]
    assert any("at the start" in sentence and "SB" in sentence for sentence in found.notes)


def test_it_leaves_in_all_formats():
    found = time_to_accuracy({"a_b": times([1, 1]), "<c>": times([2, 3])}, 0.9, quantity="valid_acc")
    assert r"a\_b" in found.to_latex()
    assert "| a_b |" in found.to_markdown()
    assert "&lt;c&gt;" in found._repr_html_()
    content = json.loads(found.to_json())
    assert content["ratios"]["<c>"]["epochs"] == {**found.ratio("<c>", "epochs").to_dict()}


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
    assert (found.ratio("b").value, found.ratio("b", "epochs").value) == (1, 1)
    assert math.isnan(found.ratio("b", "n_updates").value)
    assert "updates" not in found._reading()[0]


@pytest.mark.parametrize(
    ("models", "parameters", "error", "message"),
    [
        ({"SB": history([1])}, {"target": 95}, ValueError, r"^target must be a number in \(0, 1\]; got 95\.$"),
        ({"SB": history([1])}, {"target": 0}, ValueError, "^target must be"),
        (
            {"SB": history([1], name="valid_loss")},
            {"target": "low", "quantity": "valid_loss"},
            ValueError,
            "^target must be a number, in the units of valid_loss; got 'low'",
        ),
        (
            {"SB": history([1])},
            {"greater_is_better": "yes"},
            ValueError,
            "^greater_is_better must be True, False or None",
        ),
        ({"1": history([1]), 1: history([1])}, {}, ValueError, "^models must have different names"),
        ({}, {}, TypeError, "models must be a dict from names to .*; got an empty one"),
        ([history([1])], {}, TypeError, "models must be a dict from names to .*; got list"),
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


@pytest.mark.parametrize(
    ("label", "cost", "message"),
    [("XL", "seconds", "^label must be one of 'SB'; got 'XL'"), ("SB", "euros", "^cost must be one of 'seconds'")],
)
def test_no_such_ratio(label, cost, message):
    found = time_to_accuracy({"SB": history([1])}, 0.5, quantity="valid_acc")
    with pytest.raises(ValueError, match=message):
        found.ratio(label, cost)


def test_an_estimator_without_a_recorder():
    X, y = blobs()
    with pytest.raises(ValueError, match="recorder must be the name of a TrainingRecorder"):
        time_to_accuracy({"SB": small().fit(X, y)}, 0.5)
