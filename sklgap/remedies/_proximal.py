r"""Conservative training: Keskar et al. (2017), Section 4 and Appendix; after Li et al. (2014).

.. math:: x_{k+1} \approx \arg\min_x f_{B_k}(x) + \frac{\lambda}{2} \|x - x_k\|^2
"""

import numbers

import torch
from torch import Tensor

from sklgap._typing import Aux, Batch, Buffers, LossFn, Params
from sklgap.objective._parameters import copy_of, squared_distance
from sklgap.remedies._base import Remedy


class Proximal(Remedy):
    """Make several optimiser steps on each batch, but stay near the weights at its start.

    Parameters
    ----------
    proximal_lambda : float, default=1e-3
        Weight of the penalty (1e-3 in the paper), at least 0. 0 is the control, which uses each batch ``inner_steps``
        times without a penalty.
    inner_steps : int, default=3
        Number of optimiser steps per batch (3 ADAM iterations in the paper). An epoch has that many times the updates.

    Notes
    -----
    The anchor is a copy of the weights at the start of the batch. In the first inner step the penalty and its gradient
    are zero, so one inner step is plain training for any lambda.

    Examples
    --------
    >>> from sklgap import LBGapClassifier, Proximal
    >>> model = LBGapClassifier(batch_regime="LB", proximal_lambda=1e-3)  # the same as
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[Proximal(1e-3)])
    """

    compiles = True

    def __init__(self, proximal_lambda: float = 1e-3, inner_steps: int = 3) -> None:
        self.proximal_lambda = proximal_lambda
        self.inner_steps = inner_steps

    def check(self) -> None:
        """Raise a ValueError for a negative lambda or for fewer than one inner step."""
        value = self.proximal_lambda
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < float("inf"):
            raise ValueError(f"proximal_lambda must be None or a number of at least 0; got {value!r}.")
        steps = self.inner_steps
        if isinstance(steps, bool) or not isinstance(steps, numbers.Integral) or steps < 1:
            raise ValueError(f"proximal_steps must be an integer of at least 1; got {steps!r}.")

    def begin_batch(self, params: Params, rng: torch.Generator) -> Params | None:
        """Return the anchor, a copy of the weights."""
        return copy_of(params) if self.proximal_lambda else None

    def transform_loss(self, loss_fn: LossFn, state: Params | None) -> LossFn:
        """Return the loss plus the penalty."""
        if state is None:
            return loss_fn

        def penalised(params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
            loss, aux = loss_fn(params, buffers, batch)
            return loss + 0.5 * self.proximal_lambda * squared_distance(params, state), aux

        return penalised
