"""How far training has moved the weights: Section 3 of Keskar et al. (2017) and of Hoffer et al. (2017)."""

import math
from collections import defaultdict
from typing import Any, Literal, overload

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sklgap._checks import check_arguments
from sklgap._threads import using_threads
from sklgap._typing import Estimator, Params
from sklgap.objective._estimators import module_of, net_of
from sklgap.objective._parameters import real, trainable_parameters

# Everything that has a module.
HasModule = Estimator | nn.Module | tuple[nn.Module, Any]


@overload
def weight_distance(
    estimator: HasModule, reference: HasModule | None = None, *, per_layer: Literal[False] = False
) -> float: ...
@overload
def weight_distance(
    estimator: HasModule, reference: HasModule | None = None, *, per_layer: Literal[True]
) -> dict[str, float]: ...
@overload
def weight_distance(
    estimator: HasModule, reference: HasModule | None = None, *, per_layer: bool = False
) -> float | dict[str, float]: ...
@using_threads()
def weight_distance(
    estimator: HasModule, reference: HasModule | None = None, *, per_layer: bool = False
) -> float | dict[str, float]:
    r"""Measure the Euclidean distance of the weights from their start, or from the weights of another model.

    .. math:: \lVert w - w_0 \rVert_2

    Parameters
    ----------
    estimator : estimator, torch.nn.Module or pair
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a module, or a pair
        (module, criterion). A module may be wrapped by ``torch.compile``, ``DataParallel``,
        ``DistributedDataParallel`` or ``AveragedModel``, and so may its parts.
    reference : estimator, torch.nn.Module or pair, default=None
        Another model of the same architecture, wrapped or not. None means the initial weights, which an
        `LBGapClassifier` stores (``net_.module_start_``).
    per_layer : bool, default=False
        Whether to return the distance of every layer instead.

    Returns
    -------
    float or dict of float
        The distance, or with ``per_layer`` the distances by name of the layer, in the order of the module. The square
        root of the sum of their squares is the whole distance.

    Raises
    ------
    ValueError
        If the models have different architectures, or if ``reference`` is missing for an estimator that stores no
        initial weights.
    TypeError
        If an argument is of none of these types.
    sklearn.exceptions.NotFittedError
        If the estimator has not been fitted.

    See Also
    --------
    fit_diffusion : How the distance grows with the number of updates.

    Notes
    -----
    Only parameters that require a gradient count. Frozen parameters and batch-norm statistics do not count, and shared
    parameters count once. Differences are squared and summed in float64. Keskar et al. find that the SB distance is 3
    to 10 times the LB distance.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import weight_distance
    >>> a, b = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
    >>> _ = b.load_state_dict({name: value + 2 for name, value in a.state_dict().items()})
    >>> round(weight_distance(a, b), 5)  # four numbers differ by 2
    4.0
    """
    check_arguments(weight_distance, locals())
    module = module_of(estimator)
    params = trainable_parameters(module)
    if reference is not None:
        other = module_of(reference, "reference")
        params, start = _unwrapped(module, params), _unwrapped(other, trainable_parameters(other))
    elif hasattr(net_of(estimator), "module_start_"):
        start = {name: value for name, value in net_of(estimator).module_start_.items() if name in params}
    else:
        raise ValueError(
            f"reference must be given for a {type(estimator).__name__}, which stores no initial weights; got None."
        )
    squares = _squares(params, start)
    if not per_layer:
        return math.sqrt(sum(squares.values()))
    layers: dict[str, float] = defaultdict(float)
    for name, square in squares.items():
        layers[name.rpartition(".")[0]] += square
    return {name: math.sqrt(square) for name, square in layers.items()}


def distance(params: Params, reference: Params) -> float:
    """Return the Euclidean distance of two dicts of tensors, accumulated in float64."""
    return math.sqrt(sum(_squares(params, reference).values()))


def _unwrapped(module: nn.Module, params: Params) -> Params:
    """Give the parameters of a module the names that they have without the wrappers of the module and of its parts."""
    paths = [".".join(filter(None, (path, _wrapped(part)))) for path, part in module.named_modules() if _wrapped(part)]
    for path in reversed(paths):  # the parts of a module come after it
        outer, _, wrapped = path.rpartition(".")
        prefix = outer and outer + "."
        cut = len(prefix) + len(wrapped) + 1
        renamed = {prefix + name[cut:] if name.startswith(f"{path}.") else name: p for name, p in params.items()}
        # A wrapper with parameters itself may use the same name.
        params = renamed if len(renamed) == len(params) else params
    return params


def _wrapped(module: nn.Module) -> str:
    """Return the name under which a wrapper has its module; "" for a module that is no wrapper."""
    if isinstance(getattr(module, "_orig_mod", None), nn.Module):  # torch.compile
        return "_orig_mod"
    return "module" if isinstance(module, _WRAPPERS) else ""


_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def _squares(params: Params, reference: Params) -> dict[str, float]:
    shapes, others = ({name: tuple(p.shape) for name, p in d.items()} for d in (params, reference))
    if shapes != others:
        name = next(name for name in {**shapes, **others} if shapes.get(name) != others.get(name))
        raise ValueError(
            "estimator and reference must have the same architecture; "
            f"{name} has shape {shapes.get(name, 'missing')} in one and {others.get(name, 'missing')} in the other."
        )
    return {name: _square(real(p.detach()), real(reference[name].detach())) for name, p in params.items()}


def _square(a: torch.Tensor, b: torch.Tensor) -> float:
    wide = torch.float32 if a.device.type == "mps" else torch.float64  # Apple's devices lack float64
    return (a.to(wide) - b.to(device=a.device, dtype=wide)).square().sum().item()
