"""Parameter groups by name, as skorch takes them: ``optimizer__param_groups=[("*.bias", {"lr": 0.1})]``."""

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

from torch import Tensor


def check_parameter_groups(groups: Any, names: Iterable[str]) -> None:
    """Raise a ValueError for groups that are not pairs (pattern, options), or that hold no parameter.

    Parameters
    ----------
    groups : list of pairs (str, dict)
        Each takes the parameters it matches from those that are left.
    names : iterable of str
        Of the module's parameters.
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
                f"optimizer__param_groups: the pattern {pattern!r} matches none of the parameters that the groups "
                f"before it have left, {left or 'none'}; the module has {names}."
            )
        left = rest


def _is_group(item: Any) -> bool:
    pair = isinstance(item, list | tuple) and len(item) == 2
    return pair and isinstance(item[0], str) and isinstance(item[1], dict)


def check_options(optimizer: Any, groups: Any) -> None:
    """Raise a ValueError for an option that an optimiser of torch does not have: torch would never read it."""
    known = set(optimizer.defaults) if is_of_torch(type(optimizer)) else set()
    for pattern, options in groups:
        unknown = sorted(set(options) - known)
        if known and unknown:
            raise ValueError(
                f"optimizer__param_groups: {unknown[0]!r} in the group {pattern!r} is no option of "
                f"{type(optimizer).__name__}, which has {', '.join(sorted(known))}."
            )


def is_of_torch(optimizer: Any) -> bool:
    """Say whether the class is torch's: others may read options that are not among their defaults."""
    return str(getattr(optimizer, "__module__", "")).startswith("torch.")


def refusal(optimizer: Any, parameters: Iterable[tuple[str, Tensor]], error: Exception) -> ValueError:
    """Return the sentence for an optimiser that does not take the parameters as they are, as one for matrices."""
    kind = getattr(optimizer, "__name__", optimizer)
    vectors = [f"{name!r} has the shape {tuple(p.shape)}" for name, p in parameters if p.ndim != 2]
    where = f" ({vectors[0]})" if vectors else ""
    return ValueError(
        f"optimizer={kind} does not take the parameters of the module{where}: {str(error).rstrip('.')}; an optimiser "
        "with options for some of them, such as those that are no matrices, gets these by name: "
        "optimizer__param_groups=[('*.bias', {...}), ...]."
    )


def set_learning_rate(optimizer: Any, lr: float, groups: Iterable[dict[str, Any]]) -> None:
    """Set the rate of the groups that were given without one.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Whose rates are set.
    lr : float
        The rate.
    groups : iterable of dict
        The groups as the optimiser was given them.
    """
    for group, given in zip(optimizer.param_groups, groups, strict=True):
        if "lr" not in given:
            group["lr"] = lr
