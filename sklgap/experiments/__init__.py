"""Experiments on the batch size: comparisons of regimes and remedies, the safe and the critical batch size.

A `Measurement` says what an experiment measures on every model. Four parameters are the same in all experiments.

``random_state`` : int, RandomState or None, default=None
    An int makes an experiment repeatable for every ``n_jobs``, if the number of threads is the same.
``n_jobs`` : int, default=None
    Number of fits that run at the same time, as in scikit-learn, with joblib's backend. With a single GPU leave it at
    1.
``memory`` : str or Path, default=None
    Folder in which work is saved. A finished fit and its measurements are loaded instead of repeated. An unfinished fit
    continues from its last saved epoch; see `LBGapClassifier`. It needs an integer ``random_state``.
``verbose`` : int, default=1
    0 is silent. 1 first prints the expected cost of the experiment (fits, updates, and their time, estimated from some
    measured steps), and then shows a progress bar.

Ctrl-C and SIGTERM end an experiment early. The experiment then returns the results that finished, and its notes say how
many did. It raises KeyboardInterrupt if nothing finished. A second Ctrl-C does not wait for processes that still run.

Every result prints its answer first, then a table, the meaning of its columns, and notes that a reader must know before
believing the figures. It has ``records``, ``notes``, ``to_frame()``, ``to_json()``, ``to_latex()``, ``to_markdown()``
and ``plot()``. Every interval is an `Estimate`, which says what the interval covers.
"""

from sklgap.experiments._batch_size_curve import BatchSizeCurve, batch_size_curve
from sklgap.experiments._batch_size_limits import BatchSizeLimits, batch_size_limits
from sklgap.experiments._branched_critical_batch_size import (
    BranchedCriticalBatchSize,
    branched_critical_batch_size,
)
from sklgap.experiments._compare_regimes import RegimeComparison, compare_regimes
from sklgap.experiments._critical_batch_size import CriticalBatchSize, critical_batch_size
from sklgap.experiments._estimate import Components, Estimate
from sklgap.experiments._explain_gap import GapExplanation, explain_gap
from sklgap.experiments._gap_report import GapReport, gap_report
from sklgap.experiments._minima_census import Contrast, MinimaCensus, minima_census
from sklgap.experiments._parallel_model import ParallelModel, overhead_efficiency, parallel_model
from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay
from sklgap.experiments._plot._branched_critical_batch_size import BranchedCriticalBatchSizeDisplay
from sklgap.experiments._plot._compare_regimes import RegimeComparisonDisplay
from sklgap.experiments._plot._critical_batch_size import CriticalBatchSizeDisplay
from sklgap.experiments._plot._explain_gap import GapExplanationDisplay
from sklgap.experiments._plot._gap_report import GapReportDisplay
from sklgap.experiments._plot._minima_census import MinimaCensusDisplay
from sklgap.experiments._plot._parallel_model import ParallelModelDisplay
from sklgap.experiments._plot._rank_measures import MeasureRankingDisplay
from sklgap.experiments._plot._steps_to_loss import StepsToLossDisplay
from sklgap.experiments._plot._time_to_accuracy import TimeToAccuracyDisplay
from sklgap.experiments._plot._warm_start import WarmStartDisplay
from sklgap.experiments._protocol import Measurement
from sklgap.experiments._rank_measures import MeasureRanking, RankedMeasure, rank_measures
from sklgap.experiments._safe_batch_size import NonInferiority, SafeBatchSize, largest_safe_batch_size
from sklgap.experiments._sharpness_trajectory import SharpnessTrajectory, sharpness_trajectory
from sklgap.experiments._stability_trajectory import StabilityTrajectory, stability_trajectory
from sklgap.experiments._steps_to_loss import StepsToLoss, steps_to_loss
from sklgap.experiments._steps_tradeoff import StepsTradeoff, fit_steps_to_loss
from sklgap.experiments._time_to_accuracy import TimeToAccuracy, time_to_accuracy
from sklgap.experiments._warm_start import WarmStartCurve, warm_start_curve

__all__ = [
    "BatchSizeCurve",
    "BatchSizeCurveDisplay",
    "BatchSizeLimits",
    "BranchedCriticalBatchSize",
    "BranchedCriticalBatchSizeDisplay",
    "Components",
    "Contrast",
    "CriticalBatchSize",
    "CriticalBatchSizeDisplay",
    "Estimate",
    "GapExplanation",
    "GapExplanationDisplay",
    "GapReport",
    "GapReportDisplay",
    "MeasureRanking",
    "MeasureRankingDisplay",
    "Measurement",
    "MinimaCensus",
    "MinimaCensusDisplay",
    "NonInferiority",
    "ParallelModel",
    "ParallelModelDisplay",
    "RankedMeasure",
    "RegimeComparison",
    "RegimeComparisonDisplay",
    "SafeBatchSize",
    "SharpnessTrajectory",
    "StabilityTrajectory",
    "StepsToLoss",
    "StepsToLossDisplay",
    "StepsTradeoff",
    "TimeToAccuracy",
    "TimeToAccuracyDisplay",
    "WarmStartCurve",
    "WarmStartDisplay",
    "batch_size_curve",
    "batch_size_limits",
    "branched_critical_batch_size",
    "compare_regimes",
    "critical_batch_size",
    "explain_gap",
    "fit_steps_to_loss",
    "gap_report",
    "largest_safe_batch_size",
    "minima_census",
    "overhead_efficiency",
    "parallel_model",
    "rank_measures",
    "sharpness_trajectory",
    "stability_trajectory",
    "steps_to_loss",
    "time_to_accuracy",
    "warm_start_curve",
]
