"""What every experiment checks of its estimator and its data, before anything is trained."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier, batch_size_curve, compare_regimes
from sklgap.experiments._inputs import (
    check_candidate,
    check_data,
    check_keepable,
    check_regimes,
    check_target_loss,
    described,
    without_head,
)
from tests.tiny import blobs, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
EXPERIMENTS = {
    "batch_size_curve": lambda estimator: batch_size_curve(estimator, *DATA),
    "compare_regimes": lambda estimator: compare_regimes(estimator, *DATA),
}
OTHERS = {
    "a name": ("F1", "str"),
    "a class": (LBGapClassifier, "the class LBGapClassifier"),
    "another classifier": (LogisticRegression(), "LogisticRegression"),
    "a pipeline of another": (make_pipeline(StandardScaler(), LogisticRegression()), "LogisticRegression"),
    "a search": (GridSearchCV(small(), {"batch_size": [5]}), "GridSearchCV"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_estimators_without_a_batch_size(experiment, other):
    estimator, name = OTHERS[other]
    sentence = f"^estimator must be an LBGapClassifier or a pipeline that ends in one; got {name}.$"
    with pytest.raises(TypeError, match=sentence):
        EXPERIMENTS[experiment](estimator)


BAD_DATA = {
    "no X": ((None, Y, X, Y), "X must be an array with one row per sample; got None"),
    "no y_test": ((X, Y, X, None), "y_test must be an array with one row per sample; got None"),
    "lengths": ((X, Y[:9], X, Y), "X and y must be .*inconsistent numbers of samples"),
    "lengths of test data": ((X, Y, X, Y[:9]), "X_test and y_test must be .*inconsistent numbers of samples"),
    "labels": ((X, Y, X, Y + 7), r"y_test must not have labels that y does not have; got \[7 8 9\]"),
    "columns": ((X, Y, X[:, :3], Y), r"X_test must have samples of the same shape as X, \(4,\); got \(3,\)"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_do_not_belong_together(case):
    data, sentence = BAD_DATA[case]
    with pytest.raises(ValueError, match=sentence):
        check_data(*data)


def test_data_that_do():
    for given, checked in zip(DATA, check_data(*DATA), strict=True):
        assert checked is given


def test_work_that_is_saved_needs_a_seed(tmp_path):
    check_keepable(tmp_path, 0)
    check_keepable(None, None)
    with pytest.raises(ValueError, match="memory must be None while random_state is None"):
        check_keepable(tmp_path, None)


def test_regimes_by_label():
    assert check_regimes((10, "LB")) == {
        "10": {"batch_size": None, "batch_regime": 10},
        "LB": {"batch_size": None, "batch_regime": "LB"},
    }
    own = {"sgd": {"lr": 0.1}, 512: {"batch_size": 512}}
    assert check_regimes(own) == {"sgd": {"lr": 0.1}, "512": {"batch_size": 512}}


@pytest.mark.parametrize("regimes", [(10, "10"), {"a": {"random_state": 3}}, {"a": 10}, [], "SB", 3], ids=str)
def test_what_are_no_regimes(regimes):
    with pytest.raises(ValueError, match=r"^regimes.* must "):
        check_regimes(regimes)


def test_a_regime_that_the_estimator_or_the_data_cannot_have():
    check_candidate(small(), {"batch_regime": 10}, 50)
    with pytest.raises(ValueError, match="lrr"):
        check_candidate(small(), {"lrr": 0.1}, 50)
    with pytest.raises(ValueError, match="batch"):
        check_candidate(small(), {"batch_regime": -3}, 50)


@pytest.mark.parametrize("loss", [0, -1, np.inf, np.nan, True, "small", None])
def test_a_loss_that_training_ends_at(loss):
    check_target_loss(0.1)
    with pytest.raises(ValueError, match="target_loss must be a number above 0"):
        check_target_loss(loss)


def test_a_pipeline_without_its_head():
    model = small()
    assert without_head(model, X, Y) == (model, X)
    scaled = StandardScaler().fit(X[:50]).transform(X)
    last, train, test = without_head(make_pipeline(StandardScaler(), model), X[:50], Y[:50], X[50:])
    assert last is model
    np.testing.assert_array_equal(np.r_[train, test], scaled)
    assert without_head(make_pipeline(model), X, Y, X)[1:] == (X, X)


def test_parameters_as_text():
    class Own:
        pass

    found = described({"a": {"lr": 0.1, "callbacks": [Own()], "net": None}})
    assert found["a"]["lr"] == 0.1
    assert found["a"]["net"] is None
    assert " at 0x" not in found["a"]["callbacks"]
