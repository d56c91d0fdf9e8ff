"""Trainings that diverge have no score: the class predicted from NaN is the first one, perhaps the most frequent."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sklgap import (
    LBGapClassifier,
    batch_size_curve,
    compare_regimes,
    explain_gap,
    largest_safe_batch_size,
)
from sklgap.experiments import _trials

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 4)).astype(np.float32)
Y = (X[:, 0] + 0.3 * rng.normal(size=300) > 1.2).astype(int)  # nine of ten samples are of class 0
DATA = X[:200], Y[:200], X[200:], Y[200:]
QUIET = {"n_trials": 2, "epsilon": [], "random_state": 0, "verbose": 0}

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore::RuntimeWarning",
    "ignore:WeightAveraging averaged",
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 2))

    def forward(self, X):
        return self.layers(X)


def model(**params):
    return LBGapClassifier(Net, optimizer=torch.optim.SGD, lr=0.1, max_epochs=4, tol=None, **params)


def test_no_score_is_finite():
    found = compare_regimes(
        model(),
        *DATA,
        regimes={"a": {"batch_size": 20}, "b": {"batch_size": 20, "lr": 1e30}},
        reference="a",
        scoring=["accuracy", "balanced_accuracy", "f1"],
        **QUIET,
    )
    for name in ("test_accuracy", "train_accuracy", "test_balanced_accuracy", "train_f1", "test_loss"):
        assert np.isnan(found.by_trial("b", name)).all(), name
        assert np.isfinite(found.by_trial("a", name)).all(), name
    assert math.isnan(found.difference("a", "b").value)
    assert "Training diverged" in str(found)


def test_a_reference_that_diverged_is_no_reference():
    found = compare_regimes(
        model(),
        *DATA,
        regimes={"a": {"batch_size": 20, "lr": 1e30}, "b": {"batch_size": 20}},
        reference="a",
        **QUIET,
    )
    assert math.isnan(found.difference("a", "b").value)
    assert "points of accuracy [" not in str(found)


def test_a_batch_size_that_diverges_is_not_safe():
    wide = 10 * DATA[0], DATA[1], 10 * DATA[2], DATA[3]  # at 20 times the rate the training diverges
    curve = batch_size_curve(
        model().set_params(max_epochs=30, lr=0.2),
        *wide,
        batch_sizes=[7, 140],
        lr="linear",
        learning_rate=None,
        validation_fraction=0.3,
        **QUIET,
    )
    assert np.isnan(curve.values(140, "valid_accuracy")).all()
    safe = largest_safe_batch_size(curve, margin=0.1)
    assert int(safe) == 7
    assert "140" in str(safe)
    assert "not shown" in str(safe)


def test_a_rate_that_diverges_is_never_chosen():
    curve = batch_size_curve(
        model(), *DATA, batch_sizes=[10, 50], lr="tuned", learning_rates=[0.1, 1e30], validation_fraction=0.3, **QUIET
    )
    assert {size: curve.values(size, "train_loss").max() < 1 for size in (10, 50)} == {10: True, 50: True}
    assert all(math.isnan(r["valid_accuracy"]) == (r["lr"] == 1e30) for r in curve.tuning)


def test_a_setting_that_diverges_explains_nothing():
    found = explain_gap(
        LBGapClassifier(Net, optimizer=torch.optim.SGD, lr=1e20, max_epochs=4, tol=None),
        *DATA,
        small=10,
        large=100,
        **QUIET,
    )
    assert not any(np.isfinite(estimate.value) for estimate in found.parts().values())


def test_saved_work_of_an_earlier_checkout_has_no_score_either(tmp_path, monkeypatch):
    regimes = {"a": {"batch_size": 20}, "b": {"batch_size": 20, "lr": 1e30}}
    with monkeypatch.context() as earlier:
        earlier.setattr(_trials.math, "isnan", lambda value: False)
        earlier.setattr(_trials.torch, "isfinite", torch.ones_like)
        before = compare_regimes(model(), *DATA, regimes=regimes, reference="a", memory=tmp_path, **QUIET)
    assert np.isfinite(before.by_trial("b", "test_accuracy")).all()
    with pytest.warns(UserWarning, match="does not hold the figures of this trial"):
        after = compare_regimes(model(), *DATA, regimes=regimes, reference="a", memory=tmp_path, **QUIET)
    assert np.isnan(after.by_trial("b", "test_accuracy")).all()
