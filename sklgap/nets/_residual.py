"""ResNet-44 of He et al. (2016) and WRN-16-4 of Zagoruyko and Komodakis (2016): Table 1 of Hoffer et al. (2017).

Both end in a global average pool, so images of any size pass; convolutions before a batch norm have no bias.

The shortcuts of ResNet-44 are option A of He et al., who use it on CIFAR: a shortcut into a wider stage takes every
second pixel and fills up with channels of zeros, and so has no parameters. The code released with Hoffer et al. has 1x1
convolutions there (option B: 2,752 parameters more), and a WRN-16-4 that is a wide ResNet without pre-activation; ours
are the published nets that the paper cites.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklgap._checks import check_dropout, check_shape, check_sizes
from sklgap.nets._fully_connected import EPSILON


class ResNet(nn.Module):
    """A 3x3 convolution, stages of residual blocks of two 3x3 convolutions each, average pool, dense layer.

    Every convolution is followed by batch norm, and by ReLU: that of a block's second one after the addition. Each
    stage but the first begins with stride 2.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image; any size.
    n_classes : int
        Outputs.
    n_blocks : int
        Blocks of each stage (n of He et al.); three stages of n blocks are 6n + 2 layers with weights.
    widths : tuple of int, default=(16, 32, 64)
        Filters of each stage, not decreasing; the first convolution has those of the first stage.
    """

    takes_images = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        n_classes: int,
        n_blocks: int,
        widths: tuple[int, ...] = (16, 32, 64),
    ) -> None:
        check_shape("input_shape", input_shape, 3)
        check_sizes(n_classes=n_classes, n_blocks=n_blocks)
        check_shape("widths", widths)
        if any(narrow > wide for narrow, wide in pairwise(widths)):
            raise ValueError(f"widths must not decrease, for the shortcuts have no parameters; got {widths!r}.")
        super().__init__()
        layers = [_conv(input_shape[0], widths[0]), nn.BatchNorm2d(widths[0], eps=EPSILON), nn.ReLU()]
        layers += [_Block(*sizes) for sizes in _plan(widths[0], widths, n_blocks)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], n_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, X: Tensor) -> Tensor:
        """Return logits of shape (n, n_classes) for images of shape (n, channels, height, width)."""
        return self.layers(X)


class WideResNet(nn.Module):
    """A 3x3 convolution, stages of wide pre-activation blocks, batch norm, ReLU, average pool, dense layer.

    Batch norm and ReLU stand before each convolution of a block, dropout between the two. Where a block changes the
    number of channels its shortcut is a 1x1 convolution of the activated input. Each stage but the first begins with
    stride 2.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image; any size.
    n_classes : int
        Outputs.
    n_blocks : int
        Blocks of each stage; three stages of N blocks are a net of depth 6N + 4 in the paper's count.
    widening : int
        Factor k on ``widths``.
    widths : tuple of int, default=(16, 32, 64)
        Filters of each stage before widening; the first convolution has ``widths[0]``, not widened.
    dropout : float, default=0.0
        Probability with which a value between the two convolutions of a block is dropped (the paper: none, or 0.3 on
        CIFAR).
    """

    takes_images = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        n_classes: int,
        n_blocks: int,
        widening: int,
        widths: tuple[int, ...] = (16, 32, 64),
        dropout: float = 0.0,
    ) -> None:
        check_shape("input_shape", input_shape, 3)
        check_sizes(n_classes=n_classes, n_blocks=n_blocks, widening=widening)
        check_shape("widths", widths)
        check_dropout(dropout)
        super().__init__()
        wide = tuple(widening * width for width in widths)
        layers: list[nn.Module] = [_conv(input_shape[0], widths[0])]
        layers += [_WideBlock(*sizes, dropout) for sizes in _plan(widths[0], wide, n_blocks)]
        layers += [nn.BatchNorm2d(wide[-1], eps=EPSILON), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide[-1], n_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, X: Tensor) -> Tensor:
        """Return logits of shape (n, n_classes) for images of shape (n, channels, height, width)."""
        return self.layers(X)


class ResNet44(ResNet):
    """44 layers, 16, 32 and 64 filters: 0.66 million parameters (He et al. 2016, Table 6)."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        n_classes: int,
        n_blocks: int = 7,
        widths: tuple[int, ...] = (16, 32, 64),
    ) -> None:
        super().__init__(input_shape, n_classes, n_blocks, widths)


class WRN16_4(WideResNet):
    """16 layers, 64, 128 and 256 filters: 2.7 million parameters (Zagoruyko and Komodakis 2016)."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        n_classes: int,
        n_blocks: int = 2,
        widening: int = 4,
        widths: tuple[int, ...] = (16, 32, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_shape, n_classes, n_blocks, widening, widths, dropout)


class _Block(nn.Module):
    """Two convolutions and a shortcut without parameters (option A), added before the last ReLU."""

    def __init__(self, n_inputs: int, n_filters: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.n_new = n_filters - n_inputs
        self.layers = nn.Sequential(
            _conv(n_inputs, n_filters, stride),
            nn.BatchNorm2d(n_filters, eps=EPSILON),
            nn.ReLU(),
            _conv(n_filters, n_filters),
            nn.BatchNorm2d(n_filters, eps=EPSILON),
        )

    def forward(self, X: Tensor) -> Tensor:
        shortcut = X[:, :, :: self.stride, :: self.stride]
        if self.n_new:
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.n_new))
        return torch.relu(self.layers(X) + shortcut)


class _WideBlock(nn.Module):
    """Pre-activation: batch norm and ReLU before each of two convolutions, dropout between them."""

    def __init__(self, n_inputs: int, n_filters: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(n_inputs, eps=EPSILON), nn.ReLU())
        self.layers = nn.Sequential(
            _conv(n_inputs, n_filters, stride),
            nn.BatchNorm2d(n_filters, eps=EPSILON),
            nn.ReLU(),
            nn.Dropout(dropout),
            _conv(n_filters, n_filters),
        )
        changes = stride > 1 or n_inputs != n_filters
        self.shortcut = nn.Conv2d(n_inputs, n_filters, 1, stride, bias=False) if changes else None

    def forward(self, X: Tensor) -> Tensor:
        active = self.activation(X)
        return self.layers(active) + (X if self.shortcut is None else self.shortcut(active))


def _conv(n_inputs: int, n_filters: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that makes ceil(side / stride) of a side."""
    return nn.Conv2d(n_inputs, n_filters, 3, stride, padding=1, bias=False)


def _plan(n_inputs: int, widths: tuple[int, ...], n_blocks: int) -> list[tuple[int, int, int]]:
    """Return (inputs, filters, stride) of every block."""
    plan = []
    for stage, width in enumerate(widths):
        for block in range(n_blocks):
            plan.append((n_inputs, width, 2 if stage and not block else 1))
            n_inputs = width
    return plan
