"""The training step, its batches, and the skorch net that runs it."""

from sklgap.training._batches import plan_epoch
from sklgap.training._exponential_averaging import ExponentialAveraging
from sklgap.training._full_batch import full_batch_recipe
from sklgap.training._latest_averaging import LatestAveraging
from sklgap.training._loaders import HostLoader, ResidentLoader
from sklgap.training._net import TrainingNet
from sklgap.training._recorder import TrainingRecorder
from sklgap.training._step import TrainStep
from sklgap.training._weight_averaging import WeightAveraging

__all__ = [
    "ExponentialAveraging",
    "HostLoader",
    "LatestAveraging",
    "ResidentLoader",
    "TrainStep",
    "TrainingNet",
    "TrainingRecorder",
    "WeightAveraging",
    "full_batch_recipe",
    "plan_epoch",
]
