"""What batch size does to training: regimes and remedies compared, the largest safe batch, and the critical one."""

from sklgap.experiments._batch_size_curve import batch_size_curve
from sklgap.experiments._batch_size_report import BatchSizeCurve
from sklgap.experiments._census import minima_census
from sklgap.experiments._census_result import Contrast, MinimaCensus
from sklgap.experiments._compare import compare_regimes
from sklgap.experiments._critical_batch_size import CriticalBatchSize, critical_batch_size
from sklgap.experiments._gap_report import gap_report
from sklgap.experiments._gap_result import GapReport
from sklgap.experiments._parallel_model import ParallelModel, overhead_efficiency, parallel_model
from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay
from sklgap.experiments._plot._census import MinimaCensusDisplay
from sklgap.experiments._plot._compare import RegimeComparisonDisplay
from sklgap.experiments._plot._parallel_model import ParallelModelDisplay
from sklgap.experiments._plot._warm_start import WarmStartDisplay
from sklgap.experiments._report import RegimeComparison
from sklgap.experiments._safe_batch_size import NonInferiority, SafeBatchSize, largest_safe_batch_size
from sklgap.experiments._sharpness_trajectory import sharpness_trajectory
from sklgap.experiments._sharpness_trajectory_result import SharpnessTrajectory
from sklgap.experiments._statistics import Estimate
from sklgap.experiments._steps_to_loss import StepsToLoss, steps_to_loss
from sklgap.experiments._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
from sklgap.experiments._time_to_accuracy import TimeToAccuracy, time_to_accuracy
from sklgap.experiments._trial_records import Gap
from sklgap.experiments._warm_start import warm_start_curve
from sklgap.experiments._warm_start_result import WarmStartCurve

__all__ = [
    "BatchSizeCurve",
    "BatchSizeCurveDisplay",
    "Contrast",
    "CriticalBatchSize",
    "Estimate",
    "Gap",
    "GapReport",
    "MinimaCensus",
    "MinimaCensusDisplay",
    "NonInferiority",
    "ParallelModel",
    "ParallelModelDisplay",
    "RegimeComparison",
    "RegimeComparisonDisplay",
    "SafeBatchSize",
    "SharpnessTrajectory",
    "StepsToLoss",
    "StepsTradeoff",
    "TimeToAccuracy",
    "WarmStartCurve",
    "WarmStartDisplay",
    "batch_size_curve",
    "compare_regimes",
    "critical_batch_size",
    "fit_steps_to_loss",
    "gap_report",
    "largest_safe_batch_size",
    "minima_census",
    "overhead_efficiency",
    "parallel_model",
    "sharpness_trajectory",
    "steps_to_loss",
    "time_to_accuracy",
    "warm_start_curve",
]
