"""The one door for differentiation.

``torch.autograd.grad``: it never writes to ``.grad`` of anybody's parameters, and on the paths of this package
it is the fastest of torch's ways (``torch.func.grad_and_value`` costs twice as much on a small net). ``torch.func`` is
used only where it batches over rows.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap

from sklgap._typing import Aux, Batch, Buffers, GradFn, LossFn, Params


def value_and_grad(loss_fn: LossFn) -> GradFn:
    """Turn a loss function into one that returns its gradient with respect to the parameters.

    A parameter the loss does not depend on is left out of the result, as ``backward`` leaves its ``.grad`` alone.
    """

    def grad_fn(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
        loss, aux = loss_fn(params, buffers, batch)
        gradients = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        return {name: g for name, g in zip(params, gradients, strict=True) if g is not None}, Aux(
            aux.loss, aux.y_pred.detach(), aux.buffers
        )

    return grad_fn


def gradient_of(function: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(function(theta), its gradient)`` for a scalar function of a vector."""
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        value = function(theta)
        (gradient,) = torch.autograd.grad(value, theta)
    return value.detach(), gradient


def hessian_vector_product(function: Callable[[Tensor], Tensor], theta: Tensor, vector: Tensor) -> Tensor:
    """Return the Hessian of a scalar function at ``theta``, times ``vector`` (reverse over reverse mode).

    Zero where the gradient does not depend on theta, as for a function that is linear.
    """
    return _product(*_differentiable_gradient(function, theta), vector, keep=False)


def hessian_operator(function: Callable[[Tensor], Tensor], theta: Tensor) -> Callable[[Tensor], Tensor]:
    """Return ``vector -> Hessian @ vector`` at ``theta``; the graph of the gradient is kept between products."""
    gradient, theta = _differentiable_gradient(function, theta)
    return lambda vector: _product(gradient, theta, vector, keep=True)


def _differentiable_gradient(function: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, Tensor]:
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(function(theta), theta, create_graph=True)
    return gradient, theta


def _product(gradient: Tensor, theta: Tensor, vector: Tensor, keep: bool) -> Tensor:
    if not gradient.requires_grad:
        return torch.zeros_like(theta)
    product = torch.autograd.grad(gradient, theta, vector, allow_unused=True, retain_graph=keep)[0]
    return torch.zeros_like(theta) if product is None else product


def row_gradient_norms(function: Callable[..., Tensor], params: Params, X: Tensor, y: Tensor) -> Tensor:
    """Return the norm of the gradient of ``function(params, x, y)`` for every row (x, y), of shape (len(X),).

    Row after row where ``torch.func.vmap`` cannot batch what the module does, such as a recurrent layer.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # an operation that vmap loops over
            gradients = vmap(grad(function), in_dims=(None, 0, 0))(params, X, y)
    except RuntimeError:
        rows = [grad(function)(params, *row) for row in zip(X, y, strict=True)]
        gradients = {name: torch.stack([row[name] for row in rows]) for name in params}
    return torch.stack([torch.linalg.vector_norm(g.reshape(len(X), -1), dim=1) for g in gradients.values()]).norm(dim=0)
