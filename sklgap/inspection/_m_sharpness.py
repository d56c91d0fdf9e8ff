"""m-sharpness: the worst case for each group of m samples, then the mean, as in Foret et al. (2021)."""

import math
from functools import partial
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from sklgap._checks import check_arguments, check_integer, check_positive, check_random_state
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, Inputs
from sklgap.inspection._adaptive import named, radius, scale_of
from sklgap.inspection._ball import Points, climb
from sklgap.inspection._flatness_record import Flatness, check_loss
from sklgap.inspection._krylov import unit
from sklgap.inspection._normalized_logits import measured_objective
from sklgap.objective import Objective
from sklgap.objective._check import Measurable, ObjectiveOptions

# The group size of Andriushchenko et al. (2023); see the docstring.
M = 128


@using_threads()
def m_sharpness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    m: int = M,
    rho: float | None = None,
    adaptive: bool = False,
    normalize_logits: bool = False,
    n_steps: int = 1,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    **kwargs: Unpack[ObjectiveOptions],
) -> Flatness:
    r"""Measure m-sharpness: the worst case in a ball for each group of m samples, averaged over the groups.

    .. math:: \frac{1}{|\mathcal M|} \sum_{M \in \mathcal M} \max_{\|T^{-1} e\|_2 \le \rho} f_M(x + e) - f_M(x)

    Here :math:`f_M` is the mean loss of a group. The groups are a random partition of the samples. T is the identity,
    or ``T = diag(|x|)`` with the sizes of the weights.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair (module, criterion),
        or an `Objective` in the full space. A DataLoader needs a Dataset that gives single samples.
    X, y : array-like
        Samples to cut into groups. None with an `Objective`, which holds its data.
    m : int, default=128
        Largest number of samples in a group, at least 1. Groups differ by at most one sample. If m is at least the
        number of samples, there is one group. 128 is the group size in the scripts of Andriushchenko et al. (2023).
        Foret et al. perturb the share of a batch on each accelerator; we could not verify the size of this share.
    rho : float, default=None
        Radius of the ball. None means 0.05, the value of Foret et al., or 0.5 with ``adaptive``, the value of Kwon et
        al. for CIFAR-10.
    adaptive, normalize_logits : bool, default=False
        Relative steps and normalised logits, as for `ball_sharpness`.
    n_steps : int, default=1
        Number of gradients of the search in each group. 1 takes the step of SAM, along the gradient to the edge of the
        ball. This step counts even if it lowers the loss. A larger number climbs further from there, and the highest
        point counts.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the groups.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    Flatness
        The record. Its ``standard_error`` is over the groups, and None for a single group. Its ``f0`` is the mean of
        the losses of the groups.

    Raises
    ------
    ValueError
        If a parameter is outside its allowed values, if the loss is not finite, or if ``adaptive`` is True and all
        weights are zero.

    See Also
    --------
    ball_sharpness : One group with all samples, and a better maximiser.

    Notes
    -----
    Each maximum found is a lower bound, and so is their mean. With one step the value may be negative, because the step
    may overshoot.

    Batch norm uses the statistics of each group, as in training with batches of m samples, or its buffers under
    ``"running"``. Under ``"population"`` it also uses the statistics of each group, and a note says so. The cost is
    ``n_steps + 1`` gradients.

    References
    ----------
    .. [1] Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021, Section 4.1.
    .. [2] Andriushchenko and Flammarion, Towards Understanding Sharpness-Aware Minimization, ICML 2022.
    .. [3] Andriushchenko et al., A Modern Look at the Relationship between Sharpness and Generalization, ICML 2023,
       arXiv:2302.07011.

    Examples
    --------
    Two samples have opposite slopes. Together they are at a minimum, but alone the loss of each rises:

    >>> import torch
    >>> from sklgap.inspection import m_sharpness
    >>> net = torch.nn.Linear(1, 1, bias=False).double()
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> X, y = torch.ones(2, 1).double(), torch.tensor([[1.0], [-1.0]])
    >>> pair = (net, torch.nn.MSELoss())
    >>> [round(m_sharpness(pair, X, y, m=m, rho=0.1, random_state=0).value, 6) for m in (1, 2)]
    [0.21, 0.0]
    """
    check_arguments(m_sharpness, locals())
    check_integer("m", m)
    rho = radius(rho, adaptive)
    check_positive("rho", rho)
    check_integer("n_steps", n_steps)
    rng = check_random_state(random_state)
    options = {"max_samples": max_samples, "random_state": rng, **kwargs}
    with measured_objective(estimator, X, y, normalize_logits=normalize_logits, **options) as objective:
        groups = _groups(objective, m, rng)
        radii = rho * scale_of(objective.theta0, adaptive)
        found = np.array([_worst_case(objective, group, radii, n_steps) for group in groups])
    sizes = np.array([len(group) for group in groups])
    f0, flat = float(np.average(found[:, 0], weights=sizes)), int((found[:, 2] == 0).sum())
    check_loss(f0, normalize_logits)
    n_broken = int(np.isnan(found[:, 2]).sum())
    if n_broken:
        raise ValueError(
            f"The gradient must be finite at the measured point; it is not for {n_broken} of {len(groups)} groups."
        )
    rises = found[:, 1] - found[:, 0]
    if not np.isfinite(rises).all():
        raise ValueError(
            f"rho must be so small that the loss stays finite; with rho={rho:g} the loss is not finite for "
            f"{int((~np.isfinite(rises)).sum())} of {len(groups)} groups."
        )
    notes = []
    if flat:
        notes.append(f"The gradient is exactly zero in {flat} of {len(groups)} groups, which count as 0.")
    if objective.batch_statistics and objective.batch_norm == "population":
        notes.append("Batch norm used the statistics of each group, not those of the population.")
    return Flatness(
        name=named("m-sharpness", adaptive, normalize_logits),
        value=float(np.average(rises, weights=sizes)),
        standard_error=float(rises.std(ddof=1) / math.sqrt(len(rises))) if len(rises) > 1 else None,
        f0=f0,
        parameters={
            "m": int(sizes.max()),
            "rho": float(rho),
            "adaptive": bool(adaptive),
            "normalize_logits": bool(normalize_logits),
            "n_steps": int(n_steps),
        },
        n_gradients=float(np.average(found[:, 3], weights=sizes)),
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        unit="loss",
        is_lower_bound=True,
        status=f"a lower bound, the mean over {_counted(len(groups), 'group')}, {_counted(n_steps, 'step')} each",
        notes=tuple(notes),
    )


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n > 1)}"


def _groups(objective: Objective, m: int, rng: np.random.RandomState) -> list[np.ndarray]:
    """Return a random partition of the samples."""
    n = objective.n_samples
    if m < 2 and objective.batch_statistics:
        raise ValueError(f"m must be at least 2 with batch_norm={objective.batch_norm!r}; got {m}.")
    n_groups = -(-n // m)
    if objective.batch_statistics and n // n_groups < 2:
        n_groups = max(1, n // m)
    return np.array_split(rng.permutation(n), n_groups)


def _worst_case(objective: Objective, rows: np.ndarray, radii: Tensor, n_steps: int) -> tuple[float, float, float, int]:
    """Return the loss, the largest loss found, the largest slope and the number of gradients of one group."""
    points = Points(partial(_scaled, objective, rows, radii))
    f0, slope = points.function(torch.zeros_like(radii))
    largest = float(slope.abs().max())
    if not (math.isfinite(f0) and math.isfinite(largest)):
        return f0, math.nan, math.nan, 1
    if largest == 0:
        return f0, f0, 0.0, 1
    first = points(unit(slope))
    if n_steps == 1:
        return f0, first.value, largest, 2
    best = climb(points, first, f0, n_steps - 1)
    return f0, max(f0, best.value), largest, 1 + points.n_gradients


def _scaled(objective: Objective, rows: np.ndarray, radii: Tensor, u: Tensor) -> tuple[float, Tensor]:
    value, gradient = objective.batch_gradient(rows, objective.theta0 + radii * u)
    return value, radii * gradient
