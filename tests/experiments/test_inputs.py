"""What every experiment checks of its estimator, before anything is trained."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import (
    LBGapClassifier,
    batch_size_curve,
    compare_regimes,
    critical_batch_size,
    minima_census,
    sharpness_trajectory,
    warm_start_curve,
)
from sklgap.experiments import steps_to_loss
from tests.tiny import blobs, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
EXPERIMENTS = {
    "batch_size_curve": lambda estimator: batch_size_curve(estimator, *DATA),
    "compare_regimes": lambda estimator: compare_regimes(estimator, *DATA),
    "critical_batch_size": lambda estimator: critical_batch_size(estimator, *DATA[:2]),
    "minima_census": lambda estimator: minima_census(estimator, *DATA),
    "sharpness_trajectory": lambda estimator: sharpness_trajectory(estimator, *DATA[:2]),
    "steps_to_loss": lambda estimator: steps_to_loss(estimator, *DATA[:2], batch_sizes=[5, 25], target_loss=1.0),
    "warm_start_curve": lambda estimator: warm_start_curve(estimator, *DATA),
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
