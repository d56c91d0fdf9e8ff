"""Find the saved fit of an estimator, data and environment."""

import warnings
from typing import Any

import numpy as np
from scipy.sparse import issparse

from sklgap.memory import Fingerprint, Memory, fingerprint_of_named, key_of, surroundings
from sklgap.training import TrainingNet
from sklgap.training._checkpoint import Checkpoint

# Parameters that do not change the result, or that are part of the key in another form.
LEFT_OUT = ("memory", "random_state", "device", "verbose", "warm_start", "n_threads", "compile")


def _counts(name: str) -> bool:
    return name not in LEFT_OUT and not name.startswith("compile__")


def fit_checkpoint(
    model: Any,
    net: TrainingNet,
    X: Any,
    y: np.ndarray,
    classes: np.ndarray,
    sample_weight: np.ndarray | None = None,
    fingerprint: Fingerprint | None = None,
) -> Checkpoint | None:
    """Return the checkpoint that saves the fit of ``model`` to X and the class numbers y; None if nothing is saved.

    It is called before the parts of the net are built, so that the user's code has not run yet. The number of threads
    depends on the net, and joins the key later (`Checkpoint.add_to_key`). ``fingerprint`` is that of X, if it was
    computed before.
    """
    if model.memory is None:
        return None
    if model.data_parallel:
        raise ValueError(
            "memory must be None with data_parallel=True, because one process may find a saved fit and another not."
        )
    net_name = model.net if isinstance(model.net, str) else getattr(model.net, "__name__", type(model.net).__name__)
    memory = Memory(model.memory, f"{type(model).__name__} {net_name}, {X.shape[0]} samples, seed {model.random_state}")
    if model.random_state is None:
        warnings.warn(
            "memory saves nothing while random_state is None, because no other fit could be the same.",
            UserWarning,
            stacklevel=5,
        )
        return None
    if getattr(model, "_skl_callbacks", None):
        warnings.warn(
            "memory does not save a fit with scikit-learn's callbacks: they may stop the fit, but they are not among "
            "the parameters that identify a saved fit.",
            UserWarning,
            stacklevel=5,
        )
        return None
    params = {name: value for name, value in model.get_params(deep=False).items() if _counts(name)}
    # A sparse matrix stores in its attributes whether its indices are sorted, once that was asked.
    rows = (X.shape, X.data, X.indices, X.indptr) if issparse(X) else X
    # The labels do not affect the training, but callbacks may measure on labelled data.
    data = (
        rows if fingerprint is None else fingerprint,
        y,
        classes,
        *(() if sample_weight is None else (sample_weight,)),
    )
    key = key_of("fit", type(model), *data, net.seed, surroundings(str(net.device)), **params)
    return None if key is None else Checkpoint(memory, key, lambda: fingerprint_of_named(params))
