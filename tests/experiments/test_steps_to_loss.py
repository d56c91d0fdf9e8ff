import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.experiments import StepsToLoss, critical_batch_size, fit_steps_to_loss, steps_to_loss
from sklgap.inspection import recorded
from sklgap.training import TrainingNet
from sklgap.training._recorder import log_spaced_updates
from tests.tiny import Mlp, blobs, interrupting_at, small

X, Y = blobs(80)
TARGET = 0.8
QUIET = {"random_state": 0, "verbose": 0}


def mlp(**params):
    """Return a net without batch norm, trained by plain gradient steps."""
    defaults = {"optimizer": torch.optim.SGD, "lr": 0.1, "max_epochs": 10, "tol": None}
    return LBGapClassifier(Mlp, **defaults | params)


def compute(estimator=None, **kwargs):
    defaults = {"batch_sizes": [8, 16], "target_loss": TARGET, "n_trials": 1, **QUIET}
    return steps_to_loss(mlp() if estimator is None else estimator, X, Y, **defaults | kwargs)


RATES = [0.02, 0.1, 0.4]


@pytest.fixture(scope="module")
def tuned():
    return compute(batch_sizes=[16, 40], learning_rates=RATES, n_trials=2)


# -- what is measured --------------------------------------------------------------------------------------------------


def test_the_steps_are_those_after_which_the_loss_is_there():
    found = compute(batch_sizes=[8, 0.2], max_samples=None)
    assert found.batch_sizes.tolist() == [8, 16]
    (seed,) = np.random.RandomState(0).randint(2**31 - 1, size=1)
    points = [0, *log_spaced_updates(8)]
    for size, (steps,) in zip((8, 16), found.n_steps, strict=True):
        before, after = max(p for p in points if p < steps), min(p for p in points if p >= steps)
        recorder = TrainingRecorder({"all": (X, Y)}, at_updates=[before, after], every=None)
        model = mlp(batch_size=size, random_state=int(seed), callbacks=[("curve", recorder)])
        losses = recorded(model.fit(X, Y))["all_loss"]
        assert losses[0] > TARGET >= losses[1]
        expected = before + (after - before) * (losses[0] - TARGET) / (losses[0] - losses[1])
        assert steps == pytest.approx(expected, rel=1e-6)
    assert found.tradeoff.n_measurements == 2
    assert np.isnan(found.learning_rates).all()
    assert [record["learning_rate"] for record in found.records] == [None, None]


def test_the_best_learning_rate_of_each_size_counts(tuned):
    steps = np.full((2, 3, 2), np.nan)
    for r in tuned.records:
        steps[[16, 40].index(r["batch_size"]), RATES.index(r["learning_rate"]), r["trial"]] = r["n_steps"]
    best = [int(np.nanargmin(np.where(np.isnan(own).any(axis=1), np.nan, own.mean(axis=1)))) for own in steps]
    assert tuned.learning_rates.tolist() == [RATES[i] for i in best]
    np.testing.assert_array_equal(tuned.n_steps, [own[i] for own, i in zip(steps, best, strict=True)])
    assert [r["chosen"] for r in tuned.records] == [
        r["learning_rate"] == tuned.learning_rates[[16, 40].index(r["batch_size"])] for r in tuned.records
    ]
    assert [r["trial"] for r in tuned.records] == [0, 1] * 6
    fitted = fit_steps_to_loss([16, 40], tuned.n_steps)
    assert tuned.tradeoff.critical_batch_size == fitted.critical_batch_size
    alone = compute(mlp(lr=RATES[best[0]]), batch_sizes=[16, 40], n_trials=2)
    np.testing.assert_array_equal(alone.n_steps[0], tuned.n_steps[0])


def test_a_batch_size_that_does_not_get_there():
    found = compute(mlp(max_epochs=3), batch_sizes=[8, 16, 80])
    assert np.isfinite(found.n_steps[:2]).all()
    assert np.isnan(found.n_steps[2]).all()
    assert found.tradeoff.n_measurements == 2
    assert any("target" in note and "batches of 80 (in 1 of 1 fit)" in note for note in found.notes)
    assert "0 of 1" in str(found)


def test_what_was_measured_is_there_where_no_trade_off_can_be_fitted():
    found = compute(mlp(max_epochs=1), batch_sizes=[40, 80], target_loss=1e-3)
    assert found.n_steps.shape == (2, 1)
    assert found.tradeoff is None
    assert "fewer than two" in found._verdict()[0]
    assert json.loads(found.to_json())["tradeoff"] is None
    assert "0 of 1" in found.to_latex()


def test_a_target_above_the_start():
    with pytest.raises(ValueError, match="target_loss must be below the loss at the start"):
        compute(mlp(max_epochs=1), target_loss=50)


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    one, two = (compute(n_trials=2, n_jobs=jobs, memory=tmp_path) for jobs in (2, None))
    assert one.records == two.records == compute(n_trials=2).records


@pytest.mark.slow
def test_prediction_and_measurement_agree_within_an_order_of_magnitude():
    """McCandlish et al. (2018), Figure 5, claim no more."""
    digits, labels = load_digits(return_X_y=True)
    digits = digits / 16
    model = LBGapClassifier(
        Mlp, module__n_in=64, module__n_out=10, module__width=32, optimizer=torch.optim.SGD, lr=0.3, max_epochs=300
    )
    predicted = critical_batch_size(model.set_params(batch_size=16), digits, labels, target_loss=0.5, **QUIET)
    measured = steps_to_loss(
        model.set_params(batch_size=None),
        digits,
        labels,
        batch_sizes=[8, 32, 128, 512, 1797],
        target_loss=0.5,
        learning_rates=[0.1, 0.3, 1.0],
        n_trials=2,
        **QUIET,
    )
    assert measured.tradeoff.scatter < 0.5
    ratio = predicted.critical_batch_size / measured.tradeoff.critical_batch_size.value
    assert 0.1 < ratio < 10


# -- what ends it early ------------------------------------------------------------------------------------------------


def _figures(found):
    return [{k: v for k, v in record.items() if k != "chosen"} for record in found.records]


def test_interrupted_among_the_rates_it_is_about_what_had_finished():
    options = {"batch_sizes": [20, 40], "learning_rates": [0.01, 0.05], "n_trials": 2, "target_loss": 1e-6}
    whole = compute(small(), **options)
    # 8 steps of 20 and 4 of 40 samples, at two rates: the first trial is whole, and one training of the second.
    found = compute(small(net=interrupting_at(35)), **options)
    assert [(r["trial"], r["batch_size"], r["learning_rate"]) for r in found.records] == [
        (0, 20, 0.01),
        (1, 20, 0.01),
        (0, 20, 0.05),
        (0, 40, 0.01),
        (0, 40, 0.05),
    ]
    assert found.interrupted
    assert "5 of 8 trainings" in found.notes[0]
    assert len(whole.records) == 8


def test_values_that_had_not_finished_are_nan_and_counted():
    options = {"batch_sizes": [8, 16, 40], "n_trials": 2}
    whole = compute(**options)
    records = [{k: v for k, v in r.items() if k != "chosen"} for r in whole.records]
    part = StepsToLoss([r for r in records if (r["trial"], r["batch_size"]) < (1, 16)], whole.settings, True)
    expected = whole.n_steps.copy()
    expected[1:, 1] = np.nan
    np.testing.assert_array_equal(part.n_steps, expected)
    assert part.tradeoff.n_measurements == 4
    assert "4 of 6 trainings" in part.notes[0]
    assert "2 of the 6 trainings" in part.notes[1]
    one = StepsToLoss(records[:1], whole.settings, True)
    assert one.tradeoff is None
    assert "16, 40" in " ".join(one.notes).replace(" and ", ", ")
    assert "2 of 2" in str(whole)


def test_interrupted_before_anything_had_finished():
    with pytest.raises(KeyboardInterrupt):
        compute(small(net=interrupting_at(3)), batch_sizes=[20, 40])


def test_with_memory_nothing_is_trained_twice(tmp_path, monkeypatch):
    options = {"batch_sizes": [16, 40], "n_trials": 2, "target_loss": 1e-6}
    estimator = mlp(max_epochs=2)
    expected = compute(estimator, **options)  # of 10 and 4 steps, twice
    steps, own = [], TrainingNet.train_step

    def counting(net, *args, **kwargs):
        steps.append(net)
        if len(steps) == 20:
            raise KeyboardInterrupt
        return own(net, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "train_step", counting)
    first = compute(estimator, memory=tmp_path, **options)
    assert [(r["trial"], r["batch_size"]) for r in first.records] == [(0, 16), (0, 40)]
    again = compute(estimator, memory=tmp_path, **options)
    np.testing.assert_equal(again.records, expected.records)
    assert len(steps) <= 20 + 14
    monkeypatch.setattr(TrainingNet, "train_step", None)
    np.testing.assert_equal(compute(estimator, memory=tmp_path, **options).records, expected.records)


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_the_cost_comes_first(capsys):
    found = compute(mlp(max_epochs=1), batch_sizes=[40, 80], learning_rates=[0.1, 0.2], verbose=1)
    out, err = capsys.readouterr()
    assert out.startswith("cost: 4 fits, at most 6 updates")
    assert "4/4" in err
    assert found.settings["cost"]["n_fits"] == [2, 2]


def _measured(n_trials=2):
    """Return a result that follows a trade-off with a critical batch size of 200 samples."""
    sizes = [20, 100, 500, 2500]
    records = [
        {"batch_size": size, "learning_rate": None, "trial": trial, "n_steps": 50 * (1 + 200 / size), "reached": True}
        for trial in range(n_trials)
        for size in sizes
    ]
    settings = {"n_train": 5000, "n_trials": n_trials, "batch_sizes": sizes, "target_loss": 0.25}
    return StepsToLoss(records, {**settings, "learning_rates": [], "batch_norm": "batch"})


def test_the_verdict_is_the_critical_batch_size():
    found = _measured()
    (sentence,) = found._verdict()
    assert "0.25" in sentence
    assert "critical batch size is 200 samples [200, 200]" in sentence
    assert str(found).startswith(sentence)
    assert "95 % interval" in str(found)
    assert [row[-1] for row in found._table()] == ["fitted", "550", "150", "70", "54"]


def test_notes_on_the_learning_rates(tuned):
    assert any("edge of learning_rates" in note for note in tuned.notes) == (tuned.learning_rates != 0.1).any()
    own = compute(target_loss=1.0)
    assert any("one learning rate for all" in note for note in own.notes)
    assert not any("one learning rate for all" in note for note in tuned.notes)


def test_it_leaves_as_tables_pages_and_files(tuned):
    assert len(tuned.to_markdown().splitlines()) == 4
    assert tuned.to_latex().count(r"\\") == 3
    assert r"$\pm$" in tuned.to_latex()
    assert "<table>" in tuned._repr_html_()
    content = json.loads(tuned.to_json())
    assert content["n_steps"] == tuned.n_steps.tolist()
    assert content["tradeoff"]["min_steps"]["value"] == tuned.tradeoff.min_steps.value
    assert len(content["records"]) == 12
    assert math.isclose(content["tradeoff"]["scatter"], tuned.tradeoff.scatter)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_sizes", [[], 8, None, [[4, 8]], [4], [4, 4], [4, 0.05], [4, 0], [4, "8"]], ids=str)
def test_bad_batch_sizes(batch_sizes):
    with pytest.raises(ValueError, match="batch_sizes must"):
        compute(batch_sizes=batch_sizes)


@pytest.mark.parametrize("learning_rates", [[], 0.1, [0.1, 0], [np.inf], ["a"], [[0.1]], [0.1, 0.1]], ids=str)
def test_bad_learning_rates(learning_rates):
    with pytest.raises(ValueError, match="learning_rates must"):
        compute(learning_rates=learning_rates)


BAD = {
    "target 0": ({"target_loss": 0}, "target_loss must be a number above 0; got"),
    "target NaN": ({"target_loss": np.nan}, "target_loss must be a number above 0; got"),
    "trials 0": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got"),
    "batch norm": ({"batch_norm": "none"}, "batch_norm must be one of"),
    "no samples": ({"max_samples": 0}, "max_samples must be None, an integer of at least 1 or a float"),
    "memory without a seed": ({"memory": "m", "random_state": None}, "random_state is None"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    parameters, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        compute(**parameters)
