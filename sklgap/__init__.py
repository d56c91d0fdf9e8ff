"""Large-batch training: how large can a batch be before accuracy drops, why does it drop, and what wins it back."""

from sklgap._classifier import LBGapClassifier
from sklgap._version import __version__
from sklgap.inspection import (
    ParametricPlotDisplay,
    loss_along_line,
    sharpness,
)
from sklgap.metrics import (
    generalization_gap_score,
    make_sharpness_scorer,
    neg_generalization_gap_scorer,
    neg_sharpness_scorer,
    sharpness_score,
)
from sklgap.model_selection import RegimeComparisonDisplay, compare_regimes
from sklgap.objective import Objective, check_objective
from sklgap.regimes import BatchRegime, ConstantBatch, GrowingBatch, SwitchBatch
from sklgap.remedies import Augmentation, Proximal, Remedy

__all__ = [
    "Augmentation",
    "BatchRegime",
    "ConstantBatch",
    "GrowingBatch",
    "LBGapClassifier",
    "Objective",
    "ParametricPlotDisplay",
    "Proximal",
    "RegimeComparisonDisplay",
    "Remedy",
    "SwitchBatch",
    "__version__",
    "check_objective",
    "compare_regimes",
    "generalization_gap_score",
    "loss_along_line",
    "make_sharpness_scorer",
    "neg_generalization_gap_scorer",
    "neg_sharpness_scorer",
    "sharpness",
    "sharpness_score",
]
