"""Second derivatives that can be trusted: kernels that have them, and a comparison with finite differences.

Automatic differentiation of a gradient is only as good as the second derivative of every operation. Some have none
(fused attention), some have a wrong one (torch's own weight norm on the CPU), and a user's ``autograd.Function`` has
whatever its author wrote.
"""

import contextlib
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
# rounding; the closest counts.
_STEPS = (1e-5, 1e-6, 1e-7)
_AGREE = 1e-3
# The point is moved off the module's own parameters by this share of them, so that it lies on no kink.
_MOVED = 1e-3


@contextlib.contextmanager
def differentiable_twice(module: nn.Module) -> Iterator[None]:
    """Within it, attention and weight norm are computed by operations that can be differentiated twice."""
    with sdpa_kernel(SDPBackend.MATH), _ExplicitWeightNorm() if _has_weight_norm(module) else contextlib.nullcontext():
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


def check_second_derivatives(
    few: "Callable[[], Objective]", product: Callable[[Tensor, Tensor], Tensor], theta: Tensor
) -> str:
    """Return ``"checked"``, or why it could not be; ValueError where second derivatives are wrong.

    Parameters
    ----------
    few : callable
        Returns the objective on a few samples in float64.
    product : callable
        (v, theta) -> H v of the objective itself: its symmetry is what remains where float64 is not possible.
    theta : Tensor of shape (n_params,)
        Where it is measured.
    """
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(theta.numel(), generator=generator, dtype=torch.float64) for _ in range(3)]
    try:
        objective = few()
        start = objective.theta0
        u, v, noise = (d.to(start) for d in draws)
        point = start + _MOVED * noise * start.abs().clamp_min(_MOVED)
        scale = float(point.norm() / v.norm()) or 1.0
        gradients = [[objective.gradient(point + sign * step * scale * v)[1] for sign in (1, -1)] for step in _STEPS]
    except (RuntimeError, ValueError, TypeError) as error:
        u, v, _ = (d.to(theta) for d in draws)
        _check_symmetry(product(u, theta), product(v, theta), u, v)
        return f"symmetric; not compared with finite differences, since in float64 the module says: {error}"
    try:
        images = [objective._hvp(d, point) for d in (u, v)]
    except RuntimeError as error:
        raise ValueError(
            f"module has no second derivatives, so that nothing about its Hessian can be measured: {error}"
        ) from error
    if not all(bool(torch.isfinite(t).all()) for t in (*images, *(g for pair in gradients for g in pair))):
        return "not checked: the gradient or the Hessian is not finite on the samples tried"
    differences = [(up - down) / (2 * step * scale) for step, (up, down) in zip(_STEPS, gradients, strict=True)]
    floor = 1e-6 * float(gradients[0][0].norm()) / scale
    errors = [float((images[1] - d).norm()) for d in differences]
    closest = min(range(len(_STEPS)), key=errors.__getitem__)
    if not errors[closest] <= _AGREE * float(differences[closest].norm()) + floor:
        raise ValueError(
            "module computes wrong second derivatives: a Hessian-vector product differs from finite differences of the "
            f"gradient by {errors[closest] / max(float(differences[closest].norm()), floor):.1%}. A custom "
            "autograd.Function whose backward cannot be differentiated is the usual cause: write it with plain torch "
            "operations, or measure sharpness, which needs gradients only."
        )
    _check_symmetry(images[0], images[1], u, v)
    return CHECKED


def _check_symmetry(image_u: Tensor, image_v: Tensor, u: Tensor, v: Tensor) -> None:
    """Raise a ValueError unless v . H u = u . H v."""
    one, other = (float(a.double() @ b.double()) for a, b in ((v, image_u), (u, image_v)))
    size = float(image_u.norm() * v.norm() + image_v.norm() * u.norm())
    if not abs(one - other) <= _AGREE * size:
        raise ValueError(
            "module computes wrong second derivatives: its Hessian is not symmetric. A custom autograd.Function whose "
            "backward cannot be differentiated is the usual cause: write it with plain torch operations."
        )
