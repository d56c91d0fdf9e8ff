"""The rescaling of Dinh et al. (2017), Section 3, which changes the weights and not the function."""

import copy
import math
import numbers
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from sklgap._checks import check_arguments
from sklgap._threads import using_threads
from sklgap._typing import Estimator
from sklgap.nets import GhostBatchNorm
from sklgap.objective._copy import check_plain, uncompiled
from sklgap.objective._estimators import module_of
from sklgap.objective._shared_memory import check_memory

_LINEAR = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# These layers are linear in their own weight and bias, which can be scaled. Their outputs do not depend on the scale of
# their inputs.
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, GhostBatchNorm, nn.LayerNorm, nn.GroupNorm)
# Layers with g(a x) = a g(x) for a > 0.
_HOMOGENEOUS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.Flatten,
    nn.Identity,
)
_HOMOGENEOUS_CALLS = {
    torch.relu,
    torch.flatten,
    functional.relu,
    functional.leaky_relu,
    functional.max_pool2d,
    functional.avg_pool2d,
    functional.adaptive_avg_pool2d,
    functional.dropout,
    "relu",
    "flatten",
    "view",
    "reshape",
}
# The type of model that is given and returned.
Model = TypeVar("Model", bound=Estimator | nn.Module | tuple[nn.Module, Any])


@using_threads()
def rescale_layers(estimator: Model, factor: float, *, layers: Sequence[str] | None = None) -> Model:
    r"""Return a copy of a model with other weights and the same function.

    Let :math:`W_1, b_1` be the weights of a layer, and :math:`W_2` those of the next layer, with only positively
    homogeneous operations such as ReLU in between. Then

    .. math:: (W_1, b_1, W_2) \to (a W_1, a b_1, W_2 / a)

    leaves the function unchanged for every :math:`a > 0`. Loss, accuracy and train-test gap stay the same, but Metric
    2.1 changes (Dinh et al., 2017). If batch norm follows a layer, the batch norm is the first layer of the pair, with
    its weight and bias as :math:`W_1` and :math:`b_1`.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module
        A module, a fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, or a pair (module,
        criterion). The module may be compiled or an ``AveragedModel``.
    factor : float
        The factor a, above 0. Without overflow, a power of two changes no bit of the outputs.
    layers : sequence of str, default=None
        Names of the first layers of the pairs to rescale, as in ``module.named_modules()`` of the module behind
        ``torch.compile`` or ``AveragedModel``. None rescales all pairs. A layer that is the second of one pair and the
        first of the next then has the same weight as before, and only its bias is multiplied.

    Returns
    -------
    estimator or torch.nn.Module
        A deep copy of the given object. A fitted estimator stays fitted.

    Raises
    ------
    ValueError
        If the factor is not a positive finite number or takes weights out of the range of their dtype; if a name is not
        the first layer of a pair; or if the module has no pair, is scripted or a ``DataParallel``, or the order of its
        layers cannot be traced.
    TypeError
        If the object is neither a module nor an estimator with a module.
    sklearn.exceptions.NotFittedError
        If the estimator has not been fitted.

    See Also
    --------
    sharpness : Changes when layers are rescaled.
    adaptive_sharpness : Does not change when layers are rescaled.

    Notes
    -----
    The order of the layers is that of the forward pass. ``torch.fx`` traces it without data, so it is never guessed
    from the order of definition. Between the two layers of a pair there may be ReLU, LeakyReLU, PReLU, max-pooling and
    average-pooling, dropout, flattening and the identity. Each output may be read only once, so no skip connection may
    start in between. Neither layer may be used twice or share its parameters. Dense, convolutional and affine
    normalisation layers can be rescaled. The copy holds the initial weights of the training without rescaling, so its
    `weight_distance` from them means nothing.

    References
    ----------
    Dinh et al., Sharp Minima Can Generalize For Deep Nets, ICML 2017, Sections 3 and 4.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import rescale_layers, sharpness
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> X, y = torch.randn(20, 4), torch.randint(2, (20,))
    >>> other = rescale_layers(net, 64)
    >>> bool((other(X) == net(X)).all())
    True
    >>> loss = torch.nn.CrossEntropyLoss()
    >>> bool(sharpness((other, loss), X, y).value > 5 * sharpness((net, loss), X, y).value)
    True
    """
    check_arguments(rescale_layers, locals())
    if not isinstance(factor, numbers.Real) or isinstance(factor, bool) or not 0 < float(factor) < math.inf:
        raise ValueError(f"factor must be a positive finite number; got {factor!r}.")
    # Tracing runs the module's own forward pass, which may change the module.
    module = _unwrapped(estimator)
    check_memory(module, dict(module.named_parameters()))
    pairs = _pairs(uncompiled(copy.deepcopy(module)).eval())
    if layers is not None:
        pairs = _chosen(pairs, layers)
    rescaled = copy.deepcopy(estimator)
    modules = dict(_unwrapped(rescaled).named_modules())
    powers = Counter[tuple[str, str]]()
    for first, second in pairs.items():
        powers.update([(first, "weight"), (first, "bias")])
        powers.subtract([(second, "weight")])
    for (name, kind), power in powers.items():
        parameter = getattr(modules[name], kind)
        if parameter is not None and power:
            _scale(parameter, float(factor), power, name)
    return rescaled


def _unwrapped(estimator: Any) -> nn.Module:
    """Return the module of an estimator, behind ``torch.compile`` and ``AveragedModel``."""
    module = check_plain(module_of(estimator), "estimator")
    while isinstance(module, AveragedModel):
        module = check_plain(module.module, "estimator")
    return module


@torch.no_grad()
def _scale(parameter: nn.Parameter, factor: float, power: int, name: str) -> None:
    """Multiply a parameter by the factor or divide it, in place."""
    scaled = parameter * factor if power > 0 else parameter / factor
    # Scaling back restores the numbers up to rounding, unless they became infinite or lost digits near zero.
    back = scaled / factor if power > 0 else scaled * factor
    if not torch.allclose(back, parameter, rtol=4 * torch.finfo(parameter.dtype).eps, atol=0):
        raise ValueError(f"factor={factor:g} takes the weights of {name!r} out of the range of {parameter.dtype}.")
    parameter.copy_(scaled)


# -- which layer feeds which ------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    """Traces into modules that have children, and treats all other modules as single operations."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


def _pairs(module: nn.Module) -> dict[str, str]:
    """Return the names of the pairs that can be rescaled, first layer -> second, in the order of the forward pass."""
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # torch.fx runs the user's forward pass, which may raise anything
        raise ValueError(
            f"The order of the layers of {type(module).__name__} is unknown, because its forward pass cannot be "
            f"traced: {error}"
        ) from error
    usable = _layers_used_once(module, graph)
    pairs = {}
    for node in graph.nodes:
        layer = usable.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, _LINEAR + _NORMS) and layer.weight is not None:
            second = _next_layer(node, usable)
            if second is not None:
                pairs[node.target] = second
    if not pairs:
        raise ValueError(
            f"{type(module).__name__} must have two layers with only positively homogeneous operations (such as ReLU, "
            "pooling, dropout) in between, each used once; it has no such pair."
        )
    return pairs


def _layers_used_once(module: nn.Module, graph: fx.Graph) -> dict[str, nn.Module]:
    """Return the layers that do what their class does, are used once, and share no parameters."""
    uses = Counter(node.target for node in graph.nodes if node.op == "call_module")
    # Parameters that the forward pass reads directly.
    uses.update(str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr")
    owners = Counter(id(p) for layer in module.modules() for p in layer.parameters(recurse=False))
    return {
        name: layer
        for name, layer in module.named_modules()
        # A subclass or an assigned forward is left out, because it may do anything. So is a layer with hooks or
        # parametrisations.
        if type(layer) in _LINEAR + _NORMS + _HOMOGENEOUS
        and "forward" not in vars(layer)
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        and (uses[name] == 1 or type(layer) in _HOMOGENEOUS)
        and all(owners[id(p)] == 1 for p in layer.parameters(recurse=False))
    }


def _next_layer(node: fx.Node, usable: dict[str, nn.Module]) -> str | None:
    """Follow the output of a layer through positively homogeneous operations to a linear layer, and return its name."""
    while True:
        readers = [user for user in node.users if not (user.op == "call_method" and user.target in ("size", "dim"))]
        if len(readers) != 1 or not readers[0].args or readers[0].args[0] is not node:
            return None
        node = readers[0]
        layer = usable.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, _LINEAR):
            return str(node.target)
        is_call = node.op in ("call_function", "call_method") and node.target in _HOMOGENEOUS_CALLS
        if not (is_call or isinstance(layer, _HOMOGENEOUS)):
            return None


def _chosen(pairs: dict[str, str], layers: Sequence[str]) -> dict[str, str]:
    names = list(layers) if isinstance(layers, list | tuple | set | frozenset) else []
    if not names or not all(isinstance(name, str) and name in pairs for name in names):
        raise ValueError(
            f"layers must be None or a sequence of names from {', '.join(map(repr, pairs))}; got {layers!r}."
        )
    return {name: pairs[name] for name in names}
