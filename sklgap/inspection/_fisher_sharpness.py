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
    r"""Worst case in an ellipsoid of the Fisher matrix: by how much the loss can rise while the outputs change little.

    .. math:: \max_{e^T D e \le \rho^2} f(x + e) - f(x), \qquad D_i = F_{ii} + \lambda \rho^2 / x_i^2

    with F the Fisher matrix of the model, of which the diagonal is used. To second order, :math:`e^T F e / 2` is the
    Kullback-Leibler divergence between the probabilities of the classes before and after the step e.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective` in the full space. Its criterion is ``CrossEntropyLoss``.
    X, y : array-like
        Samples that f and F are means over. None with an `Objective`.
    rho : float, default=0.1
        Size of the ellipsoid; 0.1 is a divergence of some 0.005. It is our choice: what Kim et al. use we could not
        verify in the paper.
    damping : float, default=1.0
        :math:`\lambda`. The part that it adds bounds the relative step: with 1, no weight moves by more than its own
        size, and a weight of zero stays where it is. 0: the plain ellipsoid. A step may then be very long where F is
        small, and a weight stays where it is where F is exactly zero.
    n_draws : int, default=32
        Random gradients from which F is estimated, at least 2; see `fisher_trace`.
    max_iter, n_products : int, default=20
        As for `ball_sharpness`.
    max_samples : int, float or None, default=None
        Measure on so many samples (int), or on this fraction of them (float in (0, 1]); None: on all.
    random_state : int, RandomState or None, default=None
        Draws samples and random vectors.
    **kwargs
        ``batch_norm``, ``chunk_size``, ``dtype`` and ``device`` of `Objective`.

    Returns
    -------
    Flatness
        ``value`` is the largest rise found, a lower bound for the ellipsoid of the estimated F.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, a criterion other than the cross entropy, samples that do not count
        alike (``sample_weight``, class weights), a loss that is not finite at the point measured, or an ellipsoid in
        which no weight can move.

    See Also
    --------
    ball_sharpness : The worst case in a ball.
    fisher_trace : The trace of the Fisher matrix.

    Notes
    -----
    F is the true Fisher matrix, with labels of the model, not the empirical one with the labels of the data. The
    empirical one vanishes with the gradients where the model fits its data, and is not the metric of the model's
    distributions (Kunstner et al., 2019). With the diagonal, the value does not change when weights are scaled and the
    function stays as it is, as with rescaled layers. It changes under other changes of coordinates. Kim et al. add a
    constant to the diagonal instead of :math:`\lambda \rho^2 / x_i^2`; rescaled layers would then change the value.

    Each entry of the diagonal has a relative error of some :math:`\sqrt{2 / m}` from m random gradients, a quarter by
    default. Cost: that of `ball_sharpness`, and ``n_draws`` gradients.

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
    """Return rho / sqrt(D), in the dtype of theta; 0 where D is infinite, or where F and the damping are zero."""
    size = theta.to(diagonal).abs()
    if damping > 0:  # rho / sqrt(F + damping rho^2 / x^2), without a division by x
        radii = rho * size / torch.sqrt(diagonal * size.square() + damping * rho**2)
    else:
        radii = torch.where(diagonal > 0, rho / diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny).sqrt(), 0)
    radii = radii.to(theta)
    if not bool(radii.any()):
        why = "the weights are all zero" if damping > 0 else "the Fisher matrix is zero: a saturated or dead net"
        raise ValueError(f"The ellipsoid of the Fisher matrix must not be a point; {why}.")
    if not bool(torch.isfinite(radii).all()):
        raise ValueError("damping must be above 0 here: the Fisher matrix is so small that steps would be infinite.")
    return radii
