"""C1 and C3 of Keskar et al. (2017), Appendix B: a net like AlexNet for 32 x 32 images.

The text of the paper gives the convolutions stride 2. The released code gives them stride 1, and stride 2 to the pools.
Our nets follow the released code.
"""

from torch import Tensor, nn

from sklgap._checks import check_dropout, check_shape, check_sizes
from sklgap.nets._fully_connected import EPSILON


class ShallowConv(nn.Module):
    """Two 5x5 convolutions, each with batch norm, ReLU and a 3x3 max-pool of stride 2, then dense layers.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size of at least 4 x 4.
    n_classes : int
        Number of outputs.
    n_filters : int, default=64
        Number of filters of each convolution.
    hidden : tuple of int, default=(384, 192)
        Number of units of each dense layer. Each has batch norm, ReLU and dropout.
    dropout : float, default=0.5
        Probability of dropping a unit of a dense layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import ShallowConv
    >>> ShallowConv((3, 32, 32), n_classes=10, n_filters=8, hidden=(16,))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    takes_images = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        n_classes: int,
        n_filters: int = 64,
        hidden: tuple[int, ...] = (384, 192),
        dropout: float = 0.5,
    ) -> None:
        check_shape("input_shape", input_shape, 3)
        check_shape("hidden", hidden, empty=True)
        check_sizes(n_classes=n_classes, n_filters=n_filters)
        check_dropout(dropout)
        super().__init__()
        n_channels, *size = input_shape
        layers: list[nn.Module] = []
        for n_inputs in (n_channels, n_filters):
            layers += [nn.Conv2d(n_inputs, n_filters, 5, padding="same"), nn.BatchNorm2d(n_filters, eps=EPSILON)]
            layers += [nn.ReLU(), _same_pool(size)]
            size = [-(-side // 2) for side in size]
        layers.append(nn.Flatten())
        n_features = n_filters * size[0] * size[1]
        for n_inputs, n_units in zip((n_features, *hidden), hidden, strict=False):
            layers += [nn.Linear(n_inputs, n_units), nn.BatchNorm1d(n_units, eps=EPSILON), nn.ReLU()]
            layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear((n_features, *hidden)[-1], n_classes))

    def forward(self, X: Tensor) -> Tensor:
        """Return logits of shape (n, n_classes) for images of shape (n, channels, height, width)."""
        return self.layers(X)


def _same_pool(size: list[int]) -> nn.MaxPool2d:
    """Return a 3x3 max-pool of stride 2 with 'same' padding to ceil(side / 2); odd padding goes to the end."""
    return nn.MaxPool2d(3, stride=2, padding=tuple(side % 2 for side in size), ceil_mode=True)


class C1(ShallowConv):
    """The shallow net for CIFAR-10 of Keskar et al. (2017): two 5x5 convolutions, then dense layers, as `ShallowConv`.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size of at least 4 x 4; (3, 32, 32) in the paper.
    n_classes : int
        Number of outputs; 10 in the paper.
    n_filters : int, default=64
        Number of filters of each convolution.
    hidden : tuple of int, default=(384, 192)
        Number of units of each dense layer.
    dropout : float, default=0.5
        Probability of dropping a unit of a dense layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import C1
    >>> C1((3, 32, 32), n_classes=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """


class C3(ShallowConv):
    """The shallow net for CIFAR-100 of Keskar et al. (2017): `C1` with the number of classes of the data.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image, of any size of at least 4 x 4; (3, 32, 32) in the paper.
    n_classes : int
        Number of outputs; 100 in the paper.
    n_filters : int, default=64
        Number of filters of each convolution.
    hidden : tuple of int, default=(384, 192)
        Number of units of each dense layer.
    dropout : float, default=0.5
        Probability of dropping a unit of a dense layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import C3
    >>> C3((3, 32, 32), n_classes=100)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 100])
    """
