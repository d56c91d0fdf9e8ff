"""Scorers: callables of (estimator, X, y) for scikit-learn's searches and cross-validation."""

from sklgap.metrics._generalization_gap import generalization_gap_score, neg_generalization_gap_scorer
from sklgap.metrics._sharpness import make_sharpness_scorer, neg_sharpness_scorer, sharpness_score

__all__ = [
    "generalization_gap_score",
    "make_sharpness_scorer",
    "neg_generalization_gap_scorer",
    "neg_sharpness_scorer",
    "sharpness_score",
]
