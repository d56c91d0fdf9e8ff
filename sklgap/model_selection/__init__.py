"""What batch size does to training: regimes and remedies compared, and the critical batch size."""

from sklgap.model_selection._batch_size_curve import batch_size_curve
from sklgap.model_selection._batch_size_report import BatchSizeCurve
from sklgap.model_selection._compare import compare_regimes
from sklgap.model_selection._critical_batch_size import CriticalBatchSize, critical_batch_size
from sklgap.model_selection._plot._batch_size_curve import BatchSizeCurveDisplay
from sklgap.model_selection._plot._compare import RegimeComparisonDisplay
from sklgap.model_selection._report import RegimeComparison
from sklgap.model_selection._safe_batch_size import NonInferiority, SafeBatchSize, largest_safe_batch_size
from sklgap.model_selection._steps_to_loss import StepsToLoss, steps_to_loss
from sklgap.model_selection._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
from sklgap.model_selection._trial_records import Gap

__all__ = [
    "BatchSizeCurve",
    "BatchSizeCurveDisplay",
    "CriticalBatchSize",
    "Gap",
    "NonInferiority",
    "RegimeComparison",
    "RegimeComparisonDisplay",
    "SafeBatchSize",
    "StepsToLoss",
    "StepsTradeoff",
    "batch_size_curve",
    "compare_regimes",
    "critical_batch_size",
    "fit_steps_to_loss",
    "largest_safe_batch_size",
    "steps_to_loss",
]
