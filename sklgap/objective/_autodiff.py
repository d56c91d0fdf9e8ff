"""The one door for differentiation.

``torch.autograd.grad`` only: it never writes to ``.grad`` of anybody's parameters, and on the paths of this package
it is the fastest of torch's ways (``torch.func.grad_and_value`` costs twice as much on a small net).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sklgap._typing import Aux, Batch, Buffers, GradFn, LossFn, Params


def value_and_grad(loss_fn: LossFn) -> GradFn:
    """Turn a loss function into one that returns its gradient with respect to the parameters.

    A parameter the loss does not depend on is left out of the result, as ``backward`` leaves its ``.grad`` alone.
    """

    def grad_fn(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
        loss, aux = loss_fn(params, buffers, batch)
        gradients = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
        return {name: g for name, g in zip(params, gradients, strict=True) if g is not None}, aux

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
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(function(theta), theta, create_graph=True)
        if not gradient.requires_grad:
            return torch.zeros_like(theta)
        product = torch.autograd.grad(gradient, theta, grad_outputs=vector, allow_unused=True)[0]
    return torch.zeros_like(theta) if product is None else product
