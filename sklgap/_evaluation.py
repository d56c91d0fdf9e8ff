"""The final weights at work: batch-norm statistics recomputed, accuracy, outputs."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from sklgap.objective import Objective
from sklgap.objective._batch_norm import batch_norm_layers, set_buffers
from sklgap.objective._tensors import as_tensor

# Rows evaluated at once.
_ROWS = 1000


def recompute_batch_norm(module: nn.Module, X: np.ndarray | Tensor, y: np.ndarray | Tensor) -> None:
    """Set the running statistics of batch norm to those of all rows, in one pass."""
    if batch_norm_layers(module):
        set_buffers(module, Objective(module, _no_loss, (X, y), batch_norm="population").population_statistics())


def accuracy(module: nn.Module, X: np.ndarray | Tensor, y: np.ndarray | Tensor) -> float:
    """Return the accuracy in evaluation mode, in the module's own dtype."""
    return Objective(module, _no_loss, (X, y), batch_norm="running", chunk_size=_ROWS).evaluate().accuracy


def outputs(module: nn.Module, X: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Return the module's outputs in evaluation mode, evaluated in ``dtype``, as float64."""
    device = next(module.parameters()).device
    device = torch.device("cpu") if device.type == "mps" else device  # which knows no float64
    module = copy.deepcopy(module).to(device=device, dtype=dtype).eval()
    with torch.no_grad():
        parts = [module(rows.to(device, dtype)).cpu() for rows in as_tensor(X).split(_ROWS)]
    return torch.cat(parts).double().numpy()


def _no_loss(y_pred: Tensor, y: Tensor) -> Tensor:
    return y_pred.new_zeros(())
