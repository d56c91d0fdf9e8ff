"""The noise of mini-batch gradients beside their mean: the gradient noise scale of McCandlish et al. (2018)."""

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
# Standard errors are jackknifed over so many groups of gradients: one vector of n_params each is held.
LEAST_BATCHES = 4  # fewer give no standard error
_N_GROUPS = 10
# Rows on which a loss is tried for being a mean over independent rows, and how far float32 and float64 may be off.
_N_PROBED = 8
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-8}


@dataclass(frozen=True)
class GradientNoise:
    """The gradient noise scale at one point, and what it is made of.

    Attributes
    ----------
    noise_scale : float
        trace / squared_gradient_norm, in rows; infinite where the squared norm is not above 0.
    low, high : float
        Its 95 % interval (Fieller's, by Student's t over groups of gradients); ``high`` is infinite where the gradient
        cannot be told from zero. Both equal ``noise_scale`` where it is exact.
    trace, trace_standard_error : float
        tr(Sigma): the summed variance of a single row's gradient, and its standard error.
    squared_gradient_norm, squared_gradient_norm_standard_error : float
        Estimate of the squared norm of the mean gradient; unbiased, so that it may be negative where noise prevails.
    gradient_norm : float
        Its root; 0 where the estimate is negative.
    method : {"per_sample", "batches"}
        How it was measured.
    batch_size, n_batches : int
        Mini-batches used; 1 and the number of rows for ``"per_sample"``.
    n_samples : int
        Rows measured on.
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
        interval = "exact for these rows" if exact else f"95 % interval [{self.low:,.4g}, {self.high:,.4g}]"
        source = "gradients of single rows"
        if self.method == "batches":
            source = f"{self.n_batches:,} mini-batches of {self.batch_size:,}"
        return (
            f"gradient noise scale {self.noise_scale:,.4g} rows, {interval} (trace {self.trace:.4g}, gradient norm "
            f"{self.gradient_norm:.4g}; {source}, {self.n_samples:,} rows, batch norm: {self.batch_norm})"
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
    r"""Gradient noise scale: the batch size at which the noise of a mini-batch gradient is as large as the gradient.

    .. math:: \mathcal B_{simple} = \frac{\mathrm{tr}(\Sigma)}{\|g\|^2}, \qquad
        \Sigma = \frac{1}{n - 1} \sum_{i=1}^n (g_i - g)(g_i - g)^T

    with g_i the gradient of row i and g their mean. Where rows have weights (class weights, ``sample_weight``), g_i is
    the gradient of the row's loss times its weight relative to the mean weight. A mini-batch of B rows, drawn without
    replacement, has
    :math:`E\|g_B\|^2 = \|g\|^2 + \mathrm{tr}(\Sigma) (1/B - 1/n)`. (The divisor n - 1 makes this formula, and the
    estimate of the trace from a part of the rows, exact.)

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective`.
    X, y : array-like
        The data set that mini-batches are drawn from. None with an `Objective`.
    method : {"auto", "per_sample", "batches"}, default="auto"
        ``"per_sample"``: gradients of single rows, where the loss is a mean over independent rows: no batch norm, or
        ``batch_norm="running"``. ``"batches"``: from ``n_batches`` mini-batches of ``batch_size`` rows and their mean,
        which stands for one batch of ``n_batches * batch_size`` rows: the estimator of McCandlish et al. for
        data-parallel training. Batch norm uses the statistics of each mini-batch, as in training. ``"auto"``:
        the first where it is possible.
    batch_size : int, default=None
        Rows of a mini-batch; None: the small batch of the paper, 256, or n // 40 (at least 8) for fewer than 10,240
        rows. Only used by ``"batches"``.
    n_batches : int, default=100
        Mini-batches, each drawn anew without replacement. Only used by ``"batches"``.
    max_samples : int, float or None, default=None
        Measure on so many samples (int), or on this fraction of them (float in (0, 1]); None: on all. The squared norm
        of the gradient is then corrected for the noise that the samples left out cause in it.
    random_state : int, RandomState or None, default=None
        Draws rows and mini-batches.
    verbose : int, default=0
        1: a progress bar.
    **kwargs
        ``batch_norm``, ``chunk_size``, ``dtype`` and ``device`` of `Objective`. ``"population"`` is treated as
        ``"batch"``: a mini-batch knows its own rows only.

    Returns
    -------
    GradientNoise

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, ``"per_sample"`` where rows depend on each other, or a gradient that
        is not finite.

    See Also
    --------
    gradient_standard_error : How far mini-batch gradients are from the gradient, measured, for several batch sizes.
    sklgap.critical_batch_size : The noise scale averaged along a training.

    Notes
    -----
    ``"per_sample"`` on all rows is exact for the data set: its standard errors are 0. Otherwise they come from the
    delete-a-group jackknife. For ``"batches"`` they cover the draw of the mini-batches, not that of the rows.

    Under batch norm the expected gradient itself depends on B, through the statistics of the batch. What ``"batches"``
    then measures is the noise and the expected gradient at its ``batch_size``, with no appeal to how either changes
    with B; use the batch size you train with.

    The noise scale diverges at a minimum, where g vanishes and Sigma does not: it describes a point of a training, not
    a model. It takes the Hessian for a multiple of the identity, which McCandlish et al. find good for an order of
    magnitude, and knows nothing of the preconditioning of ADAM.

    Cost: ``"per_sample"`` one pass of gradients over the rows, and one of single-row gradients, each of which writes
    n_params numbers (F1: 2 ms a row on one core, twenty times its share of a mini-batch); ``"batches"``
    ``n_batches * batch_size`` rows of gradients. Memory: 10 vectors of n_params in float64, beside one graph.

    References
    ----------
    McCandlish et al., An Empirical Model of Large-Batch Training, arXiv:1812.06162, equation (2.9), Appendix A.1.

    Examples
    --------
    The mean of numbers: the gradient of row i at w is w - x_i.

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
            "method='per_sample' needs a loss that is a mean over independent rows (no batch norm, or "
            "batch_norm='running'), and a module that takes single rows; use method='batches'."
        )
    if independent:
        return _from_rows(objective, n_all, rng, verbose)
    return _from_batches(objective, n_all, int(size), int(n_batches), rng, verbose)


def noisy_objective(estimator: Measurable, X: Any, y: Any, **kwargs: Any) -> Objective:
    """Return the Objective of an estimator, in the full space: rows have no gradients in a subspace."""
    objective = full_space_objective(estimator, X, y, "estimator", **kwargs)
    if objective.n_samples < 2:
        raise ValueError("X must have at least 2 rows for the noise between them; got 1.")
    return objective


def check_batch_sizes(name: str, sizes: Any, objective: Objective, *, below: bool = False) -> None:
    """ValueError for sizes that a mini-batch of the objective's rows cannot have."""
    least = 2 if objective.batch_statistics else 1
    most = objective.n_samples - 1 if below else objective.n_samples
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or not least <= int(size) <= most:
            why = " (batch statistics need two)" if least == 2 else ""
            raise ValueError(f"{name} must be an integer from {least}{why} to {most}; got {size!r}.")


def draw(n_samples: int, size: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw a mini-batch without replacement."""
    return rng.permutation(n_samples)[:size]


# -- the two ways to gradients --------------------------------------------------------------------------------------


def _independent_rows(objective: Objective, rng: np.random.RandomState) -> bool:
    """Say whether the gradient of some rows is the mean of their own gradients."""
    if objective.batch_statistics:
        return False
    rows = draw(objective.n_samples, _N_PROBED, rng)
    _, together = objective.batch_gradient(rows)
    try:
        alone = torch.stack([objective.batch_gradient([row])[1] for row in rows])
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # a module that does not take single rows, as with .squeeze() in its forward pass
    spread = alone.double().norm(dim=1).mean() if objective.device.type != "mps" else alone.norm(dim=1).mean()
    return bool((alone.mean(dim=0) - together).norm() <= _ROUNDING[objective.dtype] * spread)


def _from_rows(objective: Objective, n_all: int, rng: np.random.RandomState, verbose: int) -> GradientNoise:
    n = objective.n_samples
    # All rows give the same numbers whatever random_state; of a sample, groups must not follow the order of the rows.
    groups = np.array_split(np.arange(n) if n == n_all else rng.permutation(n), _n_groups(n))
    sums, squares = [], []
    for rows in tqdm(groups, unit="block", disable=not verbose):
        sums.append(len(rows) * _wide(objective.batch_gradient(rows)[1]))
        squares.append(float(objective.row_gradient_norms(rows).square().sum()))
    moments = _Moments(torch.stack(sums), np.array(squares), np.array([len(rows) for rows in groups]))
    # The rows are drawn without replacement from n_all: of all of them there is nothing left to chance.
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
    """Sums of gradients and of their squared norms, by group: all that the estimates need, with and without a group."""

    def __init__(self, sums: Tensor, squares: np.ndarray, counts: np.ndarray) -> None:
        self.gram = (sums @ sums.T).cpu().double().numpy()
        self.squares, self.counts = squares, counts
        if not np.isfinite(self.gram).all():
            raise ValueError("The gradient must be finite at the point measured; it is not.")

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
    """Return the record of ``estimate(*moments) -> (trace, squared norm)``; ``left``: the share left to chance."""
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
    """Return Fieller's 95 % interval of a ratio whose denominator, but not whose numerator, may be zero.

    All ratios r for which denominator - numerator / r is within t standard errors of zero; all that are positive where
    the numerator may be zero too.
    """
    t = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) if degrees else math.inf
    a = numerator**2 - t**2 * covariance[0, 0]
    b = numerator * denominator - t**2 * covariance[0, 1]
    c = denominator**2 - t**2 * covariance[1, 1]
    if not a > 0:
        return 0.0, math.inf
    root = math.sqrt(max(0.0, b**2 - a * c))
    least, most = (b - root) / a, (b + root) / a  # of the inverse
    return (1 / most if most > 0 else math.inf), (1 / least if least > 0 else math.inf)
