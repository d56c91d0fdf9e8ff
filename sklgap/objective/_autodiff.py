"""The single place that differentiates.

It uses ``torch.autograd.grad``, which never writes to ``.grad`` of any parameter. On the paths of this package it is
the fastest of torch's ways (``torch.func.grad_and_value`` costs twice as much on a small net). ``torch.func`` is used
only where it batches over samples.
"""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from sklgap._typing import Aux, Batch, Buffers, GradFn, LossFn, Params
from sklgap.objective._nested import map_tensors
from sklgap.objective._parameters import flatten, real

Standing = Callable[[Params], contextlib.AbstractContextManager[None]]


def check_gradients_allowed() -> None:
    """Raise a RuntimeError in ``torch.inference_mode``, in which even ``torch.enable_grad`` allows no gradients."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "torch.inference_mode must be off where gradients are computed, and it is on; call this outside of it, or "
            "use torch.no_grad instead."
        )


def check_no_autocast() -> None:
    """Raise a RuntimeError in ``torch.autocast``, which saves weights in lower precision and would use them again.

    Training and measuring write new weights into the same tensors, of which autocast does not know.
    """
    if any(map(torch.is_autocast_enabled, ("cpu", "cuda", "mps", "xpu"))):
        raise RuntimeError(
            "torch.autocast must be off where a net is trained or measured, and it is on; leave the block before. To "
            "train in lower precision, use precision='bfloat16'."
        )


def value_and_grad(loss_fn: LossFn, standing: Standing | None = None) -> GradFn:
    """Turn a loss function into one that returns its gradient with respect to the parameters.

    A parameter that does not influence the loss is left out of the result, as ``backward`` leaves its ``.grad`` alone.

    Parameters
    ----------
    loss_fn : callable
        Maps (params, buffers, batch) to (loss, Aux).
    standing : callable, optional
        Maps params to a context in which the module holds these parameters. It comes from the `ModuleLoss` from which
        ``loss_fn`` is made. None means that of ``loss_fn``, if it has one.
    """
    within = standing or getattr(loss_fn, "standing", None) or (lambda params: contextlib.nullcontext())

    def grad_fn(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
        with within(params):
            loss, aux = loss_fn(params, buffers, batch)
            gradients = gradients_of(loss, list(params.values()), allow_unused=True)
        found = {name: g for name, g in zip(params, gradients, strict=True) if g is not None}
        return found, Aux(aux.loss, aux.y_pred.detach(), aux.buffers, aux.weights)

    return grad_fn


def gradients_of(output: Tensor | Sequence[Tensor], inputs: Sequence[Tensor], **options: Any) -> tuple[Tensor, ...]:
    """Call ``torch.autograd.grad``; raise a ValueError for a module that only ``backward`` can differentiate."""
    check_gradients_allowed()
    try:
        return torch.autograd.grad(output, inputs, **options)
    except RuntimeError as error:
        if "compatible with .grad()" not in str(error):
            raise
        raise ValueError(
            "module uses reentrant gradient checkpointing, which writes into .grad and gives no other gradients; "
            "call torch.utils.checkpoint with use_reentrant=False."
        ) from error


def pulled_back(
    outputs: Sequence[Tensor], inputs: list[Tensor], vectors: Sequence[Tensor], **options: Any
) -> tuple[Tensor, ...]:
    """Return vectors, of the shapes of the outputs, times the Jacobian of the outputs with respect to the inputs.

    The product is the gradient of the inner product of outputs and vectors, which gives equal results bit for bit.
    torch also accepts the vectors as ``grad_outputs``, but then it loads sympy, some 480 modules.
    """
    with torch.enable_grad():
        products = [(output * vector).sum() for output, vector in zip(outputs, vectors, strict=True)]
        return gradients_of(torch.stack(products).sum(), inputs, **options)


def gradient_of(function: Callable[[Params], Tensor], leaves: Params) -> tuple[Tensor, Tensor]:
    """Return ``(function(leaves), its gradient)`` for a scalar function of named tensors. The gradient is flat.

    The tensors require gradients themselves, because a gradient through pieces of one long vector takes longer.
    """
    with torch.enable_grad():
        value = function(leaves)
        gradients = gradients_of(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return value.detach(), flatten(dict(zip(leaves, gradients, strict=True)))


def hessian_vector_product(function: Callable[[Tensor], Tensor], theta: Tensor, vector: Tensor) -> Tensor:
    """Return the Hessian of a scalar function at ``theta``, times ``vector`` (reverse over reverse mode).

    The product is zero if the gradient does not depend on theta, as for a linear function.
    """
    return _product(*_differentiable_gradient(function, theta), vector, keep=False)


def hessian_operator(function: Callable[[Tensor], Tensor], theta: Tensor) -> Callable[[Tensor], Tensor]:
    """Return ``vector -> Hessian @ vector`` at ``theta``; the graph of the gradient stays in memory meanwhile."""
    gradient, theta = _differentiable_gradient(function, theta)
    return lambda vector: _product(gradient, theta, vector, keep=True)


def _differentiable_gradient(function: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, Tensor]:
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = gradients_of(function(theta), [theta], create_graph=True)
    return gradient, theta


def _product(gradient: Tensor, theta: Tensor, vector: Tensor, keep: bool) -> Tensor:
    check_no_autocast()  # the operator may have been made before the block
    if not gradient.requires_grad:
        return torch.zeros_like(theta)
    product = pulled_back([gradient], [theta], [vector], allow_unused=True, retain_graph=keep)[0]
    return torch.zeros_like(theta) if product is None else product


def _row_gradients(function: Callable[..., Tensor], params: Params, X: Any, y: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient for every sample, of shape (len(y), ...) for each parameter.

    Every sample has separate parameters that share their memory. ``torch.func.grad`` gives the same gradients and takes
    longer, because it loads torch's compiler, some 800 modules.
    """
    check_gradients_allowed()
    own = {name: p.detach().expand(len(y), *p.shape).requires_grad_() for name, p in params.items()}
    with torch.enable_grad():
        losses = vmap(function)(own, X, y)
        return gradients_of(losses.sum(), list(own.values()), allow_unused=True, materialize_grads=True)


def row_gradient_norms(
    function: Callable[..., Tensor], params: Params, X: Any, y: Tensor, alone: Callable[[Any, Tensor], Tensor]
) -> Tensor:
    """Return the norm of the gradient of ``function(params, x, y)`` for every sample (x, y), of shape (len(y),).

    If ``torch.func.vmap`` cannot batch the module, as with a recurrent layer or derivatives in the forward pass, the
    samples go one after the other through ``alone(x, y)``, which returns the gradient of one sample.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # an operation that vmap loops over
            rows = [real(g).reshape(len(y), -1) for g in _row_gradients(function, params, X, y)]
    except RuntimeError:
        rows = [torch.stack([alone(map_tensors(lambda t: t[i], X), y[i]) for i in range(len(y))])]  # noqa: B023 - called at once
    return torch.stack([torch.linalg.vector_norm(g, dim=1) for g in rows]).norm(dim=0)
