"""Which statistics batch norm uses while something is measured: the batch-norm policy.

``"batch"``
    Batch statistics of each fixed chunk of the data: what the released code of Keskar et al. (2017) does
    (Keras ``BatchNormalization(mode=2)``).
``"population"``
    Statistics of the whole data set, recomputed at the point measured: one pass over the chunks, as
    ``torch.optim.swa_utils.update_bn``, the chunks' moments pooled exactly.
``"running"``
    The buffers as they are.

The functions here change a module's batch-norm layers and are only ever applied to private copies.
"""

from collections import defaultdict
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sklgap._checks import is_one_of, shown

POLICIES = ("batch", "population", "running")

Statistics = dict[str, tuple[Tensor, Tensor]]


def check_batch_norm(batch_norm: str) -> str:
    """Return the policy if it is one; ValueError otherwise."""
    if not is_one_of(batch_norm, POLICIES):
        raise ValueError(f"batch_norm must be one of {', '.join(map(repr, POLICIES))}; got {shown(batch_norm)}.")
    return batch_norm


def batch_norm_layers(module: nn.Module) -> dict[str, _BatchNorm]:
    """Return all batch-norm layers by name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}


def use_batch_statistics(module: nn.Module) -> None:
    """Make every batch-norm layer forget its buffers, so that evaluation mode uses batch statistics too."""
    for layer in batch_norm_layers(module).values():
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        layer.track_running_stats = False


class StatisticsTap:
    """Takes over the normalisation of all batch-norm layers of a module, so that statistics can go in and out.

    While ``given`` is None each layer normalises with the statistics of its input and appends them to ``collected``;
    otherwise it normalises with those given. Both are differentiable, with respect to the statistics too.
    """

    def __init__(self, module: nn.Module) -> None:
        self.given: Statistics | None = None
        self.collected: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name, layer in batch_norm_layers(module).items():
            layer.forward = partial(self._normalise, name, layer)  # type: ignore[method-assign]

    def take(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Return what was collected since the last call."""
        collected, self.collected = dict(self.collected), defaultdict(list)
        return collected

    def _normalise(self, name: str, layer: _BatchNorm, x: Tensor) -> Tensor:
        if self.given is None:
            dims = [d for d in range(x.ndim) if d != 1]
            var, mean = torch.var_mean(x, dim=dims, correction=0)
            self.collected[name].append((mean, var))
        else:
            mean, var = self.given[name]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        scale = (var + layer.eps).rsqrt()
        if layer.weight is not None:
            scale = scale * layer.weight
        out = (x - mean.view(shape)) * scale.view(shape)
        return out if layer.bias is None else out + layer.bias.view(shape)


def pool(collected: list[dict[str, list[tuple[Tensor, Tensor]]]], weights: list[float]) -> Statistics:
    """Pool the moments of chunks that hold the shares ``weights`` of the rows: exact, by the law of total variance.

    A layer that is used several times in one forward pass has the pooled moments of all its uses.
    """
    pooled = {}
    for name in collected[0]:
        means = torch.stack([mean for chunk in collected for mean, _ in chunk[name]])
        variances = torch.stack([var for chunk in collected for _, var in chunk[name]])
        shares = [w for chunk, w in zip(collected, weights, strict=True) for _ in chunk[name]]
        share = torch.tensor(shares, dtype=means.dtype, device=means.device)[:, None]
        share = share / share.sum()
        mean = (share * means).sum(0)
        pooled[name] = (mean, (share * (variances + (means - mean).square())).sum(0))
    return pooled


def set_buffers(module: nn.Module, statistics: Statistics) -> None:
    """Write statistics into the running buffers of the module's batch-norm layers."""
    for name, layer in batch_norm_layers(module).items():
        if name in statistics and layer.running_mean is not None and layer.running_var is not None:
            mean, var = statistics[name]
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(var)
