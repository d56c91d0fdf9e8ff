"""What batch size does to training: regimes and remedies compared, and the critical batch size."""

from sklgap.model_selection._compare import compare_regimes
from sklgap.model_selection._critical_batch_size import CriticalBatchSize, critical_batch_size
from sklgap.model_selection._gap_report import gap_report
from sklgap.model_selection._gap_result import GapReport
from sklgap.model_selection._parallel_model import ParallelModel, overhead_efficiency, parallel_model
from sklgap.model_selection._plot._compare import RegimeComparisonDisplay
from sklgap.model_selection._plot._parallel_model import ParallelModelDisplay
from sklgap.model_selection._report import Gap, RegimeComparison
from sklgap.model_selection._steps_to_loss import StepsToLoss, steps_to_loss
from sklgap.model_selection._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
from sklgap.model_selection._time_to_accuracy import TimeToAccuracy, time_to_accuracy

__all__ = [
    "CriticalBatchSize",
    "Gap",
    "GapReport",
    "ParallelModel",
    "ParallelModelDisplay",
    "RegimeComparison",
    "RegimeComparisonDisplay",
    "StepsToLoss",
    "StepsTradeoff",
    "TimeToAccuracy",
    "compare_regimes",
    "critical_batch_size",
    "fit_steps_to_loss",
    "gap_report",
    "overhead_efficiency",
    "parallel_model",
    "steps_to_loss",
    "time_to_accuracy",
]
