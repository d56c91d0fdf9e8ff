import json
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier, sharpness, sharpness_trajectory
from sklgap.experiments import Measurement, SharpnessTrajectory
from sklgap.inspection import SharpnessTrajectoryDisplay
from sklgap.training import TrainingNet
from tests.cases import no_global_random_numbers
from tests.experiments.experiments import leaves, power_law, said, trajectory
from tests.tiny import TinyF1, blobs, interrupting_at, small

X, Y = blobs(50)


def follow(estimator=None, data=(X, Y), **kwargs):
    defaults = {"regimes": (10, 50), "every": 1, "at_updates": [0], "random_state": 0, "verbose": 0}
    if "measurement" not in kwargs:
        defaults |= {"solver": "power"}
    return sharpness_trajectory(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


@pytest.fixture(scope="module")
def real():
    return follow(n_trials=2)


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_every_record_is_what_a_separate_training_gives(real):
    assert isinstance(real, SharpnessTrajectory)
    keys = [(r["trial"], r["regime"], r["epoch"]) for r in real.records]
    assert keys == [(t, regime, e) for t in (0, 1) for regime in ("10", "50") for e in (0, 1, 2)]
    assert [r["n_updates"] for r in real.records] == [0, 5, 10, 0, 1, 2] * 2
    for record in real.records:
        if record["epoch"]:
            size, seed = int(record["regime"]), record["seed"]
            model = small(batch_size=size, max_epochs=int(record["epoch"]), random_state=seed).fit(X, Y)
            expected = sharpness(model, X, Y, solver="power", random_state=seed)
            assert record["sharpness"] == pytest.approx(expected.value, rel=1e-9)
            assert record["train_loss"] == pytest.approx(expected.f0, rel=1e-9)


def test_paired_trials_start_alike(real):
    start = {(r["trial"], r["regime"]): r for r in real.records if r["epoch"] == 0}
    for trial in (0, 1):
        for key in ("train_loss", "sharpness"):
            assert start[trial, "10"][key] == start[trial, "50"][key]
    assert start[0, "10"]["train_loss"] != start[1, "10"]["train_loss"]


@pytest.mark.parametrize("max_samples", [20, 0.4])
def test_samples_policy_epsilon_and_solver(max_samples):
    how = {"epsilon": 1e-2, "batch_norm": "population", "solver": "power"}
    found = follow(max_samples=max_samples, regimes=(10,), at_updates=None, **how)
    assert found.settings["n_samples_sharpness"] == 20
    seed = found.records[-1]["seed"]
    rng = np.random.RandomState(0)  # as it draws them: the seeds, then the samples
    rng.randint(2**31 - 1, size=1)
    rows = np.sort(rng.choice(50, 20, replace=False))
    model = small(batch_size=10, random_state=seed).fit(X, Y)
    expected = sharpness(model, X[rows], Y[rows], random_state=seed, **how)
    assert found.records[-1]["sharpness"] == pytest.approx(expected.value, rel=1e-9)


def test_all_samples_and_a_subspace():
    how = Measurement(max_samples=None, subspace_dims=[3], solver="power")
    found = follow(regimes=(10,), at_updates=None, measurement=how)
    assert found.settings["n_samples_sharpness"] == 50
    record = found.records[-1]
    model = small(batch_size=10, random_state=record["seed"]).fit(X, Y)
    expected = sharpness(model, X, Y, solver="power", subspace_dim=3, random_state=record["seed"])
    assert record["sharpness"] == pytest.approx(expected.value, rel=1e-9)
    assert "3 dims" in str(found)


def test_overrides_a_pipeline_and_callbacks_of_the_user():
    regimes = {"SB": {"batch_regime": 10, "max_epochs": 1}, "LB": {"batch_regime": 50, "max_epochs": 3}}
    found = follow(make_pipeline(StandardScaler(), small()), regimes=regimes)
    assert [r["epoch"] for r in found.records] == [0, 1, 0, 1, 2, 3]
    scaled = follow(data=(StandardScaler().fit_transform(X), Y), regimes=regimes)
    assert scaled.records == found.records


def test_repeatable_from_random_state(real):
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        assert follow(n_trials=2).records == real.records
    assert follow(n_trials=2, random_state=1).records != real.records


@pytest.mark.slow
def test_two_processes_find_what_one_finds(real):
    assert follow(n_trials=2, n_jobs=2).records == real.records


def test_the_cost_is_of_every_record(capsys):
    found = follow(verbose=1)
    shown = capsys.readouterr()
    assert "cost: 2 fits, at most 12 updates" in shown.out
    assert "2/2" in shown.err
    often = follow(verbose=1, at_updates=range(11))
    # 3 records a fit, the start and two epochs; then 13 and 5.
    ratio = often.settings["cost"]["measure_seconds"][0] / found.settings["cost"]["measure_seconds"][0]
    assert 1.2 < ratio < 9


# -- interrupted -------------------------------------------------------------------------------------------------------

# In each trial 10 steps with batches of 10 samples, then 2 with one of 50.


@pytest.mark.parametrize(("step", "n_done"), [(11, 1), (13, 2), (24, 3)])
def test_ctrl_c_reports_what_had_finished(step, n_done):
    found = follow(small(net=interrupting_at(step)), n_trials=2)
    assert found.interrupted
    assert found.records == follow(small(net=TinyF1), n_trials=2).records[: 3 * n_done]
    assert said(found, f"Interrupted: {n_done} of 4")
    leaves(found)


def test_ctrl_c_before_anything_has_finished():
    with pytest.raises(KeyboardInterrupt):
        follow(small(net=interrupting_at(3)))


def test_memory_loads_what_had_finished(tmp_path, monkeypatch):
    expected = follow(small(net=TinyF1))
    steps, original = [], TrainingNet.train_step

    def train_step(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 11:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "train_step", train_step)
    assert follow(small(net=TinyF1), memory=tmp_path).interrupted
    assert follow(small(net=TinyF1), memory=tmp_path).records == expected.records
    assert len(steps) == 11 + 2


# -- bad input: found before anything is trained -----------------------------------------------------------------------

BAD = {
    "regimes": ({"regimes": "SB"}, "regimes must be a sequence of batch regimes or a dict"),
    "every": ({"every": 0}, "every must be None or an integer of at least 1; got 0."),
    "at_updates": ({"at_updates": "often"}, "at_updates must be None, 'log' or a sequence"),
    "n_trials": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0."),
    "two epsilons": ({"epsilon": [1e-3, 1e-2]}, "epsilon must be one number for sharpness_trajectory; got [0.001, "),
    "epsilon 0": ({"epsilon": 0}, "epsilon must be a number above 0"),
    "batch_norm": ({"batch_norm": "train"}, "batch_norm must be one of "),
    "solver": ({"solver": "best"}, "solver must be one of "),
    "max_samples": ({"max_samples": 0}, "max_samples must be "),
    "max_samples above 1": ({"max_samples": 1.5}, "max_samples must be "),
    "scoring": ({"measurement": Measurement(scoring="balanced_accuracy")}, "scoring must be None"),
    "dims": (
        {"measurement": Measurement(subspace_dims=[None, 3])},
        "subspace_dims must have one entry for sharpness_trajectory; got [None, 3].",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(case, monkeypatch):
    monkeypatch.setattr(LBGapClassifier, "fit", lambda *_: pytest.fail("trained before the error was found"))
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        follow(**kwargs)


# -- the result --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [1.0, 0.2, 0.05, 0.003])
def test_interpolation_is_exact_for_power_laws(loss):
    values = trajectory().at_loss(loss)
    np.testing.assert_allclose(values["SB"], 10 * np.sqrt([loss, loss]))
    np.testing.assert_allclose(values["LB"], np.array([20, 80]) * np.sqrt(loss))
    ratio = trajectory().ratio("LB", loss)
    assert (ratio.value, ratio.n) == (pytest.approx(4), 2)  # the geometric mean of 2 and 8


def test_labels_as_numbers(real):
    loss = np.mean([r["train_loss"] for r in real.records if r["epoch"] == 2])
    for label in (50, "50"):
        assert real.curves(label).keys() == {0, 1}
        assert len(real.mean_curve(label)[0]) == 3
        np.testing.assert_array_equal(real.at_loss(loss)[label], real.at_loss(loss)["50"])


def test_a_loss_outside_of_what_was_recorded():
    for loss in (5.0, 2.0, 1e-3):
        assert np.isnan(trajectory().at_loss(loss)["SB"]).all()


def test_a_loss_that_rises_again_counts_where_it_is_first_passed():
    records = power_law("SB", 0, 10.0, 0.5, losses=(2.0, 0.2, 0.6, 0.02)) + power_law("LB", 0, 1.0, 0.0)
    found = trajectory(records, n_trials=1)
    assert found.at_loss(0.4)["SB"][0] == pytest.approx(10 * np.sqrt(0.4))


def test_levels_are_those_that_all_regimes_passed():
    assert trajectory().levels() == pytest.approx([1, 10**-0.5, 0.1, 10**-1.5, 0.01, 10**-2.5])
    records = power_law("SB", 0, 10.0, 0.5, losses=(2.0, 0.05)) + power_law("LB", 0, 10.0, 0.5)
    assert trajectory(records, n_trials=1).levels() == pytest.approx([1, 10**-0.5, 0.1])


def test_mean_curve_is_geometric_and_at_equal_updates():
    records = power_law("SB", 0, 10.0, 0.5) + power_law("SB", 1, 40.0, 0.5)[1:]
    loss, found = trajectory(records).mean_curve("SB")
    np.testing.assert_allclose(loss, [0.2, 0.02, 0.002])
    np.testing.assert_allclose(found, 20 * np.sqrt(loss))


def test_printed():
    found = trajectory()
    text = str(found)
    verdict = text.splitlines()[0]
    assert "LB relative to SB" in verdict
    assert verdict.count("4 times [") == 2  # at the largest and at the smallest common loss
    assert "0.0032" in verdict
    (row,) = [line for line in text.splitlines() if line.startswith("0.01 ")]
    for cell in ("1 ± 0", "5 ± 4.24", "4 ["):
        assert cell in row
    assert "2 paired trials" in text
    assert "95 % interval, for new seeds" in text
    assert said(found, "6 intervals")
    assert "not sharper" not in text
    leaves(found)


def test_notes():
    one = trajectory(power_law("SB", 0, 10.0, 0.5) + power_law("LB", 0, 5.0, 0.5), n_trials=1)
    assert said(one, "no interval for LB", "2 paired trials")
    assert said(one, "not sharper than SB", "LB")
    apart = trajectory(power_law("SB", 0, 10.0, 0.5, (9.0, 7.0)) + power_law("LB", 0, 5.0, 0.5, (2.0, 0.5)), n_trials=1)
    assert "cannot be compared" in apart._verdict()[0]
    stopped = trajectory(power_law("SB", 0, 10.0, 0.5), interrupted=True)
    assert "nothing can be compared" in stopped._verdict()[0]
    assert said(stopped, "Interrupted: 1 of 4")
    for found in (one, apart, stopped):
        json.loads(leaves(found)["json"], parse_constant=pytest.fail)


@pytest.mark.parametrize("failed", [np.nan, 0.0])  # 0: the solver stopped where it started
def test_a_measurement_that_failed(failed):
    records = power_law("SB", 0, 10.0, 0.5) + power_law("LB", 0, 5.0, 0.5)
    records[2]["sharpness"] = failed
    found = trajectory(records, n_trials=1)
    assert said(found, "1 of 8 measurements", "left out")
    assert found.levels() == pytest.approx([1, 10**-0.5])


def test_plot():
    display = trajectory().plot(ax=Figure().subplots())
    assert isinstance(display, SharpnessTrajectoryDisplay)
    assert [line.get_label() for line in display.lines_] == ["SB", "LB"]
    np.testing.assert_allclose(display.lines_[1].get_ydata(), 40 * np.sqrt([2, 0.2, 0.02, 0.002]))
    thin = [line.get_ydata() for line in display.ax_.get_lines() if line.get_linewidth() == 0.7]
    assert len(thin) == 4
    np.testing.assert_allclose(thin[3], 80 * np.sqrt([2, 0.2, 0.02, 0.002]))
    single = trajectory(power_law("SB", 0, 1.0, 1.0), n_trials=1).plot(ax=Figure().subplots())
    assert not [line for line in single.ax_.get_lines() if line.get_linewidth() == 0.7]


def test_files_escape(tmp_path):
    found = trajectory()
    content = json.loads(found.to_json(tmp_path / "found.json"), parse_constant=pytest.fail)
    assert content["records"] == found.records
    assert content["ratios"][0]["LB"]["value"] == pytest.approx(4)
    records = power_law("S_B", 0, 10.0, 0.5) + power_law("<LB>", 0, 20.0, 0.5)
    odd = trajectory(records, labels=("S_B", "<LB>"), n_trials=1)
    assert r"S\_B" in odd.to_latex()
    assert "&lt;LB&gt;" in odd._repr_html_()
    assert "<LB>" not in odd._repr_html_()
    pytest.importorskip("pandas")
    assert len(found.to_frame()) == 16
