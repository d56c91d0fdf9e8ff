"""The monitor of the batch size as a callback of Lightning."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from sklgap.monitor._batches import number_of_rows
from sklgap.monitor._callback import check_installed, monitor_of, numbers_to_log
from sklgap.monitor._distributed import ddp_in
from sklgap.monitor._loss import BatchLoss
from sklgap.monitor._noise import BatchSizeMonitor, Geometry
from sklgap.objective._parameters import Patterns

try:
    from lightning.pytorch import Callback
    from lightning.pytorch.callbacks import GradientAccumulationScheduler
except ImportError:  # the documentation is built without it
    Callback = object

__all__ = ["BatchSizeCallback"]


class BatchSizeCallback(Callback):
    """Measure the gradient noise scale in a Lightning ``Trainer``, to find the batch size that is useful for speed.

    With ``accumulate_grad_batches`` of at least 2, the micro-batches are the parts. With ``strategy="ddp"``, the
    micro-batches of all processes are the parts. Neither costs a forward or backward pass. In one process without
    accumulation, the callback evaluates parts of a batch again from time to time, and needs ``loss`` for that.

    Parameters
    ----------
    loss : callable, default=None
        The loss that ``training_step`` returns, needed in one process without accumulation. Either a criterion of
        (outputs, target) for batches (inputs, target), or a function ``loss(module, batch)`` that returns the mean
        loss, or (mean loss, weight of the batch). It must not log or change anything. The callback does not call
        ``training_step`` a second time, because that may do both.
    every, parts, parameters, geometry, max_overhead, window : optional
        As in `BatchSizeMonitor`.
    verbose : bool, default=True
        Whether to print the verdict at the end of the training.

    Attributes
    ----------
    monitor : BatchSizeMonitor or None
        The monitor of the last ``fit``; None before the first.

    Notes
    -----
    The weights are bit for bit those of a training without the callback. Every ``log_every_n_steps`` updates, the
    callback logs `BatchSizeMonitor.state` as ``batch_size_monitor/noise_scale`` and so on.

    A micro-batch counts by its number of samples. The callback does not measure updates with unequal micro-batches,
    such as the last one of an epoch, because Lightning averages them as if they were equal. They count in
    ``n_skipped``, and so does a short last batch. If another callback changes gradients in ``on_after_backward``, put
    this callback before it.

    Mixed precision is measured in the same precision as the training. Manual optimisation, and strategies other than a
    single device and DDP, are refused.

    Examples
    --------
    >>> import lightning, torch
    >>> from sklgap.monitor.lightning import BatchSizeCallback
    >>> class Line(lightning.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(3, 1)
    ...     def forward(self, X):
    ...         return self.layer(X)
    ...     def training_step(self, batch, batch_idx):
    ...         return torch.nn.functional.mse_loss(self(batch[0]), batch[1])
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.01)
    >>> X = torch.randn(1024, 3)
    >>> data = torch.utils.data.TensorDataset(X, X.sum(dim=1, keepdim=True))
    >>> loader = torch.utils.data.DataLoader(data, batch_size=16)
    >>> quiet = {
    ...     "logger": False,
    ...     "enable_checkpointing": False,
    ...     "enable_progress_bar": False,
    ...     "enable_model_summary": False,
    ...     "max_epochs": 1,
    ... }
    >>> callback = BatchSizeCallback(verbose=False)
    >>> trainer = lightning.Trainer(accumulate_grad_batches=4, callbacks=[callback], **quiet)
    >>> trainer.fit(Line(), loader)
    >>> callback.monitor.n_measurements, callback.monitor.batch_size
    (16, 64)
    >>> callback.monitor.state()["noise_scale"] > 0
    True

    Without accumulation the callback needs the loss, and evaluates it again from time to time:

    >>> callback = BatchSizeCallback(torch.nn.MSELoss(), every=4, verbose=False)
    >>> trainer = lightning.Trainer(callbacks=[callback], **quiet)
    >>> trainer.fit(Line(), loader)
    >>> callback.monitor.n_measurements, callback.monitor.batch_size
    (16, 16)
    """

    def __init__(
        self,
        loss: BatchLoss | None = None,
        *,
        every: int | None = None,
        parts: int = 8,
        parameters: Patterns | Mapping[str, Patterns] | None = None,
        geometry: Geometry = "euclidean",
        max_overhead: float = 0.03,
        window: int = 100,
        verbose: bool = True,
    ) -> None:
        check_installed(Callback, "lightning")
        super().__init__()
        self.loss, self.verbose = loss, verbose
        self.every, self.parts, self.parameters, self.geometry = every, parts, parameters, geometry
        self.max_overhead, self.window = max_overhead, window
        self.monitor: BatchSizeMonitor | None = None
        self._accumulates = False
        self._n_samples = 0
        self._backward = contextlib.ExitStack()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Create the monitor, or raise an error if this training cannot be measured correctly."""
        if not pl_module.automatic_optimization:
            raise ValueError(
                "module must have automatic_optimization=True for BatchSizeCallback, which cannot see the updates "
                "inside a training_step; use sklgap.monitor.BatchSizeMonitor inside it."
            )
        module = trainer.strategy.model
        if trainer.world_size > 1 and ddp_in(module) is None:
            got = type(trainer.strategy).__name__
            raise ValueError(f"strategy must be 'ddp' or a single device for BatchSizeCallback; got {got}.")
        scheduled = any(isinstance(other, GradientAccumulationScheduler) for other in trainer.callbacks)
        self._accumulates = trainer.accumulate_grad_batches > 1 or trainer.world_size > 1 or scheduled
        if self.loss is None and not self._accumulates:
            raise ValueError(
                "loss must be given to BatchSizeCallback in one process without accumulate_grad_batches, for example "
                "as a function loss(module, batch) that returns what training_step does and logs nothing; got None."
            )
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.monitor = monitor_of(module, self.loss, optimizer, self, scaler)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Measure the parts of a batch, or note the number of samples of the micro-batch."""
        assert self.monitor is not None
        if self._accumulates:
            self._n_samples = number_of_rows(batch)
            return
        with trainer.precision_plugin.train_step_context():
            self.monitor.step(batch)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """Start to measure the gradient of the micro-batch."""
        if self._accumulates and self.monitor is not None:
            self._backward.enter_context(self.monitor.accumulate(self._n_samples))

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Stop measuring."""
        self._backward.close()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Measure an update that consists of micro-batches."""
        if self._accumulates and self.monitor is not None and self.monitor._open is not None:
            self.monitor.step()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the estimates whenever Lightning writes to its loggers."""
        if trainer.log_every_n_steps and trainer.global_step % trainer.log_every_n_steps == 0:
            found = numbers_to_log(self.monitor)
            if found:
                pl_module.log_dict(found, on_step=True, on_epoch=False)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Print the verdict in the first process."""
        if self.verbose and self.monitor is not None and trainer.is_global_zero:
            print(self.monitor.verdict())

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Stop measuring a backward pass that failed."""
        with contextlib.suppress(type(exception)):
            self._backward.__exit__(type(exception), exception, exception.__traceback__)
