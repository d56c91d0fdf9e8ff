"""The number of threads of an estimator: ``n_threads``, where ``"auto"`` depends on the work of a batch."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sklgap._checks import is_integer, shown
from sklgap._threads import usable_threads

# "auto" takes one thread up to this number of multiply-adds in the forward pass of a batch. F1 (1.5 million weights)
# exceeds it with 69 samples, and F1 with 64 units a layer on 784 inputs with 1,500 samples. The number comes from
# updates of F1 (with ADAM) on two cores, with other programs running. From 0.7 to 27 million multiply-adds, the
# fastest of 60 updates, which had both cores, was 4 to 16 % slower with two threads than with one. The mean update
# took 5 to 45 times the processor time, because each of its hundred or so operations waits, spinning, for the thread
# that has no core. At 120 million the factor was still 41, and at 370 million (F1 with 256 samples) 16. But there an
# update takes some 35 ms on one core, which idle cores share. The paper's nets at the paper's batch sizes therefore
# use torch's setting.
SMALL_WORK = 100_000_000
# Many more threads than cores gain nothing, and OpenMP ends the process if it cannot start them.
MOST_THREADS = 1024
# The work of an embedding table does not depend on its size.
_LOOKED_UP = (nn.Embedding, nn.EmbeddingBag)


def check_n_threads(n_threads: Any) -> None:
    """Raise a ValueError unless the value is "auto", None or a possible number of threads."""
    if isinstance(n_threads, str) and n_threads == "auto":
        return
    if n_threads is not None and not (is_integer(n_threads, 1) and int(n_threads) <= MOST_THREADS):
        raise ValueError(
            f"n_threads must be 'auto', None or an integer from 1 to {MOST_THREADS}; got {shown(n_threads)}."
        )


def resolved_threads(n_threads: Any, row_work: int, n_rows: int, device: Any) -> int:
    """Return the number of threads for a value of ``n_threads``.

    Parameters
    ----------
    n_threads : int, "auto" or None
        As in `LBGapClassifier`.
    row_work : int
        Multiply-adds per sample, from `multiply_adds`.
    n_rows : int
        Number of samples that are evaluated at once.
    device : torch.device or str
        Device of the net. On other devices than the CPU, ``"auto"`` does not change torch's setting.
    """
    check_n_threads(n_threads)
    if isinstance(n_threads, str):
        small = torch.device(device).type == "cpu" and row_work * n_rows <= SMALL_WORK
        return usable_threads(1 if small else None)
    return usable_threads(None if n_threads is None else int(n_threads))


def multiply_adds(module: nn.Module, X: Tensor) -> int:
    """Return the multiply-adds of a forward pass for one sample of X: those that torch counts, or one for each weight.

    It is the larger of the two numbers, because torch does not count recurrent layers, and a convolution uses each
    weight many times.
    """
    counter = _Counter()
    with contextlib.suppress(Exception), torch.no_grad(), counter:  # torch has formulas for its own operations only
        module(X)
    layers = (layer for layer in module.modules() if not isinstance(layer, _LOOKED_UP))
    weights = sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))
    return max(counter.flops // (2 * len(X)), weights)


class _Counter(TorchDispatchMode):
    """Adds up the floating-point operations of this thread, two for a multiply-add.

    torch's own ``FlopCounterMode`` would put hooks on the modules of all threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=out))
        return out
