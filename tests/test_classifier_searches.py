"""`LBGapClassifier` in pipelines, searches, cross-validation and files."""

import copy
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small


def test_pipeline():
    X, y = blobs()
    pipeline = make_pipeline(StandardScaler(), small()).set_params(lbgapclassifier__module__width=5)
    pipeline.fit(1e4 * X + 3e5, y)
    assert pipeline[-1].module_.layers[1].out_features == 5
    scaled = StandardScaler().fit_transform(1e4 * X + 3e5)
    np.testing.assert_array_equal(pipeline.predict(1e4 * X + 3e5), pipeline[-1].predict(scaled))


def test_grid_search_over_batch_size_and_proximal_lambda():
    X, y = blobs(n=90)
    grid = {"batch_size": [0.5, -1], "proximal_lambda": [None, 0.0, 0.1]}
    search = GridSearchCV(small(), grid, cv=2, return_train_score=True).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.cv_results_["params"]) == 6
    assert search.best_estimator_.get_params()["batch_size"] == search.best_params_["batch_size"]
    # A candidate scores what it scores alone, whatever ran before it.
    alone = GridSearchCV(small(), {"batch_size": [-1], "proximal_lambda": [0.1]}, cv=2).fit(X, y)
    assert alone.cv_results_["mean_test_score"][0] == search.cv_results_["mean_test_score"][-1]
    backwards = GridSearchCV(small(), {name: v[::-1] for name, v in grid.items()}, cv=2).fit(X, y)
    np.testing.assert_array_equal(backwards.cv_results_["mean_test_score"][::-1], search.cv_results_["mean_test_score"])


def test_grid_search_over_nested_names():
    X, y = blobs(n=90)
    search = GridSearchCV(small(), {"module__width": [2, 4], "optimizer__weight_decay": [0.0, 0.1]}, cv=2).fit(X, y)
    best = search.best_estimator_
    assert best.module_.layers[1].out_features == search.best_params_["module__width"]
    assert best.net_.optimizer_.param_groups[0]["weight_decay"] == search.best_params_["optimizer__weight_decay"]


def test_halving_search_over_epochs():
    X, y = blobs(n=90)
    search = HalvingGridSearchCV(
        small(), {"batch_size": [10, 45]}, resource="max_epochs", min_resources=1, max_resources=2, factor=2, cv=2
    ).fit(X, y)
    assert search.best_estimator_.n_iter_ == 2


def test_halving_search_over_samples():
    X, y = blobs(n=120, n_classes=2)
    search = HalvingGridSearchCV(small(), {"lr": [1e-3, 1e-2]}, min_resources=40, factor=2, cv=2, random_state=0)
    assert search.fit(X, y).best_score_ > 0


def test_cross_validate():
    X, y = blobs(n=90)
    result = cross_validate(small(max_epochs=10), X, y, cv=3, return_train_score=True, return_estimator=True)
    assert len(result["estimator"]) == 3
    assert result["train_score"].mean() > 0.8
    for model, train_score in zip(result["estimator"], result["train_score"], strict=True):
        assert model.train_score_ == train_score


@pytest.mark.parametrize("params", [{}, {"net": TinyC1}, {"net": Mlp, "remedies": ()}, {"ghost_batch_size": 4}])
def test_pickle_and_joblib(params, tmp_path):
    X, y = images(n_classes=2)
    X = X if params.get("net") is TinyC1 else X[:, 0, 0, :4].copy()
    params = {**params, "module__n_out": 2} if params.get("net") is Mlp else params
    model = small(**params).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    for copied in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib"), copy.deepcopy(model)):
        assert same_weights(copied, model)
        np.testing.assert_array_equal(copied.predict_proba(X), model.predict_proba(X))
        assert list(copied.history_) == list(model.history_)
        assert copied.train_score_ == model.train_score_


def test_unfitted_model_pickles_and_clones():
    model = small(batch_size=0.5)
    X, y = blobs()
    assert same_weights(pickle.loads(pickle.dumps(model)).fit(X, y), clone(model).fit(X, y))


def test_clone_of_a_fitted_model_is_unfitted_and_equal():
    X, y = blobs()
    model = small().fit(X, y)
    copied = clone(model)
    assert not [name for name in vars(copied) if name.endswith("_")]
    assert same_weights(copied.fit(X, y), model)


def test_default_constructed_model_learns_digits():
    """The three lines of the manual: what anyone tries first."""
    X, y = load_digits(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="max_epochs=3"):
        model = LBGapClassifier(max_epochs=3, random_state=0).fit(X[:1000] / 16, y[:1000])
    assert model.history_[0, "batch_size"] == 25  # 1,000 // 40
    assert model.score(X[1000:] / 16, y[1000:]) > 0.85
