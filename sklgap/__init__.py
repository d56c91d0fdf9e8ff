"""How large can my batch be before accuracy drops, why does it drop, and what wins it back?"""

from sklgap._classifier import LBGapClassifier

__version__ = "0.1.0.dev0"
