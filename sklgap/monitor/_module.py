"""Access to the trained module behind its wrappers, without changing it."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sklgap._random import undisturbed


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module behind ``torch.compile`` and ``DistributedDataParallel``."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.parallel.DistributedDataParallel):
            inner = module.module
        if inner is None:
            return module
        module = inner


@contextlib.contextmanager
def unchanged(module: nn.Module, params: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the module copies of its buffers within this context, and restore the random generators afterwards."""
    owners = [(part._buffers, dict(part._buffers)) for part in module.modules()]
    copies: dict[int, Tensor] = {}
    devices = sorted({p.device.index or 0 for p in params.values() if p.device.type == "cuda"})
    eager = getattr(torch.compiler, "set_stance", None)
    with undisturbed(), torch.random.fork_rng(devices=devices, enabled=bool(devices)):
        try:
            for slots, saved in owners:
                for name, buffer in saved.items():
                    if buffer is not None:
                        slots[name] = copies.setdefault(id(buffer), buffer.detach().clone())
            # A compiled submodule would compile again for the size of the parts, and would then train with other
            # kernels.
            with eager("force_eager") if eager is not None else contextlib.nullcontext():
                yield
        finally:
            for slots, saved in owners:
                slots.clear()
                slots.update(saved)
