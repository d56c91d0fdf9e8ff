"""Experiments with ``memory``: what they find is what they find without, and is found at once the second time."""

import numpy as np
import pytest

from sklgap import batch_size_curve, compare_regimes
from sklgap.training import TrainingNet
from tests.tiny import blobs, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
COMMON = {"random_state": 0, "verbose": 0}


def comparison(**more):
    scoring = ["accuracy", "neg_log_loss", "balanced_accuracy"]
    own = {"regimes": (10, 25), "reference": 10, "n_trials": 2, "epsilon": 1e-3, "solver": "power", "scoring": scoring}
    return compare_regimes(small(), *DATA, **own, **COMMON, **more)


def curve(**more):
    return batch_size_curve(small(), *DATA, batch_sizes=[10, 25], n_trials=2, solver="power", **COMMON, **more)


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


@pytest.mark.parametrize("experiment", [comparison, curve])
def test_a_bad_memory_is_refused_before_training(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingNet, "train_step", None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="memory must be None or the path of a folder"):
        experiment(memory=tmp_path / "file")
