"""A model whose outputs are NaN predicts nothing, and no sample counts as predicted right.

``argmax`` finds NaN the largest, so that such a model would predict the first class, perhaps the most frequent one.
"""

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from sklgap import LBGapClassifier, check_objective
from sklgap.estimator._evaluation import accuracy, recompute_batch_norm
from sklgap.objective._loss import predicted_classes

rng = np.random.default_rng(0)
X = rng.normal(size=(120, 4)).astype(np.float32)
Y = (X[:, 0] > 1.2).astype(int)  # most samples are of class 0

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning")


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
    with pytest.warns(Warning):  # noqa: PT030  several warnings, of which one is the ConvergenceWarning
        return model(1e30).fit(X, Y)


@pytest.mark.parametrize("use", ["predict", "predict_proba", "score"])
def test_a_diverged_model_predicts_nothing(use, diverged):
    with pytest.raises(ValueError, match=r"120 of 120 samples are NaN.*lower lr"):
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
    with pytest.raises(ValueError, match=f"those of {n} of 120 samples are NaN"):
        fitted.predict(X)
    assert len(fitted.predict(X[X[:, 0] >= 0])) == 120 - n


def test_an_infinite_output_is_the_largest():
    y_pred = torch.tensor([[0.0, math.inf], [math.nan, 1.0], [1.0, math.nan], [-math.inf, 0.0]])
    found = predicted_classes(y_pred).tolist()
    assert found[0] == found[3] == 1
    assert found[1] == found[2] < -(10**9)


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
    with pytest.raises(ValueError, match="samples are NaN"):
        ensemble(model(1e30)).fit(X, Y).predict(X)
