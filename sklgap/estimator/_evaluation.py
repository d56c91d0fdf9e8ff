"""Evaluation of the final weights: recomputed batch-norm statistics, accuracy and outputs."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor, nn

from sklgap._random import undisturbed
from sklgap.objective import Objective
from sklgap.objective._batch_norm import NormalisesItself, batch_norm_layers, set_buffers
from sklgap.objective._copy import private_copy
from sklgap.objective._data import CHUNK_SIZE, ArrayData
from sklgap.objective._loss import predicted_right
from sklgap.objective._memory_format import channels_last
from sklgap.objective._outputs import logits_of
from sklgap.objective._tensors import as_tensor
from sklgap.training._dtypes import floating_dtype
from sklgap.training._loaders import dense


class NoPrediction(ValueError):
    """The largest outputs of the module are not finite for some samples, which have no most probable class."""


# Samples evaluated at once. Fewer images are faster, because the outputs of a convolution for many images do not fit
# into a processor's cache.
ROWS, IMAGES = 1000, 100


def recompute_batch_norm(module: nn.Module, X: Any, y: np.ndarray | Tensor) -> float | None:
    """Set the running statistics of batch norm to those of all samples, in one pass.

    Returns
    -------
    float or None
        The accuracy with these statistics if all samples are one chunk, because every layer has then normalised with
        its final statistics. None for several chunks, each of which was normalised with its own statistics.

    Warns
    -----
    UserWarning
        If a layer normalises in its own code. All statistics then remain as they are after the training.
    """
    layers = batch_norm_layers(module)
    if not layers:
        return None
    right: list[Tensor] = []

    def count(y_pred: Tensor, y: Tensor) -> Tensor:
        right.append(predicted_right(y_pred, y).sum())
        return y_pred.new_zeros(())

    first = next(module.parameters())
    try:
        with undisturbed():
            # One pass needs no copy of the samples in the order of the chunks. The module was checked before the
            # training.
            data = ArrayData((X, y), CHUNK_SIZE, floating_dtype(module), first.device, passes="few")
            f = Objective(module, count, data, batch_norm="population", check=False)
            statistics, uses = f.population_statistics_and_uses()
    except NormalisesItself as error:
        warnings.warn(
            f"The running statistics of batch norm remain as they are after the training: {error.reason}.",
            UserWarning,
            stacklevel=5,
        )
        return None
    set_buffers(module, statistics)
    # A layer that is used twice ends with the statistics of both uses. A layer without buffers stores none.
    if len(right) > 1 or any(n > 1 or layers[name].running_mean is None for name, n in uses.items()):
        return None
    return int(right[0]) / data.n_samples


def accuracy(module: nn.Module, X: Any, y: np.ndarray | Tensor, *, images_last: bool = False) -> float:
    """Return the accuracy in evaluation mode, in the module's own dtype.

    Parameters
    ----------
    module : nn.Module
        Trained module.
    X, y : array-like
        Samples and class numbers; X may be a CSR matrix.
    images_last : bool, default=False
        Whether the module takes images with their channels last in memory.
    """
    device = next(module.parameters()).device
    X, target = X if issparse(X) else as_tensor(X), as_tensor(y).to(device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    with undisturbed():
        for rows, part in _outputs(module, X, device, floating_dtype(module), images_last):
            right += predicted_right(part, target[rows]).sum()
    return int(right) / len(target)


def outputs(module: nn.Module, X: Any, dtype: torch.dtype) -> np.ndarray:
    """Return the module's outputs in evaluation mode, evaluated in ``dtype``, as float64; X may be a CSR matrix.

    Raises
    ------
    NoPrediction
        If the largest output of a sample is not finite. Other outputs may be -inf, as for a class that is masked.
    """
    device = next(module.parameters()).device
    device = torch.device("cpu") if device.type == "mps" else device  # which knows no float64
    found = torch.cat([part.cpu() for _, part in _outputs(module, X, device, dtype)]).double().numpy()
    lost = ~np.isfinite(found.max(axis=1))
    if lost.any():
        raise NoPrediction(
            f"X must have outputs that are finite; those of {lost.sum():,} of {len(lost):,} samples are not. If the "
            "training diverged (train_loss_ is usually not finite then), fit again with a lower lr. Otherwise, scale X "
            "as for fit."
        )
    return found


def _outputs(
    module: nn.Module, X: Any, device: torch.device, dtype: torch.dtype, images_last: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the samples with the outputs of a copy of the module for them."""
    module = private_copy(module, device, dtype)
    size = IMAGES if images_last else ROWS
    with torch.no_grad():
        for start in range(0, X.shape[0], size):
            rows = slice(start, start + size)
            part = X[rows]
            batch = (part if isinstance(part, Tensor) else as_tensor(dense(part))).to(device, dtype)
            yield rows, logits_of(module(channels_last(batch) if images_last else batch))
