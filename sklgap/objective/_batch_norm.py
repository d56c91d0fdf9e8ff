"""The batch-norm policy: which statistics batch norm uses during a measurement.

``"batch"``
    Batch statistics of each fixed chunk of the data, as in the released code of Keskar et al. (2017) (Keras
    ``BatchNormalization(mode=2)``).
``"population"``
    Statistics of the whole data set, recomputed at the measured point. This takes one pass over the chunks, as in
    ``torch.optim.swa_utils.update_bn``, and pools the moments of the chunks exactly.
``"running"``
    The buffers as they are.

The functions here change the batch-norm layers of a module, and they are applied only to private copies.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from sklgap._checks import is_one_of, shown
from sklgap._random import undisturbed
from sklgap._typing import BatchNormPolicy, Params

POLICIES: tuple[BatchNormPolicy, ...] = get_args(BatchNormPolicy)

Statistics = dict[str, tuple[Tensor, Tensor]]


def check_batch_norm(batch_norm: str) -> BatchNormPolicy:
    """Return the policy if it is valid; raise a ValueError otherwise."""
    if not is_one_of(batch_norm, POLICIES):
        raise ValueError(f"batch_norm must be one of {', '.join(map(repr, POLICIES))}; got {shown(batch_norm)}.")
    return cast("BatchNormPolicy", batch_norm)


def batch_norm_layers(module: nn.Module) -> dict[str, _BatchNorm]:
    """Return all batch-norm layers by name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}


def constants_of(module: nn.Module, varied: Collection[str]) -> Params:
    """Return the parameters that are not named in ``varied``, and the buffers outside of batch norm, by name."""
    norms = tuple(f"{name}." if name else "" for name in batch_norm_layers(module))
    frozen = {name: p.detach() for name, p in module.named_parameters() if name not in varied}
    return frozen | {name: b for name, b in module.named_buffers() if not name.startswith(norms)}


def use_batch_statistics(module: nn.Module) -> None:
    """Make every batch-norm layer that trains with batch statistics use them in evaluation mode too."""
    for name, layer in batch_norm_layers(module).items():
        if _is_frozen(layer):
            continue
        if _is_plain(layer):
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
            layer.track_running_stats = False
        else:
            layer.forward = _Tapped(name, layer, layer.forward, _by_batch, "batch")  # type: ignore[method-assign]


def release(module: nn.Module) -> None:
    """Remove the taps from all batch-norm layers."""
    for layer in batch_norm_layers(module).values():
        tapped = vars(layer).get("forward")
        if isinstance(tapped, _Tapped):
            layer.forward = tapped.own  # type: ignore[method-assign]


def check_running_statistics(module: nn.Module) -> None:
    """Raise a ValueError for a layer that has no running statistics to measure with."""
    for name, layer in batch_norm_layers(module).items():
        if layer.running_mean is None:
            raise ValueError(
                f"batch_norm='running' needs running statistics, but layer {name!r} has track_running_stats=False; "
                "use batch_norm='batch' or 'population'."
            )


class StatisticsTap:
    """Replaces the normalisation in all batch-norm layers of a module, so that statistics can go in and out.

    While ``given`` is None, each layer normalises with the statistics of its input and appends them to ``collected``.
    Otherwise it normalises with the given statistics. Both are differentiable, also with respect to the statistics.
    """

    def __init__(self, module: nn.Module) -> None:
        self.given: Statistics | None = None
        self.closed = False  # True while second derivatives are computed, when nothing may be evaluated again
        self.collected: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name, layer in batch_norm_layers(module).items():
            if not _is_frozen(layer):
                normalise = partial(self._normalise, name)
                layer.forward = _Tapped(name, layer, layer.forward, normalise, "population")  # type: ignore[method-assign]

    def take(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Return the statistics collected since the last call, and open the tap again."""
        self.closed = False
        collected, self.collected = dict(self.collected), defaultdict(list)
        return collected

    def _normalise(self, name: str, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        if self.closed:
            raise ValueError(
                "batch_norm='population' has no Hessian products for a module with gradient checkpointing, because it "
                "evaluates its batch norm again after the statistics are gone; use batch_norm='batch' or 'running'."
            )
        if not torch.is_grad_enabled() and x.dtype in _KERNEL_TYPES and (weight is None or weight.dtype == x.dtype):
            return self._normalise_at_once(name, x, weight, bias, eps)
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

    def _normalise_at_once(
        self, name: str, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        """Normalise with torch's kernel, which is several times faster, if no statistics are differentiated."""
        if self.given is not None:
            return functional.batch_norm(x, *self.given[name], weight, bias, training=False, eps=eps)
        n = x.numel() // x.shape[1]
        mean, var = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
        out = functional.batch_norm(x, mean, var, weight, bias, training=True, momentum=1.0, eps=eps)
        self.collected[name].append((mean, var * ((n - 1) / n)))  # the kernel divides by n - 1
        return out


# Types that torch's kernel accepts with statistics of the same type.
_KERNEL_TYPES = (torch.float32, torch.float64)

Normalise = Callable[[Tensor, Tensor | None, Tensor | None, float], Tensor]

# The forward passes of torch's layers, which only normalise.
_PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def _is_plain(layer: _BatchNorm) -> bool:
    return type(layer).forward in _PLAIN and "forward" not in vars(layer)


def _is_frozen(layer: _BatchNorm) -> bool:
    """Say whether a layer overrides ``train`` to stay in evaluation mode, so that every policy uses its buffers."""
    if type(layer).train is nn.Module.train and "train" not in vars(layer):
        return False
    layer.train()
    frozen = not layer.training
    layer.eval()
    return frozen


def _by_batch(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return functional.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


class _Tapped:
    """The forward pass of a batch-norm layer on a private copy, with the normalisation replaced.

    Only the call of ``batch_norm`` is replaced. What a subclass does around it (an activation, dropout) stays.
    """

    def __init__(
        self, name: str, layer: _BatchNorm, own: Callable[..., Any], normalise: Normalise, policy: str
    ) -> None:
        self.name, self.layer, self.own, self.normalise, self.policy = name, layer, own, normalise, policy
        self.plain = _is_plain(layer)
        self.frozen: bool | None = None  # unknown before the first call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.plain:
            return self._plain_forward(*args, **kwargs)
        if self.frozen is None:
            self.frozen = self._trains_with_buffers(args, kwargs)
        if self.frozen:
            return self.own(*args, **kwargs)
        with _Replaced(self.normalise) as replaced:
            out = self.own(*args, **kwargs)
        if not replaced.inputs:
            self._refuse("normalises in its own code and not with torch's batch_norm", "'running'")
        if self.policy == "population" and [x.shape[1] for x in replaced.inputs] != [self.layer.num_features]:
            self._refuse("normalises its features in several parts", "'batch' or 'running'")
        return out

    def _plain_forward(self, input: Tensor) -> Tensor:
        self.layer._check_input_dim(input)
        return self.normalise(input, self.layer.weight, self.layer.bias, self.layer.eps)

    def _trains_with_buffers(self, args: Any, kwargs: Any) -> bool:
        """Say whether a subclass is frozen, that is, normalises with its buffers in training mode too."""
        buffers = {key: None if b is None else b.clone() for key, b in self.layer._buffers.items()}
        with _Replaced(lambda x, weight, bias, eps: x) as probe, torch.no_grad(), undisturbed():
            self.layer.training = True
            try:
                self.own(*args, **kwargs)
            except (RuntimeError, ValueError):
                return False  # training mode does not work here, as for synchronised layers on one machine
            finally:
                self.layer.training = False
                self.layer._buffers.update(buffers)
        return bool(probe.inputs) and not any(probe.training)

    def _refuse(self, what: str, others: str) -> None:
        reason = f"layer {self.name!r}, a {type(self.layer).__name__}, {what}"
        raise NormalisesItself(
            f"batch_norm={self.policy!r} cannot be used, because {reason}; use batch_norm={others}.", reason
        )


class NormalisesItself(ValueError):
    """The normalisation of a batch-norm layer cannot be replaced; ``reason`` names the layer."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class _Replaced(TorchFunctionMode):
    """In its context, torch's ``batch_norm`` is another function of (input, weight, bias, eps)."""

    def __init__(self, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.inputs: list[Tensor] = []
        self.training: list[bool] = []

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in (functional.batch_norm, torch.batch_norm):
            return func(*args, **kwargs)
        names = _ARGUMENTS[func is torch.batch_norm]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        self.inputs.append(given["input"])
        self.training.append(bool(given.get("training", False)))
        return self.normalise(given["input"], given.get("weight"), given.get("bias"), given.get("eps", 1e-5))


_ARGUMENTS = (
    ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),  # torch.nn.functional
    ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled"),  # torch
)


def pool(collected: list[dict[str, list[tuple[Tensor, Tensor]]]], weights: list[float]) -> Statistics:
    """Pool the moments of chunks that hold the shares ``weights`` of the samples, exactly by the law of total variance.

    A layer that is used several times in one forward pass gets the pooled moments of all its uses.
    """
    pooled = {}
    for name in collected[0]:
        means = torch.stack([mean for chunk in collected for mean, _ in chunk.get(name, ())])
        variances = torch.stack([var for chunk in collected for _, var in chunk.get(name, ())])
        shares = [w for chunk, w in zip(collected, weights, strict=True) for _ in chunk.get(name, ())]
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
