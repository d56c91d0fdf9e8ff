"""What every experiment over trials checks before it trains, and writes into its settings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import indexable

from sklgap._checks import check_integer
from sklgap.inspection._sharpness import SOLVERS, check_epsilons
from sklgap.model_selection._trials import Measuring
from sklgap.objective._batch_norm import check_batch_norm


def check_data(X: Any, y: Any, X_test: Any, y_test: Any) -> tuple[Any, Any, Any, Any]:
    """Return the data as something that has rows; ValueError where test data do not fit the training data."""
    X, y = indexable(X, y)
    X_test, y_test = indexable(X_test, y_test)
    unseen = np.setdiff1d(np.asarray(y_test), np.asarray(y))
    if len(unseen):
        raise ValueError(f"y_test must have labels that y has; got {unseen} beside them.")
    if np.shape(X)[1:] != np.shape(X_test)[1:]:
        raise ValueError(f"X_test must have rows like those of X, {np.shape(X)[1:]}; got {np.shape(X_test)[1:]}.")
    return X, y, X_test, y_test


def check_keepable(memory: Any, random_state: Any) -> None:
    """Raise a ValueError for a memory of work that cannot be the same twice."""
    if memory is not None and random_state is None:
        raise ValueError("memory must be None while random_state is None: no other run could be the same.")


def check_measuring(
    n_samples: int,
    epsilons: Sequence[float],
    subspace_dims: Sequence[int | None],
    batch_norm: str,
    max_samples: int | None,
    solver: str,
    rng: np.random.RandomState,
) -> Measuring:
    """Check what is measured, and draw the training rows of the sharpness; ValueError for what is not allowed."""
    check_batch_norm(batch_norm)
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(map(repr, SOLVERS))}; got {solver!r}.")
    epsilons = _check_epsilons(epsilons)
    dims = _check_dims(subspace_dims) if len(epsilons) else ()
    return Measuring(epsilons, dims, batch_norm, solver, _sample_rows(n_samples, max_samples, rng))


def measuring_settings(measuring: Measuring) -> dict[str, Any]:
    """Return what a report says about the measurements."""
    return {
        "epsilons": list(measuring.epsilons),
        "subspace_dims": list(measuring.subspace_dims),
        "batch_norm": measuring.batch_norm,
        "n_samples_sharpness": len(measuring.rows),
        "solver": measuring.solver,
    }


def _check_epsilons(epsilons: Any) -> tuple[float, ...]:
    if np.ndim(epsilons) != 1:
        raise ValueError(f"epsilons must be a sequence of numbers above 0; got {epsilons!r}.")
    return tuple(check_epsilons(epsilons)) if len(epsilons) else ()


def _check_dims(dims: Any) -> tuple[int | None, ...]:
    allowed = isinstance(dims, Sequence) and all(
        dim is None or (isinstance(dim, int | np.integer) and not isinstance(dim, bool) and dim >= 1) for dim in dims
    )
    if not allowed:
        raise ValueError(f"subspace_dims must be a sequence of None and integers of at least 1; got {dims!r}.")
    return tuple(dims)


def _sample_rows(n_samples: int, max_samples: int | None, rng: np.random.RandomState) -> np.ndarray:
    check_integer("max_samples", max_samples, or_none=True)
    if max_samples is None or max_samples >= n_samples:
        return np.arange(n_samples)
    return np.sort(rng.choice(n_samples, int(max_samples), replace=False))
