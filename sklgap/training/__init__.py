"""The training step, the batches it sees, and the skorch net that runs it."""

from sklgap.training._batches import plan_epoch
from sklgap.training._loaders import HostLoader, ResidentLoader
from sklgap.training._net import TrainingNet
from sklgap.training._recorder import TrainingRecorder
from sklgap.training._step import TrainStep
from sklgap.training._weight_averaging import WeightAveraging

__all__ = [
    "HostLoader",
    "ResidentLoader",
    "TrainStep",
    "TrainingNet",
    "TrainingRecorder",
    "WeightAveraging",
    "plan_epoch",
]
