"""One model trained by several processes: each evaluates its share of every batch, and the gradients are summed.

All processes hold all the data, draw the same batches from the same seed, and make the same updates. As with
micro-batches, the remedies transform the gradient function of the whole batch. You start and connect the processes with
torch (``torchrun``, ``torch.distributed.init_process_group``).
"""

import zlib
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor, distributed, nn

from sklgap._typing import Aux, Batch, Buffers, GradFn, Params
from sklgap.objective._batch_norm import batch_norm_layers
from sklgap.training._random import derive_seed, seeded


def share_out(module: nn.Module) -> Callable[[GradFn], GradFn]:
    """Give all processes the weights of the first one, and return a function that divides batches among them.

    Parameters
    ----------
    module : nn.Module
        The module, on the device that trains it.

    Returns
    -------
    spread : callable
        Function that turns a gradient function into one that evaluates a share of the batch in each process. In all
        processes it returns gradients, loss and outputs of the whole batch.

    Notes
    -----
    Like micro-batches, this is exact up to rounding without batch norm, also with class weights and sample weights.
    Batch norm normalises each share by its own statistics; its running statistics are the averages over the shares,
    weighted by their numbers of samples. Dropout draws different masks in every process. Each gradient needs one
    exchange.
    """
    check_process_group()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            distributed.broadcast(tensor, 0)
    averaged = [
        f"{layer}.{name}" if layer else name
        for layer, norm in batch_norm_layers(module).items()
        for name in ("running_mean", "running_var")
        if getattr(norm, name) is not None
    ]

    def spread(grad_fn: GradFn) -> GradFn:
        return grad_fn if distributed.get_world_size() == 1 else _summed(grad_fn, averaged)

    return spread


def share_of(n_rows: int, process: int, n_processes: int) -> slice:
    """Return the slice of a batch that a process evaluates. Shares are consecutive and differ by at most one sample.

    A share has at least two samples, because batch norm needs them. If a batch is too small for all processes, the last
    ones have no share.
    """
    n_sharing = min(n_processes, max(1, n_rows // 2))
    start, stop = (n_rows * min(number, n_sharing) // n_sharing for number in (process, process + 1))
    return slice(start, stop)


def largest_share(n_rows: int) -> int:
    """Return the number of samples of the largest share of a batch."""
    shares = (share_of(n_rows, process, n) for n in [distributed.get_world_size()] for process in range(n))
    return max(share.stop - share.start for share in shares)


def check_process_group() -> None:
    """Raise a ValueError unless this process belongs to a process group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        raise ValueError(
            "data_parallel must be False outside a process group of torch.distributed, which a program started by "
            "torchrun opens with init_process_group(); got True."
        )


def agreed_seed(seed: int, X: np.ndarray, device: str) -> int:
    """Return the seed of the first process in all processes, after checking that they have the same X."""
    check_process_group()
    check_same_rows([torch.from_numpy(X)], len(X), torch.device(device))
    agreed = torch.tensor(seed, device=device)
    distributed.broadcast(agreed, 0)
    return int(agreed)


def check_same_rows(tensors: Sequence[Tensor], n_rows: int, device: torch.device) -> None:
    """Raise a ValueError in all processes unless all of them have the same training samples."""
    parts = [part.detach().cpu().contiguous().numpy() for part in tensors]
    checksums = [zlib.crc32(part.data, zlib.crc32(str(part.shape).encode())) for part in parts]
    found = torch.tensor([n_rows, *checksums], device=device)
    extremes = torch.cat([found, -found])
    distributed.all_reduce(extremes, distributed.ReduceOp.MAX)
    largest, negated_least = extremes.chunk(2)
    if not torch.equal(largest, -negated_least):
        raise ValueError(
            "X, y and sample_weight, and the parts that train_split returns, must be the same in all processes with "
            "data_parallel=True, because the processes share every batch; got different samples."
        )


def _summed(grad_fn: GradFn, averaged: Sequence[str]) -> GradFn:
    rank, n_processes = distributed.get_rank(), distributed.get_world_size()

    def summed(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
        n_rows = len(batch.X)
        rows = share_of(n_rows, rank, n_processes)
        has_share = rows.stop > rows.start
        # All processes draw the same number, so their generators remain in the same state.
        seed = derive_seed(int(torch.randint(2**62, ())), rank)
        with seeded(seed, batch.X.device):
            # A process without a share evaluates the few samples, too, but with weight 0.
            gradients, aux = grad_fn(params, buffers, batch.rows(rows) if has_share else batch)
        y_pred = aux.y_pred.new_zeros(n_rows, *aux.y_pred.shape[1:])
        weights = None if aux.weights is None else aux.weights.new_zeros(n_rows)
        if has_share:
            y_pred[rows] = aux.y_pred
            if weights is not None and aux.weights is not None:
                weights[rows] = aux.weights
        mass = aux.mass if has_share else 0.0
        n_own = rows.stop - rows.start
        present = torch.tensor([float(name in gradients) for name in params], device=batch.X.device)
        own = [gradients[name] * mass if name in gradients else torch.zeros_like(p) for name, p in params.items()]
        statistics = [aux.buffers[name] for name in averaged]
        whole = torch.as_tensor(mass, device=batch.X.device, dtype=aux.loss.dtype)
        # Batch norm counts samples, not their weights in the loss.
        present, whole, loss, y_pred, weights_sum, *sums = _sum(
            [
                present,
                whole,
                aux.loss * mass,
                y_pred,
                present.new_zeros(0) if weights is None else weights,
                *own,
                *(buffer * (n_own / n_rows) for buffer in statistics),
            ]
        )
        share = 1 / whole.clamp_min(torch.finfo(whole.dtype).tiny)
        loss, sums = loss * share, [*(gradient * share for gradient in sums[: len(own)]), *sums[len(own) :]]
        for buffer, mean in zip(statistics, sums[len(own) :], strict=True):
            buffer.copy_(mean)
        found = dict(zip(params, sums, strict=False))
        if len(gradients) < len(params):  # leave out parameters that have no gradient in any process
            found = {name: found[name] for name, n in zip(params, present.tolist(), strict=True) if n}
        return found, Aux(loss, y_pred, aux.buffers, None if weights is None else weights_sum)

    return summed


def _sum(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums of the tensors over the processes, from one exchange; they are the same bit for bit."""
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    flat = torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors])
    distributed.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]
