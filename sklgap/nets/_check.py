"""The conversion of ``net`` to a class or module: a name from the papers, a module class, or a module instance."""

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from sklgap._checks import check_module, shown
from sklgap.nets._computed_weights import plain_weights
from sklgap.nets._deep_conv import C2, C4
from sklgap.nets._fully_connected import F1, F2
from sklgap.nets._residual import WRN16_4, ResNet44
from sklgap.nets._shallow_conv import C1, C3

NETS: dict[str, type[nn.Module]] = {
    "F1": F1,
    "F2": F2,
    "C1": C1,
    "C2": C2,
    "C3": C3,
    "C4": C4,
    "ResNet44": ResNet44,
    "WRN16-4": WRN16_4,
}

# Numbers of columns that stand for images of known shape: 28 x 28 (MNIST) and 3 x 32 x 32 (CIFAR).
_IMAGE_SHAPES = {784: (1, 28, 28), 3072: (3, 32, 32)}

Init = str | Callable[[nn.Module], Any]


def check_net(
    net: str | type[nn.Module] | Callable[..., nn.Module] | nn.Module,
) -> Callable[..., nn.Module] | nn.Module:
    """Return the class, factory or module that ``net`` stands for.

    Parameters
    ----------
    net : str, type, callable or torch.nn.Module
        A name in ``NETS``, a module class, a function that returns a module, or a module instance.

    Returns
    -------
    type, callable or torch.nn.Module
        The class or function, or a deep copy of the instance.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If ``net`` is something else.

    Examples
    --------
    >>> from sklgap.nets import check_net
    >>> check_net("F1")
    <class 'sklgap.nets._fully_connected.F1'>
    """
    if isinstance(net, str):
        if net not in NETS:
            raise ValueError(
                f"net must be one of {', '.join(map(repr, NETS))}, a torch module or its class; got {net!r}."
            )
        return NETS[net]
    if isinstance(net, nn.Module):
        return copy.deepcopy(net)
    if (isinstance(net, type) and not issubclass(net, nn.Module)) or not callable(net):
        raise TypeError(f"net must be one of {', '.join(map(repr, NETS))}, a torch module or its class; got {net!r}.")
    return net


def check_input_shape(
    input_shape: tuple[int, int, int] | None, X_shape: tuple[int, ...], *, needed: bool
) -> tuple[int, ...] | None:
    """Return the shape (channels, height, width) of one image; None if X holds no images and no shape is needed.

    Parameters
    ----------
    input_shape : tuple of three int or None
        The shape given by the user. None means the shape of a 4-D X, or of 784 or 3,072 columns.
    X_shape : tuple of int
        Shape of X.
    needed : bool
        Whether a missing shape is an error.
    """
    n_columns = 1
    for side in X_shape[1:]:
        n_columns *= side
    if input_shape is not None:
        shape = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
        if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
            raise ValueError(f"input_shape must be None or (channels, height, width); got {input_shape!r}.")
        if shape[0] * shape[1] * shape[2] != n_columns:
            raise ValueError(f"input_shape={input_shape} does not fit X, whose samples have {n_columns} values.")
        return shape
    if len(X_shape) == 4:
        return tuple(X_shape[1:])
    if len(X_shape) == 2 and n_columns in _IMAGE_SHAPES:
        return _IMAGE_SHAPES[n_columns]
    if needed:
        raise ValueError(
            "input_shape=(channels, height, width) must be given for a net or an augmentation for images, unless X "
            f"has the shape (n, channels, height, width); got X of shape {tuple(X_shape)}."
        )
    return None


def net_arguments(net: Any, n_features: int, n_classes: int, input_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Return the arguments of a named net that depend on the data."""
    if net.takes_images:
        return {"input_shape": input_shape, "n_classes": n_classes}
    return {"n_features": n_features, "n_classes": n_classes}


def check_init(init: Init) -> Init:
    """Return ``init`` if it is "glorot_uniform", "torch" or a callable; raise a ValueError otherwise."""
    if not callable(init) and not (isinstance(init, str) and init in ("glorot_uniform", "torch")):
        raise ValueError(f"init must be 'glorot_uniform', 'torch' or a callable on a module; got {shown(init)}.")
    return init


def initialize_weights(module: nn.Module, init: Init = "glorot_uniform") -> None:
    """Draw the starting weights of a module, in place.

    Parameters
    ----------
    module : torch.nn.Module
        The module to change.
    init : {"glorot_uniform", "torch"} or callable, default="glorot_uniform"
        ``"glorot_uniform"`` is the default of Keras 1, and so of the released code of Keskar et al. Weights of dense
        and convolutional layers are uniform in +-sqrt(6 / (fan_in + fan_out)), their biases are zero, and other layers
        are not changed. ``"torch"`` changes nothing, so that each layer has its own default. A callable is called with
        the module.

    Raises
    ------
    ValueError
        If ``init`` is something else, or if the callable fails.

    Warns
    -----
    UserWarning
        If a layer computes its weights from other parameters (weight norm, pruning) and then has other weights than the
        drawn ones. The warning names the layer.

    Examples
    --------
    >>> import torch
    >>> from sklgap.nets import initialize_weights
    >>> layer = torch.nn.Linear(3, 2)
    >>> initialize_weights(layer)
    >>> layer.bias.tolist()
    [0.0, 0.0]
    """
    check_module(module)
    check_init(init)
    if callable(init):
        with plain_weights(module):
            try:
                init(module)
            except Exception as error:  # the user's function failed, or it is no function of a module
                raise ValueError(f"init must be a function of a module, but it failed: {error}") from error
    elif init == "glorot_uniform":
        with plain_weights(module):
            for layer in module.modules():
                if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
                    nn.init.xavier_uniform_(layer.weight)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
