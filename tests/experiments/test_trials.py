"""One trial: fit, measure, save, load; and saved figures that are not to be trusted."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sklgap.experiments import _trials
from sklgap.experiments._protocol import Measurement, Trial
from sklgap.experiments._trials import run_trial, run_trials
from sklgap.memory import Memory, plain, unplain
from tests.tiny import blobs, small

X, Y = blobs(70, n_classes=2, seed=3)
Y = np.where(np.random.default_rng(0).random(70) < 0.2, 1 - Y, Y)
PARTS = {"train": (X[:40], Y[:40]), "valid": (X[40:50], Y[40:50]), "test": (X[50:], Y[50:])}
SCORING = ["accuracy", "average_precision", "neg_log_loss"]
TRIAL = Trial("LB", {"batch_size": 20}, 1, 7)


def measuring(**more):
    return Measurement(**{"epsilon": [], "scoring": SCORING, **more}).settle(40, np.random.RandomState(0))


def one(memory=None, trial=TRIAL, parts=PARTS, **more):
    return run_trial(small(), trial, parts, measuring(**more), memory)


def without_seconds(outcome):
    return {k: v for k, v in outcome.record.items() if not k.endswith("_seconds")}


def equal(first, second):
    assert without_seconds(first) == without_seconds(second)
    assert first.samples.keys() == second.samples.keys()
    for name, own in first.samples.items():
        np.testing.assert_array_equal(own.values, second.samples[name].values)
        assert own.method == second.samples[name].method
        assert own.values.dtype == second.samples[name].values.dtype


def test_a_trial_is_the_fit_of_its_seed():
    found = one()
    model = small(batch_size=20, random_state=7).fit(*PARTS["train"])
    assert (found.record["regime"], found.record["trial"], found.record["seed"]) == ("LB", 1, 7)
    assert found.record["batch_size"] == 20
    for part, (data, y) in PARTS.items():
        expected = average_precision_score(y, model.predict_proba(data)[:, 1])
        assert found.record[f"{part}_average_precision"] == expected
    names = {f"{part}_{name}" for part in ("valid", "test") for name in SCORING}
    assert found.samples.keys() == names  # nothing of the training data
    assert {name: len(own.values) for name, own in found.samples.items()} == {
        name: 10 if "valid" in name else 20 for name in names
    }
    assert found.samples["test_accuracy"].values.mean() == found.record["test_accuracy"]
    assert found.samples["test_neg_log_loss"].values.mean() == pytest.approx(found.record["test_neg_log_loss"])


def test_what_is_saved_is_loaded(tmp_path, monkeypatch):
    plain_one = one()
    equal(one(tmp_path), plain_one)
    monkeypatch.setattr(_trials, "measure", None)
    equal(one(tmp_path), plain_one)
    renamed = one(tmp_path, trial=dataclasses.replace(TRIAL, label="512"))  # what a trial is called does not count
    assert renamed.record == {**one(tmp_path).record, "regime": "512"}


OTHER = {
    "fewer scores": {"scoring": "accuracy"},
    "another score of the name": {"scoring": {"average_precision": "roc_auc"}},
    "another policy": {"batch_norm": "running"},
    "sharpness too": {"epsilon": 1e-3, "solver": "power"},
    "other samples": {"parts": {**PARTS, "test": PARTS["valid"]}},
    "another seed": {"trial": Trial("LB", {"batch_size": 20}, 1, 8)},
}


@pytest.mark.parametrize("case", OTHER)
def test_something_else_is_not_loaded(case, tmp_path):
    one(tmp_path)
    equal(one(tmp_path, **OTHER[case]), one(**OTHER[case]))


DAMAGE = {
    "a figure is gone": lambda saved: saved["figures"].pop("valid_loss"),
    "a figure too many": lambda saved: saved["figures"].update(more=1.0),
    "a figure is a text": lambda saved: saved["figures"].update(valid_loss="0.1"),
    "samples are gone": lambda saved: saved.pop("samples"),
    "too few samples": lambda saved: saved["samples"]["test_accuracy"].update(values=np.ones(3, dtype=bool)),
    "samples of what is not measured": lambda saved: saved["samples"].update(
        test_f1={"values": np.ones(20), "method": ""}
    ),
    "no samples but a number": lambda saved: saved["samples"].update(test_accuracy=1),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_saved_figures_that_cannot_be_those(case, tmp_path):
    expected = one(tmp_path)
    (path,) = tmp_path.glob("*.trial")
    store, key = Memory(tmp_path, "a test"), path.stem
    saved = unplain(store.read(key, "trial"))
    DAMAGE[case](saved)
    store.write(key, "trial", plain(saved))
    with pytest.warns(UserWarning, match="figures of this trial"):
        equal(one(tmp_path), expected)
    equal(one(tmp_path), expected)  # and they are right again


def test_all_trials_in_order_and_without_models(capsys):
    trials = [Trial(str(size), {"batch_size": size}, trial, trial) for trial in range(2) for size in (10, 20)]
    found, interrupted = run_trials(small(), trials, PARTS, measuring(scoring=None), keep_estimators=False)
    assert not interrupted
    assert [(o.record["trial"], o.record["regime"]) for o in found] == [(0, "10"), (0, "20"), (1, "10"), (1, "20")]
    assert [o.model for o in found] == [None] * 4
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert f"20: test accuracy {100 * found[-1].record['test_accuracy']:.2f} %" in shown
    run_trials(small(), trials[:1], PARTS, measuring(scoring="neg_log_loss"))
    assert "10: test neg_log_loss -" in capsys.readouterr().err
