"""``LBGapClassifier``: scikit-learn's manners around a training net."""

from sklgap.estimator._classifier import LBGapClassifier

__all__ = ["LBGapClassifier"]
