"""Which optimisers update all parameters by one fused kernel: torch has it, but does not use it by default."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Those of torch with a fused kernel for the CPU and for CUDA.
_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
# Who sets one of these has chosen a kernel, or asks for what the fused one does not do.
_CHOICES = ("fused", "foreach", "capturable", "differentiable")


def fused_kernel(optimizer: Any, options: Iterable[str], module: nn.Module) -> dict[str, bool]:
    """Return ``{"fused": True}`` where the optimiser can be fused for the module, else an empty dict.

    On one core of a CPU a step of fused ADAM took a fifth to a third of the time of torch's default. The weights
    differ in the last digits.

    Parameters
    ----------
    optimizer : type
        The class of the optimiser.
    options : iterable of str
        Names that the user has given options for.
    module : nn.Module
        What is trained, on its device.
    """
    if optimizer not in _FUSED or any(name in _CHOICES for name in options):
        return {}
    if any(getattr(part, "sparse", False) for part in module.modules()):  # an embedding with sparse gradients
        return {}
    fits = all(map(_fits, (p for p in module.parameters() if p.requires_grad)))
    return {"fused": True} if fits else {}


def begin_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Begin the averages of fused SGD with zeros, from which its first step is the same.

    torch's kernel fails where some parameters have an average and others do not, as after one has been thawed.
    """
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.SGD) and group["fused"] and group["momentum"]:
            if group["dampening"]:  # the first step is not dampened
                group["fused"] = False
                continue
            for p in group["params"]:
                optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p))


def _fits(p: Tensor) -> bool:
    # The kernels read parameter, gradient and averages as they lie in memory.
    strided = p.layout == torch.strided and p.is_contiguous()
    return strided and p.is_floating_point() and p.device.type in ("cpu", "cuda")
