"""Large-batch training: how large can a batch be before accuracy drops, why does it drop, and what wins it back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sklgap._version import __version__

if TYPE_CHECKING:
    from sklgap.estimator import LBGapClassifier
    from sklgap.experiments import (
        BatchSizeCurveDisplay,
        RegimeComparisonDisplay,
        WarmStartDisplay,
        batch_size_curve,
        branched_critical_batch_size,
        compare_regimes,
        critical_batch_size,
        explain_gap,
        gap_report,
        largest_safe_batch_size,
        minima_census,
        rank_measures,
        sharpness_trajectory,
        stability_trajectory,
        time_to_accuracy,
        warm_start_curve,
    )
    from sklgap.inspection import (
        ParametricPlotDisplay,
        flatness,
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
    from sklgap.objective import Objective, check_objective
    from sklgap.regimes import BatchRegime, ConstantBatch, DynamicSampling, GrowingBatch, SwitchBatch
    from sklgap.remedies import (
        SAM,
        Adversarial,
        Augmentation,
        BatchAugmentation,
        EntropySGD,
        GradientPenalty,
        LabelSmoothing,
        Mixup,
        Proximal,
        Remedy,
        SampleNoise,
        Stability,
    )
    from sklgap.training import (
        ExponentialAveraging,
        LatestAveraging,
        TrainingRecorder,
        WeightAveraging,
        full_batch_recipe,
    )

__all__ = [
    "Adversarial",
    "Augmentation",
    "BatchAugmentation",
    "BatchRegime",
    "BatchSizeCurveDisplay",
    "ConstantBatch",
    "DynamicSampling",
    "EntropySGD",
    "ExponentialAveraging",
    "GradientPenalty",
    "GrowingBatch",
    "LBGapClassifier",
    "LabelSmoothing",
    "LatestAveraging",
    "Mixup",
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
    "WarmStartDisplay",
    "WeightAveraging",
    "__version__",
    "batch_size_curve",
    "branched_critical_batch_size",
    "check_objective",
    "compare_regimes",
    "critical_batch_size",
    "explain_gap",
    "flatness",
    "full_batch_recipe",
    "gap_report",
    "generalization_gap_score",
    "largest_safe_batch_size",
    "loss_along_line",
    "make_sharpness_scorer",
    "minima_census",
    "neg_generalization_gap_scorer",
    "neg_sharpness_scorer",
    "rank_measures",
    "sharpness",
    "sharpness_score",
    "sharpness_trajectory",
    "stability_trajectory",
    "time_to_accuracy",
    "warm_start_curve",
]

# The module of each name. A name is imported on its first use, so that the help of the command line needs no torch.
_PLACES = {
    "estimator": ["LBGapClassifier"],
    "experiments": [
        "BatchSizeCurveDisplay",
        "RegimeComparisonDisplay",
        "WarmStartDisplay",
        "batch_size_curve",
        "branched_critical_batch_size",
        "compare_regimes",
        "critical_batch_size",
        "explain_gap",
        "gap_report",
        "largest_safe_batch_size",
        "minima_census",
        "rank_measures",
        "sharpness_trajectory",
        "stability_trajectory",
        "time_to_accuracy",
        "warm_start_curve",
    ],
    "inspection": ["ParametricPlotDisplay", "flatness", "loss_along_line", "sharpness"],
    "metrics": [
        "generalization_gap_score",
        "make_sharpness_scorer",
        "neg_generalization_gap_scorer",
        "neg_sharpness_scorer",
        "sharpness_score",
    ],
    "objective": ["Objective", "check_objective"],
    "regimes": ["BatchRegime", "ConstantBatch", "DynamicSampling", "GrowingBatch", "SwitchBatch"],
    "remedies": [
        "Adversarial",
        "Augmentation",
        "BatchAugmentation",
        "EntropySGD",
        "GradientPenalty",
        "LabelSmoothing",
        "Mixup",
        "Proximal",
        "Remedy",
        "SAM",
        "SampleNoise",
        "Stability",
    ],
    "training": [
        "ExponentialAveraging",
        "LatestAveraging",
        "TrainingRecorder",
        "WeightAveraging",
        "full_batch_recipe",
    ],
}
_PARTS: tuple[str, ...] = (
    "datasets",
    "estimator",
    "experiments",
    "inspection",
    "memory",
    "metrics",
    "monitor",
    "nets",
    "objective",
    "regimes",
)
_PARTS += ("remedies", "training")


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"sklgap.{name}")
    for part, names in _PLACES.items():
        if name in names:
            found = getattr(import_module(f"sklgap.{part}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'sklgap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})
