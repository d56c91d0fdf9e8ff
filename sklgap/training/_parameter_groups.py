"""Parameter groups by name, in skorch's form: ``optimizer__param_groups=[("*.bias", {"lr": 0.1})]``."""

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

from torch import Tensor


def check_parameter_groups(groups: Any, names: Iterable[str]) -> None:
    """Raise a ValueError if groups are not pairs (pattern, options), or if a group has no parameter.

    Parameters
    ----------
    groups : list of pairs (str, dict)
        The groups. Each takes the parameters that match its pattern and no earlier one.
    names : iterable of str
        Names of the parameters of the module.
    """
    if not isinstance(groups, list | tuple) or not all(map(_is_group, groups)):
        raise ValueError(
            "optimizer__param_groups must be a list of pairs (pattern, options) such as ('*.bias', {'lr': 0.1}); "
            f"got {groups!r}."
        )
    names = list(names)
    left = names
    for pattern, _ in groups:
        rest = [name for name in left if not fnmatch(name, pattern)]
        if len(rest) == len(left):
            raise ValueError(
                f"optimizer__param_groups: the pattern {pattern!r} does not match any of the parameters that the "
                f"groups before it leave, {left}; the module has {names}."
            )
        left = rest


def _is_group(item: Any) -> bool:
    pair = isinstance(item, list | tuple) and len(item) == 2
    return pair and isinstance(item[0], str) and isinstance(item[1], dict)


def check_options(optimizer: Any, groups: Any) -> None:
    """Raise a ValueError for an option that an optimiser of torch does not have, because torch would ignore it."""
    known = set(optimizer.defaults) if is_of_torch(type(optimizer)) else set()
    for pattern, options in groups:
        unknown = sorted(set(options) - known)
        if known and unknown:
            raise ValueError(
                f"optimizer__param_groups: {unknown[0]!r} in the group {pattern!r} is not an option of "
                f"{type(optimizer).__name__}, which has {', '.join(sorted(known))}."
            )


def is_of_torch(optimizer: Any) -> bool:
    """Return whether the class belongs to torch. Other optimisers may read options without defaults."""
    return str(getattr(optimizer, "__module__", "")).startswith("torch.")


def refusal(optimizer: Any, parameters: Iterable[tuple[str, Tensor]], error: Exception) -> ValueError:
    """Return the error for an optimiser that does not accept all parameters, such as one for matrices."""
    kind = getattr(optimizer, "__name__", optimizer)
    vectors = [f"{name!r} has the shape {tuple(p.shape)}" for name, p in parameters if p.ndim != 2]
    where = f" ({vectors[0]})" if vectors else ""
    return ValueError(
        f"optimizer={kind} does not take the parameters of the module{where}: {str(error).rstrip('.')}; if the "
        "optimiser has options for such parameters, for example for those that are not matrices, set them by name: "
        f"optimizer__param_groups=[('*.bias', {{...}}), ...]."
    )


def set_learning_rate(optimizer: Any, lr: float, groups: Iterable[dict[str, Any]]) -> None:
    """Set the learning rate of the groups that do not have their own.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser to change.
    lr : float
        The learning rate.
    groups : iterable of dict
        The groups that the optimiser was built with.
    """
    for group, given in zip(optimizer.param_groups, groups, strict=True):
        if "lr" not in given:
            group["lr"] = lr
