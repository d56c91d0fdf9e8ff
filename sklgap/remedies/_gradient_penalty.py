r"""Penalty on the gradients of parts of a batch: Geiping et al. (2021); Smith et al. (2021); Barrett and Dherin (2021).

.. math:: f_B(x) + \frac{\tau}{4 K} \sum_{k=1}^K \| \nabla f_{B_k}(x) \|^2

where :math:`B_1, \dots, B_K` are the parts. The trajectory of SGD at the rate :math:`\tau` on the batches
:math:`B_k` follows, on average, the gradient flow of this loss.
"""

from typing import Any

import torch
from torch import Tensor

from sklgap._checks import check_integer, check_nonnegative
from sklgap._typing import Aux, Batch, Buffers, GradFn, LossFn, Params
from sklgap.objective._autodiff import gradients_of
from sklgap.objective._parameters import real
from sklgap.objective._second_derivatives import differentiable_twice
from sklgap.remedies._accumulation import accumulate
from sklgap.remedies._base import Remedy


class GradientPenalty(Remedy):
    r"""Add the penalty that small batches add implicitly: the squared norms of the gradients of parts of the batch.

    With a finite learning rate, SGD follows the gradient flow of a loss that has a penalty on the squared norms of its
    mini-batch gradients ([2]_, [3]_). Training with large batches lacks this penalty. [1]_ add it to the loss, and
    report the accuracy of SGD in full-batch training; see `full_batch_recipe`.

    Parameters
    ----------
    strength : float, default=0.1
        The learning rate :math:`\tau` of the imitated SGD, at least 0. 0 is plain training. The default is our choice,
        as a value to start from.
    sub_batch_size : int, default=None
        Number of samples of a part; 128 in the released settings of [1]_. Batch norm uses the statistics of the parts.
        None means the whole batch, which imitates a larger learning rate, not a smaller batch.

    Notes
    -----
    The gradient of the penalty is exact, because the gradient is differentiated again. (The paper uses a difference of
    two gradients.) Attention and weight norm are computed by operations that have second derivatives. A net without
    second derivatives, or with a custom ``autograd.Function``, is an error. Samples count in the penalty as they do in
    the loss. The loss in the history is the loss without the penalty.

    The penalty is not a mean over samples. Therefore a ``micro_batch_size`` smaller than a part is an error, and so is
    ``data_parallel``. With ``sub_batch_size`` the net receives one part at a time anyway. Cost: about 3 plain steps,
    more with small parts (5 to 14 in the studies of the guide, with parts of 32 or 64), and about twice the memory.

    References
    ----------
    .. [1] Geiping et al., Stochastic Training is Not Necessary for Generalization, ICLR 2022 (arXiv:2109.14119).
    .. [2] Smith et al., On the Origin of Implicit Regularization in Stochastic Gradient Descent, ICLR 2021.
    .. [3] Barrett and Dherin, Implicit Gradient Regularization, ICLR 2021.

    Examples
    --------
    >>> from sklgap import GradientPenalty, LBGapClassifier
    >>> model = LBGapClassifier(batch_size=-1, remedies=[GradientPenalty(0.1, sub_batch_size=128)])
    """

    at_most_once = True
    in_parts = False

    def __init__(self, strength: float = 0.1, sub_batch_size: int | None = None) -> None:
        self.strength = strength
        self.sub_batch_size = sub_batch_size

    def check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_nonnegative("strength", self.strength)
        check_integer("sub_batch_size", self.sub_batch_size, or_none=True)

    def transform_loss(self, loss_fn: LossFn, state: Any) -> LossFn:
        """Return the loss plus the squared norm of its gradient on the given samples."""
        if not self.strength:
            return loss_fn

        def penalised(params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
            with differentiable_twice():
                loss, aux = loss_fn(params, buffers, batch)
                _check_differentiable_twice(loss)
                leaves = [p for p in params.values() if p.requires_grad]
                gradients = gradients_of(loss, leaves, create_graph=True, allow_unused=True)
                squares = [real(g).square().sum() for g in gradients if g is not None]
                return loss + self.strength / 4 * torch.stack(squares).sum(), aux

        return penalised

    def transform_grad(self, grad_fn: GradFn, state: Any) -> GradFn:
        """Return a gradient function that evaluates the parts one after the other."""
        if not self.strength:
            return grad_fn

        def checked(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
            try:
                return grad_fn(params, buffers, batch)
            except (RuntimeError, NotImplementedError) as error:  # torch raises both, and for other reasons, too
                if not _lacks_second_derivatives(str(error)):
                    raise
                raise ValueError(
                    f"GradientPenalty needs a net with second derivatives; torch says: {str(error).partition('.')[0]}."
                ) from error

        return checked if self.sub_batch_size is None else accumulate(checked, self.sub_batch_size)


def _check_differentiable_twice(loss: Tensor) -> None:
    """Raise a ValueError if the graph of a loss has custom operations.

    torch leaves operations that are marked as once differentiable out of a second derivative, without an error.
    """
    seen, ahead = set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            raise ValueError(
                "GradientPenalty needs a net of torch's own operations, because the second derivative of a custom "
                f"autograd.Function may be wrong; got {type(node).__name__}; write it with plain torch operations."
            )
        seen.add(node)
        ahead += [other for other, _ in node.next_functions]


def _lacks_second_derivatives(message: str) -> bool:
    """Return whether an error of torch means that a gradient cannot be differentiated."""
    signs = ("is not implemented", "not differentiable", "double backward", "twice", "once_differentiable")
    return any(sign in message for sign in signs)
