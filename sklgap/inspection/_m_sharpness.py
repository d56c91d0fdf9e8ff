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

# What Andriushchenko et al. (2023) measure with; see the docstring.
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
    r"""m-sharpness: the worst case in a ball for each group of m samples, then the mean over the groups.

    .. math:: \frac{1}{|\mathcal M|} \sum_{M \in \mathcal M} \max_{\|T^{-1} e\|_2 \le \rho} f_M(x + e) - f_M(x)

    with :math:`f_M` the mean loss of a group. The groups are a random partition of the samples. T is the identity, or
    the sizes of the weights, ``T = diag(|x|)``.

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective` in the full space. A DataLoader must be one over a Dataset that gives
        single samples.
    X, y : array-like
        Samples that are cut into groups. None with an `Objective`.
    m : int, default=128
        Largest size of a group, at least 1. The sizes differ by one sample at most; with an m of all samples or more
        there is one group. 128 is the group size in the scripts of Andriushchenko et al. (2023). Foret et al. perturb
        the share of a batch on each accelerator, whose size we could not verify.
    rho : float, default=None
        Radius. None: 0.05, the value of Foret et al., or 0.5 with ``adaptive``, that of Kwon et al. for CIFAR-10.
    adaptive, normalize_logits : bool, default=False
        As for `ball_sharpness`.
    n_steps : int, default=1
        Gradients of the maximiser for each group. 1: the step of SAM, along the gradient to the edge of the ball. It
        counts even where it leads down. More: a climb from there, of which the highest point counts.
    max_samples : int, float or None, default=None
        Measure on so many samples (int), or on this fraction of them (float in (0, 1]); None: on all.
    random_state : int, RandomState or None, default=None
        Draws samples and groups.
    **kwargs
        ``batch_norm``, ``chunk_size``, ``dtype`` and ``device`` of `Objective`.

    Returns
    -------
    Flatness
        ``standard_error`` is over the groups, None for a single one. ``f0`` is the mean of the losses of the groups.

    Raises
    ------
    ValueError
        For a parameter outside its allowed values, a loss that is not finite, or ``adaptive`` and weights that are all
        zero.

    See Also
    --------
    ball_sharpness : One group with all samples, and a better maximiser.

    Notes
    -----
    Each maximum found is a lower bound, and so is their mean. With one step the value may be negative: the step may
    overshoot.

    Batch norm uses the statistics of each group, as in training with batches of m, or its buffers under ``"running"``.
    Under ``"population"`` it also uses those of each group, and a note says so. Cost: ``n_steps + 1`` gradients.

    References
    ----------
    .. [1] Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021, Section 4.1.
    .. [2] Andriushchenko and Flammarion, Towards Understanding Sharpness-Aware Minimization, ICML 2022.
    .. [3] Andriushchenko et al., A Modern Look at the Relationship between Sharpness and Generalization, ICML 2023,
       arXiv:2302.07011.

    Examples
    --------
    Two samples with opposite slopes: together they are at a minimum, alone each rises.

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
            f"The gradient must be finite at the point measured; it is not for {n_broken} of {len(groups)} groups."
        )
    rises = found[:, 1] - found[:, 0]
    if not np.isfinite(rises).all():
        raise ValueError(
            f"rho must be so small that the loss stays finite; at rho={rho:g} it is not for "
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
        status=f"a lower bound: mean over {_counted(len(groups), 'group')}, {_counted(n_steps, 'step')} each",
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
    """Return loss, largest loss found, largest slope and gradients taken of one group."""
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
