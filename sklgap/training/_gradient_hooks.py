"""Hooks on the gradients of parameters in a training: a hook gets the gradient of each batch, or it is refused.

The training differentiates with ``torch.autograd.grad`` with respect to the parameters themselves, which calls their
tensor hooks as ``backward`` does. It calls no hook on other tensors, and none after the accumulation in ``.grad``.
"""

from collections.abc import Sequence

from torch import nn

from sklgap.objective._gradient_hooks import accumulation_hooked_parameter, hooked_parameter
from sklgap.remedies import Remedy


def check_gradient_hooks(
    module: nn.Module, remedies: Sequence[Remedy], micro_batch_size: int | None, data_parallel: bool
) -> None:
    """Raise a ValueError if the module has a gradient hook that would not get the gradient of each batch.

    Parameters
    ----------
    module : nn.Module
        The module to train.
    remedies : sequence of Remedy
        The remedies of the training.
    micro_batch_size : int or None
        Largest number of samples evaluated at once.
    data_parallel : bool
        Whether several processes share each batch.
    """
    hooked = hooked_parameter(module)
    if hooked is None:
        return
    late = accumulation_hooked_parameter(module)
    if late is not None:
        raise ValueError(
            "net must not have hooks that run after gradients are accumulated, because a fit does not call them; got a "
            f"post-accumulate hook on the parameter {late!r}; use register_hook instead."
        )
    for remedy in remedies:
        if remedy.transforms_gradient:
            raise ValueError(
                f"net must not have gradient hooks with the remedy {type(remedy).__name__}, which may take several "
                f"gradients and not call them for each; got a hook on the parameter {hooked!r}; leave out the remedy "
                "or the hook."
            )
    parts = "micro_batch_size" if micro_batch_size is not None else "data_parallel" if data_parallel else None
    if parts is not None:
        raise ValueError(
            f"net must not have gradient hooks with {parts}, because they would change the gradients of parts of a "
            f"batch; got a hook on the parameter {hooked!r}; leave out {parts} or the hook."
        )
