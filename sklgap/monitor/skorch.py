"""The monitor of the batch size as a callback of skorch."""

from collections.abc import Mapping
from typing import Any

from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch import Tensor, nn

from sklgap._typing import Batch
from sklgap.monitor._batches import number_of_rows
from sklgap.monitor._callback import monitor_of
from sklgap.monitor._noise import BatchSizeMonitor, Geometry
from sklgap.objective._parameters import Patterns
from sklgap.objective._row_loss import counts_of

__all__ = ["BatchSizeCallback"]


class BatchSizeCallback(Callback):
    """Measure the gradient noise scale while a skorch net is fitted, to find the batch size that is useful for speed.

    From time to time the callback evaluates parts of a batch again, with ``infer`` and ``get_loss`` of the net.

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
    criterion, count in the parts as they do in the batch. Sample weights are refused, and so is a criterion that does
    not return a mean. A short last batch of an epoch is not measured, and counts in ``n_skipped``.

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
        self.monitor = monitor_of(net.module_, loss, optimizer, self, scaler=None)

    def on_grad_computed(self, net: Any, named_parameters: Any, batch: Any = None, **kwargs: Any) -> None:
        """Measure an update if a measurement is due, before the optimiser uses the gradient of the whole batch."""
        X, y, weight = _unpacked(batch)
        if weight is not None:
            raise ValueError("sample_weight must be None for BatchSizeCallback, which counts the samples of the parts.")
        assert self.monitor is not None
        self.monitor.step((X, y))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Write the estimates into the history."""
        assert self.monitor is not None
        for name, value in self.monitor.state().items():
            if name.startswith("noise_scale"):
                net.history.record(name, float(value))

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Print the verdict."""
        if self.verbose and self.monitor is not None:
            print(self.monitor.verdict())


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
