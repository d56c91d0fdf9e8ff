"""The monitor of the batch size as a callback of skorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch import Tensor, nn

from sklgap._typing import Batch
from sklgap.monitor._batches import number_of_rows
from sklgap.monitor._callback import monitor_of
from sklgap.monitor._loss import LossInSamples
from sklgap.monitor._noise import BatchSizeMonitor, Geometry
from sklgap.objective._parameters import Patterns
from sklgap.objective._row_loss import counts_of

__all__ = ["BatchSizeCallback"]


class BatchSizeCallback(Callback):
    """Measure the gradient noise scale while a skorch net is fitted, to find the batch size that is useful for speed.

    From time to time the callback evaluates parts of a batch again, with ``infer`` and ``get_loss`` of the net. It does
    so before the first update on the batch. The later updates of a training with several updates on a batch are not
    measured.

    Parameters
    ----------
    every, parts, parameters, geometry, max_overhead, window : optional
        As in `BatchSizeMonitor`.
    verbose : bool, default=True
        Whether to print the verdict at the end of the training.

    Attributes
    ----------
    monitor : BatchSizeMonitor or None
        The monitor of the last fit. `sklgap.LBGapClassifier` trains with a copy of a callback, so its monitor is
        ``dict(model.net_.callbacks_)["BatchSizeCallback"].monitor``.

    Notes
    -----
    The weights are bit for bit those of a training without the callback. At the end of every epoch, the callback writes
    ``noise_scale``, ``noise_scale_low`` and ``noise_scale_high`` into the history, also for groups of parameters. They
    are NaN before the first measurement.

    The measured loss is the loss of the net, without remedies. Class weights, from ``class_weight`` or from the
    criterion, count in the parts as they do in the batch, and the noise scale is a number of samples. A short last
    batch of an epoch is not measured, and counts in ``n_skipped``. These are refused: sample weights, a criterion that
    does not return a mean, and a net that accumulates the gradients of several batches. Use `BatchSizeMonitor` in the
    ``train_step`` of such a net.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetRegressor
    >>> from sklgap.monitor.skorch import BatchSizeCallback
    >>> X = torch.randn(512, 3, generator=torch.Generator().manual_seed(0))
    >>> callback = BatchSizeCallback(every=1, verbose=False)
    >>> net = NeuralNetRegressor(
    ...     torch.nn.Linear(3, 1), train_split=None, batch_size=64, max_epochs=2, verbose=0, callbacks=[callback]
    ... )
    >>> _ = net.fit(X, X.sum(dim=1, keepdim=True))
    >>> callback.monitor.n_measurements
    16
    >>> bool(net.history[-1, "noise_scale_low"] < net.history[-1, "noise_scale"])
    True
    """

    changes_gradient = False  # it only reads the gradient; see `sklgap.inspection.StabilityMeasurement`

    def __init__(
        self,
        every: int | None = None,
        parts: int = 8,
        parameters: Patterns | Mapping[str, Patterns] | None = None,
        geometry: Geometry = "euclidean",
        max_overhead: float = 0.03,
        window: int = 100,
        verbose: bool = True,
    ) -> None:
        self.every, self.parts, self.parameters, self.geometry = every, parts, parameters, geometry
        self.max_overhead, self.window, self.verbose = max_overhead, window, verbose

    def initialize(self) -> "BatchSizeCallback":
        """Start without a monitor."""
        self.monitor: BatchSizeMonitor | None = None
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Create the monitor, or raise an error if this training cannot be measured correctly."""
        if getattr(net.criterion_, "reduction", "mean") != "mean":
            raise ValueError(
                f"criterion must have reduction='mean' for BatchSizeCallback; got {net.criterion_.reduction!r}."
            )

        def loss(module: nn.Module, batch: Any) -> tuple[Tensor, float]:
            return _loss_of(net, batch)

        optimizer = getattr(net, "optimizer_", None)
        self.monitor = monitor_of(net.module_, LossInSamples(loss), optimizer, self, scaler=None)
        self._is_first = True  # whether the next gradient is the first one of its batch
        self._n_gradients = 0
        self._left: _Gradient | None = None

    def on_batch_begin(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Expect the first gradient of a batch."""
        self._is_first = training

    def on_grad_computed(self, net: Any, named_parameters: Any, batch: Any = None, **kwargs: Any) -> None:
        """Measure an update if a measurement is due, before the optimiser uses the gradient of the whole batch."""
        if not self._is_first:  # the optimiser has moved the weights on this batch, as LBFGS does
            return
        self._is_first = False
        self._n_gradients += 1
        if self._left is not None and self._left.is_added_to():
            raise ValueError(f"net must clear the gradient before every batch {_accumulating(net)}")
        X, y, weight = _unpacked(batch)
        if weight is not None:
            raise ValueError("sample_weight must be None for BatchSizeCallback, which counts the samples of the parts.")
        assert self.monitor is not None
        self.monitor.step((X, y))

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Raise an error if the net does not update on every batch."""
        if not training:
            return
        if not self._n_gradients:
            raise ValueError(f"net must notify on_grad_computed for every batch {_accumulating(net)}")
        self._left = _Gradient.of(net.module_)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Write the estimates into the history."""
        assert self.monitor is not None
        for name, value in self.monitor.state().items():
            if name.startswith("noise_scale"):
                net.history.record(name, float(value))

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Print the verdict."""
        self._left = None
        if self.verbose and self.monitor is not None:
            print(self.monitor.verdict())


@dataclass
class _Gradient:
    """The gradient of the smallest parameter at the end of a batch, and how often it had been written to."""

    parameter: Tensor
    gradient: Tensor
    version: int

    @classmethod
    def of(cls, module: nn.Module) -> "_Gradient | None":
        """Return the gradient that is there now, or None."""
        found = min((p for p in module.parameters() if p.grad is not None), key=Tensor.numel, default=None)
        return None if found is None or found.grad is None else cls(found, found.grad, found.grad._version)

    def is_added_to(self) -> bool:
        """Return whether another gradient has been added without clearing this one, which would write twice."""
        return self.parameter.grad is self.gradient and self.gradient._version == self.version + 1


def _accumulating(net: Any) -> str:
    return (
        f"for BatchSizeCallback, which takes every batch for an update; the train_step of {type(net).__name__} does "
        "not, as in gradient accumulation; use sklgap.monitor.BatchSizeMonitor in this train_step."
    )


def _unpacked(batch: Any) -> tuple[Any, Any, Any]:
    """Return inputs, target and sample weights; the weights are None without weights."""
    return batch[:3] if isinstance(batch, Batch) else (*unpack_data(batch), None)


def _loss_of(net: Any, batch: Any) -> tuple[Tensor, float]:
    """Return the mean loss of a batch as the net computes it, and the weight of its samples."""
    X, y = batch
    value = net.get_loss(net.infer(X), y, X=X, training=True)
    counts = net.row_loss().counts if hasattr(net, "row_loss") else _counts(net.criterion_)
    if counts is None:
        return value, float(number_of_rows(batch))
    return value, float(counts(to_tensor(y, device=net.device)).sum())


def _counts(criterion: Any) -> Any:
    known = isinstance(criterion, nn.Module) and hasattr(criterion, "reduction")
    return counts_of(criterion, gaps=True) if known else None
