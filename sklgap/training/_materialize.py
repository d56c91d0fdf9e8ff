"""Lazy modules, whose parameters get their shapes from the first samples."""

import torch
from torch import Tensor, nn

from sklgap.objective._copy import lazy_parameters
from sklgap.training._dtypes import floating_dtype, in_dtype


def materialize(module: nn.Module, rows: Tensor) -> None:
    """Pass samples through a lazy module, in place and in evaluation mode.

    Raises
    ------
    ValueError
        If the module does not accept the samples, or if they do not reach one of its parts.
    """
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()(in_dtype(rows, floating_dtype(module)))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ValueError(
            f"net must take samples of shape {tuple(rows.shape[1:])}; the module raised: {error}"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    left = lazy_parameters(module)
    if left:
        raise ValueError(
            f"net must use all its lazy layers for every sample; the samples of X did not reach {left[0]!r}."
        )
