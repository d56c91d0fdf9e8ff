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
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

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


def check_running_statistics(module: nn.Module) -> None:
    """Raise a ValueError for a layer that has no running statistics to measure with."""
    for name, layer in batch_norm_layers(module).items():
        if layer.running_mean is None:
            raise ValueError(
                f"batch_norm='running' needs running statistics; layer {name!r} has track_running_stats=False: "
                "use batch_norm='batch' or 'population'."
            )


class StatisticsTap:
    """Takes over the normalisation in all batch-norm layers of a module, so that statistics can go in and out.

    While ``given`` is None each layer normalises with the statistics of its input and appends them to ``collected``;
    otherwise it normalises with those given. Both are differentiable, with respect to the statistics too. What a
    subclass does around the normalisation (an activation, dropout) stays: only its call of ``batch_norm`` is replaced.
    """

    def __init__(self, module: nn.Module) -> None:
        self.given: Statistics | None = None
        self.collected: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name, layer in batch_norm_layers(module).items():
            normalise = partial(self._normalise, name)
            forward = type(layer).forward
            if forward in _PLAIN:
                layer.forward = partial(_plain_forward, normalise, layer)  # type: ignore[method-assign]
            else:
                layer.forward = partial(_own_forward, normalise, layer, name)  # type: ignore[method-assign]

    def take(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Return what was collected since the last call."""
        collected, self.collected = dict(self.collected), defaultdict(list)
        return collected

    def _normalise(self, name: str, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        if self.given is None:
            dims = [d for d in range(x.ndim) if d != 1]
            var, mean = torch.var_mean(x, dim=dims, correction=0)
            self.collected[name].append((mean, var))
        else:
            mean, var = self.given[name]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        scale = (var + eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        out = (x - mean.view(shape)) * scale.view(shape)
        return out if bias is None else out + bias.view(shape)


Normalise = Callable[[Tensor, Tensor | None, Tensor | None, float], Tensor]

# The forward passes of torch's layers, which do nothing but normalise.
_PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def _plain_forward(normalise: Normalise, layer: _BatchNorm, x: Tensor) -> Tensor:
    layer._check_input_dim(x)
    return normalise(x, layer.weight, layer.bias, layer.eps)


def _own_forward(normalise: Normalise, layer: _BatchNorm, name: str, *args: Any, **kwargs: Any) -> Any:
    """Run the forward pass of a subclass with its call of ``batch_norm`` replaced."""
    with _Replaced(normalise) as replaced:
        out = type(layer).forward(layer, *args, **kwargs)
    if not replaced.n_calls:
        raise ValueError(
            f"batch_norm='population' cannot be measured: layer {name!r}, a {type(layer).__name__}, normalises in its "
            "own code and not by torch's batch_norm; use batch_norm='batch' or 'running'."
        )
    return out


class _Replaced(TorchFunctionMode):
    """Within it, torch's ``batch_norm`` is another function of (input, weight, bias, eps)."""

    def __init__(self, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.n_calls = 0

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in (functional.batch_norm, torch.batch_norm):
            return func(*args, **kwargs)
        self.n_calls += 1
        names = _ARGUMENTS[func is torch.batch_norm]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return self.normalise(given["input"], given.get("weight"), given.get("bias"), given.get("eps", 1e-5))


_ARGUMENTS = (
    ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),  # torch.nn.functional
    ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled"),  # torch
)


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
