"""Comparing regimes and remedies over paired trials."""

from sklgap.model_selection._compare import compare_regimes
from sklgap.model_selection._plot._compare import RegimeComparisonDisplay
from sklgap.model_selection._report import Gap, RegimeComparison

__all__ = ["Gap", "RegimeComparison", "RegimeComparisonDisplay", "compare_regimes"]
