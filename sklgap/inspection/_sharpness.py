"""Metric 2.1 of Keskar et al. (2017): the sharpness of a solution."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Unpack, get_args, overload

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklgap._checks import check_arguments, check_integer, check_random_state, is_number, is_one_of, shown
from sklgap._random import generator_of
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs, Solver, SubspaceKind
from sklgap.inspection import _best_of_starts, _maximizers
from sklgap.inspection._maximizers import AnyObjective, Maximum
from sklgap.objective import check_objective, random_subspace
from sklgap.objective._check import Measurable, ObjectiveOptions

SOLVERS: tuple[Solver, ...] = get_args(Solver)

# What max_iter=None stands for.
_PAPER_ITERATIONS = 10
_POWER_STEPS = 30


@dataclass(frozen=True)
class Sharpness:
    """Metric 2.1 at one epsilon, and how it was found.

    Attributes
    ----------
    value : float
        The value 100 (f_max - f0) / (1 + f0), in percent. It is a lower bound of the metric.
    f0, f_max : float
        The mean loss at the measured point, and the largest loss found in the box.
    argmax : ndarray of shape (n_params,) or (subspace_dim,)
        The point where the largest loss was found: the offset y in the full space, or z in a subspace. It lies in the
        box, and the loss there is ``f_max``.
    epsilon : float
        Relative size of the box.
    n_evaluations : int
        Number of evaluations of f, or of f and its gradient, that this epsilon cost. The smallest epsilon also counts
        the evaluation of f0.
    solver, status : str
        The solver, and a sentence on how it ended.
    converged : bool
        Whether the solver met its own criterion before it spent its budget.
    fraction_at_bound : float
        Share of the coordinates of ``argmax`` that lie at the bounds of the box. Coordinates that cannot move are left
        out.
    step_norm : float
        Euclidean length of the step in parameter space. In a subspace this is the length of A z.
    box_ratio : float
        Largest abs(step_i) / b_i over the parameters, where b holds the half-widths of the box of the full space. In
        the full space the ratio is at most 1. In a subspace it can be larger, because A z may leave that box.
    n_samples : int
        Number of samples over which f is averaged.
    batch_norm : str
        The batch-norm policy of f.
    subspace_dim : int or None
        Dimension of the subspace. None stands for the full space.
    name : str
        "sharpness" or "adaptive sharpness".
    spread : float
        The gap between the best two starts of ``"auto"``, as a share of the rise of the best one, before the search
        continued from that one. A value near 0 means that the starts agree. That is no proof: they can agree on a low
        vertex. A large value means that the result depends on the start, so more restarts may find more. NaN if there
        was only one start, and for the other solvers.
    notes : tuple of str
        What to know before you trust the value, in sentences. They are the texts of the warnings.
    """

    value: float
    f0: float
    f_max: float
    argmax: np.ndarray = field(repr=False)
    epsilon: float
    n_evaluations: int
    solver: Solver
    status: str
    converged: bool
    fraction_at_bound: float
    step_norm: float
    box_ratio: float
    n_samples: int
    batch_norm: BatchNormPolicy
    subspace_dim: int | None
    name: str = "sharpness"
    spread: float = float("nan")
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        space = "full space" if self.subspace_dim is None else f"subspace of {self.subspace_dim} dimensions"
        return (
            f"{self.name} {self.value:.4g} % at epsilon {self.epsilon:g}: in the box, the loss rises from "
            f"{self.f0:.4g} to at least {self.f_max:.4g} ({space}, {self.n_samples:,} samples, "
            f"batch norm: {self.batch_norm}; solver {self.solver!r}: {self.status})"
        )


class SearchOptions(ObjectiveOptions, total=False):
    """How to search for a maximum, and on which data."""

    solver: Solver
    max_iter: int | None
    n_restarts: int | None
    max_samples: int | float | None
    random_state: int | np.random.RandomState | None


class SharpnessOptions(SearchOptions, total=False):
    """The keyword arguments of `sharpness` except epsilon."""

    subspace_dim: int | None
    subspace: SubspaceKind


@overload
def sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    epsilon: float = 1e-3,
    **kwargs: Unpack[SharpnessOptions],
) -> Sharpness: ...
@overload
def sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    epsilon: Sequence[float] | np.ndarray,
    **kwargs: Unpack[SharpnessOptions],
) -> list[Sharpness]: ...
@using_threads()
def sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    epsilon: float | Sequence[float] | np.ndarray = 1e-3,
    subspace_dim: int | None = None,
    subspace: SubspaceKind = "gaussian",
    solver: Solver = "auto",
    max_iter: int | None = None,
    n_restarts: int | None = None,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Sharpness | list[Sharpness]:
    r"""Measure the sharpness of a solution: how much the loss can rise in a small box around the weights.

    This is Metric 2.1 of Keskar et al. (2017). For weights x, the mean loss f, and a matrix A in :math:`R^{n \times p}`
    with pseudo-inverse :math:`A^+`, the box and the metric are

    .. math::

        C_\epsilon &= \{z \in R^p : |z_i| \le \epsilon (|(A^+ x)_i| + 1)\} \\
        \phi &= 100 \cdot \frac{\max_{z \in C_\epsilon} f(x + A z) - f(x)}{1 + f(x)}

    In the full space A is the identity. In a random subspace A has random columns.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective`.
    X, y : array-like
        Samples over which f is averaged; the paper uses the training data. None with an `Objective`, which holds its
        data.
    epsilon : float or sequence of float, default=1e-3
        Relative size of the box; the paper uses 1e-3 and 5e-4. Several values share f(x) and its gradient. With
        ``"auto"`` a larger box also tries the ``argmax`` of the smaller box, so its values never decrease with epsilon.
    subspace_dim : int, default=None
        Dimension p of the subspace; the paper uses 100. None measures in the full space.
    subspace : {"gaussian", "orthonormal"}, default="gaussian"
        ``"gaussian"`` draws independent N(0, 1) entries of A. ``"orthonormal"`` takes an orthonormal basis of their
        span. The paper states no scaling, and the scaling moves the metric by orders of magnitude. N(0, 1) comes
        nearest to the figures of the paper.
    solver : {"auto", "lbfgsb", "lbfgsb-scaled", "power"}, default="auto"
        ``"auto"`` climbs over the vertices of the box from several starts and continues from the best one. The starts
        are the vertex that the gradient points to, a vertex found by annealing, and random vertices. Then it flips
        coordinates, or L-BFGS-B continues inside the box if many slopes at the best vertex point there. In at most 20
        dimensions it does both, and flips coordinates one by one and in pairs. ``"lbfgsb"`` is our reading of the
        procedure in the paper: L-BFGS-B from zero with the default tolerances of SciPy. It may stop at its start, and
        then it warns. ``"lbfgsb-scaled"`` does the same with f divided by its largest partial derivative. ``"power"``
        is vertex ascent, ``y <- b sign(grad f(x + y))``.
    max_iter : int, default=None
        For ``"auto"`` and ``"power"``: the total number of gradients for each epsilon. For ``"lbfgsb"`` and
        ``"lbfgsb-scaled"``: the number of iterations. None means 30 for ``"power"`` and 10, the number in the paper,
        for ``"lbfgsb..."``. For ``"auto"`` None means 64, and up to 24 more while the maximum still rises; in at most
        20 dimensions it means 600.
    n_restarts : int, default=None
        Number of random vertices among the starts of ``"auto"``. All starts together use at most three quarters of the
        gradients. None means as many random vertices as fit (3 with the default budget), and 10 in at most 20
        dimensions.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples, of A and of the restarts.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``. The batch-norm policy moves
        the metric by an order of magnitude, and the record states the policy.

    Returns
    -------
    Sharpness or list of Sharpness
        One record, or a list in the given order if ``epsilon`` is a sequence.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, or if the loss is not finite at the measured point.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If a solver stops at its start, so that the value is zero and means nothing; if the gradient is zero at every
        point tried; or if the loss is not finite at a point tried.
    UserWarning
        If the loss is negative, as with ``NLLLoss`` on probabilities.

    See Also
    --------
    sklgap.sharpness_score : The same value as a scorer.

    Notes
    -----
    The search for the maximum is part of the measurement, and it is inexact. Every value is a lower bound of the
    metric, and a better solver reports a larger one. So compare only values of one solver. Compare the training losses
    too, because the metric of a model that has not converged means little. ``spread`` of the record shows how far the
    starts agree.

    The cost is ``max_iter`` gradients over the samples. The memory is some ten vectors of n_params numbers, the graph
    of one chunk, and p * n_params numbers in a subspace.

    The metric changes when layers are rescaled although the function of the network stays the same (Dinh et al., 2017).

    References
    ----------
    .. [1] Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017,
       equations (3) and (4), Tables 3 and 4.
    .. [2] Peterson and Anderson, A mean field theory learning algorithm for neural networks, Complex Systems 1, 1987:
       annealing by positions inside the box.
    .. [3] Journee et al., Generalized power method for sparse principal component analysis, JMLR 11, 2010: ascent over
       vertices.

    Examples
    --------
    A quadratic form in the weights of a linear model, whose maximum over the box is at a vertex:

    >>> import torch
    >>> from sklgap.inspection import sharpness
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> X, y = torch.eye(2), torch.zeros(2, 1)
    >>> record = sharpness((net, torch.nn.MSELoss()), X, y, epsilon=0.1, random_state=0)
    >>> round(record.value, 3)  # 100 * (0.1 ** 2 + 0.1 ** 2) / 2
    1.0
    """
    check_arguments(sharpness, locals())
    search = check_search(epsilon, solver, max_iter, n_restarts, random_state)
    rng = search.rng
    objective = check_objective(estimator, X, y, max_samples=max_samples, random_state=rng, **kwargs)
    if subspace_dim is not None:
        if hasattr(objective, "subspace"):
            raise ValueError("subspace_dim must be None for an Objective that is already restricted to a subspace.")
        objective = objective.restrict(random_subspace(objective.theta0, subspace_dim, subspace, rng))
    elif not is_one_of(subspace, get_args(SubspaceKind)):
        raise ValueError(f"subspace must be 'gaussian' or 'orthonormal'; got {subspace!r}.")

    records = maximize(objective, half_widths(objective, 1.0), search)
    return records if np.ndim(epsilon) else records[0]


def half_widths(objective: AnyObjective, epsilon: float) -> Tensor:
    """Return the half-widths of the box, epsilon (|(A^+ x)_i| + 1), of shape (n_params,)."""
    subspace = getattr(objective, "subspace", None)
    centre = objective.theta0 if subspace is None else subspace.pseudo_inverse(subspace.origin)
    return epsilon * (centre.abs() + 1)


class Search(NamedTuple):
    """The checked arguments of `sharpness`: how to search for a maximum."""

    epsilons: list[float]
    solver: Solver
    max_iter: int | None
    n_restarts: int | None
    rng: np.random.RandomState


def check_search(
    epsilon: float | Sequence[float] | np.ndarray,
    solver: Solver,
    max_iter: int | None,
    n_restarts: int | None,
    random_state: int | np.random.RandomState | None,
) -> Search:
    """Return the checked arguments; raise a ValueError for one outside its allowed values."""
    if not is_one_of(solver, SOLVERS):
        raise ValueError(f"solver must be one of {', '.join(map(repr, SOLVERS))}; got {solver!r}.")
    epsilons = check_epsilons(epsilon)
    check_integer("max_iter", max_iter, or_none=True)
    check_integer("n_restarts", n_restarts, least=0, or_none=True)
    rng = check_random_state(random_state)
    return Search(epsilons, solver, max_iter, n_restarts, rng)


def maximize(objective: AnyObjective, unit: Tensor, search: Search, name: str = "sharpness") -> list[Sharpness]:
    """Return a record for each epsilon. The box has the half-widths ``epsilon * unit``.

    The smallest box is searched first, whatever the given order, because each larger box builds on it.
    """
    f0, gradient = objective.gradient()
    if not np.isfinite(f0):
        raise ValueError(f"The loss must be finite at the measured point; got {f0}.")
    if f0 <= -1:
        raise ValueError(
            f"The loss must be above -1 at the measured point, because the metric divides by 1 + loss; got {f0}."
        )
    if f0 < 0:
        warnings.warn(
            f"The loss is negative at the measured point ({f0:.3g}). The metric divides by 1 + loss, so its value "
            "means little here. Check the criterion: NLLLoss, for example, expects log-probabilities.",
            stacklevel=4,
        )
    solve = _solver(objective, search, f0, gradient)
    records: dict[float, Sharpness] = {}
    smaller = Maximum(f0, torch.zeros_like(unit), 1, "", True)
    for epsilon in sorted(set(search.epsilons)):
        n_before = smaller.n_evaluations if not records else 0
        best = solve(epsilon * unit)
        # The gradient at the centre counts among those tried. If it is not zero, the units are alive.
        flat = best.flat and not bool(gradient.any())
        best = best._replace(n_evaluations=best.n_evaluations + n_before, flat=flat)
        if best.f_max < f0 or (search.solver == "auto" and best.f_max < smaller.f_max):
            where = "the point of the smaller box" if bool(smaller.argmax.any()) else "the centre"
            status = f"the search found no point higher than {where}; {best.status}"
            best = best._replace(f_max=smaller.f_max, argmax=smaller.argmax, status=status)
        records[epsilon] = _record(objective, best, unit, f0, epsilon, search.solver, name)
        if search.solver == "auto":
            smaller = best
    return [records[epsilon] for epsilon in search.epsilons]


def usual_gradients(solver: str, dim: int | None) -> tuple[int, int]:
    """Return the least and the most gradients that a measurement at one epsilon spends with the solver's defaults.

    ``dim`` is the dimension of the subspace, or None for the full space.
    """
    if solver == "auto":
        return _best_of_starts.usual_gradients(dim)
    # Both solvers end where they find no ascent. An iteration of L-BFGS-B takes one or two gradients.
    return 2, 1 + (_POWER_STEPS if solver == "power" else 2 * _PAPER_ITERATIONS)


def _solver(objective: AnyObjective, search: Search, f0: float, gradient: Tensor) -> Callable[[Tensor], Maximum]:
    """Return the solver as a function of the bounds."""
    solver, max_iter = search.solver, search.max_iter
    if solver == "auto":
        generator = generator_of(search.rng)
        return lambda bounds: _best_of_starts.best_of_starts(
            objective, bounds, f0, gradient, max_iter=max_iter, n_restarts=search.n_restarts, generator=generator
        )
    if solver == "power":
        steps = _POWER_STEPS if max_iter is None else max_iter
        return lambda bounds: _maximizers.vertex_ascent(objective, bounds, bounds * gradient.sign(), steps)
    largest = float(gradient.abs().max())
    scale = 1 / largest if solver == "lbfgsb-scaled" and largest > 0 else 1.0
    iterations = _PAPER_ITERATIONS if max_iter is None else max_iter
    return lambda bounds: _maximizers.lbfgsb(objective, bounds, iterations, scale)


def _record(
    objective: AnyObjective, best: Maximum, unit: Tensor, f0: float, epsilon: float, solver: Solver, name: str
) -> Sharpness:
    subspace = getattr(objective, "subspace", None)
    step = best.argmax if subspace is None else subspace.directions(best.argmax)
    box = epsilon * (unit if subspace is None else subspace.origin.abs() + 1)
    doubts = _doubts(best, f0, epsilon)
    for doubt in doubts:
        warnings.warn(doubt, ConvergenceWarning, stacklevel=5)
    return Sharpness(
        value=100 * (best.f_max - f0) / (1 + f0),
        f0=f0,
        f_max=best.f_max,
        argmax=best.argmax.cpu().numpy(),
        epsilon=epsilon,
        n_evaluations=best.n_evaluations,
        solver=solver,
        status=best.status,
        converged=best.converged,
        fraction_at_bound=float((best.argmax.abs() >= epsilon * unit * (1 - 1e-6))[unit > 0].float().mean()),
        step_norm=float(step.norm()),
        box_ratio=float((step.abs()[box > 0] / box[box > 0]).max()),
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        subspace_dim=None if subspace is None else subspace.dim,
        name=name,
        spread=best.spread,
        notes=tuple(doubts),
    )


def _doubts(best: Maximum, f0: float, epsilon: float) -> list[str]:
    """Return the reasons not to trust the value, as sentences."""
    found = []
    if best.status.startswith(_maximizers.STOPPED_AT_START):
        found.append(
            f"The solver stopped at its start at epsilon={epsilon:g}, so this sharpness of 0 is not a measurement. "
            "Use solver='auto'."
        )
    elif best.flat:
        found.append(
            f"The gradient is zero at all {best.n_evaluations} points tried in the box of epsilon={epsilon:g}. This "
            "happens when all units are dead or saturated, so this sharpness of 0 does not describe a minimum."
        )
    elif not best.f_max > f0 and not best.n_not_finite:
        found.append(
            f"No point tried in the box of epsilon={epsilon:g} has a larger loss than the centre, although not all "
            "gradients are zero. So the sharpness is above 0, or the loss rises by less than its rounding error. Use a "
            "larger max_iter, or dtype=torch.float64."
        )
    if best.n_not_finite:
        found.append(
            f"The loss is not finite at {best.n_not_finite} of {best.n_evaluations} points tried in the box of "
            f"epsilon={epsilon:g}, so the largest finite loss says little. Use a smaller epsilon."
        )
    return found


def check_epsilons(epsilon: float | Sequence[float] | np.ndarray) -> list[float]:
    sequence = isinstance(epsilon, list | tuple) or (isinstance(epsilon, np.ndarray) and epsilon.ndim > 0)
    values: list[Any] = list(epsilon) if sequence else [epsilon]  # type: ignore[arg-type] # mypy does not narrow by `sequence`
    values = [value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value for value in values]
    if not values:
        raise ValueError("epsilon must be a number above 0 or a sequence of such numbers; got an empty sequence.")
    if not all(is_number(value) and value > 0 for value in values):
        raise ValueError(f"epsilon must be a number above 0 or a sequence of such numbers; got {shown(epsilon)}.")
    return [float(value) for value in values]
