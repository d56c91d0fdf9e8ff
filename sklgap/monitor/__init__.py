"""For anybody's training loop: the noise of its gradients, batch-size schedules, and whether accumulation is right."""

from sklgap.monitor._noise import BatchSizeMonitor
from sklgap.regimes import BatchSizeSampler

__all__ = ["BatchSizeMonitor", "BatchSizeSampler"]
