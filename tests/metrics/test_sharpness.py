import pickle

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import make_sharpness_scorer, neg_sharpness_scorer, sharpness, sharpness_score
from tests.tiny import blobs, small

ARGUMENTS = {
    "defaults": {},
    "epsilon": {"epsilon": 5e-4},
    "subspace": {"subspace_dim": 3},
    "solver": {"solver": "lbfgsb"},
    "policy": {"batch_norm": "running"},
    "rows": {"max_samples": 20},
    "seed": {"subspace_dim": 3, "random_state": 7},
}


@pytest.fixture(scope="module")
def fitted():
    X, y = blobs(40)
    return small().fit(X, y), X, y


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_the_score_is_the_metric(fitted, arguments):
    kwargs = ARGUMENTS[arguments]
    score = sharpness_score(*fitted, **kwargs)
    assert isinstance(score, float)
    assert score == sharpness(*fitted, **{"random_state": 0, **kwargs}).value > 0
    assert make_sharpness_scorer(greater_is_better=True, **kwargs)(*fitted) == score
    assert make_sharpness_scorer(**kwargs)(*fitted) == -score
    if kwargs:
        assert score != sharpness_score(*fitted)


def test_repeatable_by_default(fitted):
    kwargs = {"subspace_dim": 2, "max_samples": 0.5}
    assert sharpness_score(*fitted, **kwargs) == sharpness_score(*fitted, **kwargs)
    assert sharpness_score(*fitted, **kwargs, random_state=None) != sharpness_score(*fitted, **kwargs)


def test_labels_in_a_column(fitted):
    model, X, y = fitted
    assert sharpness_score(model, X, y[:, None]) == sharpness_score(model, X, y)


def test_the_negative_scorer(fitted):
    assert neg_sharpness_scorer(*fitted) == -sharpness_score(*fitted) < 0


def test_a_scorer_pickles_and_shows_its_arguments(fitted):
    scorer = make_sharpness_scorer(epsilon=5e-4, solver="power")
    loaded = pickle.loads(pickle.dumps(scorer))
    assert loaded(*fitted) == scorer(*fitted)
    assert repr(loaded) == "make_sharpness_scorer(greater_is_better=False, epsilon=0.0005, solver='power')"
    assert repr(make_sharpness_scorer(greater_is_better=True)) == "make_sharpness_scorer(greater_is_better=True)"
    assert pickle.loads(pickle.dumps(neg_sharpness_scorer)) is neg_sharpness_scorer


def test_unknown_arguments():
    with pytest.raises(TypeError, match=r"has no argument 'epsilom'; did you mean 'epsilon'\?"):
        make_sharpness_scorer(epsilom=1e-3)
    for name in ("estimator", "X", "y"):
        with pytest.raises(TypeError, match=f"has no argument '{name}'"):
            make_sharpness_scorer(**{name: None})


@pytest.mark.parametrize("epsilon", [True, "small", 0, [1e-3, 5e-4], None])
def test_bad_epsilon(fitted, epsilon):
    with pytest.raises((ValueError, TypeError), match="epsilon must be"):
        sharpness_score(*fitted, epsilon=epsilon)


@pytest.mark.parametrize(("name", "value"), [("solver", "best"), ("batch_norm", "train"), ("subspace_dim", 0)])
def test_bad_arguments(fitted, name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        sharpness_score(*fitted, **{name: value})


def test_cross_validate_a_pipeline():
    X, y = blobs(60)
    model = make_pipeline(StandardScaler(), small())
    scores = cross_validate(
        model,
        X,
        y,
        cv=2,
        return_train_score=True,
        return_estimator=True,
        return_indices=True,
        scoring={"accuracy": "accuracy", "sharpness": sharpness_score},
    )
    for i, (estimator, train, test) in enumerate(
        zip(scores["estimator"], scores["indices"]["train"], scores["indices"]["test"], strict=True)
    ):
        assert scores["train_sharpness"][i] == sharpness_score(estimator, X[train], y[train]) > 0
        assert scores["test_sharpness"][i] == sharpness_score(estimator, X[test], y[test])
        assert scores["test_accuracy"][i] == estimator.score(X[test], y[test])


def test_grid_search_with_refit_on_accuracy():
    X, y = blobs(60)
    scoring = {"accuracy": "accuracy", "sharpness": sharpness_score}
    grid = {"batch_size": [10, 30]}
    search = GridSearchCV(small(), grid, cv=2, scoring=scoring, refit="accuracy", return_train_score=True).fit(X, y)
    assert (search.cv_results_["mean_train_sharpness"] > 0).all()
    assert search.best_index_ == search.cv_results_["rank_test_accuracy"].argmin()
    again = GridSearchCV(small(), grid, cv=2, scoring=scoring, refit=False, return_train_score=True).fit(X, y)
    np.testing.assert_array_equal(again.cv_results_["mean_train_sharpness"], search.cv_results_["mean_train_sharpness"])


@pytest.mark.parametrize("scorer", [neg_sharpness_scorer, make_sharpness_scorer(epsilon=5e-4)])
def test_grid_search_for_flat_minima(scorer):
    X, y = blobs(60)
    search = GridSearchCV(small(), {"batch_size": [10, 30]}, cv=2, scoring=scorer, return_train_score=True).fit(X, y)
    means = search.cv_results_["mean_test_score"]
    assert (means < 0).all()
    assert search.best_index_ == means.argmax()
    assert search.score(X, y) == scorer(search.best_estimator_, X, y)
