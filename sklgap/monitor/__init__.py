"""For anybody's training loop: the noise of its gradients, batch-size schedules, and whether accumulation is right."""

from sklgap.monitor._accumulation import AccumulationCheck, check_accumulation
from sklgap.monitor._noise import BatchSizeMonitor
from sklgap.regimes import BatchSizeSampler

__all__ = ["AccumulationCheck", "BatchSizeMonitor", "BatchSizeSampler", "check_accumulation"]
