"""The variance of the gradients of mini-batches, which an adaptive batch regime uses."""

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
    """Return ``gradient_variance`` and ``squared_gradient_norm`` at the current weights.

    Parameters
    ----------
    step : TrainStep
        The step whose gradients are measured, including remedies. The step, the module and torch's generators do not
        change.
    loader : ResidentLoader
        The loader that holds the samples.
    n_batches : int
        Number of mini-batches to measure on, at least 2. Fewer are used if the data do not hold as many disjoint ones.
    batch_size : int
        Number of samples of a mini-batch (at most half the data), and of the mini-batch whose squared gradient norm is
        returned.
    seed : int
        Seed of the choice of samples, and of the draws of remedies and dropout.

    Notes
    -----
    If samples have different weights, the gradient of a mini-batch is a ratio of sums. Its variance falls as 1 / b to
    first order, and the two numbers have the meaning of `gradient_moments` to first order.

    Returns
    -------
    dict
        The two floats; empty for fewer than four samples, which cannot be halved.
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
    """Return the variance of a sample's gradient, summed over parameters, and a mini-batch's squared gradient norm.

    Parameters
    ----------
    gradients : iterable of dict of tensors
        Gradients of at least two disjoint mini-batches of ``measured_size`` samples, drawn without replacement.
    measured_size : int
        Number of samples of these mini-batches.
    batch_size : int
        Number of samples of the mini-batch whose squared norm is returned. The norm is an expectation over the draw of
        the samples.

    Notes
    -----
    Let S^2 be the variance over the samples with divisor n - 1. Disjoint mini-batches of b of n samples have the
    variance S^2 (1 / b - 1 / n), and the covariance -S^2 / n with each other. Their sample variance has the exact
    expectation S^2 / b. Likewise, the mean of their squared norms plus S^2 (1 / B - 1 / b) has the expectation of the
    squared norm of B samples.
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
