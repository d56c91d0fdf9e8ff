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
from sklgap.model_selection import (
    RegimeComparisonDisplay,
    compare_regimes,
    critical_batch_size,
    gap_report,
    time_to_accuracy,
)
from sklgap.objective import Objective, check_objective
from sklgap.regimes import BatchRegime, ConstantBatch, DynamicSampling, GrowingBatch, SwitchBatch
from sklgap.remedies import SAM, Adversarial, Augmentation, EntropySGD, Proximal, Remedy, SampleNoise, Stability
from sklgap.training import TrainingRecorder, WeightAveraging

__all__ = [
    "Adversarial",
    "Augmentation",
    "BatchRegime",
    "ConstantBatch",
    "DynamicSampling",
    "EntropySGD",
    "GrowingBatch",
    "LBGapClassifier",
    "Objective",
    "ParametricPlotDisplay",
    "Proximal",
    "RegimeComparisonDisplay",
    "Remedy",
    "SAM",
    "SampleNoise",
    "Stability",
    "SwitchBatch",
    "TrainingRecorder",
    "WeightAveraging",
    "__version__",
    "check_objective",
    "compare_regimes",
    "critical_batch_size",
    "gap_report",
    "generalization_gap_score",
    "loss_along_line",
    "make_sharpness_scorer",
    "neg_generalization_gap_scorer",
    "neg_sharpness_scorer",
    "sharpness",
    "sharpness_score",
    "time_to_accuracy",
]
