"""The loss of a batch, from a criterion or from a user's function."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from sklgap._checks import shown
from sklgap.objective._loss import call_module
from sklgap.objective._objective import WholeBatchLoss, takes_module
from sklgap.objective._row_loss import counts_of
from sklgap.objective._stream import inputs_and_target

# A criterion of (outputs, target), or a function of (module, batch) that returns the mean loss or (mean loss, weight).
BatchLoss = Callable[..., Tensor | tuple[Tensor, Tensor | float]]


class LossInSamples:
    """A loss ``(module, batch)`` that returns (mean loss, weight of the batch), where samples have weights, not tokens.

    The weight of the batch is for example the sum of the class weights of its samples. Its scale does not matter.
    """

    counts_samples = True

    def __init__(self, loss: Callable[[nn.Module, Any], tuple[Tensor, float]]) -> None:
        self.loss = loss

    def __call__(self, module: nn.Module, batch: Any) -> tuple[Tensor, float]:
        """Return the mean loss of a batch and the weight of its samples."""
        return self.loss(module, batch)


def counts_in_samples(loss: BatchLoss | None) -> bool:
    """Return whether the weights of a loss are those of samples: class weights, or 0 for ignored targets.

    The weights from a user's function may count tokens. Those of a criterion depend on the scale of the class weights.
    """
    return loss is not None and (getattr(loss, "counts_samples", False) or not takes_module(loss))


def loss_of_batch(loss: BatchLoss | None) -> WholeBatchLoss | None:
    """Return the loss as a function of (module, batch), or None; raise an error if a criterion returns no mean."""
    if loss is None:
        return None
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"loss must be a criterion or a function loss(module, batch); got {shown(loss)}.")
    if takes_module(loss):
        return WholeBatchLoss(loss)
    reduction = getattr(loss, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"loss must have reduction='mean'; got reduction={reduction!r}.")

    # With class weights or ignored targets, samples count differently, and so do the parts of a batch.
    counts = counts_of(loss, gaps=True) if isinstance(loss, nn.Module) and hasattr(loss, "reduction") else None

    def of_batch(module: nn.Module, batch: Any) -> Any:
        X, y = inputs_and_target(batch)
        value = loss(call_module(module, X), y)
        return value if counts is None else (value, counts(y).sum())

    return WholeBatchLoss(of_batch)
