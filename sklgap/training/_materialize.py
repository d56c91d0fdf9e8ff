"""Lazy modules: parameters that get their shape from the first rows they see."""

import torch
from torch import Tensor, nn

from sklgap.objective._copy import lazy_parameters
from sklgap.training._dtypes import floating_dtype, in_dtype


def materialize(module: nn.Module, rows: Tensor) -> None:
    """Let a lazy module see rows, in place and in evaluation mode.

    Raises
    ------
    ValueError
        For rows that the module does not take, or a part that they do not reach.
    """
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()(in_dtype(rows, floating_dtype(module)))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ValueError(f"net must take rows of shape {tuple(rows.shape[1:])}; the module says: {error}") from error
    finally:
        for part, training in modes.items():
            part.training = training
    left = lazy_parameters(module)
    if left:
        raise ValueError(f"net must use all its lazy layers for every row; {left[0]!r} did not see the rows of X.")
