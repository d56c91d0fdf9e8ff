"""A module and its loss are tried on a few samples before anything is measured: right, or refused with the reason."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sklgap._typing import Batch, Params
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._row_loss import RowLoss
from sklgap.objective._stream import undisturbed

# How often the outputs are evaluated again, and how often where the module draws random numbers.
_N_AGAIN, _N_AGAIN_IF_RANDOM = 2, 8
# How far the losses of two parts may be from that of the whole: they are computed in float64.
_ROUNDING = 1e-4

_ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss)


class Trial(NamedTuple):
    """What the trial has shown.

    ``moves_buffers``: whether the module writes into its buffers in evaluation mode; ``draws``: whether it draws from
    torch's global generator, without effect on the outputs.
    """

    moves_buffers: bool
    draws: bool


def try_module(loss_fn: ModuleLoss, params: Params, batch: Batch) -> Trial:
    """Evaluate a module several times on a few samples; ValueError where it is not a function of parameters and data.

    Parameters
    ----------
    loss_fn : ModuleLoss
        Of a private copy of the module.
    params : dict of tensors
        The point; the tensors are only read.
    batch : Batch
        A few samples.
    """
    placed = {name: p.detach().clone() for name, p in params.items()}
    buffers = loss_fn.buffers()
    before = {name: b.clone() for name, b in buffers.items()}
    versions = {name: p._version for name, p in placed.items()}
    state = torch.get_rng_state()
    with torch.no_grad(), explained(batch), undisturbed(seed=0):
        start = torch.get_rng_state()
        first = loss_fn(placed, buffers, batch)
        draws = not torch.equal(start, torch.get_rng_state())
    assert torch.equal(state, torch.get_rng_state())
    moved = [name for name, p in placed.items() if p._version != versions[name]]
    if moved:
        raise ValueError(
            f"module changes its parameter {moved[0]!r} in its forward pass, as Embedding(max_norm=...) does, so that "
            "the loss is no differentiable function of it: set max_norm=None, or freeze the layer with "
            "requires_grad_(False)."
        )
    after = first[1].buffers
    moves_buffers = any(not torch.equal(before[name], after[name]) for name in before)
    for seed in range(1, 1 + (_N_AGAIN_IF_RANDOM if draws else _N_AGAIN)):
        with torch.no_grad(), undisturbed(seed):
            again = loss_fn(placed, buffers, batch)
        if not _same(first[1].y_pred, again[1].y_pred, exact=draws):
            raise ValueError(
                "module must be a deterministic function in evaluation mode; two evaluations of the same samples "
                "differ, as with functional dropout without training=self.training, or random augmentation in the "
                "forward pass: make it depend on self.training."
            )
    loss = first[0]
    if loss.ndim:
        raise ValueError(f"criterion must return the mean loss as a scalar; got shape {tuple(loss.shape)}.")
    return Trial(moves_buffers, draws)


def try_loss(loss: RowLoss, criterion: object, y_pred: Tensor, y: Tensor, n_chunks: int) -> RowLoss:
    """Return what is really known of a loss; ValueError for one that cannot be averaged over chunks.

    Parameters
    ----------
    loss : RowLoss
        As its type suggests: a subclass of a torch loss may do something else.
    criterion : object
        As the user gave it.
    y_pred, y : Tensor
        Outputs and targets of a few samples.
    n_chunks : int
        Chunks that it is averaged over.
    """
    if isinstance(criterion, _ELEMENTWISE) and y_pred.shape != y.shape:
        raise ValueError(
            f"The module's outputs must have the shape of y for {type(criterion).__name__}; got "
            f"{tuple(y_pred.shape)} and {tuple(y.shape)}, which torch would combine each with each."
        )
    if len(y) < 2 or loss.mean is None:
        return loss
    with torch.no_grad():
        whole = loss.mean(y_pred, y)
        if not bool(torch.isfinite(whole)):
            return loss  # reported where it is measured
        if loss.terms is not None and not _close(loss.weighted(y_pred, y)[1], whole):
            loss = replace(loss, terms=None, counts=None)
        order = y.argsort(stable=True) if y.ndim == 1 else torch.arange(len(y), device=y.device)
        parts = order.tensor_split([max(1, len(y) // 3)])
        means, masses = zip(*(_mean_and_mass(loss, y_pred[part], y[part]) for part in parts), strict=True)
    mean = sum(m * w for m, w in zip(means, masses, strict=True)) / sum(masses)
    if n_chunks > 1 and not _close(torch.as_tensor(mean), whole):
        raise ValueError(
            "criterion must be a mean over samples, to be averaged over chunks of the data; the mean over two parts "
            "differs from that of the whole. Set chunk_size to the number of samples, or use a torch loss with "
            "weight= for class weights."
        )
    return loss


def _mean_and_mass(loss: RowLoss, y_pred: Tensor, y: Tensor) -> tuple[Tensor, float]:
    if loss.counts is None:
        return loss.mean(y_pred, y), float(len(y))
    return loss.weighted(y_pred, y)[1], float(loss.counts(y).double().sum())


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs() <= _ROUNDING * b.abs().clamp_min(1e-6))


def _same(first: Tensor, again: Tensor, *, exact: bool) -> bool:
    if not isinstance(first, Tensor):  # what a skorch net's own infer returns
        return True
    first, again = torch.nan_to_num(first), torch.nan_to_num(again)
    if exact or first.device.type == "cpu":
        return torch.equal(first, again)
    return torch.allclose(first, again, rtol=1e-3, atol=1e-5 * float(first.abs().max()))


@contextlib.contextmanager
def explained(batch: Batch) -> Iterator[None]:
    """Turn what torch raises in a forward pass into a ValueError that says whose fault it is."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, AttributeError, NotImplementedError) as error:
        shape = f" of shape {tuple(batch.X.shape)}" if isinstance(batch.X, Tensor) else ""
        raise ValueError(
            f"module and criterion must take the data, inputs{shape} and targets of shape {tuple(batch.y.shape)}; "
            f"they say: {error}"
        ) from error
