"""What batch size does to training: regimes and remedies compared, the largest safe batch, and the critical one.

What an experiment measures of every model is a `Measurement`. Four parameters are the same in all experiments.

``random_state`` : int, RandomState or None, default=None
    An int makes an experiment repeatable, whatever ``n_jobs``, at equal thread count.
``n_jobs`` : int, default=None
    Fits at once, as in scikit-learn, in joblib's backend. On one GPU leave it at 1.
``memory`` : str or Path, default=None
    Folder of saved work: a finished fit, and what was measured on it, is loaded instead of repeated; an unfinished fit
    goes on from its last saved epoch; see `LBGapClassifier`. It needs ``random_state``.
``verbose`` : int, default=1
    0 is silent. 1 tells first what the experiment will cost (fits, updates, and the time they will take by some steps
    that are measured), then shows a progress bar.

Ctrl-C and SIGTERM end an experiment early. It returns what had finished, and its notes say how much that is; they raise
KeyboardInterrupt only while nothing has finished. A second Ctrl-C does not wait for processes that still run.

Every result prints its answer first, then a table, what the table says, and notes that a reader must know before
believing it. It has ``records``, ``notes``, ``to_frame()``, ``to_json()``, ``to_latex()``, ``to_markdown()`` and
``plot()``. Every interval is an `Estimate`, which says what it covers.
"""

from sklgap.experiments._batch_size_curve import BatchSizeCurve, batch_size_curve
from sklgap.experiments._compare_regimes import RegimeComparison, compare_regimes
from sklgap.experiments._estimate import Components, Estimate
from sklgap.experiments._minima_census import Contrast, MinimaCensus, minima_census
from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay
from sklgap.experiments._plot._compare_regimes import RegimeComparisonDisplay
from sklgap.experiments._plot._minima_census import MinimaCensusDisplay
from sklgap.experiments._plot._warm_start import WarmStartDisplay
from sklgap.experiments._protocol import Measurement
from sklgap.experiments._safe_batch_size import NonInferiority, SafeBatchSize, largest_safe_batch_size
from sklgap.experiments._sharpness_trajectory import SharpnessTrajectory, sharpness_trajectory
from sklgap.experiments._warm_start import WarmStartCurve, warm_start_curve
