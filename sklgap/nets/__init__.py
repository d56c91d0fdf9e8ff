"""The networks of the papers, with numbers of inputs and outputs from the data, and helpers for your own modules."""

from sklgap.nets._check import NETS, check_net, initialize_weights
from sklgap.nets._deep_conv import C2, C4, DeepConv
from sklgap.nets._fully_connected import F1, F2, FullyConnected
from sklgap.nets._ghost_batch_norm import GhostBatchNorm, convert_to_ghost_batch_norm
from sklgap.nets._residual import WRN16_4, ResNet, ResNet44, WideResNet
from sklgap.nets._shallow_conv import C1, C3, ShallowConv

__all__ = [
    "C1",
    "C2",
    "C3",
    "C4",
    "F1",
    "F2",
    "NETS",
    "WRN16_4",
    "DeepConv",
    "FullyConnected",
    "GhostBatchNorm",
    "ResNet",
    "ResNet44",
    "ShallowConv",
    "WideResNet",
    "check_net",
    "convert_to_ghost_batch_norm",
    "initialize_weights",
]
