"""ResNet-44 of He et al. (2016) and WRN-16-4 of Zagoruyko and Komodakis (2016): Table 1 of Hoffer et al. (2017).

Both nets end in a global average pool, so images may have any size. Convolutions before a batch norm have no bias.

The shortcuts of ResNet-44 are option A of He et al., who use it on CIFAR. A shortcut into a wider stage takes every
second pixel and adds channels of zeros, so it has no parameters. The code released with Hoffer et al. differs: it has
1x1 convolutions there (option B, with 2,752 parameters more), and its WRN-16-4 is a wide ResNet without pre-activation.
Our nets are the published ones that the paper cites.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklgap._checks import check_dropout, check_shape, check_sizes
from sklgap.nets._fully_connected import EPSILON


class ResNet(nn.Module):
    """A residual net: a 3x3 convolution, stages of residual blocks, an average pool and a dense layer.

    A block has two 3x3 convolutions. Batch norm and ReLU follow every convolution; the ReLU after the second
    convolution of a block follows the addition of the shortcut. Each stage but the first begins with stride 2.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size.
    n_classes : int
        Number of outputs.
    n_blocks : int
        Number of blocks of each stage (n in He et al.). Three stages of n blocks have 6n + 2 layers with weights.
    widths : tuple of int, default=(16, 32, 64)
        Number of filters of each stage, not decreasing. The first convolution has as many as the first stage.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import ResNet
    >>> ResNet((3, 32, 32), n_classes=10, n_blocks=1)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
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
            raise ValueError(f"widths must not decrease, because the shortcuts have no parameters; got {widths!r}.")
        super().__init__()
        layers = [_conv(input_shape[0], widths[0]), nn.BatchNorm2d(widths[0], eps=EPSILON), nn.ReLU()]
        layers += [_Block(*sizes) for sizes in _plan(widths[0], widths, n_blocks)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], n_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, X: Tensor) -> Tensor:
        """Return logits of shape (n, n_classes) for images of shape (n, channels, height, width)."""
        return self.layers(X)


class WideResNet(nn.Module):
    """A wide residual net: a 3x3 convolution, stages of pre-activation blocks, an average pool and a dense layer.

    In a block, batch norm and ReLU come before each convolution, and dropout comes between the two convolutions. If a
    block changes the number of channels, its shortcut is a 1x1 convolution of the activated input. Each stage but the
    first begins with stride 2. Batch norm and ReLU come before the average pool.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size.
    n_classes : int
        Number of outputs.
    n_blocks : int
        Number of blocks of each stage. Three stages of N blocks are a net of depth 6N + 4 in the count of the paper.
    widening : int
        Factor k of ``widths``.
    widths : tuple of int, default=(16, 32, 64)
        Number of filters of each stage before widening. The first convolution has ``widths[0]`` filters and is not
        widened.
    dropout : float, default=0.0
        Probability of dropping a value between the two convolutions of a block (no dropout, or 0.3 on CIFAR, in the
        paper).

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import WideResNet
    >>> WideResNet((3, 32, 32), n_classes=10, n_blocks=1, widening=2)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
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
    """ResNet-44: 44 layers with 16, 32 and 64 filters and 0.66 million parameters (He et al. 2016, Table 6).

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size.
    n_classes : int
        Number of outputs.
    n_blocks : int, default=7
        Number of blocks of each stage.
    widths : tuple of int, default=(16, 32, 64)
        Number of filters of each stage, not decreasing.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import ResNet44
    >>> ResNet44((3, 32, 32), n_classes=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        n_classes: int,
        n_blocks: int = 7,
        widths: tuple[int, ...] = (16, 32, 64),
    ) -> None:
        super().__init__(input_shape, n_classes, n_blocks, widths)


class WRN16_4(WideResNet):
    """WRN-16-4: 16 layers with 64, 128 and 256 filters and 2.7 million parameters (Zagoruyko and Komodakis 2016).

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size.
    n_classes : int
        Number of outputs.
    n_blocks : int, default=2
        Number of blocks of each stage.
    widening : int, default=4
        Factor of ``widths``.
    widths : tuple of int, default=(16, 32, 64)
        Number of filters of each stage before widening.
    dropout : float, default=0.0
        Probability of dropping a value between the two convolutions of a block.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import WRN16_4
    >>> WRN16_4((3, 32, 32), n_classes=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

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
    """Two convolutions and a shortcut without parameters (option A), which is added before the last ReLU."""

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
    """A pre-activation block: batch norm and ReLU before each of two convolutions, and dropout between them."""

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
    """Return a 3x3 convolution without bias, which turns a side into ceil(side / stride)."""
    return nn.Conv2d(n_inputs, n_filters, 3, stride, padding=1, bias=False)


def _plan(n_inputs: int, widths: tuple[int, ...], n_blocks: int) -> list[tuple[int, int, int]]:
    """Return (inputs, filters, stride) of every block."""
    plan = []
    for stage, width in enumerate(widths):
        for block in range(n_blocks):
            plan.append((n_inputs, width, 2 if stage and not block else 1))
            n_inputs = width
    return plan
