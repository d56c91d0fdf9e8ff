"""C1 and C3 of Keskar et al. (2017), Appendix B: an AlexNet-like net for 32 x 32 images.

The text writes the convolutions with stride 2; the released code has stride 1 and puts the stride into the pool. Ours
follows the released code.
"""

from torch import Tensor, nn

from sklgap._checks import check_dropout, check_shape, check_sizes
from sklgap.nets._fully_connected import EPSILON


class ShallowConv(nn.Module):
    """Two 5x5 convolutions, each with batch norm, ReLU and a 3x3 max-pool of stride 2, then dense layers.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)
        Shape of one image; any size of at least 4 x 4.
    n_classes : int
        Outputs.
    n_filters : int, default=64
        Filters of each convolution.
    hidden : tuple of int, default=(384, 192)
        Units of the dense layers, each with batch norm, ReLU and dropout.
    dropout : float, default=0.5
        Probability with which a unit of a dense layer is dropped.
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
    """Return a 3x3 max-pool of stride 2 with 'same' padding: ceil(side / 2), any odd cell of padding at the end."""
    return nn.MaxPool2d(3, stride=2, padding=tuple(side % 2 for side in size), ceil_mode=True)


class C1(ShallowConv):
    """The paper's shallow net for CIFAR-10."""


class C3(ShallowConv):
    """The paper's shallow net for CIFAR-100: C1 with 100 classes, which come from the data."""
