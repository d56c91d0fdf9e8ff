"""Loss and accuracy along a path between two solutions: Figure 3 of Keskar et al. (2017), on a line or on a curve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import cos, pi, sin
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from sklgap._checks import check_arguments
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs, PathKind
from sklgap.inspection._points import check_positions, evaluate_points, full_space_objective, parameters_of
from sklgap.objective._check import Measurable, ObjectiveOptions

# The released code of the paper uses 25 points on [-1, 2].
ALPHAS = tuple(np.linspace(-1, 2, 25))


@dataclass(frozen=True)
class LossCurve:
    """Loss and accuracy at points of a path.

    Attributes
    ----------
    alphas, loss, accuracy : ndarray of shape (n_points,)
        Positions on the path, and the mean loss and the accuracy (as a fraction) there.
    batch_norm : str
        The batch-norm policy.
    n_samples : int
        Number of samples over which loss and accuracy are averaged.
    path : {"line", "arc"}
        The kind of path.
    """

    alphas: np.ndarray = field(repr=False)
    loss: np.ndarray = field(repr=False)
    accuracy: np.ndarray = field(repr=False)
    batch_norm: BatchNormPolicy
    n_samples: int
    path: PathKind = "line"

    def __str__(self) -> str:
        return (
            f"loss from {self.loss.min():.4g} to {self.loss.max():.4g} at {len(self.alphas)} points of the "
            f"{self.path}, alpha from {self.alphas.min():g} to {self.alphas.max():g} ({self.n_samples:,} samples, "
            f"batch norm: {self.batch_norm})"
        )


@using_threads()
def loss_along_line(
    start: Measurable,
    end: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    alphas: Sequence[float] = ALPHAS,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> LossCurve:
    r"""Evaluate loss and accuracy at :math:`\alpha x_{end} + (1 - \alpha) x_{start}`, on a line between solutions.

    Parameters
    ----------
    start, end : estimator or Objective
        Two fitted estimators of the same architecture (SB and LB in the paper), or Objectives. The data come from
        ``start``, and so do the buffers under ``batch_norm="running"``.
    X, y : array-like
        Samples to evaluate on. None if ``start`` and ``end`` are of type `Objective`.
    alphas : sequence of float, default=25 points on [-1, 2]
        Positions on the line. 0 is ``start`` and 1 is ``end``, bit for bit (but for the buffers of ``end`` under
        ``batch_norm="running"``). The default is that of the paper.
    max_samples : int, float or None, default=None
        Number of samples to evaluate on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples.
    verbose : int, default=0
        1 shows a progress bar.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    LossCurve
        Loss and accuracy along the line. Losses that are not finite stay as they are, and the accuracy is NaN where the
        loss is.

    Raises
    ------
    ValueError
        If the solutions have different architectures, or different values in frozen parameters or in buffers outside of
        batch norm, unless ``parameters`` chooses what varies; if alphas are not finite numbers; or if the loss is not
        finite at ``start`` or ``end``.

    Warns
    -----
    RuntimeWarning
        If the loss is not finite elsewhere on the path.

    See Also
    --------
    loss_along_arc : The loss along a curve.
    loss_on_plane : The loss in two dimensions.
    ParametricPlotDisplay : Draws the curve.

    Notes
    -----
    The cost is one pass over the data for each alpha.

    References
    ----------
    Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017,
    Section 2.2.1, Figure 3.

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
    check_arguments(loss_along_line, locals())
    return _loss_along(
        "line", start, end, X, y, alphas, verbose, max_samples=max_samples, random_state=random_state, **kwargs
    )


@using_threads()
def loss_along_arc(
    start: Measurable,
    end: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    alphas: Sequence[float] = ALPHAS,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> LossCurve:
    r"""Evaluate loss and accuracy at :math:`\sin(\alpha \pi / 2) x_{end} + \cos(\alpha \pi / 2) x_{start}`, on an arc.

    Keskar et al. (2017) look at the loss on this curve as well as on the straight line. Between orthogonal solutions of
    equal norm, the arc preserves that norm, and the line does not.

    Parameters
    ----------
    start, end : estimator or Objective
        Two fitted estimators of the same architecture, or Objectives, as in `loss_along_line`.
    X, y : array-like
        Samples to evaluate on. None if ``start`` and ``end`` are of type `Objective`.
    alphas : sequence of float, default=25 points on [-1, 2]
        Positions on the arc. 0 is ``start`` and 1 is ``end``, bit for bit. -1 is the mirror image of ``end``, and 2 is
        the mirror image of ``start``, with all parameters negated.
    max_samples : int, float or None, default=None
        Number of samples to evaluate on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples.
    verbose : int, default=0
        1 shows a progress bar.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    LossCurve
        Loss and accuracy along the arc, with the same errors and warnings as `loss_along_line`.

    See Also
    --------
    loss_along_line : The loss along the straight line.
    ParametricPlotDisplay : Draws the curve.

    References
    ----------
    Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017,
    Section 2.2.1.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import loss_along_arc
    >>> a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> loss = torch.nn.CrossEntropyLoss()
    >>> curve = loss_along_arc((a, loss), (b, loss), torch.eye(2), torch.tensor([0, 1]), alphas=[0, 0.5, 1])
    >>> curve.loss.shape
    (3,)
    """
    check_arguments(loss_along_arc, locals())
    return _loss_along(
        "arc", start, end, X, y, alphas, verbose, max_samples=max_samples, random_state=random_state, **kwargs
    )


def _line(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    return torch.lerp(start, end, alpha)


def _arc(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    return sin(alpha * pi / 2) * end + cos(alpha * pi / 2) * start


# A path maps alpha to parameters. At 0 and 1 the solutions themselves are used.
_PATHS: dict[PathKind, Callable[[Tensor, Tensor, float], Tensor]] = {"line": _line, "arc": _arc}


def _loss_along(
    path: PathKind, start: Any, end: Any, X: Any, y: Any, alphas: Sequence[float], verbose: int, **kwargs: Any
) -> LossCurve:
    positions = check_positions("alphas", alphas)
    objective = full_space_objective(start, X, y, "start and end", **kwargs)
    theta0, theta1 = objective.theta0, parameters_of(end, objective, X, y, "start and end")
    loss, accuracy = evaluate_points(
        objective,
        partial(_PATHS[path], theta0, theta1),
        positions.tolist(),
        {0.0: theta0, 1.0: theta1},
        coordinates="alpha",
        verbose=verbose,
    )
    return LossCurve(positions, loss, accuracy, objective.batch_norm, objective.n_samples, path)
