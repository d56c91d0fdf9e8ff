"""Support for distributed data parallel: the gradients of the processes are parts of their common batch."""

from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def ddp_in(module: nn.Module) -> DistributedDataParallel | None:
    """Return the ``DistributedDataParallel`` in a module, also behind ``torch.compile``; None without one."""
    inner: Any = module
    while inner is not None and not isinstance(inner, DistributedDataParallel):
        inner = getattr(inner, "_orig_mod", None)
    return inner


def averaging_of(module: nn.Module) -> DistributedDataParallel | None:
    """Return the ``DistributedDataParallel`` that averages gradients over several processes; None without several.

    Raise a ValueError if there are several processes but no wrapper that is known to average.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    ddp = ddp_in(module)
    if ddp is not None:
        return _checked(ddp) if ddp.process_group.size() > 1 else None
    n_processes = torch.distributed.get_world_size()
    if n_processes > 1:
        raise ValueError(
            f"module must be the DistributedDataParallel itself for accumulate in {n_processes} processes, because "
            "the monitor cannot see another way of averaging the gradients; pass it, or use step(batch)."
        )
    return None


def _checked(module: DistributedDataParallel) -> DistributedDataParallel:
    if getattr(module, "_comm_hooks", None):
        raise ValueError(
            "module must have no communication hook for accumulate, which reads the plain average of the processes; "
            "use step(batch)."
        )
    if getattr(module, "mixed_precision", None) is not None:
        raise ValueError("module must have mixed_precision=None for accumulate; use torch.autocast, or step(batch).")
    if module._join_config.enable:
        raise ValueError(
            "module must not be in module.join() for accumulate, because some processes then stop earlier; give all "
            "processes the same number of batches, as DistributedSampler does, or use step(batch)."
        )
    return module


def of_all_processes(
    module: DistributedDataParallel, n: int, k: int, squares: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exchange a few numbers between the processes at the end of an update.

    Parameters
    ----------
    module : DistributedDataParallel
        The wrapper that averages the gradients.
    n, k : int
        Numbers of samples and of micro-batches of this process.
    squares, total : arrays of shape (n_groups,)
        Sums of squared norms in this process, and squared norms of the averaged gradient.

    Returns
    -------
    n, k : arrays of shape (n_processes,)
        The numbers of every process.
    squares : array of shape (n_groups,)
        The sums over the processes.

    Raises
    ------
    ValueError
        In all processes, if they do not all have the same ``total``.
    """
    first = next(p for p in module.parameters() if p.requires_grad)
    own = torch.from_numpy(np.concatenate([[n, k], squares, total])).to(first.device)
    everybodys: list[Tensor] = [torch.empty_like(own) for _ in range(module.process_group.size())]
    torch.distributed.all_gather(everybodys, own, group=module.process_group)
    rows = torch.stack(everybodys).cpu().numpy()
    totals = rows[:, 2 + len(squares) :]
    # All processes compute the same sums. Only the order of additions on a device may change them a little.
    if not np.allclose(totals, totals[0], rtol=1e-5, atol=0, equal_nan=True):
        raise ValueError(
            "The gradient must be averaged over the processes when an update ends; the last micro-batch must not be "
            "inside no_sync()."
        )
    return rows[:, 0], rows[:, 1], rows[:, 2 : 2 + len(squares)].sum(axis=0)
