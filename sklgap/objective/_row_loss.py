"""A loss as a ratio of sums over samples, the only form that can be averaged over parts of the data.

A criterion with class weights or an ignored class returns sum_i c_i l_i / sum_i c_i, where c_i is the weight of sample
i. The mean of such means over chunks, micro-batches or processes is not the mean of the whole. So the code adds up the
numerators and the denominators instead.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sklgap._typing import Criterion

Counts = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RowLoss:
    """A criterion, and what is known about its terms.

    Parameters
    ----------
    mean : callable
        Maps (y_pred, y) to the mean loss of the samples.
    terms : callable, optional
        Maps (y_pred, y) to the loss of every sample times its weight, of shape (n,). None if that is not known.
    counts : callable, optional
        Maps y to the weight of every sample, of shape (n,). None if all samples have equal weights.
    infer : callable, optional
        Maps (module, X) to y_pred, if that is not simply ``module(X)``.
    criterion : callable, optional
        The criterion from which the loss is made, with its weights and options. None if it is not known.
    """

    mean: Criterion
    terms: Criterion | None = None
    counts: Counts | None = None
    infer: Callable[[nn.Module, Any], Any] | None = None
    criterion: Criterion | None = None

    def alike(self) -> "RowLoss":
        """Return the loss for samples with equal weights. Its mean is the criterion itself, bit for bit."""
        return replace(self, counts=None)

    def by_class(self, class_weight: Tensor) -> "RowLoss":
        """Return the loss in which a sample of class k counts ``class_weight[k]`` times. y holds class numbers."""
        if self.terms is None:
            raise TypeError(NO_TERMS.replace("Sample weights need", "class_weight needs"))
        plain_terms, plain_counts = self.terms, self.counts

        def counts(y: Tensor) -> Tensor:
            by_class = class_weight.to(y.device)[y]
            return by_class if plain_counts is None else by_class * plain_counts(y)

        def terms(y_pred: Tensor, y: Tensor) -> Tensor:
            losses = plain_terms(y_pred, y)
            return losses * class_weight.to(losses)[y.to(losses.device)]

        loss = RowLoss(self.mean, terms, counts, criterion=self.criterion)
        return replace(loss, mean=lambda y_pred, y: loss.weighted(y_pred, y)[0])

    def of_the_mean(self) -> "RowLoss":
        """Return the loss without its terms and weights."""
        return replace(self, terms=None, counts=None)

    def saturating(self, scale: float) -> "RowLoss":
        """Return the loss in which the loss l of a sample counts as l / (1 + l / scale), which is less than ``scale``.

        Its gradient is that of l times 1 / (1 + l / scale)^2. Losses below 0 do not change.
        """
        if self.terms is None:
            raise TypeError(NO_TERMS.replace("Sample weights need", "A saturating loss needs"))
        plain_terms, counts = self.terms, self.counts

        def terms(y_pred: Tensor, y: Tensor) -> Tensor:
            losses = plain_terms(y_pred, y)
            if counts is None:
                return losses / (1 + losses.clamp_min(0) / scale)
            counted = counts(y).to(losses)
            each = torch.where(counted > 0, losses / counted, 0.0)  # samples of weight 0 have no loss
            return counted * each / (1 + each.clamp_min(0) / scale)

        loss = replace(self, terms=terms)
        return replace(loss, mean=lambda y_pred, y: terms(y_pred, y).mean())

    def of_outputs(self, function: Callable[[Any], Any]) -> "RowLoss":
        """Return the loss of ``function(y_pred)`` in place of y_pred."""
        plain = self.terms
        terms = None if plain is None else lambda y_pred, y: plain(function(y_pred), y)
        return replace(self, mean=lambda y_pred, y: self.mean(function(y_pred), y), terms=terms)

    def weights(self, y: Tensor, weight: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Return the weight of every sample, including its own weight; None if all samples have equal weights."""
        weight = None if weight is None else weight.to(dtype)
        if self.counts is None:
            return weight
        counts = self.counts(y).to(dtype)
        return counts if weight is None else counts * weight

    def weighted(
        self, y_pred: Tensor, y: Tensor, weight: Tensor | None = None, factor: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss with its terms multiplied by ``factor``, and the clean mean; 0 if all weights are 0."""
        if self.terms is None:
            raise TypeError(NO_TERMS)
        terms = self.terms(y_pred, y)
        if terms.shape != (len(y),):
            raise TypeError(
                "Sample weights need a criterion that returns the loss of every sample with reduction='none'; "
                f"got a tensor of shape {tuple(terms.shape)} for {len(y)} samples."
            )
        counted = self.weights(y, weight, terms.dtype)
        if counted is None:
            return (terms if factor is None else factor * terms).mean(), self.mean(y_pred.detach(), y)
        if weight is not None:
            terms = terms * weight.to(terms.dtype)
        mass = counted.sum().clamp_min(torch.finfo(counted.dtype).tiny)
        clean = terms.sum() / mass
        return (clean if factor is None else (factor * terms).sum() / mass), clean


NO_TERMS = (
    "Sample weights need a criterion that is a torch loss module with a 'reduction', such as "
    "torch.nn.CrossEntropyLoss; got a function that gives only the mean."
)


def row_loss(
    criterion: Criterion | RowLoss,
    evaluate: Callable[[Criterion], Criterion] = lambda criterion: criterion,
    *,
    gaps: bool = False,
) -> RowLoss:
    """Return what is known about a criterion: the terms of torch's loss modules, only the mean of other callables.

    Parameters
    ----------
    criterion : callable
        The loss.
    evaluate : callable, optional
        Turns a criterion into a function of (y_pred, y) that uses it, as the ``get_loss`` of a skorch net does.
    gaps : bool, default=False
        Whether y may hold a negative ``ignore_index`` (torch's default is -100) besides the class numbers.
    """
    if isinstance(criterion, RowLoss):
        return criterion
    if not isinstance(criterion, nn.Module) or not hasattr(criterion, "reduction"):
        return RowLoss(evaluate(criterion), criterion=criterion)
    unreduced = evaluate(per_sample(criterion))
    counts = counts_of(criterion, gaps=gaps)

    def terms(y_pred: Tensor, y: Tensor) -> Tensor:
        losses = unreduced(y_pred, y)
        if losses.ndim < 2:
            return losses
        # In an image with a class for every pixel, each pixel counts.
        return losses.flatten(1).mean(1) if counts is None else losses.flatten(1).sum(1)

    return RowLoss(evaluate(criterion), terms, counts, criterion=criterion)


def counts_of(criterion: Criterion, *, gaps: bool = False) -> Counts | None:
    """Return the weight of each sample in a criterion's mean, as a function of y; None if the weights are equal.

    Only ``CrossEntropyLoss`` and ``NLLLoss`` with class numbers do not divide by the number of samples. They divide by
    the summed weights of the classes, without the samples of ``ignore_index``.

    Parameters
    ----------
    criterion : callable
        The loss.
    gaps : bool, default=False
        Whether y may hold a negative ``ignore_index`` (torch's default is -100) besides the class numbers.
    """
    if not isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss):
        return None
    if criterion.weight is None and criterion.ignore_index < 0 and not gaps:
        return None

    def counts(y: Tensor) -> Tensor:
        weight, ignored = criterion.weight, criterion.ignore_index
        if y.is_floating_point():  # with class probabilities, torch divides by the number of samples
            return torch.ones(len(y), device=y.device)
        counted = y != ignored
        if weight is None:
            each = counted
        else:
            weight = weight.to(y.device)
            each = weight[torch.where(counted, y, 0)] * counted
        return each if each.ndim < 2 else each.flatten(1).sum(1)

    return counts


def per_sample(criterion: Criterion) -> Criterion:
    """Return the criterion without its mean over samples; raise a TypeError if it is not a torch loss module."""
    if not isinstance(criterion, nn.Module) or not hasattr(criterion, "reduction"):
        raise TypeError(
            "Sample weights need a criterion that is a torch loss module with a 'reduction', "
            f"such as torch.nn.CrossEntropyLoss; got {type(criterion).__name__}."
        )
    unreduced = copy.copy(criterion)
    unreduced.reduction = "none"  # type: ignore[assignment] # nn.Module has it as a tensor to mypy
    return unreduced
