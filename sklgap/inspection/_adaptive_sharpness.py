"""Adaptive sharpness: the rise of the loss in a box that scales with the weights, as in Kwon et al. (2021)."""

from collections.abc import Sequence
from typing import Unpack, overload

import numpy as np

from sklgap._checks import check_arguments
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, Inputs, Solver
from sklgap.inspection._sharpness import SearchOptions, Sharpness, check_search, maximize
from sklgap.objective import check_objective
from sklgap.objective._check import Measurable, ObjectiveOptions


@overload
def adaptive_sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    epsilon: float = 1e-3,
    **kwargs: Unpack[SearchOptions],
) -> Sharpness: ...
@overload
def adaptive_sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    epsilon: Sequence[float] | np.ndarray,
    **kwargs: Unpack[SearchOptions],
) -> list[Sharpness]: ...
@using_threads()
def adaptive_sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    epsilon: float | Sequence[float] | np.ndarray = 1e-3,
    solver: Solver = "auto",
    max_iter: int | None = None,
    n_restarts: int | None = None,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Sharpness | list[Sharpness]:
    r"""Measure a sharpness that does not change when layers are rescaled and the function stays the same.

    The value is the rise of the mean loss f in a box whose sides are proportional to the weights,

    .. math:: 100 \cdot \frac{\max_{|y_i| \le \epsilon |x_i|} f(x + y) - f(x)}{1 + f(x)},

    This is Metric 2.1 of [1]_ without the constant 1 in its box. Multiplying the weights of a layer by a factor, and
    dividing those of the next layer by the same factor, rescales the box in the same way. With exact maximisation the
    value is invariant, and the solvers here are equivariant too.

    Parameters
    ----------
    estimator : estimator or Objective
        As in `sharpness`, but not an `Objective` that is restricted to a subspace, because its coordinates are not
        weights.
    X, y : array-like
        Samples over which f is averaged. None with an `Objective`, which holds its data.
    epsilon : float or sequence of float, default=1e-3
        Largest relative change of a weight. The box is smaller than that of `sharpness`. Weights that are zero, such as
        biases at their start, do not move.
    solver : {"auto", "lbfgsb", "lbfgsb-scaled", "power"}, default="auto"
        As in `sharpness`. ``"lbfgsb"`` and ``"lbfgsb-scaled"`` are not equivariant, so they give another value for
        rescaled layers.
    max_iter : int, default=None
        Number of gradients or iterations, as in `sharpness`.
    n_restarts : int, default=None
        Number of random starts of ``"auto"``, as in `sharpness`.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and of the restarts.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    Sharpness or list of Sharpness
        One record, or a list in the given order if ``epsilon`` is a sequence.

    Raises
    ------
    ValueError
        As for `sharpness`, and if all weights of the model are zero.

    See Also
    --------
    sharpness : Metric 2.1, which changes when layers are rescaled.
    rescale_layers : A copy of a model with other weights and the same function.

    Notes
    -----
    Cost and memory are those of `sharpness` in the full space. This is the element-wise, maximum-norm form of [2]_
    (:math:`T_w = \mathrm{diag}(|w|)`, :math:`p = \infty`), in the units of [1]_.

    References
    ----------
    .. [1] Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017,
       equations (3) and (4).
    .. [2] Kwon et al., ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
       Networks, ICML 2021, Definition 2 and equation (3).
    .. [3] Dinh et al., Sharp Minima Can Generalize For Deep Nets, ICML 2017, Section 4.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import adaptive_sharpness, sharpness
    >>> def net(scale):
    ...     one, two = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False)
    ...     _ = torch.nn.init.constant_(one.weight, scale), torch.nn.init.constant_(two.weight, 1 / scale)
    ...     return torch.nn.Sequential(one, torch.nn.ReLU(), two), torch.nn.MSELoss()
    >>> X, y = torch.eye(2), torch.zeros(2, 1)
    >>> [round(sharpness(net(scale), X, y).value, 2) for scale in (1.0, 4.0)]
    [0.64, 1.0]
    >>> [round(adaptive_sharpness(net(scale), X, y).value, 2) for scale in (1.0, 4.0)]
    [0.32, 0.32]
    """
    check_arguments(adaptive_sharpness, locals())
    search = check_search(epsilon, solver, max_iter, n_restarts, random_state)
    objective = check_objective(estimator, X, y, max_samples=max_samples, random_state=search.rng, **kwargs)
    if hasattr(objective, "subspace"):
        raise ValueError(
            "estimator must not be an Objective that is restricted to a subspace, because the coordinates of a "
            "subspace are not weights."
        )
    unit = objective.theta0.abs()
    if not bool(unit.any()):
        raise ValueError(
            "The weights must not all be zero, because the box of the adaptive sharpness would be a single point."
        )
    records = maximize(objective, unit, search, name="adaptive sharpness")
    return records if np.ndim(epsilon) else records[0]
