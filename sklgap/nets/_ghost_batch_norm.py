"""Ghost batch normalisation (Hoffer et al. 2017, Algorithm 1): batch statistics over small parts of a large batch."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from sklgap._checks import check_arguments, check_fraction, check_integer, check_module, check_nonnegative, check_sizes


class GhostBatchNorm(_BatchNorm):
    """Normalise each ghost batch, a small part of the batch, by its own statistics in training.

    Parameters
    ----------
    num_features : int
        Number of features or channels, as in ``torch.nn.BatchNorm2d``.
    eps : float, default=1e-5
        Number added to the variance.
    momentum : float or None, default=0.1
        Weight of a new ghost batch in the running statistics. None takes the average of all ghost batches.
    affine : bool, default=True
        Whether the layer has a learnt scale and shift.
    ghost_batch_size : int, default=128
        Number of samples of a ghost batch, at least 2 (128 in the paper).

    Notes
    -----
    A batch of n samples has k = n // ghost_batch_size full ghost batches. They are taken with a stride of k, which
    needs no copy. Any partition is equally good, because the samples of a training batch come in random order. The
    remaining samples form one more ghost batch; a single remaining sample joins the last full one. A batch of at most
    ``ghost_batch_size`` samples is one ghost batch, which is plain batch norm, bit for bit. Every ghost batch in turn
    updates the running statistics, as if it had been a batch, so the momentum compounds. In evaluation mode the layer
    is plain batch norm.

    References
    ----------
    Hoffer et al., Train longer, generalize better, NeurIPS 2017, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import GhostBatchNorm
    >>> layer = GhostBatchNorm(3, ghost_batch_size=4)
    >>> y = layer(torch.randn(8, 3))
    >>> bool(y[::2].mean(dim=0).abs().max() < 1e-5)
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        ghost_batch_size: int = 128,
    ) -> None:
        check_arguments(GhostBatchNorm.__init__, locals())
        check_sizes(num_features=num_features)
        check_integer("ghost_batch_size", ghost_batch_size, least=2)
        check_nonnegative("eps", eps)
        if momentum is not None:
            check_fraction("momentum", momentum)
        super().__init__(num_features, eps, momentum, affine)
        self.ghost_batch_size = ghost_batch_size

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"GhostBatchNorm needs an input of at least 2 dimensions; got {input.ndim}.")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise an input of shape (n, num_features, ...)."""
        if not self.training or len(input) <= self.ghost_batch_size:
            return super().forward(input)
        n_ghosts, remainder = divmod(len(input), self.ghost_batch_size)
        if remainder == 1:
            n_ghosts, remainder = n_ghosts - 1, self.ghost_batch_size + 1
        if not n_ghosts:
            return super().forward(input)
        n_full = n_ghosts * self.ghost_batch_size
        parts = [input] if not remainder else input.split([n_full, remainder])
        done = [self._normalise(x, k) for x, k in zip(parts, (n_ghosts, 1), strict=False)]
        outputs, means, variances = (list(each) for each in zip(*done, strict=True))
        self._update(torch.cat(means), torch.cat(variances))
        return outputs[0] if not remainder else torch.cat(outputs)

    def _normalise(self, x: Tensor, n_ghosts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise equal ghost batches in one call, by treating them as n_ghosts times as many features.

        Returns the normalised samples, and means and (unbiased) variances of shape (n_ghosts, num_features).
        """
        shape = (len(x) // n_ghosts, n_ghosts * self.num_features, *x.shape[2:])
        # Under autocast the samples come in lower precision. The statistics have the precision of the layer.
        dtype = next((own.dtype for own in (self.weight, self.running_mean) if own is not None), x.dtype)
        mean = x.new_zeros(shape[1], dtype=dtype)
        var = x.new_zeros(shape[1], dtype=dtype)
        weight, bias = (None if p is None else p.repeat(n_ghosts) for p in (self.weight, self.bias))
        # With momentum 1, the call overwrites the "running" statistics by those of the ghost batches.
        out = functional.batch_norm(
            x.reshape(shape), mean, var, weight, bias, training=True, momentum=1.0, eps=self.eps
        )
        return out.view(x.shape), mean.view(n_ghosts, -1), var.view(n_ghosts, -1)

    @torch.no_grad()
    def _update(self, means: Tensor, variances: Tensor) -> None:
        """Update the running statistics with each ghost batch in turn: r <- (1 - momentum) r + momentum row."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        if not self.track_running_stats:  # set to False on a layer that has statistics
            return
        n_ghosts = len(means)
        self.num_batches_tracked.add_(n_ghosts)
        kept: float | Tensor
        if self.momentum is None:  # the average of all ghost batches so far
            share = 1 / self.num_batches_tracked.to(means.dtype)
            kept, shares = (self.num_batches_tracked - n_ghosts) * share, share.expand(n_ghosts)
        else:
            later = torch.arange(n_ghosts - 1, -1, -1, dtype=means.dtype, device=means.device)
            kept, shares = (1 - self.momentum) ** n_ghosts, self.momentum * (1 - self.momentum) ** later
        with torch.autocast(means.device.type, enabled=False):  # autocast would round the products
            self.running_mean.mul_(kept).add_(shares @ means)
            self.running_var.mul_(kept).add_(shares @ variances)


def convert_to_ghost_batch_norm(module: nn.Module, ghost_batch_size: int) -> nn.Module:
    """Make every batch-norm layer of a module a ghost batch norm, in place.

    Parameters
    ----------
    module : torch.nn.Module
        The module to change.
    ghost_batch_size : int
        Number of samples of a ghost batch, at least 2.

    Returns
    -------
    torch.nn.Module
        The module itself. Its layers remain the same objects, with the same tensors and hooks. Whatever holds such a
        layer, for example a list or another module, has the ghost batch norm.

    Raises
    ------
    ValueError
        If a batch-norm layer is lazy and has no size yet, has parametrizations, or adds anything to torch's classes
        that a ghost batch norm would not have. Such an addition is a forward pass with a fused activation, or a method.
        Also if the module or a part is scripted or traced.

    Warns
    -----
    UserWarning
        If the module has no batch-norm layers, so that nothing changes.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import convert_to_ghost_batch_norm
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    >>> convert_to_ghost_batch_norm(net, ghost_batch_size=32)[1].ghost_batch_size
    32
    """
    check_module(module)
    check_integer("ghost_batch_size", ghost_batch_size, least=2)
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ValueError(
            "module must not be a scripted or traced module, or have one as a part, because its layers cannot be "
            "changed; convert the module that it was made from."
        )
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}
    for name, layer in layers.items():
        _check_convertible(name, layer)
    if not layers:
        warnings.warn(
            f"ghost_batch_size={ghost_batch_size} changes nothing, because the net has no batch-norm layers.",
            UserWarning,
            stacklevel=2,
        )
    for layer in layers.values():
        # A new layer would lack the hooks, and a list of layers, a closure or a hook would still hold the old layer.
        layer.__class__ = GhostBatchNorm
        vars(layer)["ghost_batch_size"] = ghost_batch_size
    return module


def _check_convertible(name: str, layer: Any) -> None:
    """Raise a ValueError if a layer would lose something when its class becomes GhostBatchNorm."""
    kind = type(layer)
    if isinstance(layer, LazyModuleMixin):
        raise ValueError(
            f"module must have no lazy batch-norm layers; layer {name!r} is a {kind.__name__}, which has no size yet; "
            "call the module on a few samples first."
        )
    own = kind.forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward, GhostBatchNorm.forward)
    if own or "forward" in vars(layer):
        raise ValueError(
            "ghost_batch_size must be None for batch-norm layers that override the forward pass; "
            f"layer {name!r} is a {kind.__name__}; put its activation into a separate layer after plain batch norm."
        )
    if parametrize.is_parametrized(layer):
        raise ValueError(
            "ghost_batch_size must be None for batch-norm layers with parametrizations; "
            f"layer {name!r} has one of {', '.join(layer.parametrizations)}; call "
            "torch.nn.utils.parametrize.remove_parametrizations on it first."
        )
    added = sorted({part for base in kind.__mro__ if not _is_known(base) for part in vars(base)} - _HARMLESS)
    if added:
        raise ValueError(
            "ghost_batch_size must be None for batch-norm layers that add methods or attributes to torch's classes; "
            f"layer {name!r} is a {kind.__name__}, which adds {', '.join(added)}; move them to the module that has the "
            "layer."
        )


def _is_known(base: type) -> bool:
    return base in (object, GhostBatchNorm) or base.__module__.startswith("torch.nn.modules.")


# What a subclass may define without effect on a layer that exists already.
_HARMLESS = {
    "__init__",
    "__module__",
    "__doc__",
    "__dict__",
    "__weakref__",
    "__annotations__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
    "__firstlineno__",
    "__static_attributes__",
    "_check_input_dim",
    "extra_repr",
}
