"""Loss and accuracy on a plane in parameter space: through solutions, or in random directions (Li et al., 2018)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Unpack, get_args

import numpy as np
import torch
from torch import Tensor

from sklgap._checks import check_arguments, is_one_of
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, DirectionKind, Inputs
from sklgap.inspection._points import check_positions, evaluate_points, full_space_objective, parameters_of
from sklgap.objective import Objective, Subspace, random_subspace
from sklgap.objective._check import Measurable, ObjectiveOptions

DIRECTIONS: tuple[DirectionKind, ...] = get_args(DirectionKind)

# 21 points in steps of 0.1, around one solution and through several solutions. The grids contain the models.
_AROUND_ONE = tuple(np.arange(-10, 11) / 10)
_THROUGH_SEVERAL = tuple(np.arange(-5, 16) / 10)
# Two directions count as parallel if the sine of their angle is below this: a hundred rounding units of float32.
_PARALLEL = 1e-5


@dataclass(frozen=True)
class LossSurface:
    """Loss and accuracy at the points of a grid on a plane, theta + alpha u + beta v.

    Attributes
    ----------
    alphas, betas : ndarray of shape (n_alphas,), (n_betas,)
        Coordinates of the grid.
    loss, accuracy : ndarray of shape (n_alphas, n_betas)
        Mean loss and accuracy (as a fraction) at (alphas[i], betas[j]).
    batch_norm : str
        The batch-norm policy.
    n_samples : int
        Number of samples over which loss and accuracy are averaged.
    directions : tuple of two str
        The kinds of u and v: ``"towards"`` another solution, or ``"filter"`` or ``"gaussian"`` for a random direction.
    positions : ndarray of shape (n_models, 2)
        (alpha, beta) of the models: (0, 0), then (1, 0) and (0, 1) if the plane goes through other solutions.
    norms : tuple of two float
        Euclidean lengths of u and v in parameter space. They are the lengths of one unit of alpha and of beta.
    cosine : float
        Cosine of the angle between u and v.
    """

    alphas: np.ndarray = field(repr=False)
    betas: np.ndarray = field(repr=False)
    loss: np.ndarray = field(repr=False)
    accuracy: np.ndarray = field(repr=False)
    batch_norm: BatchNormPolicy
    n_samples: int
    directions: tuple[str, str]
    positions: np.ndarray = field(repr=False)
    norms: tuple[float, float]
    cosine: float

    def __str__(self) -> str:
        ranges = [
            f"{name} from {z.min():g} to {z.max():g}" for name, z in (("alpha", self.alphas), ("beta", self.betas))
        ]
        return (
            f"loss from {self.loss.min():.4g} to {self.loss.max():.4g} at {len(self.alphas)} x {len(self.betas)} "
            f"points of a plane, {' and '.join(ranges)} (directions: {', '.join(self.directions)}; "
            f"{self.n_samples:,} samples, batch norm: {self.batch_norm})"
        )


@using_threads()
def loss_on_plane(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    towards: tuple[Measurable] | tuple[Measurable, Measurable] | None = None,
    directions: DirectionKind = "filter",
    alphas: Sequence[float] | None = None,
    betas: Sequence[float] | None = None,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> LossSurface:
    r"""Evaluate loss and accuracy at :math:`\theta + \alpha u + \beta v` on a grid around a solution :math:`\theta`.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair (module, criterion),
        or an `Objective`. It is the model at (0, 0), bit for bit. The data come from it, and so do the buffers under
        ``batch_norm="running"``.
    X, y : array-like
        Samples to evaluate on. None with an `Objective`, which holds its data.
    towards : tuple (second, third) or (second,), default=None
        Other solutions of the same architecture, in any form that ``estimator`` allows. u leads to the second solution,
        at (1, 0), and v to the third, at (0, 1), both bit for bit. With only one other solution, v is random. None
        makes both directions random.
    directions : {"filter", "gaussian"}, default="filter"
        How to scale random directions, whose entries are independent N(0, 1). ``"filter"`` scales each slice along the
        first axis of a parameter (an output row of a dense layer, an output channel of a convolution) to the norm of
        the same slice of the model. Parameters of one dimension (biases, batch norm) do not move, as in Li et al.
        (2018). ``"gaussian"`` scales the whole direction to the norm of the whole parameter vector.
    alphas, betas : sequence of float, default=None
        Coordinates of the grid. None means 21 points in steps of 0.1, on [-1, 1] (the range of Li et al.), or on [-0.5,
        1.5] if ``towards`` is given.
    max_samples : int, float or None, default=None
        Number of samples to evaluate on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the directions. An int draws the same directions for any data, so training and test loss
        can be compared point by point.
    verbose : int, default=0
        1 shows a progress bar.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    LossSurface
        Loss and accuracy on the grid. Losses that are not finite stay as they are, and the accuracy is NaN where the
        loss is.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values; if the solutions have different architectures, or different values
        in frozen parameters or in buffers outside of batch norm, unless ``parameters`` chooses what varies; if the
        directions are parallel or zero; or if the loss is not finite at a model.

    Warns
    -----
    RuntimeWarning
        If the loss is not finite elsewhere on the grid.

    See Also
    --------
    loss_along_line : The loss along a straight line.
    loss_along_arc : The loss along an arc.
    LossSurfaceDisplay : Draws the surface.

    Notes
    -----
    The cost is one pass over the data for each point, and there are 441 points by default. For F1 this takes some 15
    seconds per thousand samples on one core, so ``max_samples`` is useful here. The memory is a few vectors of n_params
    numbers plus the evaluation of one chunk.

    The coordinates of a plane through three solutions are neither orthogonal nor equal in scale. ``norms`` and
    ``cosine`` of the record show how much they differ.

    References
    ----------
    Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, Section 4.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import loss_on_plane
    >>> net, loss = torch.nn.Linear(2, 2), torch.nn.CrossEntropyLoss()
    >>> surface = loss_on_plane((net, loss), torch.eye(2), torch.tensor([0, 1]), alphas=[-1, 0, 1], random_state=0)
    >>> surface.loss.shape
    (3, 21)
    """
    check_arguments(loss_on_plane, locals())
    if not is_one_of(directions, DIRECTIONS):
        raise ValueError(f"directions must be one of {', '.join(map(repr, DIRECTIONS))}; got {directions!r}.")
    if towards is not None and (not isinstance(towards, tuple | list) or not 1 <= len(towards) <= 2):
        raise TypeError(
            "towards must be None or a tuple of one or two other solutions, such as (model,); "
            f"got {type(towards).__name__}."
        )
    default = _AROUND_ONE if towards is None else _THROUGH_SEVERAL
    axes = [
        check_positions(name, default if axis is None else axis)
        for name, axis in (("alphas", alphas), ("betas", betas))
    ]
    seed = _seed(random_state)
    objective = full_space_objective(
        estimator, X, y, "estimator and towards", max_samples=max_samples, random_state=seed, **kwargs
    )
    if objective.n_params < 2:
        raise ValueError("estimator must have at least two parameters to define a plane; it has 1.")
    others = [parameters_of(other, objective, X, y, "estimator and towards") for other in towards or ()]
    return _evaluate(objective, others, directions, seed, axes, verbose)


def _evaluate(
    objective: Objective,
    others: list[Tensor],
    directions: DirectionKind,
    seed: int,
    axes: list[np.ndarray],
    verbose: int,
) -> LossSurface:
    """Evaluate the grid row by row: all betas of the first alpha, then of the next."""
    kinds = (["towards"] * len(others) + [directions, directions])[:2]
    basis = [other - objective.theta0 for other in others]
    basis += _random_directions(objective, 2 - len(others), directions, seed)
    plane = Subspace(objective.theta0, torch.stack(basis))
    norms, cosine = _geometry(plane.basis)
    models = dict(zip([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], [objective.theta0, *others], strict=False))
    alphas, betas = axes
    loss, accuracy = evaluate_points(
        objective,
        lambda point: plane(torch.tensor(point, dtype=objective.dtype, device=objective.device)),
        [(alpha, beta) for alpha in alphas.tolist() for beta in betas.tolist()],
        models,
        coordinates="(alpha, beta)",
        verbose=verbose,
    )
    shape = len(alphas), len(betas)
    return LossSurface(
        alphas,
        betas,
        loss.reshape(shape),
        accuracy.reshape(shape),
        objective.batch_norm,
        objective.n_samples,
        directions=(kinds[0], kinds[1]),
        positions=np.array(list(models)),
        norms=norms,
        cosine=cosine,
    )


def _random_directions(objective: Objective, n_directions: int, kind: DirectionKind, seed: int) -> list[Tensor]:
    """Draw Gaussian directions and scale them to the model."""
    theta = objective.theta0
    if not n_directions:
        return []
    drawn = list(random_subspace(theta, n_directions, random_state=seed).basis)
    if kind == "gaussian":
        return [direction * (theta.norm() / direction.norm()) for direction in drawn]
    return [_like_filters(direction, theta, objective.shapes) for direction in drawn]


def _like_filters(direction: Tensor, theta: Tensor, shapes: list[tuple[int, ...]]) -> Tensor:
    """Scale every filter of ``direction`` to the norm of that of ``theta``; parameters without filters become zero."""
    sizes = [math.prod(shape) for shape in shapes]
    pieces = []
    for shape, d, w in zip(shapes, direction.split(sizes), theta.split(sizes), strict=True):
        if len(shape) < 2:
            pieces.append(torch.zeros_like(d))
        else:
            d, w = d.view(shape).flatten(1), w.view(shape).flatten(1)
            pieces.append((d * (w.norm(dim=1, keepdim=True) / d.norm(dim=1, keepdim=True))).flatten())
    return torch.cat(pieces)


def _geometry(basis: Tensor) -> tuple[tuple[float, float], float]:
    """Return the lengths of two directions and the cosine between them; raise a ValueError unless they span a plane."""
    vectors = basis.cpu().double()
    lengths = [float(length) for length in vectors.norm(dim=1)]
    if min(lengths) == 0:
        raise ValueError(
            f"The directions of the plane must not be zero; their lengths are {lengths[0]:g} and {lengths[1]:g} "
            "(another solution must differ from the model, and 'filter' does not move parameters of one dimension)."
        )
    u, v = vectors / vectors.norm(dim=1, keepdim=True)
    cosine = float(u @ v)
    # This is the sine, computed without the cancellation of 1 - cosine ** 2.
    if (v - cosine * u).norm() <= _PARALLEL:
        raise ValueError(
            "The directions of the plane must not be parallel; estimator and the solutions in towards are on one line."
        )
    return (lengths[0], lengths[1]), cosine


def _seed(random_state: int | np.random.RandomState | None) -> int:
    """Return one integer that seeds samples and directions independently of each other."""
    if random_state is None or isinstance(random_state, np.random.RandomState):
        rng = np.random.RandomState() if random_state is None else random_state
        return int(rng.randint(2**31 - 1))
    return random_state
