"""Code that the callbacks for Lightning, Transformers and skorch share."""

from typing import Any

import torch
from torch import nn

from sklgap.monitor._loss import BatchLoss
from sklgap.monitor._noise import BatchSizeMonitor

PREFIX = "batch_size_monitor/"
# The parameters of the callbacks that are passed on to the monitor.
OPTIONS = ("every", "parts", "parameters", "geometry", "max_overhead", "window")


def monitor_of(
    module: nn.Module,
    loss: BatchLoss | None,
    optimizer: torch.optim.Optimizer | None,
    callback: Any,
    scaler: torch.amp.GradScaler | None,
) -> BatchSizeMonitor:
    """Return the monitor of a training that a framework runs.

    ``optimizer`` is used only for the geometry of Adam. ``callback`` has the `OPTIONS` as attributes.
    """
    options = {name: getattr(callback, name) for name in OPTIONS}
    optimizer = optimizer if callback.geometry == "adam" else None
    monitor = BatchSizeMonitor(module, loss, optimizer=optimizer, scaler=scaler, **options)
    monitor._lenient = True
    return monitor


def numbers_to_log(monitor: BatchSizeMonitor | None) -> dict[str, float]:
    """Return the state with prefixed names; an empty dict before the first measurement."""
    if monitor is None or not monitor.n_measurements:
        return {}
    return {PREFIX + name: float(value) for name, value in monitor.state().items()}


def check_installed(base: type, library: str) -> None:
    """Raise an ImportError if the library that provides the base class of the callback is not installed."""
    if base is object:
        raise ImportError(
            f"BatchSizeCallback needs {library}, which is not installed. Run: pip install sklgap[adapters]"
        )
