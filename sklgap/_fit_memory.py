"""Which kept fit is the one an estimator is about to make."""

import warnings
from typing import Any

import numpy as np
from scipy.sparse import issparse

from sklgap._memory import Memory, key_of, surroundings
from sklgap.training import TrainingNet
from sklgap.training._checkpoint import Checkpoint

# Parameters that change nothing in the result, or are in the key in another form.
LEFT_OUT = ("memory", "random_state", "device", "verbose", "warm_start")


def fit_checkpoint(
    model: Any, net: TrainingNet, X: Any, y: np.ndarray, sample_weight: np.ndarray | None = None
) -> Checkpoint | None:
    """Return what keeps the fit of ``model`` to X and the class numbers y; None where nothing is to be kept."""
    if model.memory is None:
        return None
    if model.data_parallel:
        raise ValueError("memory must be None beside data_parallel=True: one process may find a fit, another not.")
    memory = Memory(model.memory)
    if model.random_state is None:
        warnings.warn(
            "memory keeps nothing while random_state is None: no other fit could ever be the same.",
            UserWarning,
            stacklevel=5,
        )
        return None
    params = {name: value for name, value in model.get_params(deep=False).items() if name not in LEFT_OUT}
    # A sparse matrix notes in its attributes whether its indices are sorted, once somebody has asked.
    rows = (X.shape, X.data, X.indices, X.indptr) if issparse(X) else X
    # The labels train nothing, but callbacks may measure on labelled data.
    data = (rows, y, net.encoding_.classes, *(() if sample_weight is None else (sample_weight,)))
    return Checkpoint(memory, key_of("fit", type(model), params, data, net.seed, surroundings(str(net.device))))
