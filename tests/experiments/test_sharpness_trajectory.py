import re

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier, sharpness, sharpness_trajectory
from sklgap.experiments import SharpnessTrajectory
from tests.cases import no_global_random_numbers
from tests.tiny import blobs, interrupting_at, small

X, Y = blobs(50)


def follow(estimator=None, data=(X, Y), **kwargs):
    defaults = {"regimes": (10, 50), "every": 1, "at_updates": [0], "random_state": 0, "verbose": 0}
    return sharpness_trajectory(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


@pytest.fixture(scope="module")
def found():
    return follow(n_trials=2)


def test_every_record_is_what_a_separate_training_gives(found):
    assert isinstance(found, SharpnessTrajectory)
    keys = [(r["trial"], r["regime"], r["epoch"]) for r in found.records]
    assert keys == [(t, regime, e) for t in (0, 1) for regime in ("10", "50") for e in (0, 1, 2)]
    assert [r["n_updates"] for r in found.records] == [0, 5, 10, 0, 1, 2] * 2
    for record in found.records:
        if record["epoch"]:
            size, seed = int(record["regime"]), record["seed"]
            model = small(batch_size=size, max_epochs=int(record["epoch"]), random_state=seed).fit(X, Y)
            expected = sharpness(model, X, Y, random_state=seed)
            assert record["sharpness"] == pytest.approx(expected.value, rel=1e-9)
            assert record["train_loss"] == pytest.approx(expected.f0, rel=1e-9)


def test_paired_trials_start_alike(found):
    start = {(r["trial"], r["regime"]): r for r in found.records if r["epoch"] == 0}
    for trial in (0, 1):
        for key in ("train_loss", "sharpness"):
            assert start[trial, "10"][key] == start[trial, "50"][key]
    assert start[0, "10"]["train_loss"] != start[1, "10"]["train_loss"]


def test_rows_policy_epsilon_and_solver():
    how = {"epsilon": 1e-2, "batch_norm": "population", "solver": "power"}
    found = follow(max_samples=20, regimes=(10,), at_updates=None, **how)
    assert found.settings["n_samples_sharpness"] == 20
    seed = found.records[-1]["seed"]
    rng = np.random.RandomState(0)  # as it draws them: the seeds, then the rows
    rng.randint(2**31 - 1, size=1)
    rows = np.sort(rng.choice(50, 20, replace=False))
    model = small(batch_size=10, random_state=seed).fit(X, Y)
    expected = sharpness(model, X[rows], Y[rows], random_state=seed, **how)
    assert found.records[-1]["sharpness"] == pytest.approx(expected.value, rel=1e-9)


def test_overrides_a_pipeline_and_callbacks_of_the_user():
    regimes = {"SB": {"batch_regime": 10, "max_epochs": 1}, "LB": {"batch_regime": 50, "max_epochs": 3}}
    found = follow(make_pipeline(StandardScaler(), small()), regimes=regimes)
    assert [r["epoch"] for r in found.records] == [0, 1, 0, 1, 2, 3]
    scaled = follow(data=(StandardScaler().fit_transform(X), Y), regimes=regimes)
    assert scaled.records == found.records


def test_repeatable_from_random_state(found):
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        assert follow(n_trials=2).records == found.records
    assert follow(n_trials=2, random_state=1).records != found.records


@pytest.mark.slow
def test_two_processes_find_what_one_finds(found):
    assert follow(n_trials=2, n_jobs=2).records == found.records


def test_ctrl_c_reports_what_had_finished():
    found = follow(small(net=interrupting_at(11)))
    assert found.labels == ["10"]
    assert "Interrupted: 1 of 2 fits had finished and are reported." in str(found)
    with pytest.raises(KeyboardInterrupt):
        follow(small(net=interrupting_at(3)))


BAD = {
    "regimes": ({"regimes": "SB"}, "regimes must be a sequence of batch regimes or a dict"),
    "every": ({"every": 0}, "every must be None or an integer of at least 1; got 0."),
    "n_trials": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0."),
    "epsilon": ({"epsilon": [1e-3]}, "epsilon must be a number above 0; got [0.001]."),
    "batch_norm": ({"batch_norm": "train"}, "batch_norm must be one of "),
    "solver": ({"solver": "best"}, "solver must be one of "),
    "max_samples": ({"max_samples": 0}, "max_samples must be None or an integer of at least 1; got 0."),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(case, monkeypatch):
    monkeypatch.setattr(LBGapClassifier, "fit", lambda *_: pytest.fail("trained before the error was found"))
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        follow(**kwargs)


def test_bad_updates():
    with pytest.raises(ValueError, match="at_updates must be None, 'log' or a sequence"):
        follow(at_updates="often")
