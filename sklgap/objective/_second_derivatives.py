"""Second derivatives that can be trusted: kernels that have them, and a comparison with finite differences.

Automatic differentiation of a gradient is only as good as the second derivative of every operation. Some have none
(fused attention), some have a wrong one (torch's own weight norm on the CPU), and a user's ``autograd.Function`` has
whatever its author wrote.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from sklgap.objective._objective import Objective

CHECKED = "checked"
# Relative steps of the finite differences. Small ones do not cross the kinks of ReLU, large ones do not drown in
# rounding; one that agrees is enough, since wrong second derivatives agree with none.
_STEPS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
_AGREE = 1e-3
# A product that moves the gradient by a smaller share of it is rounding.
_NOTHING = 1e-3
_TINY = 1e-300
# The point is moved off the module's own parameters by these shares of their mean size, so that it lies on no kink:
# biases that are zero, or rows of zeros, put many units on one.
_MOVED = (1e-3, 1e-2, 1e-1)


@contextlib.contextmanager
def differentiable_twice(module: nn.Module | None = None) -> Iterator[None]:
    """Within it, attention and weight norm are computed by operations that can be differentiated twice.

    Of a module without weight norm, not looking for it saves time; None: it is not known.
    """
    explicit = module is None or _has_weight_norm(module)
    with sdpa_kernel(SDPBackend.MATH), _ExplicitWeightNorm() if explicit else contextlib.nullcontext():
        yield


class _ExplicitWeightNorm(TorchFunctionMode):
    """Weight norm written out: torch's fused one has a wrong second derivative on the CPU."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch._weight_norm:
            return _weight_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    dims = [d for d in range(v.ndim) if d != dim % v.ndim] if dim != -1 else list(range(v.ndim))
    return v * (g / v.square().sum(dims, keepdim=True).sqrt())


def _has_weight_norm(module: nn.Module) -> bool:
    names = {type(part).__name__ for part in module.modules()}
    hooks = {type(hook).__name__ for part in module.modules() for hook in part._forward_pre_hooks.values()}
    return "_WeightNorm" in names or "WeightNorm" in hooks


def check_second_derivatives(few: "Callable[[], Objective]", whole: "Objective") -> str:
    """Return ``"checked"``, or why it could not be; ValueError where second derivatives are wrong.

    Parameters
    ----------
    few : callable
        Returns the objective on a few samples in float64.
    whole : Objective
        The objective itself: the symmetry of its Hessian is what remains where float64 is not possible.
    """
    generator = torch.Generator().manual_seed(0)
    u, v, *noises = (torch.randn(whole.n_params, generator=generator, dtype=torch.float64) for _ in range(5))
    try:
        objective = few()
        objective.gradient()
    except (RuntimeError, ValueError, TypeError) as error:
        u, v = u.to(whole.theta0), v.to(whole.theta0)
        _check_symmetry(whole, whole.theta0, [whole._hvp(d, whole.theta0) for d in (u, v)], u, v)
        return f"symmetric; not compared with finite differences, since in float64 the module says: {error}"
    start = objective.theta0
    size = start.abs().clamp_min(float(start.square().mean().sqrt()) or 1.0)
    u, v = u.to(start), v.to(start)
    errors: list[float] = []
    for moved, noise in zip(_MOVED, noises, strict=True):
        point = start + moved * noise.to(start) * size
        try:
            images = [objective._hvp(d, point) for d in (u, v)]
        except RuntimeError as error:
            raise ValueError(
                f"module has no second derivatives, so that nothing about its Hessian can be measured: {error}"
            ) from error
        distance = _distance_from_differences(objective, point, v, images[1])
        if distance is None:
            return "not checked: the gradient or the Hessian is not finite on the samples tried"
        if distance <= _AGREE:
            _check_symmetry(objective, point, images, u, v)
            return CHECKED
        errors.append(distance)
    raise ValueError(
        "module computes wrong second derivatives: a Hessian-vector product differs from finite differences of the "
        f"gradient by {min(errors):.1%}. A custom autograd.Function whose backward cannot be differentiated is the "
        "usual cause: write it with plain torch operations, or measure sharpness, which needs gradients only."
    )


def _distance_from_differences(objective: "Objective", point: Tensor, v: Tensor, image: Tensor) -> float | None:
    """Return how far H v is from the closest finite difference, as a share of it; None for numbers not finite."""
    scale = float(point.norm() / v.norm()) or 1.0
    closest = math.inf
    for step in _STEPS:
        up, down = (objective.gradient(point + sign * step * scale * v)[1] for sign in (1, -1))
        if not all(bool(torch.isfinite(t).all()) for t in (image, up, down)):
            return None
        difference = (up - down) / (2 * step * scale)
        floor = _NOTHING * float(up.norm()) / scale
        closest = min(closest, float((image - difference).norm()) / max(float(difference.norm()), floor, _TINY))
        if closest <= _AGREE:
            break
    return closest if math.isfinite(closest) else None


def _check_symmetry(objective: "Objective", point: Tensor, images: list[Tensor], u: Tensor, v: Tensor) -> None:
    """Raise a ValueError unless v . H u = u . H v."""
    one, other = (float(a.double() @ b.double()) for a, b in ((v, images[0]), (u, images[1])))
    size = float(images[0].norm() * v.norm() + images[1].norm() * u.norm())
    floor = _NOTHING * float(objective.gradient(point)[1].norm() * u.norm() * v.norm() ** 2 / point.norm())
    if not abs(one - other) <= _AGREE * max(size, floor):
        raise ValueError(
            "module computes wrong second derivatives: its Hessian is not symmetric. A custom autograd.Function whose "
            "backward cannot be differentiated is the usual cause: write it with plain torch operations."
        )
