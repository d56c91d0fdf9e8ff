"""F1 and F2 of Keskar et al. (2017), Appendix B: dense layers of 512 units, each with batch norm and ReLU."""

from torch import Tensor, nn

from sklgap._checks import check_integer, check_sizes

EPSILON = 1e-3  # epsilon of batch norm in the released code (the default of Keras 1)


class FullyConnected(nn.Module):
    """Dense layers with batch norm and ReLU, then a dense layer to the logits.

    Parameters
    ----------
    n_features : int
        Number of inputs. An X of shape ``(n, *features)`` is flattened.
    n_classes : int
        Number of outputs.
    n_layers : int
        Number of hidden layers.
    width : int, default=512
        Number of units of each hidden layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import FullyConnected
    >>> net = FullyConnected(n_features=20, n_classes=3, n_layers=2, width=8)
    >>> net(torch.zeros(5, 20)).shape
    torch.Size([5, 3])
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
    """The dense net for MNIST of Keskar et al. (2017): five hidden layers of 512 units.

    Parameters
    ----------
    n_features : int
        Number of inputs; 784 in the paper.
    n_classes : int
        Number of outputs; 10 in the paper.
    n_layers : int, default=5
        Number of hidden layers.
    width : int, default=512
        Number of units of each hidden layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import F1
    >>> F1(n_features=784, n_classes=10)(torch.zeros(5, 784)).shape
    torch.Size([5, 10])
    """

    def __init__(self, n_features: int, n_classes: int, n_layers: int = 5, width: int = 512) -> None:
        super().__init__(n_features, n_classes, n_layers, width)


class F2(FullyConnected):
    """The dense net for TIMIT of Keskar et al. (2017): seven hidden layers of 512 units.

    Parameters
    ----------
    n_features : int
        Number of inputs; 360 in the paper.
    n_classes : int
        Number of outputs; 1,973 in the paper.
    n_layers : int, default=7
        Number of hidden layers.
    width : int, default=512
        Number of units of each hidden layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import F2
    >>> F2(n_features=360, n_classes=1973)(torch.zeros(5, 360)).shape
    torch.Size([5, 1973])
    """

    def __init__(self, n_features: int, n_classes: int, n_layers: int = 7, width: int = 512) -> None:
        super().__init__(n_features, n_classes, n_layers, width)
