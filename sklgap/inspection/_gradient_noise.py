"""The noise of mini-batch gradients relative to their mean: the gradient noise scale of McCandlish et al. (2018)."""

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack, cast, get_args

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from sklgap._checks import check_arguments, check_integer, check_random_state, is_one_of
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs, NoiseMethod
from sklgap.inspection._points import full_space_objective
from sklgap.objective import Objective
from sklgap.objective._check import Measurable, ObjectiveOptions
from sklgap.objective._stream import is_stream, length_of
from sklgap.regimes import default_base_batch_size

METHODS: tuple[NoiseMethod, ...] = get_args(NoiseMethod)
CONFIDENCE = 0.95
# Standard errors come from a jackknife over at most _N_GROUPS groups of gradients. Each group holds one vector of
# n_params numbers.
LEAST_BATCHES = 4  # fewer give no standard error
_N_GROUPS = 10
# Number of samples on which the code tests whether the loss is a mean over independent samples, and the allowed
# differences.
_N_PROBED = 8
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-8}


@dataclass(frozen=True)
class GradientNoise:
    """The gradient noise scale at one point, and its parts.

    Attributes
    ----------
    noise_scale : float
        The ratio trace / squared_gradient_norm, in samples. Infinite if the squared norm is not above 0.
    low, high : float
        The 95 % interval of the noise scale: Fieller's, by Student's t over groups of gradients. ``high`` is infinite
        if the gradient cannot be distinguished from zero. Both equal ``noise_scale`` if it is exact.
    trace, trace_standard_error : float
        tr(Sigma), the summed variance of the gradient of a single sample, and its standard error.
    squared_gradient_norm, squared_gradient_norm_standard_error : float
        Estimate of the squared norm of the mean gradient, and its standard error. The estimate is unbiased, so it may
        be negative if noise prevails.
    gradient_norm : float
        Square root of ``squared_gradient_norm``; 0 if that is negative.
    method : {"per_sample", "batches"}
        How the noise scale was measured.
    batch_size, n_batches : int
        Size and number of the mini-batches. For ``"per_sample"`` they are 1 and the number of samples.
    n_samples : int
        Number of samples measured on.
    batch_norm : str
        The batch-norm policy.
    """

    noise_scale: float
    low: float
    high: float
    trace: float
    trace_standard_error: float
    squared_gradient_norm: float
    squared_gradient_norm_standard_error: float
    gradient_norm: float
    method: NoiseMethod
    batch_size: int
    n_batches: int
    n_samples: int
    batch_norm: BatchNormPolicy

    def __str__(self) -> str:
        exact = self.low == self.high == self.noise_scale
        interval = "exact for these samples" if exact else f"95 % interval [{self.low:,.4g}, {self.high:,.4g}]"
        source = f"gradients of {self.n_samples:,} single samples"
        if self.method == "batches":
            source = f"{self.n_batches:,} mini-batches of {self.batch_size:,} out of {self.n_samples:,} samples"
        return (
            f"gradient noise scale {self.noise_scale:,.4g} samples, {interval} (trace {self.trace:.4g}, gradient norm "
            f"{self.gradient_norm:.4g}; from {source}, batch norm: {self.batch_norm})"
        )


@using_threads()
def gradient_noise_scale(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    method: NoiseMethod = "auto",
    batch_size: int | None = None,
    n_batches: int = 100,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> GradientNoise:
    r"""Measure the gradient noise scale: the batch size at which gradient noise is as large as the gradient.

    .. math:: \mathcal B_{simple} = \frac{\mathrm{tr}(\Sigma)}{\|g\|^2}, \qquad
        \Sigma = \frac{1}{n - 1} \sum_{i=1}^n (g_i - g)(g_i - g)^T

    Here g_i is the gradient of sample i, and g is the mean of these gradients. If samples have weights (class weights,
    ``sample_weight``), g_i is the gradient of the loss of the sample times its weight relative to the mean weight. A
    mini-batch of B samples, drawn without replacement, has :math:`E\|g_B\|^2 = \|g\|^2 + \mathrm{tr}(\Sigma) (1/B -
    1/n)`. The divisor n - 1 makes this formula exact, and also the estimate of the trace from a part of the samples.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective`.
    X, y : array-like
        The data set from which mini-batches are drawn. None with an `Objective`, which holds its data.
    method : {"auto", "per_sample", "batches"}, default="auto"
        ``"per_sample"`` uses gradients of single samples. It needs a loss that is a mean over independent samples, that
        is, no batch norm or ``batch_norm="running"``. ``"batches"`` uses ``n_batches`` mini-batches of ``batch_size``
        samples and their mean, which stands for one batch of ``n_batches * batch_size`` samples. This is the estimator
        of McCandlish et al. for data-parallel training. Batch norm then uses the statistics of each mini-batch, as in
        training. ``"auto"`` uses ``"per_sample"`` if possible.
    batch_size : int, default=None
        Number of samples in a mini-batch. None means 256, the small batch of the paper, or n // 40 (at least 8) for
        fewer than 10,240 samples. Only ``"batches"`` uses it.
    n_batches : int, default=100
        Number of mini-batches. Each is drawn from all samples, without replacement. Only ``"batches"`` uses it.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples. The
        squared norm of the gradient is then corrected for the noise that the samples left out cause in it.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the mini-batches.
    verbose : int, default=0
        1 shows a progress bar.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``. ``batch_norm="population"`` is
        treated as ``"batch"``, because a mini-batch only knows its own samples.

    Returns
    -------
    GradientNoise
        The noise scale with its interval and its parts.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, if ``method="per_sample"`` and samples depend on each other, or if
        a gradient is not finite.

    See Also
    --------
    gradient_standard_error : The error of mini-batch gradients, measured for several batch sizes.
    sklgap.critical_batch_size : The noise scale averaged along a training.

    Notes
    -----
    On all samples ``"per_sample"`` is exact for the data set, so its standard errors are 0. Otherwise the standard
    errors come from the delete-a-group jackknife. For ``"batches"`` they cover the draw of the mini-batches, but not
    the draw of the samples.

    Under batch norm the expected gradient itself depends on B, through the statistics of the batch. ``"batches"`` then
    measures the noise and the expected gradient at its ``batch_size``, without any assumption on how they change with
    B. So use the batch size that you train with.

    The noise scale diverges at a minimum, where g vanishes and Sigma does not. It describes a point of a training, not
    a model. It assumes that the Hessian is a multiple of the identity. McCandlish et al. find this good enough for an
    order of magnitude. It ignores the preconditioning of ADAM.

    ``"per_sample"`` costs one pass of gradients over the samples, and one pass of single-sample gradients, each of
    which writes n_params numbers (F1: 2 ms a sample on one core, twenty times its share of a mini-batch). ``"batches"``
    costs the gradients of ``n_batches * batch_size`` samples. The memory is 10 vectors of n_params numbers in float64,
    plus one graph.

    References
    ----------
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, equation (2.9), Appendix A.1.

    Examples
    --------
    The model estimates the mean of numbers. The gradient of sample i at w is w - x_i:

    >>> import torch
    >>> from sklgap.inspection import gradient_noise_scale
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> X, y = torch.ones(3, 1), torch.tensor([[1.0], [2.0], [3.0]])
    >>> noise = gradient_noise_scale((net, lambda a, b: (a - b).square().mean() / 2), X, y)
    >>> round(noise.trace, 6), round(noise.gradient_norm, 6), round(noise.noise_scale, 6)
    (1.0, 2.0, 0.25)
    """
    check_arguments(gradient_noise_scale, locals())
    if not is_one_of(method, METHODS):
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}; got {method!r}.")
    rng = check_random_state(random_state)
    objective = noisy_objective(estimator, X, y, max_samples=max_samples, random_state=rng, **kwargs)
    n = objective.n_samples
    n_all = n if max_samples is None else length_of(X) if is_stream(X) else len(cast("ArrayLike", y))
    check_integer("n_batches", n_batches, least=LEAST_BATCHES)
    least = 2 if objective.batch_statistics else 1
    size = max(least, min(default_base_batch_size(n), n // 2)) if batch_size is None else batch_size
    check_batch_sizes("batch_size", [size], objective, below=True)
    independent = method != "batches" and _independent_rows(objective, rng)
    if method == "per_sample" and not independent:
        raise ValueError(
            "method='per_sample' needs a loss that is a mean over independent samples (no batch norm, or "
            "batch_norm='running') and a module that accepts single samples; use method='batches'."
        )
    if independent:
        return _from_rows(objective, n_all, rng, verbose)
    return _from_batches(objective, n_all, int(size), int(n_batches), rng, verbose)


def noisy_objective(estimator: Measurable, X: Any, y: Any, **kwargs: Any) -> Objective:
    """Return the Objective of an estimator in the full space, because samples have no gradients in a subspace."""
    objective = full_space_objective(estimator, X, y, "estimator", **kwargs)
    if objective.n_samples < 2:
        raise ValueError("X must have at least 2 samples, because the noise is the difference between samples; got 1.")
    return objective


def check_batch_sizes(name: str, sizes: Any, objective: Objective, *, below: bool = False) -> None:
    """Raise a ValueError for batch sizes that a mini-batch of the objective's samples cannot have."""
    least = 2 if objective.batch_statistics else 1
    most = objective.n_samples - 1 if below else objective.n_samples
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or not least <= int(size) <= most:
            why = " (batch statistics need two samples)" if least == 2 else ""
            raise ValueError(f"{name} must be an integer from {least}{why} to {most}; got {size!r}.")


def draw(n_samples: int, size: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw a mini-batch without replacement."""
    return rng.permutation(n_samples)[:size]


# -- the two ways to gradients --------------------------------------------------------------------------------------


def _independent_rows(objective: Objective, rng: np.random.RandomState) -> bool:
    """Say whether the gradient of some samples is the mean of their single gradients."""
    if objective.batch_statistics:
        return False
    rows = draw(objective.n_samples, _N_PROBED, rng)
    _, together = objective.batch_gradient(rows)
    try:
        alone = torch.stack([objective.batch_gradient([row])[1] for row in rows])
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # the module does not accept single samples, as with .squeeze() in its forward pass
    spread = alone.double().norm(dim=1).mean() if objective.device.type != "mps" else alone.norm(dim=1).mean()
    return bool((alone.mean(dim=0) - together).norm() <= _ROUNDING[objective.dtype] * spread)


def _from_rows(objective: Objective, n_all: int, rng: np.random.RandomState, verbose: int) -> GradientNoise:
    n = objective.n_samples
    # With all samples the numbers do not depend on random_state. With some samples, groups must not follow their order.
    groups = np.array_split(np.arange(n) if n == n_all else rng.permutation(n), _n_groups(n))
    sums, squares = [], []
    for rows in tqdm(groups, unit="block", disable=not verbose):
        sums.append(len(rows) * _wide(objective.batch_gradient(rows)[1]))
        squares.append(float(objective.row_gradient_norms(rows).square().sum()))
    moments = _Moments(torch.stack(sums), np.array(squares), np.array([len(rows) for rows in groups]))
    # The samples are drawn without replacement from n_all samples. If all are drawn, nothing is left to chance.
    left = 1 - n / n_all

    def estimate(square: float, variance: float, count: int) -> tuple[float, float]:
        return variance, square - variance / count * left

    return _record(moments, estimate, left, objective, "per_sample", 1)


def _from_batches(
    objective: Objective, n_all: int, size: int, n_batches: int, rng: np.random.RandomState, verbose: int
) -> GradientNoise:
    n, k = objective.n_samples, _n_groups(n_batches)
    counts = np.bincount(np.arange(n_batches) % k)
    sums = torch.zeros((k, objective.n_params), dtype=_wide(objective.theta0).dtype, device=objective.device)
    squares = np.zeros(k)
    for i in tqdm(range(n_batches), unit="batch", disable=not verbose):
        gradient = _wide(objective.batch_gradient(draw(n, size, rng))[1])
        sums[i % k] += gradient
        squares[i % k] += float(gradient @ gradient)

    def estimate(square: float, variance: float, count: int) -> tuple[float, float]:
        trace = variance / (1 / size - 1 / n)
        return trace, square - variance / count - trace * (1 / n - 1 / n_all)

    return _record(_Moments(sums, squares, counts), estimate, 1.0, objective, "batches", size)


def _n_groups(count: int) -> int:
    return max(1, min(_N_GROUPS, count // 2))


def _wide(vector: Tensor) -> Tensor:
    return vector if vector.device.type == "mps" else vector.double()


# -- statistics -----------------------------------------------------------------------------------------------------


class _Moments:
    """Sums of gradients and of their squared norms by group. The estimates, with or without a group, need no more."""

    def __init__(self, sums: Tensor, squares: np.ndarray, counts: np.ndarray) -> None:
        self.gram = (sums @ sums.T).cpu().double().numpy()
        self.squares, self.counts = squares, counts
        if not np.isfinite(self.gram).all():
            raise ValueError("The gradient must be finite at the measured point; it is not.")

    def without(self, group: int | None = None) -> tuple[float, float, int]:
        """Return the squared norm of the mean, the variance of one gradient around it, and the number of gradients."""
        kept = np.arange(len(self.counts)) != group
        count = int(self.counts[kept].sum())
        square = float(self.gram[np.ix_(kept, kept)].sum()) / count**2
        return square, max(0.0, float(self.squares[kept].sum()) / count - square) * count / (count - 1), count


def _record(
    moments: _Moments,
    estimate: Callable[[float, float, int], tuple[float, float]],
    left: float,
    objective: Objective,
    method: NoiseMethod,
    batch_size: int,
) -> GradientNoise:
    """Return the record of ``estimate(*moments) -> (trace, squared norm)``. ``left`` is the share left to chance."""
    trace, square = estimate(*moments.without())
    k = len(moments.counts)
    covariance = np.full((2, 2), np.inf if left else 0.0)
    if left and k > 1:
        replicates = np.array([estimate(*moments.without(group)) for group in range(k)])
        covariance = left * (k - 1) ** 2 / k * np.cov(replicates, rowvar=False)
    noise_scale = trace / square if square > 0 else (math.inf if trace > 0 else math.nan)
    low, high = (noise_scale, noise_scale) if left == 0 else ratio_interval(trace, square, covariance, k - 1)
    trace_error, square_error = np.sqrt(np.diag(covariance))
    return GradientNoise(
        noise_scale=noise_scale,
        low=low,
        high=high,
        trace=trace,
        trace_standard_error=float(trace_error),
        squared_gradient_norm=square,
        squared_gradient_norm_standard_error=float(square_error),
        gradient_norm=math.sqrt(max(0.0, square)),
        method=method,
        batch_size=batch_size,
        n_batches=int(moments.counts.sum()),
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
    )


def ratio_interval(numerator: float, denominator: float, covariance: np.ndarray, degrees: int) -> tuple[float, float]:
    """Return Fieller's 95 % interval of a ratio whose denominator may be zero, but whose numerator may not.

    The interval holds all ratios r for which denominator - numerator / r is within t standard errors of zero. It holds
    all positive ratios if the numerator may be zero too.
    """
    t = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) if degrees else math.inf
    a = numerator**2 - t**2 * covariance[0, 0]
    b = numerator * denominator - t**2 * covariance[0, 1]
    c = denominator**2 - t**2 * covariance[1, 1]
    if not a > 0:
        return 0.0, math.inf
    root = math.sqrt(max(0.0, b**2 - a * c))
    least, most = (b - root) / a, (b + root) / a  # the limits of the inverse ratio
    return (1 / most if most > 0 else math.inf), (1 / least if least > 0 else math.inf)
