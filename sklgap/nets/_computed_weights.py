"""Weights that a layer computes from other parameters, replaced by plain tensors while they are initialised.

This concerns parametrisations (``torch.nn.utils.parametrizations``), the older weight norm and spectral norm, and
pruning. The next forward pass would overwrite values that are written into ``layer.weight`` in place.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


@dataclass(frozen=True)
class _Computed:
    """A computed tensor of a layer: ``store`` writes its value into parameters, and ``compute`` computes it."""

    layer: nn.Module
    name: str
    path: str
    store: Callable[[Tensor], None]
    compute: Callable[[], Tensor]
    parameters: list[Tensor]


@contextmanager
def plain_weights(module: nn.Module) -> Iterator[None]:
    """Replace computed weights by plain tensors within this context, then store what was written into them.

    Warns
    -----
    UserWarning
        If a layer then computes other weights than were written. The warning names ``init`` and the layer.
    """
    with parametrize.cached():
        with torch.no_grad():
            tensors = [(computed, _make_plain(computed)) for computed in _computed(module)]
            before = [tensor.clone() for _, tensor in tensors]
        yield
    with torch.no_grad():
        for (computed, tensor), old in zip(tensors, before, strict=True):
            written = _written(computed, tensor)
            if torch.equal(written, old):
                computed.compute()
            else:
                _write(computed, written)


def _make_plain(computed: _Computed) -> Tensor:
    tensor: Tensor = computed.compute()
    if not parametrize.is_parametrized(computed.layer, computed.name):  # otherwise it is in the cache
        tensor = tensor.detach().clone()
        setattr(computed.layer, computed.name, tensor)
    return tensor


def _written(computed: _Computed, tensor: Tensor) -> Tensor:
    """Return the value that was written, in place or by assignment."""
    if parametrize.is_parametrized(computed.layer, computed.name):
        return tensor.detach()
    assigned = computed.layer._parameters.pop(computed.name, None)
    return getattr(computed.layer, computed.name).detach() if assigned is None else assigned.detach()


def _write(computed: _Computed, value: Tensor) -> None:
    old = [parameter.detach().clone() for parameter in computed.parameters]
    try:
        computed.store(value)
        result = computed.compute()
        reached = torch.allclose(result, _expected(computed, value), rtol=1e-4, atol=1e-6)
        usable = bool(result.isfinite().all())
    except (RuntimeError, ValueError, NotImplementedError):
        reached = usable = False
    if not usable:
        for parameter, values in zip(computed.parameters, old, strict=True):
            parameter.copy_(values)
        computed.compute()
    if not reached:
        where = f"the layer {computed.path!r}" if computed.path else "the module"
        what = "it has other values than init wrote" if usable else "it cannot have the values that init wrote"
        warnings.warn(
            f"init does not reach {where}, which computes its {computed.name} from other parameters; {what}.",
            UserWarning,
            stacklevel=2,
        )


def _expected(computed: _Computed, value: Tensor) -> Tensor:
    mask = getattr(computed.layer, f"{computed.name}_mask", None)
    return value if mask is None else value * mask  # pruned weights remain zero


def _computed(module: nn.Module) -> Iterator[_Computed]:
    for path, layer in module.named_modules():
        if parametrize.is_parametrized(layer):
            for name, parametrisation in layer.parametrizations.items():
                yield _Computed(
                    layer,
                    name,
                    path,
                    parametrisation.right_inverse,
                    lambda layer=layer, name=name: getattr(layer, name),  # type: ignore[misc] # of defaults
                    [*parametrisation.parameters(), *parametrisation.buffers()],
                )
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod):
                yield _of_hook(layer, path, hook)


def _of_hook(layer: nn.Module, path: str, hook: WeightNorm | SpectralNorm | BasePruningMethod) -> _Computed:
    name: str = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
    ends = ("_g", "_v") if isinstance(hook, WeightNorm) else ("_orig",)
    parameters: list[Tensor] = [getattr(layer, name + end) for end in ends]

    def store(value: Tensor) -> None:
        if isinstance(hook, WeightNorm):
            parameters[0].copy_(torch.norm_except_dim(value, 2, hook.dim))
        parameters[-1].copy_(value)

    def compute() -> Tensor:
        hook(layer, None)
        tensor: Tensor = getattr(layer, name)
        return tensor

    return _Computed(layer, name, path, store, compute, parameters)
