"""A small comparison of two batch sizes, and what of it repeats."""

from sklgap import compare_regimes
from tests.tiny import blobs, small

X, Y = blobs(75)
DATA = (X[:50], Y[:50], X[50:], Y[50:])
SIZES = {"regimes": (10, 50), "reference": "10"}
# Sharpness takes most of the time: a test that does not read it measures none.
QUICK = {"epsilon": [], "n_trials": 1}


def compare(estimator=None, data=DATA, **kwargs):
    defaults = {**SIZES, "n_trials": 2, "epsilon": 1e-3, "solver": "power", "random_state": 0, "verbose": 0}
    return compare_regimes(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


def figures(report):
    """The records without the seconds."""
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in report.records]
