"""A model whose outputs are NaN predicts nothing, and no sample counts as predicted right.

``argmax`` finds NaN the largest, so that such a model would predict the first class, perhaps the most frequent one.
"""

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import Callback, EpochScoring
from skorch.dataset import ValidSplit
from torch import nn

from sklgap import LBGapClassifier, check_objective
from sklgap.estimator._evaluation import accuracy, recompute_batch_norm
from sklgap.objective._loss import predicted_classes

rng = np.random.default_rng(0)
X = rng.normal(size=(120, 4)).astype(np.float32)
Y = (X[:, 0] > 1.2).astype(int)  # most samples are of class 0

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning", "ignore:y_pred contains classes"
)


class Net(nn.Module):
    def __init__(self, norm=False):
        super().__init__()
        layers = [nn.Linear(4, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.LeakyReLU(), nn.Linear(8, 2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, X):
        return self.layers(X)


class Root(Net):
    """A net that is undefined where the first input is negative."""

    def forward(self, X):
        return self.layers(X) + 0 * X[:, :1].sqrt()


def model(lr=0.1, net=Net, **params):
    return LBGapClassifier(
        net, optimizer=torch.optim.SGD, lr=lr, max_epochs=3, batch_regime=20, tol=None, random_state=0, **params
    )


@pytest.fixture(scope="module")
def diverged():
    with pytest.warns(ConvergenceWarning, match="no longer a finite number"):
        return model(1e30).fit(X, Y)


@pytest.mark.parametrize("use", ["predict", "predict_proba", "score"])
def test_a_diverged_model_predicts_nothing(use, diverged):
    with pytest.raises(ValueError, match=r"those of 120 of 120 samples are not.*lower lr"):
        getattr(diverged, use)(*([X, Y] if use == "score" else [X]))


def test_a_diverged_model_has_no_right_sample(diverged):
    assert (Y == 0).mean() > 0.8  # what the first class would score
    assert diverged.train_score_ == 0
    assert diverged.history_[-1, "train_accuracy"] < 0.8
    assert accuracy(diverged.module_, X, Y) == 0
    found = check_objective(diverged, X, Y).evaluate()
    assert math.isnan(found.loss)
    assert found.accuracy == 0


def test_batch_norm_statistics_that_are_nan_show_no_accuracy():
    net = Net(norm=True)
    nn.init.constant_(net.layers[0].weight, math.nan)
    assert recompute_batch_norm(net, X, Y) == 0


def test_some_samples_without_a_prediction():
    whole = np.abs(X)
    fitted = model(net=Root).fit(whole, Y)
    assert fitted.predict(whole).shape == Y.shape
    n = int((X[:, 0] < 0).sum())
    with pytest.raises(ValueError, match=f"those of {n} of 120 samples are not"):
        fitted.predict(X)
    assert len(fitted.predict(X[X[:, 0] >= 0])) == 120 - n


def test_only_a_finite_largest_output_has_a_class():
    inf, nan = math.inf, math.nan
    y_pred = torch.tensor([[0.0, inf], [nan, 1.0], [1.0, nan], [-inf, -inf], [-inf, 0.0], [2.0, -inf]])
    *lost, second, first = predicted_classes(y_pred).tolist()
    assert (first, second) == (0, 1)
    assert max(lost) < -(10**9)


class Shifted(Net):
    """A net that adds a number to the outputs: infinite ones, or -inf for a class that is masked."""

    shift = (0.0, 0.0)

    def forward(self, X):
        return self.layers(X) + torch.tensor(self.shift, dtype=X.dtype)


@pytest.mark.parametrize("shift", [(math.inf, 0.0), (0.0, math.inf), (-math.inf, -math.inf)])
@pytest.mark.parametrize("use", ["predict", "predict_proba", "score"])
def test_infinite_outputs_predict_nothing(shift, use, monkeypatch):
    fitted = model(net=Shifted).fit(X, Y)
    monkeypatch.setattr(Shifted, "shift", shift)
    with pytest.raises(ValueError, match="those of 120 of 120 samples are not"):
        getattr(fitted, use)(*([X, Y] if use == "score" else [X]))


def test_a_masked_class_has_no_probability(monkeypatch):
    fitted = model(net=Shifted).fit(X, Y)
    monkeypatch.setattr(Shifted, "shift", (-math.inf, 0.0))
    np.testing.assert_array_equal(fitted.predict_proba(X), [[0.0, 1.0]] * 120)
    assert (fitted.predict(X) == 1).all()


class Diverge(Callback):
    """Sets all weights to NaN at the end of the second epoch."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) == 2:
            for p in net.module_.parameters():
                p.data.fill_(math.nan)


@pytest.mark.parametrize("scoring", [None, "balanced_accuracy", "f1_macro"])
def test_validation_scores_of_nan_are_never_the_best(scoring):
    own = [("own", EpochScoring(scoring, lower_is_better=False, name="own"))] if scoring else []
    fitted = model(train_split=ValidSplit(3), callbacks=[("diverge", Diverge()), *own]).fit(X, Y)
    name = "own" if scoring else "valid_acc"
    good, lost = fitted.history_[:2, (name, f"{name}_best")]
    assert good == (good[0], True)
    assert lost == (0, False)
    assert (fitted.net_.predict(X) == -1).all()
    assert fitted.net_.score(X, Y) == 0


def test_a_search_never_chooses_a_diverged_rate():
    search = GridSearchCV(model(), {"lr": [1e30, 0.1]}, cv=2)
    with pytest.warns(Warning, match="non-finite|Scoring failed"):
        search.fit(X, Y)
    assert search.best_params_ == {"lr": 0.1}
    assert np.isnan(search.cv_results_["mean_test_score"][0])


def test_cross_validation_reports_no_score():
    with pytest.warns(UserWarning, match="Scoring failed"):
        assert np.isnan(cross_val_score(model(1e30), X, Y, cv=2, scoring="balanced_accuracy")).all()


@pytest.mark.parametrize(
    "ensemble",
    [
        lambda m: VotingClassifier([("net", m), ("other", LogisticRegression())], voting="soft"),
        lambda m: VotingClassifier([("net", m)]),
        lambda m: CalibratedClassifierCV(m, cv=2),
    ],
    ids=["soft voting", "voting", "calibration"],
)
def test_ensembles_do_not_hide_a_diverged_model(ensemble):
    with pytest.raises(ValueError, match="must have outputs that are finite"):
        ensemble(model(1e30)).fit(X, Y).predict(X)
