"""The loss at many points of parameter space, for paths between solutions and planes through them."""

import contextlib
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from sklgap._checks import shown
from sklgap._typing import Params
from sklgap.objective import Objective, RestrictedObjective, check_objective
from sklgap.objective._batch_norm import constants_of
from sklgap.objective._check import Measurable, first_rows, module_to_measure
from sklgap.objective._parameters import flatten, trainable_parameters
from sklgap.objective._stream import is_stream

Point = TypeVar("Point", bound=Hashable)
# The number of points that a warning lists by name.
_N_LISTED = 5


def evaluate_points(
    objective: Objective,
    theta_at: Callable[[Point], Tensor],
    points: Sequence[Point],
    models: Mapping[Point, Tensor],
    *,
    coordinates: str,
    verbose: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return loss and accuracy at every point, with one pass over the data for each.

    Parameters
    ----------
    objective : Objective
        The objective to evaluate.
    theta_at : callable
        Maps a point to parameters of shape (n_params,).
    points : sequence
        Points to evaluate in this order, except that models come first, so that a loss that is not finite there shows
        at once.
    models : dict
        The points of the models, with their parameters. These are used as they are, because ``theta_at`` may round.
    coordinates : str
        Name of the points in messages.
    verbose : int
        A value above 0 shows a progress bar.

    Returns
    -------
    loss, accuracy : ndarray of shape (n_points,)
        Losses that are not finite stay as they are, with a warning. The accuracy is NaN where the loss is.

    Raises
    ------
    ValueError
        If the loss is not finite at a model.
    """
    values = np.empty((len(points), 2))
    order = sorted(range(len(points)), key=lambda i: points[i] not in models)
    with tqdm(order, disable=not verbose, desc="loss", unit="point") as bar:
        for i in bar:
            is_model = points[i] in models
            values[i] = objective.evaluate(models[points[i]] if is_model else theta_at(points[i]))
            if is_model and not np.isfinite(values[i, 0]):
                raise ValueError(
                    f"The loss must be finite at the models; it is {values[i, 0]} at {coordinates} = "
                    f"{_text(points[i])}."
                )
    loss, accuracy = values.T
    accuracy[np.isnan(loss)] = np.nan  # outputs that are NaN have no largest one
    where = [_text(point) for point, finite in zip(points, np.isfinite(loss), strict=True) if not finite]
    if where:
        warnings.warn(
            f"The loss is not finite at {len(where)} of {len(points)} points: {coordinates} = "
            f"{', '.join(where[:_N_LISTED])}{', ...' if len(where) > _N_LISTED else '.'}",
            RuntimeWarning,
            stacklevel=5,  # skips evaluate_points, its caller, the public function, and `using_threads` around it
        )
    return loss, accuracy


def full_space_objective(estimator: Measurable, X: Any, y: Any, names: str, **kwargs: Any) -> Objective:
    """Return the objective of an estimator, or the given one; raise a TypeError for one restricted to a subspace."""
    with _named(names):
        objective = check_objective(estimator, X, y, **kwargs)
    if isinstance(objective, RestrictedObjective):
        raise TypeError(f"{names} must be in the full space; got an Objective restricted to a subspace.")
    return objective


@contextlib.contextmanager
def _named(names: str) -> Iterator[None]:
    """Make errors about the estimator use the user's name for it."""
    try:
        yield
    except TypeError as error:
        if not str(error).startswith("estimator must be"):
            raise
        raise TypeError(str(error).replace("estimator", names, 1)) from error


def parameters_of(other: Any, objective: Objective, X: Any, y: Any, names: str) -> Tensor:
    """Return the parameters of another solution; raise a ValueError unless it has the architecture of ``objective``."""
    if isinstance(other, Objective | RestrictedObjective):
        point = full_space_objective(other, None, None, names)
        theta, shapes, constants = point.theta0, point.shapes, point.constants()
    else:
        if X is None or (y is None and not is_stream(X)):
            raise TypeError(f"X and y must be given unless {names} are all Objectives.")
        # Only its parameters are needed, so one or two samples are enough.
        few = (X, y) if is_stream(X) else (first_rows(X, 2), y[:2])
        with _named(names):
            module = module_to_measure(other, *few)
            params = trainable_parameters(module, objective.parameters)
        theta, shapes = flatten(params).detach(), [tuple(p.shape) for p in params.values()]
        constants = constants_of(module, params)
    _check_constants(constants, objective, shapes == objective.shapes, names)
    if shapes != objective.shapes:
        raise ValueError(
            f"{names} must have the same architecture; their parameters have different shapes, with "
            f"{objective.n_params} and {theta.numel()} numbers in {len(objective.shapes)} and {len(shapes)} "
            "tensors."
        )
    return theta.to(objective.theta0)


def _check_constants(constants: Params, objective: Objective, same_shapes: bool, names: str) -> None:
    """Raise a ValueError if two solutions differ in what does not vary between them: frozen parameters and buffers."""
    own = objective.constants()
    if not same_shapes:
        if len(own) != len(constants):
            raise ValueError(
                f"{names} must have the same frozen parameters; one has {len(own)} frozen parameters and buffers, and "
                f"the other {len(constants)}. Set requires_grad of each parameter alike."
            )
        return
    if objective.parameters is not None:  # the caller has chosen what varies
        return
    for (name, first), second in zip(own.items(), constants.values(), strict=False):
        if first.shape == second.shape and not torch.equal(first, second.to(first)):
            raise ValueError(
                f"{names} must have the same frozen parameters and buffers, because only the other parameters vary; "
                f"{name!r} differs. Give it the same values, or unfreeze the parameter with requires_grad_(True)."
            )


def check_positions(name: str, values: Sequence[float]) -> np.ndarray:
    """Return positions on a path or an axis as an array; raise a ValueError unless all of them are finite numbers."""
    try:
        given = np.asarray(values)
        positions = np.array(values, dtype=float) if given.dtype.kind in "iuf" else np.empty(0)
    except (TypeError, ValueError):
        positions = np.empty(0)
    # A step beyond the range of float32 is not a number.
    if positions.ndim != 1 or not len(positions) or not (np.abs(positions) < np.finfo(np.float32).max).all():
        raise ValueError(f"{name} must be a sequence of finite numbers; got {shown(values)}.")
    return positions


def _text(point: Any) -> str:
    return f"({', '.join(f'{z:g}' for z in point)})" if isinstance(point, tuple) else f"{point:g}"
