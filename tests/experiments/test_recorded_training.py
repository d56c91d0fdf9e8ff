import math

import numpy as np
import pytest
import torch

from sklgap.experiments._recorded_training import (
    first_reached,
    in_memory,
    lowest_loss,
    recorded_cost,
    train_recorded,
    updates_to_loss,
)
from sklgap.training import TrainingNet
from sklgap.training._recorder import log_spaced_updates
from tests.tiny import Mlp, blobs, small

X, Y = blobs(40)
N_UPDATES, LOSS = np.array([0, 10, 20, 40]), np.array([2.0, 1.0, 0.4, 0.8])
RECORD = {"n_updates": N_UPDATES, "train_loss": LOSS}


@pytest.mark.parametrize(("target", "expected"), [(1.0, 10), (0.7, 15), (3.0, 0), (0.4, 20), (0.3, math.nan)])
def test_when_a_loss_is_first_reached(target, expected):
    assert first_reached(N_UPDATES, LOSS, target) == pytest.approx(expected, nan_ok=True)


def test_a_loss_that_was_not_finite_before():
    assert first_reached(N_UPDATES, np.array([2.0, np.nan, 0.4, 0.8]), 0.5) == 20


def test_a_target_that_the_initial_weights_have_reached_is_refused():
    assert updates_to_loss(RECORD, 0.7) == pytest.approx(15)
    assert math.isnan(updates_to_loss(RECORD, 0.3))
    with pytest.raises(ValueError, match=r"target_loss must be below the loss at the start, 2; got 2\.5"):
        updates_to_loss(RECORD, 2.5)


def test_the_lowest_loss():
    assert lowest_loss(RECORD) == 0.4
    assert lowest_loss({"train_loss": np.array([1.0, np.nan, np.inf])}) == 1
    assert math.isnan(lowest_loss({"train_loss": np.full(2, np.nan)}))


def test_points_in_time():
    points = [0, *log_spaced_updates(4)]
    assert points[:8] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [p for p in points if p in (8, 16, 32, 64)] == [8, 16, 32, 64]
    assert np.max(np.array(points[9:]) / points[8:-1]) < 2**0.25 + 0.07


def train(X=X, memory=None):
    estimator = small(net=Mlp, batch_size=10, max_epochs=2, lr=0.05, optimizer=torch.optim.SGD)
    return train_recorded(estimator, in_memory(X), Y, {"random_state": 0}, None, "batch", None, [0, 3], memory=memory)


def test_a_saved_training_is_loaded_with_its_records_from_a_mapped_file_too(tmp_path, monkeypatch):
    expected = train()
    assert expected["n_updates"].tolist() == [0, 3, 8]
    np.testing.assert_equal(train(memory=tmp_path / "memory"), expected)
    monkeypatch.setattr(TrainingNet, "train_step", None)  # nothing is trained any more
    np.testing.assert_equal(train(memory=tmp_path / "memory"), expected)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_equal(train(mapped, memory=tmp_path / "memory"), expected)


def test_the_cost_of_measuring_grows_with_points_and_batches():
    parameters = {"small": {"batch_size": 10}, "large": {"batch_size": 20}}
    cost = recorded_cost(small(max_epochs=2), parameters, 3, (X, Y), [0, 4, 8, 16], 20, n_batches=1000)
    assert (cost.n_fits, cost.updates) == ([3, 3], [8, 4])
    noise = 3 * 1000 * (3 * cost.step_seconds[0] + 2 * cost.step_seconds[1])  # 0, 4, 8 updates, and 0, 4
    assert noise < cost.measure_seconds[0] <= cost.measure_seconds[1]
