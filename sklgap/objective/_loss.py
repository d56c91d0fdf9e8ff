"""The loss of a module on a batch as a pure function of its parameters: ``make_loss_fn``."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sklgap._typing import Aux, Batch, Buffers, Criterion, LossFn, Params


def make_loss_fn(
    module: nn.Module, criterion: Criterion, own_params: Params | None = None, row_losses: Criterion | None = None
) -> LossFn:
    """Return the mean loss of ``module`` as a function of (params, buffers, batch).

    Parameters
    ----------
    module : nn.Module
        Maps X to the outputs that ``criterion`` takes.
    criterion : callable
        Maps (y_pred, y) to the mean loss of the rows.
    own_params : dict of tensors, optional
        The dict that holds the module's own parameters. Called with this very dict, the loss function calls the
        module directly, which is a third faster on small nets than ``functional_call``, and batch norm updates the
        module's buffers as in any training loop. Called with other parameters it leaves module and buffers alone,
        and returns what the buffers would have become in ``Aux.buffers``.

    row_losses : callable, optional
        Maps (y_pred, y) to the loss of every row; None: the criterion without its mean. Used with ``batch.weight``.

    Returns
    -------
    loss_fn : callable
        (params, buffers, batch) -> (loss, Aux).

    Notes
    -----
    With ``batch.weight`` the result is ``mean_i weight_i * loss_i``; the criterion must then be a module with a
    ``reduction``, since a mean cannot be weighted after the fact.

    A parameter that stands at several places of the module is put at each of them: ``functional_call`` would do so
    itself (``tie_weights``), but leaves the module changed afterwards (pytorch issue 164759).
    """
    names = {id(p): name for name, p in module.named_parameters()}
    slots = {
        f"{path}.{attribute}" if path else attribute: names[id(p)]
        for path, layer in module.named_modules()
        for attribute, p in layer.named_parameters(recurse=False, remove_duplicate=False)
    }

    def loss_fn(params: Params, buffers: Buffers, batch: Batch) -> tuple[Tensor, Aux]:
        if params is own_params:
            y_pred = module(batch.X)
        else:
            buffers = {name: b.clone() for name, b in buffers.items()}
            given = {slot: params[name] for slot, name in slots.items() if name in params}
            y_pred = functional_call(module, (given, buffers), (batch.X,), tie_weights=False)
        if batch.weight is None:
            loss = criterion(y_pred, batch.y)
            return loss, Aux(loss.detach(), y_pred, buffers)
        losses = (row_losses or per_sample(criterion))(y_pred, batch.y)
        if losses.shape != batch.weight.shape:
            raise TypeError(
                "Sample weights need a criterion that returns the loss of every row with reduction='none'; "
                f"got a tensor of shape {tuple(losses.shape)} for {len(batch.weight)} rows."
            )
        return (batch.weight * losses).mean(), Aux(criterion(y_pred.detach(), batch.y), y_pred, buffers)

    return loss_fn


def per_sample(criterion: Criterion) -> Criterion:
    """Return the criterion without its mean over the rows; TypeError for one that is not a torch loss module."""
    if not isinstance(criterion, nn.Module) or not hasattr(criterion, "reduction"):
        raise TypeError(
            "Sample weights need a criterion that is a torch loss module with a 'reduction', "
            f"such as torch.nn.CrossEntropyLoss; got {type(criterion).__name__}."
        )
    unreduced = copy.copy(criterion)
    unreduced.reduction = "none"  # type: ignore[assignment]
    return unreduced


def n_correct(y_pred: Tensor, y: Tensor) -> Tensor:
    """Return the number of rows whose largest output is the class y, as a 0-d tensor (no host sync)."""
    return (y_pred.argmax(dim=1) == y).sum()


def is_classification(y_pred: Tensor, y: Tensor) -> bool:
    """Say whether accuracy means anything: one score per class, and integer classes."""
    return y_pred.ndim == 2 and y.ndim == 1 and not torch.is_floating_point(y)
