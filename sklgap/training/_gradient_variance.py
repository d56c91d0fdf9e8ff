"""How much the gradients of mini-batches vary: what an adaptive batch regime decides by."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sklgap._typing import Batch, Params
from sklgap.objective._parameters import flatten
from sklgap.training._datasets import unpacked
from sklgap.training._dtypes import floating_dtype, in_dtype
from sklgap.training._loaders import ResidentLoader
from sklgap.training._random import seeded
from sklgap.training._step import TrainStep


def measure_gradients(
    step: TrainStep, loader: ResidentLoader, n_batches: int, batch_size: int, seed: int
) -> dict[str, float]:
    """Return ``gradient_variance`` and ``squared_gradient_norm`` at the weights as they are.

    Parameters
    ----------
    step : TrainStep
        Whose gradients are measured, remedies included; nothing of it, of the module or of torch's generators changes.
    loader : ResidentLoader
        Holds the rows.
    n_batches : int
        Mini-batches to measure on, at least 2; fewer where the data do not hold so many disjoint ones.
    batch_size : int
        Their rows (half the data at most), and those of the mini-batch whose squared gradient norm is returned.
    seed : int
        Draws the rows, and whatever remedies and dropout draw.

    Notes
    -----
    Where samples do not count alike, the gradient of a mini-batch is a ratio of sums. Its variance falls as 1 / b to
    first order, and the two numbers have the meaning of `gradient_moments` to first order.

    Returns
    -------
    dict
        The two floats; empty for fewer than four rows, which cannot be halved.
    """
    n_samples = len(loader.y)
    if n_samples < 4:
        return {}
    size = min(batch_size, n_samples // 2)
    rng = torch.Generator().manual_seed(seed)
    with seeded(seed, loader.device):
        batches = loader.sample(min(n_batches, n_samples // size), size, seed)
        gradients = (step.gradient(_in_dtype_of(step, *unpacked(batch)), rng) for batch in batches)
        variance, squared_norm = gradient_moments(gradients, size, batch_size)
    return {"gradient_variance": variance, "squared_gradient_norm": squared_norm}


def _in_dtype_of(step: TrainStep, X: Tensor, y: Tensor, weight: Tensor | None) -> Batch:
    return Batch(in_dtype(X, floating_dtype(step.loss_fn.module)), y, weight)


def gradient_moments(gradients: Iterable[Params], measured_size: int, batch_size: int) -> tuple[float, float]:
    """Return the variance of a row's gradient, summed over the parameters, and a mini-batch's squared gradient norm.

    Parameters
    ----------
    gradients : iterable of dict of tensors
        Of at least two disjoint mini-batches of ``measured_size`` rows, drawn without replacement.
    measured_size : int
        Their number of rows.
    batch_size : int
        Rows of the mini-batch whose squared norm is returned: its expectation over the draw of the rows.

    Notes
    -----
    Disjoint mini-batches of b of n rows have variance S^2 (1 / b - 1 / n) and covariance -S^2 / n with each other, S^2
    being the variance over the rows with divisor n - 1: their sample variance has expectation S^2 / b, exactly.
    Likewise the mean of their squared norms, plus S^2 (1 / B - 1 / b), has the expectation of the squared norm of B
    rows.
    """
    total: Tensor = torch.zeros(())
    squares, count = 0.0, 0
    for count, parts in enumerate(gradients, start=1):  # noqa: B007
        gradient = flatten(parts).cpu().double()  # float64: the variance is a difference
        squares += gradient.square().sum().item()
        total = total + gradient
    mean_square = squares / count
    variance = max(0.0, (mean_square - (total / count).square().sum().item()) * count / (count - 1))
    squared_norm = mean_square + variance * (measured_size / batch_size - 1)
    return variance * measured_size, max(0.0, squared_norm)
