"""Loss and accuracy along the straight line between two solutions: Keskar et al. (2017), Figures 3 and 4."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sklgap.objective import Objective, RestrictedObjective, check_objective

# The released code: 25 points on [-1, 2].
ALPHAS = tuple(np.linspace(-1, 2, 25))


@dataclass(frozen=True)
class LossCurve:
    """Loss and accuracy at points of a path.

    Attributes
    ----------
    alphas, loss, accuracy : ndarray of shape (n_points,)
        Position on the path, mean loss there, and accuracy as a fraction.
    batch_norm : str
        The batch-norm policy.
    n_samples : int
        Rows that loss and accuracy are means over.
    """

    alphas: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    batch_norm: str
    n_samples: int


def loss_along_line(
    start: Any,
    end: Any,
    X: Any = None,
    y: Any = None,
    *,
    alphas: Sequence[float] = ALPHAS,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Any,
) -> LossCurve:
    r"""Loss and accuracy at :math:`\alpha x_{end} + (1 - \alpha) x_{start}`.

    Parameters
    ----------
    start, end : estimator or Objective
        Two fitted estimators of the same architecture (SB and LB in the paper), or Objectives. The data, and under
        ``batch_norm="running"`` the buffers, are taken from ``start``.
    X, y : array-like
        Rows to evaluate on. None if ``start`` is an `Objective`.
    alphas : sequence of float, default=25 points on [-1, 2]
        0 is ``start``, 1 is ``end`` (the paper's range and number).
    max_samples : int or float, default=None
        Evaluate on so many rows, or on this fraction of them.
    random_state : int, RandomState or None, default=None
        Draws the rows.
    **kwargs
        ``batch_norm``, ``chunk_size``, ``dtype`` and ``device`` of `Objective`.

    Returns
    -------
    LossCurve
        Non-finite losses far outside are kept as they are.

    Raises
    ------
    ValueError
        For solutions of different architectures, or alphas that are not finite numbers.

    See Also
    --------
    ParametricPlotDisplay : Draws it.

    Notes
    -----
    Costs one pass over the data per alpha.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import loss_along_line
    >>> a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> loss = torch.nn.CrossEntropyLoss()
    >>> curve = loss_along_line((a, loss), (b, loss), torch.eye(2), torch.tensor([0, 1]), alphas=[0, 0.5, 1])
    >>> curve.loss.shape
    (3,)
    """
    points = _check_alphas(alphas)
    objective = check_objective(start, X, y, max_samples=max_samples, random_state=random_state, **kwargs)
    if not isinstance(objective, Objective) or isinstance(end, RestrictedObjective):
        raise TypeError("start and end must be in the full space; got an Objective restricted to a subspace.")
    if not isinstance(end, Objective):
        # Only its parameters are wanted: a row or two are enough.
        end = check_objective(
            end, *_first_rows(X, y), batch_norm="running", dtype=objective.dtype, device=objective.device
        )
    if end.shapes != objective.shapes:
        raise ValueError(
            "start and end must have the same architecture; their parameters have different shapes: "
            f"{objective.n_params} and {end.n_params} numbers in {len(objective.shapes)} and {len(end.shapes)} tensors."
        )
    theta0, theta1 = objective.theta0, end.theta0.to(objective.theta0)
    results = [objective.evaluate(torch.lerp(theta0, theta1, float(alpha))) for alpha in points]
    loss, accuracy = np.array(results).T
    return LossCurve(points, loss, accuracy, objective.batch_norm, objective.n_samples)


def _check_alphas(alphas: Sequence[float]) -> np.ndarray:
    try:
        points = np.asarray(alphas, dtype=float)
    except (TypeError, ValueError):
        points = np.empty(0)
    # Beyond float32 a step is not a number.
    if points.ndim != 1 or not len(points) or not (np.abs(points) < np.finfo(np.float32).max).all():
        raise ValueError(f"alphas must be a sequence of finite numbers; got {alphas!r}.")
    return points


def _first_rows(X: Any, y: Any) -> tuple[Any, Any]:
    if X is None or y is None:
        raise TypeError("X and y must be given unless start and end are both Objectives.")
    return X[:2], y[:2]
