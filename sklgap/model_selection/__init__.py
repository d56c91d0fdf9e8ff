"""What batch size does to training: regimes and remedies compared, and the critical batch size."""

from sklgap.model_selection._census import minima_census
from sklgap.model_selection._census_result import Contrast, MinimaCensus
from sklgap.model_selection._compare import compare_regimes
from sklgap.model_selection._critical_batch_size import CriticalBatchSize, critical_batch_size
from sklgap.model_selection._plot._census import MinimaCensusDisplay
from sklgap.model_selection._plot._compare import RegimeComparisonDisplay
from sklgap.model_selection._plot._warm_start import WarmStartDisplay
from sklgap.model_selection._report import Gap, RegimeComparison
from sklgap.model_selection._sharpness_trajectory import sharpness_trajectory
from sklgap.model_selection._sharpness_trajectory_result import SharpnessTrajectory
from sklgap.model_selection._statistics import Estimate
from sklgap.model_selection._steps_to_loss import StepsToLoss, steps_to_loss
from sklgap.model_selection._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
from sklgap.model_selection._warm_start import warm_start_curve
from sklgap.model_selection._warm_start_result import WarmStartCurve

__all__ = [
    "Contrast",
    "CriticalBatchSize",
    "Estimate",
    "Gap",
    "MinimaCensus",
    "MinimaCensusDisplay",
    "RegimeComparison",
    "RegimeComparisonDisplay",
    "SharpnessTrajectory",
    "StepsToLoss",
    "StepsTradeoff",
    "WarmStartCurve",
    "WarmStartDisplay",
    "compare_regimes",
    "critical_batch_size",
    "fit_steps_to_loss",
    "minima_census",
    "sharpness_trajectory",
    "steps_to_loss",
    "warm_start_curve",
]
