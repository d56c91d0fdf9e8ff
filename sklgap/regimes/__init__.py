"""Batch regimes: the batch size of each epoch, and the learning rate and number of epochs that go with it."""

from sklgap.regimes._adaptation import n_batches, split_rows, updates_of_epochs
from sklgap.regimes._base import BatchRegime, check_batch_size, default_base_batch_size
from sklgap.regimes._check import check_batch_regime
from sklgap.regimes._constant import ConstantBatch
from sklgap.regimes._dynamic_sampling import DynamicSampling
from sklgap.regimes._growing import GrowingBatch
from sklgap.regimes._lr_scaling import check_lr_scaling, lr_factor
from sklgap.regimes._lr_schedule import LRSchedule, check_lr_schedule
from sklgap.regimes._sampler import BatchSizeSampler, growing_milestones
from sklgap.regimes._switch import SwitchBatch
from sklgap.regimes._transfer import HyperparameterTransfer, TransferRule, transfer_hyperparameters

__all__ = [
    "BatchRegime",
    "BatchSizeSampler",
    "ConstantBatch",
    "DynamicSampling",
    "GrowingBatch",
    "HyperparameterTransfer",
    "LRSchedule",
    "SwitchBatch",
    "TransferRule",
    "check_batch_regime",
    "check_batch_size",
    "check_lr_scaling",
    "check_lr_schedule",
    "default_base_batch_size",
    "growing_milestones",
    "lr_factor",
    "n_batches",
    "split_rows",
    "transfer_hyperparameters",
    "updates_of_epochs",
]
