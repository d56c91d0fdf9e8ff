"""What a remedy is: a set of functions that transform batch, loss function or gradient function.

A remedy that evaluates the gradient again (as sharpness-aware minimisation does) must transform the gradient
*function*, not the gradient; that is why the hooks take and return functions.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from sklearn.base import BaseEstimator

from sklgap._typing import Batch, GradFn, LossFn, Params
from sklgap.objective._autodiff import value_and_grad


class Remedy(BaseEstimator):
    """Subclass it and override what the remedy changes: every hook is the identity by default.

    Parameters are explicit arguments of ``__init__``, as in any scikit-learn estimator, so that searches reach them by
    nested names. A remedy keeps no state between batches: what it must remember within a batch is returned by
    ``begin_batch`` and handed to the other hooks.

    Attributes
    ----------
    inner_steps : int
        Optimiser steps made on each batch; 1 by default.

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

    def check(self) -> None:
        """Raise a ValueError in one sentence if a parameter is outside its allowed values; called by ``fit``."""

    def transform_batch(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Return the batch to train on; random numbers come from ``rng``, a generator on the CPU."""
        return batch

    def begin_batch(self, params: Params) -> Any:
        """Return what the other hooks need to know of the weights at the start of the batch."""
        return None

    def transform_loss(self, loss_fn: LossFn, state: Any) -> LossFn:
        """Return the loss function to differentiate. The ``Aux`` it returns stays that of the clean loss."""
        return loss_fn

    def transform_grad(self, grad_fn: GradFn, state: Any) -> GradFn:
        """Return the gradient function to step with. The ``Aux`` it returns stays that of the unmoved weights."""
        return grad_fn


def compose(
    loss_fn: LossFn,
    remedies: Sequence[Remedy],
    params: Params,
    differentiate: Callable[[LossFn], GradFn] = value_and_grad,
) -> GradFn:
    """Return the gradient function of a batch that starts at ``params``.

    Losses are transformed in the order of ``remedies``, then differentiated, then gradient functions in the same
    order: the last remedy is the outermost. ``differentiate`` may evaluate a batch in parts.
    """
    states = [remedy.begin_batch(params) for remedy in remedies]
    for remedy, state in zip(remedies, states, strict=True):
        loss_fn = remedy.transform_loss(loss_fn, state)
    grad_fn = differentiate(loss_fn)
    for remedy, state in zip(remedies, states, strict=True):
        grad_fn = remedy.transform_grad(grad_fn, state)
    return grad_fn


def check_remedies(remedies: Iterable[Any] | None) -> list[tuple[str, Remedy]]:
    """Return named remedies: each is a `Remedy`, or a pair (name, Remedy) as skorch's callbacks are.

    An unnamed remedy is called by its class in lower case, with a number where that is taken.
    """
    if isinstance(remedies, Remedy):
        raise TypeError(
            f"remedies must be a sequence of Remedy objects; got {remedies!r} alone: write ({remedies!r},)."
        )
    if remedies is not None and not isinstance(remedies, Iterable):
        raise TypeError(f"remedies must be a sequence of Remedy objects; got {remedies!r}.")
    named: list[tuple[str, Remedy]] = []
    for item in remedies or ():
        name, remedy = item if isinstance(item, tuple) and len(item) == 2 else (type(item).__name__.lower(), item)
        if not isinstance(name, str) or not isinstance(remedy, Remedy):
            raise TypeError(f"remedies must hold Remedy objects or pairs (name, Remedy); got {item!r}.")
        if "__" in name:
            raise ValueError(f"remedies must have names without '__'; got {name!r}.")
        taken = {other for other, _ in named}
        if name in taken and isinstance(item, tuple):
            raise ValueError(f"remedies must have different names; got {name!r} twice.")
        if name in taken:
            name = next(f"{name}_{i}" for i in range(2, len(taken) + 3) if f"{name}_{i}" not in taken)
        named.append((name, remedy))
    return named
