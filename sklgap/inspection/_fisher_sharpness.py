"""Fisher sharpness: the worst case in an ellipsoid of the Fisher matrix, as in Kim et al. (2022)."""

from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from sklgap._checks import check_arguments, check_integer, check_nonnegative, check_random_state
from sklgap._random import generator_of
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, Inputs
from sklgap.inspection._ball import check_ball, maximize_in_ball
from sklgap.inspection._ball_sharpness import MAX_ITER, N_PRODUCTS
from sklgap.inspection._fisher import check_likelihood, squared_gradients
from sklgap.inspection._fisher_trace import N_DRAWS
from sklgap.inspection._flatness_record import EVALUATION, Flatness, check_loss
from sklgap.inspection._points import full_space_objective
from sklgap.objective._check import Measurable, ObjectiveOptions

RHO = 0.1


@using_threads()
def fisher_sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    rho: float = RHO,
    damping: float = 1.0,
    n_draws: int = N_DRAWS,
    max_iter: int = MAX_ITER,
    n_products: int = N_PRODUCTS,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Flatness:
    r"""Measure how much the loss can rise in an ellipsoid given by the diagonal of the Fisher matrix.

    .. math:: \max_{e^T D e \le \rho^2} f(x + e) - f(x), \qquad D_i = F_{ii} + \lambda \rho^2 / x_i^2

    F is the Fisher matrix of the model; only its diagonal is used. To second order, :math:`e^T F e / 2` is the
    Kullback-Leibler divergence between the probabilities of the classes before and after the step e. With its diagonal
    in place of F, a step may change the probabilities much more: the weights of a net act together.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair (module, criterion),
        or an `Objective` in the full space. Its criterion must be ``CrossEntropyLoss``.
    X, y : array-like
        Samples over which f and F are averaged. None with an `Objective`, which holds its data.
    rho : float, default=0.1
        Size of the ellipsoid. If F were diagonal, 0.1 would allow a divergence of 0.005. This is our choice, because we
        could not verify in the paper what Kim et al. use.
    damping : float, default=1.0
        The factor :math:`\lambda`, which bounds the relative step. With 1, no weight moves by more than its own size,
        and a weight of zero does not move. 0 gives the plain ellipsoid. A step may then be very long where F is small,
        and a weight does not move where F is exactly zero.
    n_draws : int, default=32
        Number of random gradients from which F is estimated, at least 2; see `fisher_trace`.
    max_iter, n_products : int, default=20
        Numbers of gradients and of Hessian-vector products, as for `ball_sharpness`.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the random vectors.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    Flatness
        The record. Its ``value`` is the largest rise found, which is a lower bound for the ellipsoid of the estimated
        F.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values; if the criterion is not the cross entropy; if samples have unequal
        weights (``sample_weight``, class weights); if the loss is not finite at the measured point; or if no weight can
        move in the ellipsoid.

    See Also
    --------
    ball_sharpness : The worst case in a ball.
    fisher_trace : The trace of the Fisher matrix.

    Notes
    -----
    F is the true Fisher matrix, with labels from the model. The empirical Fisher matrix has the labels of the data. It
    vanishes with the gradients where the model fits its data, and it is not the metric of the model's distributions
    (Kunstner et al., 2019). Because only the diagonal is used, the value does not change when weights are scaled and
    the function stays the same, as with rescaled layers. It changes under other changes of coordinates. Kim et al. add
    a constant to the diagonal instead of :math:`\lambda \rho^2 / x_i^2`; rescaled layers would then change the value.

    With m random gradients, each entry of the diagonal has a relative error of some :math:`\sqrt{2 / m}`, which is a
    quarter by default. The cost is that of `ball_sharpness` plus ``n_draws`` gradients.

    References
    ----------
    .. [1] Kim et al., Fisher SAM: Information Geometry and Sharpness Aware Minimisation, ICML 2022.
    .. [2] Kunstner et al., Limitations of the Empirical Fisher Approximation for Natural Gradient Descent, NeurIPS
       2019.

    Examples
    --------
    Rescaled layers with the same function have the same value:

    >>> import torch
    >>> from sklgap.inspection import fisher_sharpness
    >>> def net(scale):
    ...     one, two = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    ...     one.weight.data = torch.tensor([[1.0, 2.0], [3.0, 1.0]]) * scale
    ...     two.weight.data = torch.tensor([[1.0, 1.0], [0.5, 2.0]]) / scale
    ...     return torch.nn.Sequential(one, torch.nn.ReLU(), two), torch.nn.CrossEntropyLoss()
    >>> X, y = torch.eye(2), torch.tensor([0, 1])
    >>> one, four = (fisher_sharpness(net(scale), X, y, random_state=0).value for scale in (1.0, 4.0))
    >>> abs(one - four) < 1e-4 * one
    True
    """
    check_arguments(fisher_sharpness, locals())
    check_ball(rho, max_iter, n_products)
    check_nonnegative("damping", damping)
    check_integer("n_draws", n_draws, least=2)
    rng = check_random_state(random_state)
    options = {"max_samples": max_samples, "random_state": rng, **kwargs}
    objective = full_space_objective(estimator, X, y, "estimator", **options)
    check_likelihood(objective)
    check_loss(objective.value())
    generator = generator_of(rng)
    diagonal, _ = squared_gradients(objective, n_draws, generator)
    radii = half_axes(diagonal, objective.theta0, rho, damping)
    found = maximize_in_ball(objective, radii, max_iter=max_iter, n_products=n_products, generator=generator)
    n_fixed = int((radii == 0).sum())
    fixed = f"; {n_fixed:,} of {objective.n_params:,} parameters cannot move" if n_fixed else ""
    return Flatness(
        name="Fisher sharpness",
        value=found.f_max - found.f0,
        standard_error=None,
        f0=found.f0,
        parameters={"rho": float(rho), "damping": float(damping), "n_draws": int(n_draws)},
        n_gradients=found.n_gradients + n_draws + EVALUATION,
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        unit="loss",
        is_lower_bound=True,
        status=found.status + fixed,
        notes=found.notes,
    )


def half_axes(diagonal: Tensor, theta: Tensor, rho: float, damping: float) -> Tensor:
    """Return rho / sqrt(D) in the dtype of theta; 0 where D is infinite, or where F and the damping are zero."""
    size = theta.to(diagonal).abs()
    if damping > 0:  # this is rho / sqrt(F + damping rho^2 / x^2), written without a division by x
        radii = rho * size / torch.sqrt(diagonal * size.square() + damping * rho**2)
    else:
        radii = torch.where(diagonal > 0, rho / diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny).sqrt(), 0)
    radii = radii.to(theta)
    if not bool(radii.any()):
        why = "all weights are zero" if damping > 0 else "the Fisher matrix is zero, as in a saturated or dead net"
        raise ValueError(f"The ellipsoid of the Fisher matrix must not be a single point; {why}.")
    if not bool(torch.isfinite(radii).all()):
        raise ValueError(
            "damping must be above 0 here, because the Fisher matrix is so small that steps would be infinite."
        )
    return radii
