import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import generalization_gap_score, neg_generalization_gap_scorer, neg_sharpness_scorer
from tests.tiny import blobs, small


@pytest.fixture(scope="module")
def data():
    X, y = blobs(90)
    y = y.copy()
    y[60::4] = (y[60::4] + 1) % 3  # held-out labels are partly wrong: the gap is not 0
    return X[:60], y[:60], X[60:], y[60:]


def _expected(classifier, scored, X_test, y_test):
    return classifier.train_score_ - accuracy_score(y_test, scored.predict(X_test))


def test_of_a_classifier(data):
    X, y, X_test, y_test = data
    model = small(max_epochs=5).fit(X, y)
    gap = generalization_gap_score(model, X_test, y_test)
    assert isinstance(gap, float)
    assert gap == pytest.approx(model.score(X, y) - model.score(X_test, y_test), abs=1e-12)
    assert gap > 0.1
    assert neg_generalization_gap_scorer(model, X_test, y_test) == -gap
    assert generalization_gap_score(model, X, y) == pytest.approx(0, abs=1e-12)


def test_of_a_pipeline_and_a_search_over_one(data):
    X, y, X_test, y_test = data
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, y)
    assert generalization_gap_score(pipeline, X_test, y_test) == _expected(pipeline[-1], pipeline, X_test, y_test)
    search = GridSearchCV(pipeline, {"lbgapclassifier__lr": [0.01]}, cv=2).fit(X, y)
    best = search.best_estimator_[-1]
    assert generalization_gap_score(search, X_test, y_test) == _expected(best, search, X_test, y_test)
    nested = make_pipeline(StandardScaler(), GridSearchCV(small(), {"lr": [0.01]}, cv=2)).fit(X, y)
    best = nested[-1].best_estimator_
    assert generalization_gap_score(nested, X_test, y_test) == _expected(best, nested, X_test, y_test)


@pytest.mark.parametrize("scoring", ["neg_log_loss", neg_sharpness_scorer], ids=["log loss", "sharpness"])
def test_of_a_search_with_a_scorer_of_its_own_it_is_still_accuracy(data, scoring):
    X, y, X_test, y_test = data
    search = GridSearchCV(small(), {"lr": [0.01]}, cv=2, scoring=scoring).fit(X, y)
    expected = _expected(search.best_estimator_, search, X_test, y_test)
    assert generalization_gap_score(search, X_test, y_test) == expected


def test_in_cross_validate(data):
    X, y, *_ = data
    scoring = {"gap": generalization_gap_score, "neg_gap": neg_generalization_gap_scorer, "accuracy": "accuracy"}
    scores = cross_validate(small(), X, y, cv=2, scoring=scoring, return_train_score=True)
    assert scores["test_gap"] == pytest.approx(scores["train_accuracy"] - scores["test_accuracy"], abs=1e-12)
    assert scores["test_neg_gap"] == pytest.approx(-scores["test_gap"])


def test_estimators_without_a_training_score(data):
    X, y, X_test, y_test = data
    for estimator in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(
            TypeError, match="train_score_, such as LBGapClassifier; LogisticRegression does not have it"
        ):
            generalization_gap_score(estimator.fit(X, y), X_test, y_test)
    with pytest.raises(TypeError, match="must be fitted"):
        generalization_gap_score(small(), X_test, y_test)
