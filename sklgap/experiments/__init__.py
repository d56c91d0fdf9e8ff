"""What batch size does to training: regimes and remedies compared, the largest safe batch, and the critical one."""

from sklgap.experiments._batch_size_curve import BatchSizeCurve, batch_size_curve
from sklgap.experiments._compare_regimes import RegimeComparison, compare_regimes
from sklgap.experiments._estimate import Components, Estimate
from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay
from sklgap.experiments._plot._compare_regimes import RegimeComparisonDisplay
from sklgap.experiments._protocol import Measurement
from sklgap.experiments._safe_batch_size import NonInferiority, SafeBatchSize, largest_safe_batch_size
