"""The gradient of a backward pass, measured before it is added to ``.grad`` and before processes average it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


@contextlib.contextmanager
def seen(
    params: Sequence[Tensor], measure: Callable[[int, Tensor], Tensor], active: bool = True
) -> Iterator[dict[int, Tensor]]:
    """Measure, within this context, the gradient that a backward pass computes for each parameter.

    ``DistributedDataParallel`` averages ``.grad``. The gradient measured here is still that of this process.

    Parameters
    ----------
    params : sequence of tensors
        The parameters. They are not changed.
    measure : callable
        A function of (position of a parameter, its gradient) that returns a number, which may stay on its device.
    active : bool, default=True
        Whether to measure at all.

    Yields
    ------
    dict
        The number by position, for the parameters that the pass has reached.
    """
    found: dict[int, Tensor] = {}
    again = False

    def look(position: int) -> Callable[[tuple[Tensor, ...]], None]:
        def hook(gradients: tuple[Tensor, ...]) -> None:
            nonlocal again
            again = again or position in found
            if gradients[0] is not None:
                with torch.no_grad():
                    found[position] = measure(position, gradients[0].detach())

        return hook

    # A parameter references its node only weakly. Without a reference here, a forward pass inside the context would
    # create another node.
    nodes = [torch.autograd.graph.get_gradient_edge(p).node for p in params] if active else []
    handles = [node.register_prehook(look(i)) for i, node in enumerate(nodes)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    if again:
        raise ValueError(
            "A parameter must get its gradient in one piece inside monitor.accumulate; call backward once there, on "
            "the sum of the losses, and checkpoint with use_reentrant=False."
        )
