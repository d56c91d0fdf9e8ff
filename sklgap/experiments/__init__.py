"""What batch size does to training: regimes and remedies compared, the largest safe batch, and the critical one."""

from sklgap.experiments._batch_size_curve import BatchSizeCurve, batch_size_curve
from sklgap.experiments._compare_regimes import RegimeComparison, compare_regimes
from sklgap.experiments._critical_batch_size import CriticalBatchSize, critical_batch_size
from sklgap.experiments._estimate import Components, Estimate
from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay
from sklgap.experiments._plot._compare_regimes import RegimeComparisonDisplay
from sklgap.experiments._plot._critical_batch_size import CriticalBatchSizeDisplay
from sklgap.experiments._plot._steps_to_loss import StepsToLossDisplay
from sklgap.experiments._protocol import Measurement
from sklgap.experiments._safe_batch_size import NonInferiority, SafeBatchSize, largest_safe_batch_size
from sklgap.experiments._steps_to_loss import StepsToLoss, steps_to_loss
from sklgap.experiments._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
