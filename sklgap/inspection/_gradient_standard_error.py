"""The standard error of mini-batch gradients, which falls only with the square root of the batch size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from tqdm.auto import tqdm

from sklgap._checks import check_arguments, check_integer, check_random_state, shown
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs, NoiseMethod
from sklgap.inspection._gradient_noise import (
    LEAST_BATCHES,
    check_batch_sizes,
    draw,
    gradient_noise_scale,
    noisy_objective,
)
from sklgap.objective._check import Measurable, ObjectiveOptions


@dataclass(frozen=True)
class GradientStandardError:
    """The error of mini-batch gradients relative to the gradient of all samples, by batch size.

    Attributes
    ----------
    batch_sizes : ndarray of shape (n_sizes,)
        Numbers of samples in a mini-batch.
    measured : ndarray of shape (n_sizes,)
        Root mean square of the Euclidean distance ||g_B - g|| over ``n_batches`` mini-batches.
    measured_standard_error : ndarray of shape (n_sizes,)
        The standard error of ``measured``.
    predicted : ndarray of shape (n_sizes,)
        sqrt(tr(Sigma) (1/B - 1/n)), which is 0 for all samples.
    gradient_norm : float
        ||g||, the length to compare the errors with.
    trace, trace_standard_error : float
        tr(Sigma) as measured by `gradient_noise_scale`, and its standard error.
    n_batches : int
        Number of mini-batches for each batch size.
    n_samples : int
        Total number n of samples.
    batch_norm : str
        The batch-norm policy.
    """

    batch_sizes: np.ndarray
    measured: np.ndarray
    measured_standard_error: np.ndarray
    predicted: np.ndarray
    gradient_norm: float
    trace: float
    trace_standard_error: float
    n_batches: int
    n_samples: int
    batch_norm: BatchNormPolicy

    def __str__(self) -> str:
        head = (
            f"gradient norm {self.gradient_norm:.4g} ({self.n_samples:,} samples, {self.n_batches} mini-batches for "
            f"each batch size, batch norm: {self.batch_norm})\n"
            f"{'batch size':>10}  {'error, measured':>21}  {'predicted':>9}"
        )
        columns = (self.batch_sizes, self.measured, self.measured_standard_error, self.predicted)
        rows = [f"{b:>10,}  {m:>10.4g} ± {e:<8.2g}  {p:>9.4g}" for b, m, e, p in zip(*columns, strict=True)]
        return "\n".join([head, *rows])


@using_threads()
def gradient_standard_error(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    batch_sizes: Sequence[int] | None = None,
    n_batches: int = 50,
    method: NoiseMethod = "auto",
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> GradientStandardError:
    r"""Measure the standard error of mini-batch gradients, and predict it from the variance of single samples.

    .. math:: \sqrt{E \|g_B - g\|^2} = \sqrt{\frac{\mathrm{tr}(\Sigma)}{B} \Big(1 - \frac{B}{n}\Big)}

    This holds for B of n samples drawn without replacement, with Sigma as in `gradient_noise_scale`. So a hundred times
    as many samples make a gradient only ten times more accurate.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective`.
    X, y : array-like
        The data set from which mini-batches are drawn. None with an `Objective`, which holds its data.
    batch_sizes : sequence of int, default=None
        Batch sizes to measure. None means the powers of four from 4 to a tenth of the samples.
    n_batches : int, default=50
        Number of mini-batches for each batch size. Each is drawn from all samples, without replacement.
    method : {"auto", "per_sample", "batches"}, default="auto"
        How `gradient_noise_scale` measures tr(Sigma) for the prediction.
    max_samples : int, float or None, default=None
        Number of samples (int), or a fraction of them (float in (0, 1]), that stand for the whole data set. None uses
        all.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the mini-batches.
    verbose : int, default=0
        1 shows progress bars.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    GradientStandardError
        Measured and predicted errors by batch size.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values.

    See Also
    --------
    gradient_noise_scale : The variance relative to the squared gradient.

    Notes
    -----
    With batch statistics the expected gradient and Sigma depend on B. ``measured`` then contains, besides the noise,
    the difference from g, the gradient of the Objective under its policy. The prediction uses tr(Sigma) at the default
    batch size of `gradient_noise_scale`. It is too small for smaller batches and too large for larger ones.

    The cost is the gradients of ``n_batches * sum(batch_sizes)`` samples, one gradient, and one `gradient_noise_scale`.

    References
    ----------
    Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017, Section 1;
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, Section 2.1.

    Examples
    --------
    The model estimates the mean of numbers. The gradient of sample i at w is w - x_i:

    >>> import torch
    >>> from sklgap.inspection import gradient_standard_error
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> X, y = torch.ones(3, 1), torch.tensor([[1.0], [2.0], [3.0]])
    >>> loss = lambda a, b: (a - b).square().mean() / 2
    >>> error = gradient_standard_error((net, loss), X, y, batch_sizes=[1, 3], random_state=0)
    >>> error.predicted.round(4).tolist()
    [0.8165, 0.0]
    """
    check_arguments(gradient_standard_error, locals())
    rng = check_random_state(random_state)
    objective = noisy_objective(estimator, X, y, max_samples=max_samples, random_state=rng, **kwargs)
    n = objective.n_samples
    if batch_sizes is None:
        batch_sizes = [4**k for k in range(1, 32) if 4**k <= max(4, n // 10)]
    listed = isinstance(batch_sizes, list | tuple | range) or getattr(batch_sizes, "ndim", 0) == 1
    if not listed or not len(batch_sizes):
        raise ValueError(f"batch_sizes must be a sequence of integers; got {shown(batch_sizes)}.")
    check_batch_sizes("batch_sizes", batch_sizes, objective)
    check_integer("n_batches", n_batches, least=LEAST_BATCHES)
    noise = gradient_noise_scale(objective, method=method, random_state=rng, verbose=verbose)
    gradient = objective.gradient()[1]
    squares = np.empty((len(batch_sizes), n_batches))
    with tqdm(total=squares.size, unit="batch", disable=not verbose) as bar:
        for i, size in enumerate(batch_sizes):
            for j in range(n_batches):
                squares[i, j] = (objective.batch_gradient(draw(n, int(size), rng))[1] - gradient).norm().item() ** 2
                bar.update()
    sizes = np.array(batch_sizes, dtype=np.int64)
    measured = np.sqrt(squares.mean(axis=1))
    # By the delta method, d sqrt(s) = ds / (2 sqrt(s)).
    half = squares.std(axis=1, ddof=1) / np.sqrt(n_batches) / 2
    return GradientStandardError(
        batch_sizes=sizes,
        measured=measured,
        measured_standard_error=np.divide(half, measured, out=np.zeros_like(half), where=measured > 0),
        predicted=np.sqrt(noise.trace * np.maximum(0.0, 1 / sizes - 1 / n)),
        gradient_norm=float(gradient.norm()),
        trace=noise.trace,
        trace_standard_error=noise.trace_standard_error,
        n_batches=int(n_batches),
        n_samples=n,
        batch_norm=objective.batch_norm,
    )
