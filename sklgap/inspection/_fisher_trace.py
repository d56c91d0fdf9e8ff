"""The trace of the Fisher matrix: the mean squared slope of the log-probabilities that a model gives."""

import math
from typing import Unpack

import numpy as np

from sklgap._checks import check_arguments, check_integer, check_random_state
from sklgap._random import generator_of
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, Inputs
from sklgap.inspection._fisher import check_likelihood, squared_gradients
from sklgap.inspection._flatness_record import EVALUATION, Flatness, check_loss
from sklgap.inspection._points import full_space_objective
from sklgap.objective._check import Measurable, ObjectiveOptions

# The mean square of 32 draws has a relative error of at most about sqrt(2 / 32), a quarter.
N_DRAWS = 32


@using_threads()
def fisher_trace(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    n_draws: int = N_DRAWS,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Flatness:
    r"""Measure the trace of the Fisher matrix of a classifier at a solution, with its standard error.

    .. math:: tr(F) = \frac{1}{n} \sum_{i=1}^n E_{y \sim p(\cdot | x_i)} \|\nabla \log p(y | x_i)\|^2

    The labels come from the model itself, not from the data. The Hessian of the cross entropy is F plus a part that
    vanishes where the model fits its data, so there the two traces agree. The trace of F is never negative.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair (module, criterion),
        or an `Objective` in the full space. Its criterion must be ``CrossEntropyLoss``.
    X, y : array-like
        Samples. The values of y do not matter. None with an `Objective`, which holds its data.
    n_draws : int, default=32
        Number of random gradients, at least 2.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the random vectors.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    Flatness
        The record. Its ``standard_error`` is over the random gradients.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, if the criterion is not the cross entropy, or if samples have
        unequal weights (``sample_weight``, class weights).

    See Also
    --------
    fisher_sharpness : The worst case in an ellipsoid of the Fisher matrix.
    hessian_trace : The trace of the Hessian, for any loss.

    Notes
    -----
    The estimate is n times the mean of :math:`\|G\|^2`. Here G is the gradient of the mean, over the samples, of the
    inner product of the logits with random vectors, whose covariance is that of the slopes of the labels. The estimate
    is unbiased. The cost is ``n_draws`` gradients. The trace changes when layers are rescaled.

    References
    ----------
    .. [1] Kunstner et al., Limitations of the Empirical Fisher Approximation for Natural Gradient Descent, NeurIPS
       2019.

    Examples
    --------
    With two classes of probability 1/2 each, every label has a slope of 1/2 in each of two logits, and the trace is
    1/2:

    >>> import torch
    >>> from sklgap.inspection import fisher_trace
    >>> net = torch.nn.Linear(1, 2, bias=False).double()
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> X, y = torch.ones(1, 1).double(), torch.tensor([0])
    >>> record = fisher_trace((net, torch.nn.CrossEntropyLoss()), X, y, n_draws=200, random_state=0)
    >>> abs(record.value - 0.5) < 3 * record.standard_error
    True
    """
    check_arguments(fisher_trace, locals())
    check_integer("n_draws", n_draws, least=2)
    rng = check_random_state(random_state)
    options = {"max_samples": max_samples, "random_state": rng, **kwargs}
    objective = full_space_objective(estimator, X, y, "estimator", **options)
    check_likelihood(objective)
    f0 = objective.value()
    check_loss(f0)
    generator = generator_of(rng)
    traces = squared_gradients(objective, n_draws, generator)[1].double().numpy()
    note = "The trace is exactly zero. The net is saturated or dead, so its outputs do not change with its weights."
    return Flatness(
        name="Fisher trace",
        value=float(traces.mean()),
        standard_error=float(traces.std(ddof=1) / math.sqrt(n_draws)),
        f0=f0,
        parameters={},
        n_gradients=EVALUATION + n_draws,
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        status=f"mean over {n_draws} random gradients",
        notes=() if traces.any() else (note,),
    )
