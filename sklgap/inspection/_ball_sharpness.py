"""The worst case in a ball: how much the loss can rise within a Euclidean distance, as in Foret et al. (2021)."""

from typing import Unpack

import numpy as np

from sklgap._checks import check_arguments, check_random_state
from sklgap._random import generator_of
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, Inputs
from sklgap.inspection._adaptive import named, radius, scale_of
from sklgap.inspection._ball import check_ball, maximize_in_ball
from sklgap.inspection._flatness_record import EVALUATION, Flatness, check_loss
from sklgap.inspection._normalized_logits import measured_objective
from sklgap.objective._check import Measurable, ObjectiveOptions

MAX_ITER, N_PRODUCTS = 20, 20


@using_threads()
def ball_sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    rho: float | None = None,
    adaptive: bool = False,
    normalize_logits: bool = False,
    max_iter: int = MAX_ITER,
    n_products: int = N_PRODUCTS,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Flatness:
    r"""Measure the worst case in a ball: how much the loss can rise within a Euclidean distance of the weights.

    .. math:: \max_{\|T^{-1} e\|_2 \le \rho} f(x + e) - f(x)

    T is the identity (Foret et al., 2021), or ``T = diag(|x|)`` with the sizes of the weights (Kwon et al., 2021).

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective` in the full space.
    X, y : array-like
        Samples over which f is averaged. None with an `Objective`, which holds its data.
    rho : float, default=None
        Radius of the ball. None means 0.05, the value of Foret et al., or 0.5 with ``adaptive``, the value of Kwon et
        al. for CIFAR-10.
    adaptive : bool, default=False
        Whether steps are relative to the weights. If so, rescaled layers with the same function have the same value,
        and a weight of zero does not move.
    normalize_logits : bool, default=False
        Whether f is the cross entropy of logits that have mean 0 and variance 1 over the classes of each sample
        (Andriushchenko et al., 2023). If so, the scale of the logits does not matter.
    max_iter : int, default=20
        Number of gradients of each of the two climbs.
    n_products : int, default=20
        Number of Hessian-vector products for the starts. 0 starts from the gradient alone.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and of the vector from which the search for the leading eigenvector starts.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    Flatness
        The record. Its ``value`` is the largest rise found, a lower bound of the true rise. Its ``status`` says how far
        apart the climbs end.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values; if the loss is not finite at the measured point; or if
        ``adaptive`` is True and all weights are zero.

    See Also
    --------
    sharpness : The worst case in a box, Metric 2.1 of Keskar et al.
    average_sharpness : The mean over random steps.
    m_sharpness : The worst case for each group of a few samples.
    fisher_sharpness : The worst case in an ellipsoid of the Fisher matrix.

    Notes
    -----
    For a small radius the value is :math:`\rho \|T g\| + \rho^2 \lambda / 2`, where g is the gradient. At a minimum
    :math:`\lambda` is the largest eigenvalue of T H T.

    The search maximises a quadratic model exactly in a Krylov space. Then it climbs f from the best two of five starts:
    the maximiser of the model and the leading eigenvector of the Hessian, each with both signs, and the gradient. It is
    exact for a quadratic f with at most ``n_products`` parameters. The cost is at most ``2 * max_iter + 8`` gradients
    and ``n_products`` Hessian-vector products. The memory is ``n_products`` vectors of n_params numbers.

    References
    ----------
    .. [1] Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021, Section 2.
    .. [2] Kwon et al., ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
       Networks, ICML 2021.
    .. [3] Andriushchenko et al., A Modern Look at the Relationship between Sharpness and Generalization, ICML 2023,
       arXiv:2302.07011.
    .. [4] Journee et al., Generalized Power Method for Sparse Principal Component Analysis, JMLR 11, 2010.

    Examples
    --------
    At its minimum, a quadratic form with the curvatures 2 and 1 rises by 2 rho ** 2 / 2:

    >>> import torch
    >>> from sklgap.inspection import ball_sharpness
    >>> net = torch.nn.Linear(2, 1, bias=False).double()
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> X, y = torch.diag(torch.tensor([2.0, 1.0]).double().sqrt()), torch.zeros(2, 1)
    >>> round(ball_sharpness((net, torch.nn.MSELoss()), X, y, rho=0.5, random_state=0).value, 6)
    0.25
    """
    check_arguments(ball_sharpness, locals())
    rho = radius(rho, adaptive)
    check_ball(rho, max_iter, n_products)
    rng = check_random_state(random_state)
    options = {"max_samples": max_samples, "random_state": rng, **kwargs}
    with measured_objective(estimator, X, y, normalize_logits=normalize_logits, **options) as objective:
        check_loss(objective.value(), normalize_logits)
        found = maximize_in_ball(
            objective,
            rho * scale_of(objective.theta0, adaptive),
            max_iter=max_iter,
            n_products=n_products,
            generator=generator_of(rng),
        )
    return Flatness(
        name=named("ball sharpness", adaptive, normalize_logits),
        value=found.f_max - found.f0,
        standard_error=None,
        f0=found.f0,
        parameters={"rho": float(rho), "adaptive": bool(adaptive), "normalize_logits": bool(normalize_logits)},
        n_gradients=found.n_gradients + EVALUATION,
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        unit="loss",
        is_lower_bound=True,
        status=found.status,
        notes=found.notes,
    )
