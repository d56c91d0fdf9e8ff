"""Average-case sharpness: how much a random step raises the loss on average."""

import math
from typing import Unpack

import numpy as np
import torch

from sklgap._checks import check_arguments, check_integer, check_positive, check_random_state
from sklgap._random import generator_of
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, Inputs
from sklgap.inspection._adaptive import named, scale_of
from sklgap.inspection._flatness_record import EVALUATION, Flatness, check_loss
from sklgap.inspection._normalized_logits import measured_objective
from sklgap.objective import Objective
from sklgap.objective._check import Measurable, ObjectiveOptions

# The docstring says where these defaults come from.
SIGMA, ADAPTIVE_SIGMA = 0.01, 0.05
# A rise below this share of the loss is as small as rounding errors in float32.
_ROUNDING = 1e-6


@using_threads()
def average_sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    sigma: float | None = None,
    adaptive: bool = False,
    normalize_logits: bool = False,
    n_pairs: int = 50,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Flatness:
    r"""Measure the average-case sharpness: how much a random step raises the loss on average.

    .. math:: E_{\xi \sim N(0, I)} f(x + \sigma T \xi) - f(x)

    T is the identity, or ``T = diag(|x|)`` with the sizes of the weights. Steps come in pairs :math:`\xi` and
    :math:`-\xi`, so that the slope of f cancels in the mean of a pair.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective` in the full space.
    X, y : array-like
        Samples over which f is averaged. None with an `Objective`, which holds its data.
    sigma : float, default=None
        Standard deviation of a step of one weight. None means 0.01, or 0.05 of the weight with ``adaptive``. 0.05 is
        the smallest scale in the scripts of Andriushchenko et al. (2023) for CIFAR-10. 0.01 is our choice: it is about
        a quarter of a usual weight in a layer of 512 inputs. An absolute step of 0.05 would destroy such a net.
    adaptive : bool, default=False
        Whether steps are relative to the weights. If so, rescaled layers with the same function have the same expected
        value, and a weight of zero does not move.
    normalize_logits : bool, default=False
        Whether f is the cross entropy of logits that have mean 0 and variance 1 over the classes of each sample
        (Andriushchenko et al., 2023). If so, the scale of the logits does not matter.
    n_pairs : int, default=50
        Number of pairs of steps, at least 2.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the steps.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    Flatness
        The record. Its ``standard_error`` is over the pairs of steps.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values; if the loss is not finite at the measured point or after a step;
        or if ``adaptive`` is True and all weights are zero.

    See Also
    --------
    ball_sharpness : The worst case instead of the average.
    hessian_trace : For small steps and a smooth net, the value is sigma ** 2 / 2 times the trace of T H T.

    Notes
    -----
    The length of a step is about :math:`\sigma \|T\|_F` and has no bound. The standard error covers the draw of the
    steps, but not the draw of the samples by ``max_samples``. The cost is ``2 * n_pairs + 1`` evaluations of the loss,
    each a third of a gradient.

    References
    ----------
    .. [1] Neyshabur et al., Exploring Generalization in Deep Learning, NeurIPS 2017: expected sharpness.
    .. [2] Andriushchenko et al., A Modern Look at the Relationship between Sharpness and Generalization, ICML 2023,
       arXiv:2302.07011, Section 3.

    Examples
    --------
    The Hessian of this quadratic form has the trace 3, so the expected value is 0.1 ** 2 / 2 * 3:

    >>> import torch
    >>> from sklgap.inspection import average_sharpness
    >>> net = torch.nn.Linear(2, 1, bias=False).double()
    >>> X, y = torch.diag(torch.tensor([2.0, 1.0]).double().sqrt()), torch.zeros(2, 1)
    >>> record = average_sharpness((net, torch.nn.MSELoss()), X, y, sigma=0.1, n_pairs=200, random_state=0)
    >>> abs(record.value - 0.015) < 3 * record.standard_error
    True
    """
    check_arguments(average_sharpness, locals())
    sigma = (ADAPTIVE_SIGMA if adaptive else SIGMA) if sigma is None else sigma
    check_positive("sigma", sigma)
    check_integer("n_pairs", n_pairs, least=2)
    rng = check_random_state(random_state)
    options = {"max_samples": max_samples, "random_state": rng, **kwargs}
    with measured_objective(estimator, X, y, normalize_logits=normalize_logits, **options) as objective:
        f0 = objective.value()
        check_loss(f0, normalize_logits)
        generator = generator_of(rng)
        rises = _rises(objective, sigma, adaptive, n_pairs, generator) - f0
    if not np.isfinite(rises).all():
        raise ValueError(
            f"sigma must be so small that the loss stays finite; with sigma={sigma:g} the loss is not finite for "
            f"{int((~np.isfinite(rises)).sum())} of {n_pairs} pairs of steps."
        )
    value = float(rises.mean())
    return Flatness(
        name=named("average sharpness", adaptive, normalize_logits),
        value=value,
        standard_error=float(rises.std(ddof=1) / math.sqrt(n_pairs)),
        f0=f0,
        parameters={"sigma": float(sigma), "adaptive": bool(adaptive), "normalize_logits": bool(normalize_logits)},
        n_gradients=(2 * n_pairs + 1) * EVALUATION,
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        unit="loss",
        status=f"mean over {n_pairs} pairs of steps",
        notes=_notes(rises, f0, objective),
    )


def _rises(objective: Objective, sigma: float, adaptive: bool, n_pairs: int, generator: torch.Generator) -> np.ndarray:
    """Return the mean loss of each pair of steps, of shape (n_pairs,)."""
    theta, scale = objective.theta0, sigma * scale_of(objective.theta0, adaptive)
    means = np.empty(n_pairs)
    for i in range(n_pairs):
        step = scale * torch.randn(len(theta), generator=generator).to(theta)
        means[i] = (objective.value(theta + step) + objective.value(theta - step)) / 2
    return means


def _notes(rises: np.ndarray, f0: float, objective: Objective) -> tuple[str, ...]:
    if not rises.any():
        return ("The loss is the same after every step, as in a dead or saturated net, so a value of 0 says little.",)
    if objective.dtype == torch.float32 and abs(rises.mean()) <= _ROUNDING * abs(f0):
        return ("The value is as small as rounding errors in float32. Measure with dtype=torch.float64.",)
    return ()
