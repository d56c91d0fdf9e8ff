"""How many threads an estimator computes with: ``n_threads``, and ``"auto"`` by the work of a batch."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sklgap._checks import is_integer, shown
from sklgap._threads import usable_threads

# Multiply-adds of the forward pass of a batch up to which "auto" takes one thread. F1 (1.5 million weights) passes it
# with 69 rows, F1 with 64 units a layer on 784 inputs with 1,500. It rests on updates of F1 (with ADAM) on
# two cores beside other programs. From 0.7 to 27 million multiply-adds the fastest of 60 updates, which had the cores
# to itself, was 4 to 16 % slower with two threads than with one: there is nothing to gain. The mean update took 5 to 45
# times the processor time: each of its hundred or so operations waits, spinning, for the thread that has no core. At
# 120 million that was still 41 times, at 370 million (F1 with 256 rows) 16 times. But there an update takes some 35 ms
# on one core, which idle cores divide, so the paper's nets at the paper's batch sizes have torch's setting.
SMALL_WORK = 100_000_000
# Many more threads than cores gain nothing, and OpenMP ends the process where it cannot start them.
MOST_THREADS = 1024
# What a table of embeddings multiplies does not depend on its size.
_LOOKED_UP = (nn.Embedding, nn.EmbeddingBag)


def check_n_threads(n_threads: Any) -> None:
    """Raise a ValueError unless it is "auto", None or a number of threads that can be."""
    if isinstance(n_threads, str) and n_threads == "auto":
        return
    if n_threads is not None and not (is_integer(n_threads, 1) and int(n_threads) <= MOST_THREADS):
        raise ValueError(
            f"n_threads must be 'auto', None or an integer from 1 to {MOST_THREADS}; got {shown(n_threads)}."
        )


def resolved_threads(n_threads: Any, row_work: int, n_rows: int, device: Any) -> int:
    """Return the number of threads that ``n_threads`` stands for.

    Parameters
    ----------
    n_threads : int, "auto" or None
        As `LBGapClassifier` takes it.
    row_work : int
        From `multiply_adds`.
    n_rows : int
        Rows that are evaluated at once.
    device : torch.device or str
        On another one than the CPU ``"auto"`` leaves torch's setting as it is.
    """
    check_n_threads(n_threads)
    if isinstance(n_threads, str):
        small = torch.device(device).type == "cpu" and row_work * n_rows <= SMALL_WORK
        return usable_threads(1 if small else None)
    return usable_threads(None if n_threads is None else int(n_threads))


def multiply_adds(module: nn.Module, X: Tensor) -> int:
    """Return the multiply-adds of a forward pass for a row of X: those that torch can count, or one for each weight.

    The larger of the two: torch does not count recurrent layers, and a convolution uses a weight many times.
    """
    counter = _Counter()
    with contextlib.suppress(Exception), torch.no_grad(), counter:  # torch has formulas for its own operations only
        module(X)
    layers = (layer for layer in module.modules() if not isinstance(layer, _LOOKED_UP))
    weights = sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))
    return max(counter.flops // (2 * len(X)), weights)


class _Counter(TorchDispatchMode):
    """Adds up the floating-point operations of what this thread computes, two for a multiply-add.

    torch's own ``FlopCounterMode`` puts hooks on the modules of all threads.
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
