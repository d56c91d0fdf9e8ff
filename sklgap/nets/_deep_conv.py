"""C2 and C4 of Keskar et al. (2017), Appendix B: a net like VGG for 32 x 32 images."""

from torch import Tensor, nn

from sklgap._checks import WrongArgument, check_shape, check_sizes, shown
from sklgap.nets._fully_connected import EPSILON


class DeepConv(nn.Module):
    """Stacks of 3x3 convolutions with batch norm and ReLU, a 2x2 max-pool after each stack, then a dense layer.

    Dropout is that of the released code: 0.3 after the first convolution of the first stack, 0.4 after every
    convolution of the later stacks except the last one of a stack, and 0.5 before and after the dense layer.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size, because the pools round up. Images of 32 x 32 end at 1 x 1.
    n_classes : int
        Number of outputs.
    stacks : tuple of tuples of int, default=((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
        Number of filters of each convolution, stack by stack.
    hidden : int, default=512
        Number of units of the dense layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import DeepConv
    >>> net = DeepConv((3, 32, 32), n_classes=10, stacks=((8, 8), (16, 16)))
    >>> net(torch.zeros(4, 3, 32, 32)).shape
    torch.Size([4, 10])
    """

    takes_images = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        n_classes: int,
        stacks: tuple[tuple[int, ...], ...] = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
        hidden: int = 512,
    ) -> None:
        check_shape("input_shape", input_shape, 3)
        check_sizes(n_classes=n_classes, hidden=hidden)
        if not isinstance(stacks, tuple | list) or not stacks:
            raise WrongArgument(f"stacks must be a tuple of tuples of integers of at least 1; got {shown(stacks)}.")
        for i, stack in enumerate(stacks):
            check_shape(f"stacks[{i}]", stack)
        super().__init__()
        n_channels, *size = input_shape
        layers: list[nn.Module] = []
        for i, stack in enumerate(stacks):
            for j, n_filters in enumerate(stack):
                layers += [nn.Conv2d(n_channels, n_filters, 3, padding="same")]
                layers += [nn.BatchNorm2d(n_filters, eps=EPSILON), nn.ReLU()]
                if j < len(stack) - 1:
                    layers.append(nn.Dropout(0.3 if i == 0 else 0.4))
                n_channels = n_filters
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            size = [-(-side // 2) for side in size]
        layers += [nn.Flatten(), nn.Dropout(0.5), nn.Linear(n_channels * size[0] * size[1], hidden)]
        layers += [nn.BatchNorm1d(hidden, eps=EPSILON), nn.ReLU(), nn.Dropout(0.5)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, n_classes))

    def forward(self, X: Tensor) -> Tensor:
        """Return logits of shape (n, n_classes) for images of shape (n, channels, height, width)."""
        return self.layers(X)


class C2(DeepConv):
    """The deep net for CIFAR-10 of Keskar et al. (2017): stacks of 3x3 convolutions, as `DeepConv`.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size; (3, 32, 32) in the paper.
    n_classes : int
        Number of outputs; 10 in the paper.
    stacks : tuple of tuples of int, default=((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
        Number of filters of each convolution, stack by stack.
    hidden : int, default=512
        Number of units of the dense layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import C2
    >>> C2((3, 32, 32), n_classes=10).eval()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """


class C4(DeepConv):
    """The deep net for CIFAR-100 of Keskar et al. (2017): `C2` with the number of classes of the data.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size; (3, 32, 32) in the paper.
    n_classes : int
        Number of outputs; 100 in the paper.
    stacks : tuple of tuples of int, default=((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
        Number of filters of each convolution, stack by stack.
    hidden : int, default=512
        Number of units of the dense layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import C4
    >>> C4((3, 32, 32), n_classes=100).eval()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 100])
    """
