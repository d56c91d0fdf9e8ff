"""The loss of a module on a batch as a pure function of its parameters: `ModuleLoss`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sklgap._typing import Aux, Batch, Buffers, Criterion, Params
from sklgap.objective._autodiff import check_no_autocast
from sklgap.objective._compile import CompiledCalls
from sklgap.objective._outputs import logits_of
from sklgap.objective._row_loss import RowLoss, row_loss

Infer = Callable[[nn.Module, Any], Any]
# The place of a tensor: the dict of its layer, its key there, and its name in the module.
Slot = tuple[dict[str, Any], str, str]

# The class of a sample whose largest output is not finite. No label has this number.
_NO_CLASS = torch.iinfo(torch.int64).min

_AS_IT_IS: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


class ModuleLoss:
    """The mean loss of ``module`` as a function of (params, buffers, batch) that returns (loss, Aux).

    Parameters
    ----------
    module : nn.Module
        Maps X to the outputs that ``criterion`` takes.
    criterion : callable or RowLoss
        Maps (y_pred, y) to the mean loss of the samples.
    own_params : dict of tensors, optional
        The dict that holds the module's own parameters. If called with this very dict, the function calls the module
        directly, and batch norm updates the module's buffers as in any training loop. If called with other parameters,
        it leaves module and buffers alone, and returns the updated buffers in ``Aux.buffers``.
    infer : callable, optional
        Maps (module, X) to the outputs. None means `call_module`.

    Notes
    -----
    With ``batch.weight``, sample i counts ``weight[i]`` times in the mean. ``batch.factor`` multiplies the loss of each
    sample. ``batch.mix`` gives each sample a second target. All three need a criterion whose terms are known.

    A parameter that the module holds in several places is placed in each of them.

    Gradient checkpointing evaluates layers again while the gradient is computed. The module must then still hold the
    parameters at which the loss was evaluated, so take the gradient within ``standing(params)``.
    """

    def __init__(
        self,
        module: nn.Module,
        criterion: Criterion | RowLoss,
        own_params: Params | None = None,
        infer: Infer | None = None,
    ) -> None:
        self.module = module
        self.loss = row_loss(criterion)
        self.infer = call_module if infer is None else infer
        self.compiled: CompiledCalls | None = None  # is called in place of the module
        self._own = self.here = own_params
        names = {id(p): name for name, p in module.named_parameters()}
        self._slots: list[Slot] = [
            (layer._parameters, key, names[id(p)])
            for layer in module.modules()
            for key, p in layer._parameters.items()
            if p is not None
        ]
        paths = {id(b): name for name, b in module.named_buffers()}
        self._buffer_slots: list[Slot] = [
            (layer._buffers, key, paths[id(b)])
            for layer in module.modules()
            for key, b in layer._buffers.items()
            if b is not None
        ]

    def __call__(self, params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
        """Evaluate the loss."""
        check_no_autocast()
        with self.standing(params):
            if self.here is not self._own:
                # These are clones, so that the module does not write into the given tensors.
                _put(self._buffer_slots, {name: b.clone() for name, b in buffers.items()})
            y_pred = self.infer(self.module if self.compiled is None else self.compiled, batch.X)
            after = self.buffers()
            # This is inside the context, because a loss may read the parameters of the module, as a penalty does.
            return self._loss(y_pred, batch, after)

    def _loss(self, y_pred: Tensor, batch: Batch, after: Buffers) -> tuple[Tensor, Aux]:
        loss = self.loss
        if batch.mix is not None:
            return self._mixed(y_pred, batch, after)
        if batch.weight is None and batch.factor is None and loss.counts is None:
            mean = loss.mean(y_pred, batch.y)
            return mean, Aux(mean.detach(), y_pred, after)
        mean, clean = loss.weighted(y_pred, batch.y, batch.weight, batch.factor)
        return mean, Aux(clean.detach(), y_pred, after, loss.weights(batch.y, batch.weight, y_pred.dtype))

    def _mixed(self, y_pred: Tensor, batch: Batch, after: Buffers) -> tuple[Tensor, Aux]:
        """Return the mean in which every sample occurs twice, once with each of its two targets."""
        if batch.mix is None or batch.weight is None:
            raise ValueError("batch.weight must hold the weight of the first target if batch.mix is given; got None.")
        targets, weight = torch.cat([batch.y, batch.mix.y]), torch.cat([batch.weight, batch.mix.weight])
        factor = None if batch.factor is None else torch.cat([batch.factor, batch.factor])
        mean, clean = self.loss.weighted(torch.cat([y_pred, y_pred]), targets, weight, factor)
        counted = self.loss.weights(targets, weight, y_pred.dtype)
        assert counted is not None
        return mean, Aux(clean.detach(), y_pred, after, counted[: len(y_pred)] + counted[len(y_pred) :])

    def buffers(self) -> Buffers:
        """Return the current buffers of the module. A module may assign new tensors in its forward pass."""
        return {name: b for owner, key, name in self._buffer_slots if (b := owner[key]) is not None}

    @contextlib.contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Use the module without compiled code, which has no second derivatives and no ``vmap``."""
        compiled, self.compiled = self.compiled, None
        try:
            yield
        finally:
            self.compiled = compiled

    def standing(self, params: Params) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the module holds ``params``, and after which everything is as before."""
        return _AS_IT_IS if params is self.here else self._swapped(params)

    def place(self, params: Params) -> None:
        """Place ``params`` in the module, a private copy, from now on; ``here`` are its current parameters."""
        if params is not self.here:
            _put(self._slots, params)
            self.here = params

    @contextlib.contextmanager
    def _swapped(self, params: Params) -> Iterator[None]:
        before, slots = self.here, [*self._slots, *self._buffer_slots]
        saved = [owner[key] for owner, key, _ in slots]
        try:
            _put(self._slots, params)
            self.here = params
            yield
        finally:
            for (owner, key, _), tensor in zip(slots, saved, strict=True):
                owner[key] = tensor
            self.here = before


def _put(slots: list[Slot], tensors: Mapping[str, Tensor]) -> None:
    for owner, key, name in slots:
        if name in tensors:
            owner[key] = tensors[name]


def call_module(module: nn.Module, X: Any) -> Tensor:
    """Return the outputs for inputs that are a tensor, a tuple for ``module(*X)`` or a dict for ``module(**X)``."""
    if isinstance(X, Tensor):
        return logits_of(module(X))
    return logits_of(module(**X) if isinstance(X, Mapping) else module(*X))


def predicted_classes(y_pred: Tensor) -> Tensor:
    """Return the class of the largest output of each sample, or a number of no class where that is not finite."""
    largest, classes = y_pred.max(dim=1)  # NaN counts as the largest
    return classes.masked_fill(~largest.isfinite(), _NO_CLASS)


def predicted_right(y_pred: Tensor, y: Tensor) -> Tensor:
    """Return which samples have their largest output at the class y, of shape (n_samples,)."""
    return predicted_classes(y_pred) == y


def is_classification(y_pred: Tensor, y: Tensor) -> bool:
    """Say whether accuracy is defined: the outputs are one score per class, and y holds integer classes."""
    return isinstance(y_pred, Tensor) and y_pred.ndim == 2 and y.ndim == 1 and not torch.is_floating_point(y)
