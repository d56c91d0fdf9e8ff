"""Hooks that a user has registered on the gradients of parameters. A copy of a module does not have them."""

from torch import nn

# The attributes of a tensor in which torch stores the hooks of ``register_hook`` and of
# ``register_post_accumulate_grad_hook``.
_ON_GRADIENT, _AFTER_ACCUMULATION = "_backward_hooks", "_post_accumulate_grad_hooks"


def hooked_parameter(module: nn.Module) -> str | None:
    """Return the name of the first parameter that has a gradient hook of any kind; None without one."""
    return _first_with(module, _ON_GRADIENT, _AFTER_ACCUMULATION)


def accumulation_hooked_parameter(module: nn.Module) -> str | None:
    """Return the name of the first parameter with a hook that ``backward`` calls and ``torch.autograd.grad`` does not.

    Such a hook changes ``.grad`` and no other gradient.
    """
    return _first_with(module, _AFTER_ACCUMULATION)


def _first_with(module: nn.Module, *kinds: str) -> str | None:
    for name, parameter in module.named_parameters():
        if any(getattr(parameter, kind, None) for kind in kinds):
            return name
    return None


def check_no_gradient_hooks(module: nn.Module, name: str, way_out: str) -> None:
    """Raise a ValueError if a copy of the module would lack a gradient hook.

    Parameters
    ----------
    module : nn.Module
        The module to copy.
    name : str
        Name of the module in the error.
    way_out : str
        What the user can do instead, as the end of the error.
    """
    hooked = hooked_parameter(module)
    if hooked is not None:
        raise ValueError(
            f"{name} must not have gradient hooks on its parameters, because a copy of it is used, which does not call "
            f"them; got a hook on {hooked!r}; {way_out}."
        )
