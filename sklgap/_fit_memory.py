"""Which kept fit is the one an estimator is about to make."""

import warnings
from typing import Any

import numpy as np

from sklgap.memory import Memory, key_of, surroundings
from sklgap.training import TrainingNet
from sklgap.training._checkpoint import Checkpoint

# Parameters that change nothing in the result, or are in the key in another form.
LEFT_OUT = ("memory", "random_state", "device", "verbose", "warm_start")


def fit_checkpoint(model: Any, net: TrainingNet, X: np.ndarray, y: np.ndarray) -> Checkpoint | None:
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
    # The labels train nothing, but callbacks may measure on labelled data.
    data = (X, y, net.encoding_.classes)
    return Checkpoint(memory, key_of("fit", type(model), params, data, net.seed, surroundings(str(net.device))))
