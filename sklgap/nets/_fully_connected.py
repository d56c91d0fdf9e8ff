"""F1 and F2 of Keskar et al. (2017), Appendix B: dense layers of 512 units, each with batch norm and ReLU."""

from torch import Tensor, nn

from sklgap._checks import check_integer, check_sizes

EPSILON = 1e-3  # batch norm's epsilon in the released code (the default of Keras 1)


class FullyConnected(nn.Module):
    """Dense layers with batch norm and ReLU, then a dense layer to the logits.

    Parameters
    ----------
    n_features : int
        Inputs; X of shape ``(n, *features)`` is flattened.
    n_classes : int
        Outputs.
    n_layers : int
        Hidden layers.
    width : int, default=512
        Units of each hidden layer.
    """

    takes_images = False

    def __init__(self, n_features: int, n_classes: int, n_layers: int, width: int = 512) -> None:
        check_sizes(n_features=n_features, n_classes=n_classes, width=width)
        check_integer("n_layers", n_layers, least=0)
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for n_inputs in ([n_features] + [width] * n_layers)[:n_layers]:
            layers += [nn.Linear(n_inputs, width), nn.BatchNorm1d(width, eps=EPSILON), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width if n_layers else n_features, n_classes))

    def forward(self, X: Tensor) -> Tensor:
        """Return logits of shape (n, n_classes)."""
        return self.layers(X)


class F1(FullyConnected):
    """Five hidden layers of 512 units: the paper's net for MNIST (784 inputs, 10 classes)."""

    def __init__(self, n_features: int, n_classes: int, n_layers: int = 5, width: int = 512) -> None:
        super().__init__(n_features, n_classes, n_layers, width)


class F2(FullyConnected):
    """Seven hidden layers of 512 units: the paper's net for TIMIT (360 inputs, 1,973 classes)."""

    def __init__(self, n_features: int, n_classes: int, n_layers: int = 7, width: int = 512) -> None:
        super().__init__(n_features, n_classes, n_layers, width)
