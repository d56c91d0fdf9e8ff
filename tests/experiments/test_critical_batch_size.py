import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier, TrainingRecorder
from sklgap.experiments import CriticalBatchSize, _critical_batch_size, critical_batch_size
from sklgap.experiments._critical_batch_size import Measured, _harmonic_mean, minimal_work
from sklgap.experiments._recorded_training import first_reached
from sklgap.inspection import gradient_noise_scale
from sklgap.objective import check_objective
from sklgap.regimes import SwitchBatch
from sklgap.training import TrainingNet
from tests.cases import no_global_random_numbers
from tests.tiny import Mlp, blobs, interrupting_at, small

X, Y = blobs(80)
TARGET = 0.8
QUIET = {"random_state": 0, "verbose": 0}


def mlp(**params):
    """Return a net without batch norm, trained by plain gradient steps."""
    defaults = {"optimizer": torch.optim.SGD, "lr": 0.1, "batch_size": 16, "max_epochs": 10}
    return LBGapClassifier(Mlp, **defaults | params)


def compute(estimator=None, **kwargs):
    defaults = {"n_trials": 1, "n_batches": 4, **QUIET}
    return critical_batch_size(mlp() if estimator is None else estimator, X, Y, **defaults | kwargs)


@pytest.fixture(scope="module")
def found():
    return compute(target_loss=TARGET, n_trials=3, n_batches=5)


# -- the integrals -----------------------------------------------------------------------------------------------------


def _record(n_updates, noise_scale, size, signal=2.0):
    n_updates = np.asarray(n_updates, dtype=float)
    square = np.full(len(n_updates), signal)
    trace = square * np.broadcast_to(noise_scale, square.shape)
    return {
        "n_updates": n_updates,
        "noise_trace": trace,
        "noise_squared_gradient_norm": square,
        "noise_batch_size": np.broadcast_to(float(size), square.shape),
    }


@pytest.mark.parametrize("size", [1, 16, 1000])
@pytest.mark.parametrize("noise_scale", [0.0, 3.0, 500.0])
def test_a_constant_noise_scale_is_the_critical_batch_size(noise_scale, size):
    steps, examples = minimal_work(_record([0, 1, 10, 100], noise_scale, size), 70)
    assert steps == pytest.approx(70 / (1 + noise_scale / size))
    assert examples == pytest.approx(noise_scale * steps)
    # The trade-off of these two says that the training itself takes 70 updates.
    assert steps + examples / size == pytest.approx(70)


def test_a_varying_noise_scale_is_averaged_over_steps_without_noise():
    t = np.linspace(0, 200, 4001)
    noise_scale = 5 + t
    steps, examples = minimal_work(_record(t, noise_scale, 16), 150)
    until = np.linspace(0, 150, 200_001)
    progress = 1 / (1 + (5 + until) / 16)
    assert steps == pytest.approx(np.trapezoid(progress, until), rel=1e-5)
    assert examples == pytest.approx(np.trapezoid((5 + until) * progress, until), rel=1e-5)


def test_gradients_lost_in_noise_and_measurements_that_failed():
    record = _record([0, 10, 20, 30], 8.0, 16)
    expected = minimal_work(record, 30)
    # A point without signal makes no progress, and uses up the samples of its steps.
    record["noise_squared_gradient_norm"][3] = 0.0
    steps, examples = minimal_work(record, 30)
    assert steps == pytest.approx(expected[0] - 5 / (1 + 8 / 16))
    assert examples == pytest.approx(expected[1] + 5 * (16 - 8 / (1 + 8 / 16)))
    failed = _record([0, 10, 15, 20, 30], 8.0, 16)
    failed["noise_trace"][2] = np.nan
    assert minimal_work(failed, 30) == pytest.approx(expected)
    failed["noise_trace"][:] = np.nan
    with pytest.raises(ValueError, match="gradients must be finite"):
        minimal_work(failed, 30)


def test_the_interval_is_that_of_the_inverses():
    inverses = np.array([0.01, 0.02, 0.015, 0.011])
    ends = stats.ttest_1samp(inverses, 0).confidence_interval(0.95)
    estimate = _harmonic_mean(inverses)
    assert (estimate.value, estimate.n) == (pytest.approx(1 / inverses.mean()), 4)
    assert (estimate.low, estimate.high) == pytest.approx((1 / ends.high, 1 / ends.low))


@pytest.mark.parametrize(
    ("inverses", "value", "has_interval"),
    [([0.02], 50, False), ([0.02, 0.02], 50, False), ([-0.1, -0.2], math.inf, True), ([0.1, -0.2], math.inf, True)],
)
def test_what_the_trials_do_not_bound(inverses, value, has_interval):
    estimate = _harmonic_mean(np.array(inverses))
    assert estimate.value == pytest.approx(value)
    assert estimate.high == math.inf
    assert estimate.has_interval == has_interval


# -- what is measured --------------------------------------------------------------------------------------------------


def test_it_is_the_integral_of_what_was_measured(found):
    sums = []
    for trial, record in zip(found.trials, found.records, strict=True):
        end = record["n_updates"]
        assert record["reached"]
        assert first_reached(trial["n_updates"], trial["loss"], TARGET) == end <= record["n_updates_trained"]
        assert record["lowest_loss"] == trial["loss"].min() < TARGET
        trace, square = trial["trace"], trial["squared_gradient_norm"]
        expected = np.where(square > 0, trace / np.where(square > 0, square, 1), np.inf)
        np.testing.assert_allclose(trial["noise_scale"], expected)
        t = np.linspace(0, end, 100_001)
        progress = np.interp(t, trial["n_updates"], 16 * square / (16 * square + trace))
        work = np.interp(t, trial["n_updates"], 16 * trace / (16 * square + trace))
        sums.append([np.trapezoid(progress, t), np.trapezoid(work, t)])
        assert (record["min_steps"], record["min_examples"]) == pytest.approx(sums[-1], rel=1e-3)
    steps, examples = np.array(sums).T
    assert (found.min_steps, found.min_examples) == pytest.approx((steps.mean(), examples.mean()), rel=1e-3)
    assert found.estimate.value == pytest.approx(1 / np.mean(steps / examples), rel=1e-3)
    assert found.estimate.n == 3
    assert (found.critical_batch_size, found.high) == (found.estimate.value, found.estimate.high)
    assert 0 <= found.low < found.critical_batch_size < found.high
    assert [record["batch_size"] for record in found.records] == [16] * 3
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=3)
    assert [record["seed"] for record in found.records] == seeds.tolist()


def test_the_noise_is_that_of_the_weights_then():
    estimator = mlp(max_epochs=2, tol=None)
    result = compute(estimator, n_batches=20)
    (trial,) = result.trials
    seed = result.records[0]["seed"]
    model = mlp(max_epochs=2, tol=None, random_state=seed).fit(X, Y)
    assert trial["n_updates"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert model.n_updates_ == 10 == result.records[0]["n_updates"]
    own = gradient_noise_scale(
        model, X, Y, method="batches", batch_size=16, n_batches=20, max_samples=80, random_state=(seed + 10) % 2**32
    )
    assert trial["trace"][-1] == pytest.approx(own.trace, rel=1e-6)
    assert trial["squared_gradient_norm"][-1] == pytest.approx(own.squared_gradient_norm, rel=1e-6)
    assert trial["loss"][-1] == pytest.approx(check_objective(model, X, Y).value(), rel=1e-6)
    # One trial has no interval, and says so.
    assert (result.low, result.high) == (0, np.inf)
    assert not result.estimate.has_interval
    assert any("no interval" in note for note in result.notes)
    assert result.records[0]["reached"] is None


def test_repeatable_and_the_estimator_stays_as_it_was():
    recorder = TrainingRecorder()
    estimator = small(batch_size=20, max_epochs=1, callbacks=[("own", recorder)])
    with no_global_random_numbers():
        first, again = (compute(estimator, random_state=3) for _ in range(2))
    assert first.records == again.records
    assert first.critical_batch_size != compute(estimator, random_state=4).critical_batch_size
    assert not hasattr(estimator, "net_")
    assert estimator.callbacks == [("own", recorder)]
    assert not hasattr(recorder, "records_")


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    one, two = (compute(mlp(max_epochs=2), n_trials=2, n_jobs=jobs, memory=tmp_path) for jobs in (2, None))
    assert one.records == two.records == compute(mlp(max_epochs=2), n_trials=2).records


def test_pipelines_labels_and_regimes():
    names = np.array(["a", "b", "c"])[Y]
    options = {"n_trials": 1, "n_batches": 4, **QUIET}
    inner = mlp(batch_size=None, batch_regime=SwitchBatch(switch_epoch=1, first=8, then=16), max_epochs=2)
    piped = critical_batch_size(make_pipeline(StandardScaler(), inner), X, names, **options)
    direct = critical_batch_size(inner, StandardScaler().fit_transform(X), names, **options)
    assert piped.records == direct.records
    assert piped.records[0]["batch_size"] == 8
    assert "StandardScaler" in piped.settings["estimator"]


def test_a_fraction_of_the_samples():
    assert compute(max_samples=0.5).records == compute(max_samples=40).records != compute(max_samples=None).records


def test_a_target_that_is_not_reached():
    result = compute(mlp(max_epochs=2, tol=None), target_loss=1e-9)
    (record,) = result.records
    assert (record["n_updates"], record["reached"]) == (10, False)
    (note,) = (note for note in result.notes if "target_loss=1e-09" in note)
    assert "1 of 1 training" in note
    assert f"{record['lowest_loss']:.3g}" in note


# -- what ends it early ------------------------------------------------------------------------------------------------


def test_interrupted_it_is_about_the_trials_that_had_finished():
    estimator = small(batch_size=20, max_epochs=2)
    whole = compute(estimator, n_trials=3)
    result = compute(small(net=interrupting_at(20), batch_size=20, max_epochs=2), n_trials=3)  # 8 steps each
    assert [record["trial"] for record in result.records] == [0, 1]
    assert result.interrupted
    assert not whole.interrupted
    assert "2 of 3 trainings" in result.notes[0]
    assert (result.estimate.n, len(result.trials)) == (2, 2)


def test_interrupted_before_anything_had_finished():
    with pytest.raises(KeyboardInterrupt):
        compute(small(net=interrupting_at(5), batch_size=20), n_trials=3)


def test_with_memory_nothing_is_trained_twice(tmp_path, monkeypatch):
    estimator = mlp(max_epochs=2, tol=None)
    expected = compute(estimator, n_trials=3)
    steps, own = [], TrainingNet.train_step

    def counting(net, *args, **kwargs):
        steps.append(net)
        if len(steps) == 25:  # in the third training of 10 steps
            raise KeyboardInterrupt
        return own(net, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "train_step", counting)
    first = compute(estimator, n_trials=3, memory=tmp_path)
    assert first.records == expected.records[:2]
    again = compute(estimator, n_trials=3, memory=tmp_path)
    assert again.records == expected.records
    np.testing.assert_equal(again.trials, expected.trials)
    assert len(steps) <= 25 + 10
    monkeypatch.setattr(TrainingNet, "train_step", None)
    assert compute(estimator, n_trials=3, memory=tmp_path).records == expected.records


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_the_cost_comes_first(capsys):
    result = compute(mlp(max_epochs=1), verbose=1)
    out, err = capsys.readouterr()
    assert out.startswith("cost: 1 fit, at most 5 updates")
    assert "1/1" in err
    assert result.settings["cost"]["n_fits"] == [1]


def _result(steps=(10.0, 12.0), examples=(1000.0, 1100.0), **settings):
    settings = {
        "n_train": 80,
        "n_trials": len(steps),
        "target_loss": None,
        "n_batches": 4,
        "batch_norm": "batch",
    } | settings
    measured = [
        Measured(
            {
                "trial": trial,
                "seed": trial,
                "batch_size": 16,
                "n_updates": 100.0,
                "reached": None,
                "min_steps": s,
                "min_examples": e,
                "critical_batch_size": e / s if s > 0 else math.inf,
                "lowest_loss": 0.1,
                "n_updates_trained": 100,
            },
            {"n_updates": np.array([0.0, 100.0]), "noise_scale": np.array([np.inf, e / 10])},
        )
        for trial, (s, e) in enumerate(zip(steps, examples, strict=True))
    ]
    return CriticalBatchSize(measured, settings)


def test_the_verdict_says_the_size_and_its_interval():
    result = _result()
    (sentence,) = result._verdict()
    assert f"{result.critical_batch_size:,.3g} samples [" in sentence
    assert str(result).startswith(sentence)
    assert "training loss of 0.3" in _result(target_loss=0.3)._verdict()[0]
    assert "without an interval" in _result(steps=(10.0,), examples=(1000.0,))._verdict()[0]
    assert "noise" in _result(steps=(-1.0, -2.0))._verdict()[0]


def test_the_interval_says_what_it_covers_and_the_notes_what_it_does_not():
    text = str(_result())
    assert "95 % interval, for new seeds" in text
    assert "order of magnitude" in text
    assert "not about test accuracy" in text


def test_it_leaves_as_tables_pages_and_files(found):
    n_rows = len(found.records) + 2
    assert len(found.to_markdown().splitlines()) == n_rows + 1
    assert found.to_latex().count(r"\\") == n_rows
    assert "<table>" in found._repr_html_()
    content = json.loads(found.to_json())
    assert content["critical_batch_size"]["value"] == found.critical_batch_size
    assert len(content["trials"]) == len(content["records"]) == 3
    assert "&lt;script&gt;" in _result(batch_norm="batch", n_batches="<script>")._repr_html_()


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD = {
    "target 0": ({"target_loss": 0}, "target_loss must be a number above 0; got"),
    "target infinite": ({"target_loss": np.inf}, "target_loss must be a number above 0; got"),
    "target text": ({"target_loss": "0.1"}, "target_loss must be a number above 0; got"),
    "trials 0": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got"),
    "trials True": ({"n_trials": True}, "n_trials must be an integer of at least 1; got"),
    "few batches": ({"n_batches": 3}, "n_batches must be an integer of at least 4; got 3"),
    "batch norm": ({"batch_norm": "none"}, "batch_norm must be one of"),
    "no samples": ({"max_samples": 0}, "max_samples must be None, an integer of at least 1 or a float"),
    "memory without a seed": ({"memory": "m", "random_state": None}, "random_state is None"),
    "target at the start": ({"target_loss": 50}, r"target_loss must be below the loss at the start, .*; got 50"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    parameters, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        compute(mlp(max_epochs=1), **parameters)


def test_batches_of_all_samples_have_no_noise():
    with pytest.raises(ValueError, match="batch_size must be an integer from 1 to 79; got 80"):
        compute(mlp(batch_size=-1))


def test_gradients_without_noise(monkeypatch):
    noiseless = SimpleNamespace(trace=0.0, squared_gradient_norm=1.0, noise_scale=0.0)
    monkeypatch.setattr(_critical_batch_size, "gradient_noise_scale", lambda *args, **kwargs: noiseless)
    with pytest.raises(ValueError, match="X must have samples that differ"):
        compute(mlp(max_epochs=1))
