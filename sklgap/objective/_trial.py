"""Tries a module and its loss on a few samples before any measurement, and refuses wrong ones with the reason."""

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sklgap._random import random_states, undisturbed
from sklgap._tracebacks import innermost, raised_by_code
from sklgap._typing import Batch, Buffers, Params
from sklgap.objective._data import rows_of
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._nested import map_tensors, tensors_in
from sklgap.objective._row_loss import RowLoss

# How often the outputs are evaluated again, and how often if the module draws random numbers.
_N_AGAIN, _N_AGAIN_IF_RANDOM = 2, 64
# A module that clips its parameters shows it at parameters that are larger by this factor.
_FAR = 10
# The allowed difference between the losses of two parts and that of the whole, which are computed in float64.
_ROUNDING = 1e-4

_ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss)


class Trial(NamedTuple):
    """The result of the trial.

    ``moves_buffers`` says whether the module writes into its buffers in evaluation mode. ``draws`` says whether it
    draws random numbers, without effect on the outputs.
    """

    moves_buffers: bool
    draws: bool


def try_module(loss_fn: ModuleLoss, params: Params, batch: Batch) -> Trial:
    """Evaluate a module several times; raise a ValueError if it is not a function of parameters and data.

    Parameters
    ----------
    loss_fn : ModuleLoss
        The loss of a private copy of the module.
    params : dict of tensors
        The point. The tensors are only read.
    batch : Batch
        A few samples.
    """
    placed = {name: p.detach().clone() for name, p in params.items()}
    buffers = loss_fn.buffers()
    before = {name: b.clone() for name, b in buffers.items()}
    inputs = list(tensors_in(batch.X))
    versions = [tensor._version for tensor in inputs]
    with torch.no_grad(), explained(batch), undisturbed(seed=0):
        start = _random_states(loss_fn.module)
        first = loss_fn(placed, buffers, batch)
        draws = start != _random_states(loss_fn.module)
    if versions != [tensor._version for tensor in inputs]:
        raise ValueError(
            "module must not write into its inputs, because they are samples of the data; use inplace=False in its "
            "first layer, or begin the forward pass with X = X.clone()."
        )
    _check_unmoved(params, placed)
    far = {name: _FAR * p.detach() for name, p in params.items()}
    placed = {name: p.clone() for name, p in far.items()}
    found: list[Tensor] = []
    # It does not matter here whether a module raises an error for parameters that are not its own.
    with torch.no_grad(), contextlib.suppress(Exception), undisturbed(seed=0):
        found.append(loss_fn(placed, buffers, batch)[1].y_pred)
    _check_unmoved(far, placed)
    placed = {name: p.detach().clone() for name, p in params.items()}
    after = first[1].buffers
    moves_buffers = any(not torch.equal(before[name], after[name]) for name in before)
    for seed in range(1, 1 + (_N_AGAIN_IF_RANDOM if draws else _N_AGAIN)):
        with torch.no_grad(), undisturbed(seed):
            again = loss_fn(placed, buffers, batch)
        if not _same(first[1].y_pred, again[1].y_pred, exact=draws):
            raise ValueError(
                "module must be a deterministic function in evaluation mode, but two evaluations of the same samples "
                "differ, as with functional dropout without training=self.training, or with random augmentation in the "
                "forward pass; make the random part depend on self.training."
            )
    _check_read(loss_fn, placed, far, found, buffers, batch)
    loss = first[0]
    if loss.ndim:
        raise ValueError(f"criterion must return the mean loss as a scalar; got shape {tuple(loss.shape)}.")
    return Trial(moves_buffers, draws)


def _check_read(
    loss_fn: ModuleLoss, placed: Params, far: Params, found: list[Tensor], buffers: Buffers, batch: Batch
) -> None:
    """Raise a ValueError unless new numbers in the same tensors give the outputs that they give in new tensors."""
    if not found:
        return
    for name, p in placed.items():
        p.copy_(far[name])
    with torch.no_grad(), undisturbed(seed=0):
        again = loss_fn(placed, buffers, batch)
    if not _same(found[0], again[1].y_pred, exact=False):
        raise ValueError(
            "module must read its parameters in every evaluation, but it reuses an earlier result although the "
            "parameters have changed since, as with weights that are normalised once and stored; compute them in "
            "every forward pass."
        )


def _check_unmoved(params: Params, placed: Params) -> None:
    """Raise a ValueError if an evaluation wrote into the parameters or gave them other data."""
    for name, p in placed.items():
        if p._version or not torch.equal(torch.nan_to_num(p), torch.nan_to_num(params[name])):
            raise ValueError(
                f"module changes its parameter {name!r} in its forward pass, as Embedding(max_norm=...) does, so the "
                "loss is not a differentiable function of the parameter; set max_norm=None, or freeze the layer with "
                "requires_grad_(False)."
            )


def _random_states(module: nn.Module) -> list[str | bytes]:
    """Return the states of the global generators and of the generators in the module."""
    held = [thing for part in module.modules() for thing in vars(part).values()]
    return [
        *random_states(),
        *(thing.get_state().numpy().tobytes() for thing in held if isinstance(thing, torch.Generator)),
        *(repr(thing.bit_generator.state) for thing in held if isinstance(thing, np.random.Generator)),
        *(repr(thing.get_state(legacy=False)) for thing in held if isinstance(thing, np.random.RandomState)),
        *(repr(thing.getstate()) for thing in held if isinstance(thing, random.Random)),
    ]


class Limits(NamedTuple):
    """Why gradients, or evaluations at parameters other than the module's own, are not possible; None if they are."""

    gradient: str | None = None
    elsewhere: str | None = None


def try_gradient(loss: Callable[[], Tensor], module: nn.Module) -> Limits:
    """Return the limits of a module: some give no gradients, and some work with a single set of parameters.

    Parameters
    ----------
    loss : callable
        Evaluates the loss of a private copy on a few samples.
    module : nn.Module
        The module of the user.
    """
    try:
        with torch.enable_grad(), warnings.catch_warnings(), undisturbed(seed=0):
            warnings.filterwarnings("error", "None of the inputs have requires_grad")
            value = loss()
    except UserWarning as warning:
        if "None of the inputs have requires_grad" not in str(warning):
            raise
        return Limits(
            gradient="module uses reentrant gradient checkpointing on inputs without gradients, which gives no "
            "gradients to the parameters of these layers; call torch.utils.checkpoint with use_reentrant=False."
        )
    _check_precision(value)
    names = {id(p): name for name, p in module.named_parameters()}
    found = [names[id(leaf)] for leaf in _leaves(value) if id(leaf) in names]
    if not found:
        return Limits()
    return Limits(
        elsewhere=f"module does not reach its parameter {found[0]!r} through its attributes, but for example through a "
        "hook or a forward function made for this very module, so a copy with other parameters cannot be evaluated; "
        "move this code into the forward method of its class."
    )


def try_argument(loss: Callable[[], Tensor], point: Tensor, module: nn.Module) -> None:
    """Raise a ValueError if ``loss(module, batch)`` uses the user's module in place of its argument.

    Parameters
    ----------
    loss : callable
        Evaluates the loss of a private copy, whose parameters are those of ``point``, on a few samples.
    point : Tensor
        Parameters of the copy, with ``requires_grad=True``.
    module : nn.Module
        The module of the user.
    """
    try:
        with torch.enable_grad(), undisturbed(seed=0):
            leaves = list(_leaves(loss()))
    except Exception:  # the trials after this one report it
        return
    theirs = {id(p) for p in module.parameters()}
    if any(id(leaf) in theirs for leaf in leaves) and not any(leaf is point for leaf in leaves):
        raise ValueError(
            "loss(module, batch) must use its argument module, because it is called with copies that have other "
            "parameters, but it uses the net from outside; replace the name of the net in the function by module."
        )


def _check_precision(value: Tensor) -> None:
    """Raise a ValueError if a number on the way from the parameters to the loss has less than single precision."""
    for node in _nodes(value):
        for computed in node._input_metadata:
            if computed.dtype.is_floating_point and computed.dtype.itemsize < 4:
                raise ValueError(
                    "module must compute in the precision of its parameters in evaluation mode, but its forward pass "
                    f"rounds to {computed.dtype}, as in torch.autocast, which hides the small changes that are "
                    "measured here; use torch.autocast(..., enabled=self.training)."
                )


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """Yield the tensors at the ends of a graph."""
    return (node.variable for node in _nodes(value) if hasattr(node, "variable"))


def _nodes(value: Tensor) -> Iterator[Any]:
    """Yield the nodes of a graph."""
    todo, seen = [value.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo.extend(following for following, _ in node.next_functions)


def try_loss(loss: RowLoss, criterion: object, y_pred: Tensor, y: Tensor, n_chunks: int) -> RowLoss:
    """Return what is really known about a loss; raise a ValueError if it cannot be averaged over chunks.

    Parameters
    ----------
    loss : RowLoss
        The loss as its type suggests. A subclass of a torch loss may do something else.
    criterion : object
        The criterion of the user.
    y_pred, y : Tensor
        Outputs and targets of a few samples.
    n_chunks : int
        Number of chunks over which the loss is averaged.
    """
    if isinstance(criterion, _ELEMENTWISE) and y_pred.shape != y.shape:
        raise ValueError(
            f"The module's outputs must have the shape of y for {type(criterion).__name__}; got outputs of shape "
            f"{tuple(y_pred.shape)} and y of shape {tuple(y.shape)}, which torch would broadcast against each other."
        )
    if len(y) < 2:
        return loss
    with torch.no_grad():
        whole = loss.mean(y_pred, y)
        if not bool(torch.isfinite(whole)):
            return loss  # the measurement reports it
        if loss.terms is not None and not _has_these_terms(loss, y_pred, y, whole):
            loss = loss.of_the_mean()
        if n_chunks > 1 and not _is_mean(loss, y_pred, y, whole):
            raise ValueError(_NO_MEAN)
    return loss


def check_mean_of_samples(loss: RowLoss, y_pred: Tensor, y: Tensor, parts: str) -> None:
    """Raise a ValueError if a loss is not a mean over samples. ``parts`` says what the batch is divided into."""
    if len(y) < 2:
        return
    y_pred, y = y_pred[:_MOST_TRIED], y[:_MOST_TRIED]
    y_pred = y_pred.float() if y_pred.dtype in (torch.float16, torch.bfloat16) else y_pred
    with torch.no_grad(), undisturbed(seed=0):
        whole = loss.mean(y_pred, y)
        if bool(torch.isfinite(whole)) and not _is_mean(loss, y_pred, y, whole):
            raise ValueError(
                f"criterion must be a mean over samples with {parts}, because each part of a batch is evaluated alone; "
                "its value for some samples is not the mean of its values for parts of them. Leave the argument out."
            )


def _is_mean(loss: RowLoss, y_pred: Tensor, y: Tensor, whole: Tensor) -> bool:
    """Say whether the loss of all samples is the mean over two parts, for parts that are drawn in several ways."""
    for parts in _splits(y):
        means, masses = zip(*(_mean_and_mass(loss, y_pred[part], y[part]) for part in parts), strict=True)
        mean = sum(m * w for m, w in zip(means, masses, strict=True)) / sum(masses)
        if not _close(torch.as_tensor(mean), whole):
            return False
    return True


def _splits(y: Tensor) -> list[tuple[Tensor, ...]]:
    """Return the samples in two parts, divided in several ways.

    One way does not show that a loss is a mean over samples: the root of a mean square is nearly the mean over parts
    that happen to be alike.
    """
    generator = torch.Generator().manual_seed(0)
    orders = [y.argsort(stable=True) if y.ndim == 1 else torch.arange(len(y), device=y.device)]
    orders += [torch.randperm(len(y), generator=generator).to(y.device) for _ in range(_N_SPLITS)]
    return [order.tensor_split([max(1, len(y) // 3)]) for order in orders]


def try_parts(loss_fn: ModuleLoss, params: Params, buffers: Buffers, batch: Batch) -> None:
    """Raise a ValueError unless the loss, whose outputs are not a tensor, is a mean over samples."""
    n = len(batch.y)
    if n < 2:
        return
    with torch.no_grad(), undisturbed(seed=0):
        whole = loss_fn(params, buffers, batch)[0]
        for parts in _splits(batch.y):
            mean = sum(loss_fn(params, buffers, rows_of(batch, part))[0] * (len(part) / n) for part in parts)
            if not _close(torch.as_tensor(mean), whole):
                raise ValueError(_NO_MEAN)


def try_whole_batch(loss_fn: ModuleLoss, params: Params, buffers: Buffers, batch: Batch) -> None:
    """Raise a ValueError if ``loss(module, batch)`` is a sum, which doubles when every sample is given twice."""
    n = len(batch.y)

    def twice(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor]) if tensor.ndim and len(tensor) == n else tensor

    doubled = batch._replace(X=map_tensors(twice, batch.X), y=twice(batch.y))
    with torch.no_grad(), undisturbed(seed=0):
        once = loss_fn(params, buffers, batch)[0]
        try:
            again = loss_fn(params, buffers, doubled)[0]
        except Exception:  # a batch may hold more than tensors, and then there is nothing to compare
            return
    if _close(again, 2 * once) and not _close(again, once):
        raise ValueError(
            "loss(module, batch) must return the mean loss of the batch, but it returns a sum, which doubles when "
            "every sample is given twice; divide by the number of samples, or return (mean, weight of the batch)."
        )


def try_mean_of_batch(loss_fn: ModuleLoss, params: Params, buffers: Buffers, batch: Batch) -> None:
    """Raise a ValueError if ``loss(module, batch)`` is not a mean over the samples of the batch."""
    n = len(batch.y)
    if n < 2:
        return

    def mean_of(part: Tensor) -> Tensor:
        X = map_tensors(lambda t: t[part] if t.ndim and len(t) == n else t, batch.X)
        return loss_fn(params, buffers, batch._replace(X=X, y=batch.y[part]))[0]

    with torch.no_grad(), undisturbed(seed=0):
        whole = loss_fn(params, buffers, batch)[0]
        try:
            means = [sum(mean_of(part) * (len(part) / n) for part in parts) for parts in _splits(batch.y)]
        except Exception:  # a batch may hold more than tensors, and then nothing can be compared
            return
    if not all(_close(torch.as_tensor(mean), whole) for mean in means):
        raise ValueError(
            "loss(module, batch) must return the mean over the samples of the batch, because each batch counts by its "
            "number of samples, but the mean over two parts of a batch differs from the mean over the whole; return a "
            "pair (mean, weight of the batch), such as (mean over tokens, number of tokens)."
        )


# Samples of a batch on which the loss is tried; a loss of pairs needs the square of their number.
_MOST_TRIED = 1000
# Splits of a few samples by which a loss that is not a mean over samples is found.
_N_SPLITS = 8
_NO_MEAN = (
    "criterion must be a mean over samples, so that it can be averaged over chunks of the data, but the mean over two "
    "parts differs from the mean over the whole. Set chunk_size to the number of samples, or use a torch loss with "
    "weight= for class weights."
)


def _has_these_terms(loss: RowLoss, y_pred: Tensor, y: Tensor, whole: Tensor) -> bool:
    """Say whether the terms belong to the loss. A subclass, or a skorch net, may compute something else."""
    try:
        return _close(loss.weighted(y_pred, y)[1], whole)
    except TypeError:
        return False


def _mean_and_mass(loss: RowLoss, y_pred: Tensor, y: Tensor) -> tuple[Tensor, float]:
    if loss.counts is None:
        return loss.mean(y_pred, y), float(len(y))
    return loss.weighted(y_pred, y)[1], float(loss.counts(y).double().sum())


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs() <= _ROUNDING * b.abs().clamp_min(1e-6))


def _same(first: Tensor, again: Tensor, *, exact: bool) -> bool:
    if not isinstance(first, Tensor):  # the outputs of a skorch net's own infer
        return True
    first, again = torch.nan_to_num(first), torch.nan_to_num(again)
    if exact or first.device.type == "cpu":
        return torch.equal(first, again)
    return torch.allclose(first, again, rtol=1e-3, atol=1e-5 * float(first.abs().max()))


def _is_ours(error: BaseException) -> bool:
    """Say whether a ``raise`` of this package raised the error. A user's C function leaves our call as the last one."""
    trace = innermost(error)
    ours = trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("sklgap.")
    return ours and raised_by_code(error)


@contextlib.contextmanager
def explained(batch: Batch) -> Iterator[None]:
    """Turn an error of torch in a forward pass into a ValueError that names its cause."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Using a target size")
            yield
    except torch.OutOfMemoryError:
        raise
    except UserWarning as warning:
        if "Using a target size" not in str(warning):
            raise
        raise ValueError(
            "The module's outputs must have the shape of y, because the loss would otherwise broadcast them against "
            f"each other; torch reports: {warning}"
        ) from warning
    except (RuntimeError, IndexError, KeyError, AttributeError, NotImplementedError, TypeError) as error:
        if isinstance(error, TypeError) and _is_ours(error):
            raise
        shape = f" of shape {tuple(batch.X.shape)}" if isinstance(batch.X, Tensor) else ""
        raise ValueError(
            f"module and criterion must accept the data, inputs{shape} and targets of shape {tuple(batch.y.shape)}; "
            f"they raise: {error}"
        ) from error
