"""What batch size does to training: regimes and remedies compared, and the critical batch size."""

from sklgap.model_selection._compare import compare_regimes
from sklgap.model_selection._critical_batch_size import CriticalBatchSize, critical_batch_size
from sklgap.model_selection._plot._compare import RegimeComparisonDisplay
from sklgap.model_selection._report import RegimeComparison
from sklgap.model_selection._steps_to_loss import StepsToLoss, steps_to_loss
from sklgap.model_selection._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
from sklgap.model_selection._trial_records import Gap

__all__ = [
    "CriticalBatchSize",
    "Gap",
    "RegimeComparison",
    "RegimeComparisonDisplay",
    "StepsToLoss",
    "StepsTradeoff",
    "compare_regimes",
    "critical_batch_size",
    "fit_steps_to_loss",
    "steps_to_loss",
]
