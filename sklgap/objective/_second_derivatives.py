"""Second derivatives that can be trusted: suitable kernels, and a comparison with finite differences.

Automatic differentiation of a gradient is only as good as the second derivative of every operation. Some operations
have no second derivative (fused attention). Some have a wrong one (torch's own weight norm on the CPU). A user's
``autograd.Function`` has whatever its author wrote.
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
# Relative steps of the finite differences. Small steps do not cross the kinks of ReLU, and large steps do not drown in
# rounding. One step that agrees is enough, because wrong second derivatives agree with no step.
_STEPS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
_AGREE = 1e-3
# A product that changes the gradient by less than this share of it is rounding.
_NOTHING = 1e-3
_TINY = 1e-300
# The point is moved away from the module's own parameters by these shares of their mean size, so that it lies on no
# kink. Biases of zero, or samples of zeros, put many units on a kink.
_MOVED = (1e-3, 1e-2, 1e-1)


@contextlib.contextmanager
def differentiable_twice(module: nn.Module | None = None) -> Iterator[None]:
    """Compute attention and weight norm with operations that can be differentiated twice, in this context.

    If a module has no weight norm, not looking for it saves time. None means that this is not known.
    """
    explicit = module is None or _has_weight_norm(module)
    with sdpa_kernel(SDPBackend.MATH), _ExplicitWeightNorm() if explicit else contextlib.nullcontext():
        yield


class _ExplicitWeightNorm(TorchFunctionMode):
    """Writes weight norm out, because torch's fused operation has a wrong second derivative on the CPU."""

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
    """Return ``"checked"``, or why the check was not possible; raise a ValueError for wrong second derivatives.

    Parameters
    ----------
    few : callable
        Returns the objective on a few samples in float64.
    whole : Objective
        The objective itself. If float64 is not possible, only the symmetry of its Hessian is tested.
    """
    generator = torch.Generator().manual_seed(0)
    u, v, *noises = (torch.randn(whole.n_params, generator=generator, dtype=torch.float64) for _ in range(5))
    try:
        objective = few()
        objective.gradient()
    except (RuntimeError, ValueError, TypeError) as error:
        u, v = u.to(whole.theta0), v.to(whole.theta0)
        _check_symmetry(whole, whole.theta0, [whole._hvp(d, whole.theta0) for d in (u, v)], u, v)
        return f"symmetric; not compared with finite differences, because in float64 the module raises: {error}"
    start = objective.theta0
    size = start.abs().clamp_min(float(start.square().mean().sqrt()) or 1.0)
    u, v = u.to(start), v.to(start)
    errors: list[float] = []
    for moved, noise in zip(_MOVED, noises, strict=True):
        point = start + moved * noise.to(start) * size
        try:
            images = [objective._hvp(d, point) for d in (u, v)]
        except RuntimeError as error:
            raise ValueError(f"module has no second derivatives, so its Hessian cannot be measured: {error}") from error
        distance = _distance_from_differences(objective, point, v, images[1])
        if distance is None:
            return "not checked, because the gradient or the Hessian is not finite on the samples tried"
        if distance <= _AGREE:
            _check_symmetry(objective, point, images, u, v)
            return CHECKED
        errors.append(distance)
    raise ValueError(
        "module computes wrong second derivatives, because a Hessian-vector product differs from finite differences "
        f"of the gradient by {min(errors):.1%}. The usual cause is a custom autograd.Function whose backward cannot be "
        "differentiated. Write it with plain torch operations, or measure sharpness, which only needs gradients."
    )


def _distance_from_differences(objective: "Objective", point: Tensor, v: Tensor, image: Tensor) -> float | None:
    """Return the relative distance of H v from the closest finite difference; None if numbers are not finite."""
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
            "module computes wrong second derivatives, because its Hessian is not symmetric. The usual cause is a "
            "custom autograd.Function whose backward cannot be differentiated. Write it with plain torch operations."
        )
