"""The base class of remedies: functions that transform the batch, the loss function or the gradient function.

A remedy that evaluates the gradient again, as sharpness-aware minimisation does, must transform the gradient *function*
instead of the gradient. Therefore the hooks take and return functions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from sklgap._typing import Batch, GradFn, LossFn, Params
from sklgap.objective._autodiff import value_and_grad


class Remedy(BaseEstimator):
    """Base class of remedies. Subclass it and override the hooks that the remedy needs.

    Every hook returns its argument unchanged by default. Parameters are explicit arguments of ``__init__``, as in any
    scikit-learn estimator, so searches can set them by nested names. A remedy saves no state between batches. Within a
    batch, ``begin_batch`` returns the state that the other hooks receive, and ``batch.extra`` holds what a remedy has
    drawn for the samples. ``batch.number`` counts the batches of the training from 0, also in a training that continues
    after an interruption.

    Attributes
    ----------
    inner_steps : int
        Number of optimiser steps on each batch; 1 by default. The largest number of all remedies counts.
    sub_batch_size : int or None
        Number of samples that the net receives at once, if the remedy cuts batches into parts. None, the default, means
        that it does not.
    at_most_once : bool
        Whether a second remedy of the same class in an estimator is an error; False by default.
    in_parts : bool
        Whether the loss returned by ``transform_loss`` may be evaluated in parts of a batch, because it is a mean over
        samples, or such a mean plus a function of the weights; True by default. With False, ``micro_batch_size`` and
        ``data_parallel`` are errors, unless ``sub_batch_size`` makes the parts small enough.
    changes_factor : bool
        Whether ``transform_batch`` sets ``batch.factor``, so that the gradient is not that of the clean loss; False by
        default.
    compiles : bool
        Whether ``transform_loss`` takes no gradient with respect to the weights, so that the net may be compiled; False
        by default. Compiled code has only one backward pass. The attribute matters only if ``transform_loss`` is
        overridden.

    See Also
    --------
    compose : The order in which the hooks of several remedies apply.

    Examples
    --------
    Noise on the inputs:

    >>> import torch
    >>> from sklgap import LBGapClassifier, Remedy
    >>> class InputNoise(Remedy):
    ...     def __init__(self, scale=0.1):
    ...         self.scale = scale
    ...
    ...     def transform_batch(self, batch, rng):
    ...         noise = torch.randn(batch.X.shape, generator=rng).to(batch.X)
    ...         return batch._replace(X=batch.X + self.scale * noise)
    >>> model = LBGapClassifier(remedies=[("noise", InputNoise())])
    >>> model.set_params(remedies__noise__scale=0.2).get_params()["remedies__noise__scale"]
    0.2
    """

    inner_steps: int = 1
    sub_batch_size: int | None = None
    at_most_once: bool = False
    in_parts: bool = True
    changes_factor: bool = False
    compiles: bool = False

    @property
    def changes_gradient(self) -> bool:
        """Whether the remedy transforms the loss or its gradient, so that updates are not those of plain training."""
        return type(self).transform_loss is not Remedy.transform_loss or self.transforms_gradient

    @property
    def transforms_gradient(self) -> bool:
        """Whether the remedy transforms the gradient function, and so may take several gradients for an update."""
        return type(self).transform_grad is not Remedy.transform_grad

    def check(self) -> None:
        """Raise a ValueError of one sentence if a parameter is outside its allowed values; ``fit`` calls it."""

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise a ValueError or TypeError of one sentence if the remedy cannot work with this loss module."""

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch to train on. Random numbers come from ``rng``, a generator on the CPU."""
        return batch

    def begin_batch(self, params: Params, rng: torch.Generator) -> Any:
        """Return the state for the other hooks, from the weights at the start of the batch or from random numbers."""
        return None

    def transform_loss(self, loss_fn: LossFn, state: Any) -> LossFn:
        """Return the loss function to differentiate. The ``Aux`` that it returns remains that of the clean loss."""
        return loss_fn

    def transform_grad(self, grad_fn: GradFn, state: Any) -> GradFn:
        """Return the gradient function of the step. The ``Aux`` that it returns remains that of the unmoved weights."""
        return grad_fn


def compose(
    loss_fn: LossFn,
    remedies: Sequence[Remedy],
    params: Params,
    differentiate: Callable[[LossFn], GradFn] = value_and_grad,
    rng: torch.Generator | None = None,
) -> GradFn:
    """Return the gradient function of a batch that starts at ``params``.

    Losses are transformed in the order of ``remedies`` and then differentiated. Gradient functions are transformed in
    the same order, so the last remedy is the outermost. The order therefore matters among remedies that transform the
    same function. It does not matter between a remedy that transforms the loss and one that transforms its gradient.

    Parameters
    ----------
    loss_fn : callable
        Function (params, buffers, batch) -> (loss, Aux).
    remedies : sequence of Remedy
        The remedies. Their ``transform_batch`` is not called here; the batch has been transformed before.
    params : dict of tensors
        The weights at the start of the batch.
    differentiate : callable, default=value_and_grad
        Function that turns the loss function into its gradient function. It may evaluate a batch in parts.
    rng : torch.Generator, optional
        Generator on the CPU for ``begin_batch``.

    Returns
    -------
    callable
        Function (params, buffers, batch) -> (gradients, Aux).
    """
    rng = torch.Generator() if rng is None else rng
    states = [remedy.begin_batch(params, rng) for remedy in remedies]
    for remedy, state in zip(remedies, states, strict=True):
        loss_fn = remedy.transform_loss(loss_fn, state)
    grad_fn = differentiate(loss_fn)
    for remedy, state in zip(remedies, states, strict=True):
        grad_fn = remedy.transform_grad(grad_fn, state)
    return grad_fn


# -- random numbers --------------------------------------------------------------------------------------------------


def seed_from(rng: torch.Generator) -> int:
    """Draw a seed from a generator on the CPU."""
    return int(torch.randint(2**62, (), generator=rng))


def normal_like(tensor: Tensor, rng: torch.Generator) -> Tensor:
    """Return standard normal numbers, drawn on the device of the tensor by a seed from ``rng``, a CPU generator."""
    generator = torch.Generator(device=tensor.device).manual_seed(seed_from(rng))
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
