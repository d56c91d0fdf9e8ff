"""Experiments with ``memory``: what they find is what they find without, and is found at once the second time."""

import numpy as np
import pytest

from sklgap import batch_size_curve, compare_regimes, minima_census, sharpness_trajectory, warm_start_curve
from sklgap.training import TrainingNet
from tests.tiny import blobs, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
COMMON = {"random_state": 0, "verbose": 0, "solver": "power"}


def warm_start(**more):
    sizes = {"small": 10, "large": 25, "max_small_epochs": 2, "large_epochs": 2}
    return warm_start_curve(small(), *DATA, **sizes, n_trials=2, **COMMON, **more)


def trajectory(epsilon=1e-3, **more):
    return sharpness_trajectory(small(), *DATA[:2], regimes=(10, 25), epsilon=epsilon, every=1, **COMMON, **more)


def census(**more):
    return minima_census(small(), *DATA, regimes=(10, 25), inits=("torch",), n_trials=3, **COMMON, **more)


def comparison(**more):
    scoring = ["accuracy", "neg_log_loss", "balanced_accuracy"]
    own = {"regimes": (10, 25), "reference": 10, "n_trials": 2, "epsilon": 1e-3, "scoring": scoring}
    return compare_regimes(small(), *DATA, **own, **COMMON, **more)


def curve(**more):
    return batch_size_curve(small(), *DATA, batch_sizes=[10, 25], n_trials=2, **COMMON, **more)


def figures(result):
    return [{k: v for k, v in record.items() if "seconds" not in k} for record in result.records]


@pytest.mark.parametrize("experiment", [comparison, curve])
def test_saved_work_is_the_work(experiment, tmp_path, monkeypatch):
    plain = experiment()
    np.testing.assert_equal(figures(experiment(memory=tmp_path)), figures(plain))
    monkeypatch.setattr(TrainingNet, "train_step", None)  # nothing is trained any more
    again = experiment(memory=tmp_path)
    np.testing.assert_equal(figures(again), figures(plain))
    assert all("new test samples" in gap.covers for gap in again.gaps().values())
    for score in again.scores:
        assert again.gaps(score.name) == plain.gaps(score.name)  # from samples that were saved too


@pytest.mark.parametrize("experiment", [warm_start, trajectory, census])
def test_saved_records_are_the_records(experiment, tmp_path, monkeypatch):
    plain = figures(experiment())
    np.testing.assert_equal(figures(experiment(memory=tmp_path)), plain)
    monkeypatch.setattr(TrainingNet, "train_step", None)  # nothing is trained any more
    np.testing.assert_equal(figures(experiment(memory=tmp_path)), plain)


def test_another_box_is_measured_again(tmp_path):
    values = [figures(trajectory(epsilon, memory=tmp_path)) for epsilon in (1e-3, 5e-4)]
    np.testing.assert_equal(values, [figures(trajectory(epsilon)) for epsilon in (1e-3, 5e-4)])


@pytest.mark.parametrize("experiment", [comparison, curve, warm_start, trajectory, census])
def test_a_bad_memory_is_refused_before_training(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingNet, "train_step", None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="memory must be None or the path of a folder"):
        experiment(memory=tmp_path / "file")
