"""The hyper-parameters of an optimiser at another batch size, by the published rules."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sklgap._checks import check_integer, check_positive, is_number, shown
from sklgap.regimes._lr_scaling import largest_ratio, scaled_beta, scaled_eps

# The defaults of torch.optim for hyper-parameters that are not given.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0, "weight_decay": 0.0},
    "adam": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
}
_SHOWN_AS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


@dataclass(frozen=True)
class TransferRule:
    """The result of one published rule.

    Attributes
    ----------
    name : str
        ``"linear"``, ``"sqrt"``, ``"sde"``, ``"half_life"`` or ``"averaging_time"``.
    values : dict or None
        All hyper-parameters at the new batch size; None if the rule does not apply.
    changed : tuple of str
        Names of the hyper-parameters that the rule changes.
    reason : str
        The reason why the rule does not apply; empty if it does.
    source : str
        The publication of the rule.
    validity : str
        The conditions under which the rule holds.
    """

    name: str
    values: dict[str, Any] | None
    changed: tuple[str, ...]
    reason: str
    source: str
    validity: str

    def __str__(self) -> str:
        if self.values is None:
            return f"{self.name}: does not apply, because {self.reason}"
        new = ", ".join(f"{name} {_text(self.values[name])}" for name in self.changed) or "nothing changes"
        return f"{self.name}: {new}. {self.validity} [{self.source}]"


@dataclass(frozen=True)
class HyperparameterTransfer:
    """The results of all rules for one optimiser and two batch sizes; ``transfer["sqrt"]`` is one of them.

    Attributes
    ----------
    optimizer : str
        ``"SGD"``, ``"Adam"`` or ``"AdamW"``.
    batch_size, new_batch_size : int
        The old and the new batch size.
    rules : tuple of TransferRule
        All rules, including those that do not apply.
    averaging_time : float or None
        Number of samples over which AdamW averages its updates at the old batch size, or number of epochs if
        ``n_samples`` was given. None without decoupled weight decay.
    """

    optimizer: str
    batch_size: int
    new_batch_size: int
    rules: tuple[TransferRule, ...]
    averaging_time: float | None

    def __getitem__(self, name: str) -> TransferRule:
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise KeyError(f"{name!r} is not one of the rules {', '.join(rule.name for rule in self.rules)}")

    def __iter__(self) -> Iterator[TransferRule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __str__(self) -> str:
        head = f"{self.optimizer}, batch size {self.batch_size:,} -> {self.new_batch_size:,}"
        return "\n".join([head, *(f"  {rule}" for rule in self.rules)])


def transfer_hyperparameters(
    hyperparameters: Mapping[str, Any],
    optimizer: str | type,
    batch_size: int,
    new_batch_size: int,
    *,
    n_samples: int | None = None,
) -> HyperparameterTransfer:
    r"""Compute hyper-parameters for another batch size by every published rule that applies.

    With :math:`k = B_{new} / B`:

    * ``"linear"``, for SGD: :math:`\eta k`. Goyal et al. (2017), Section 2.1.
    * ``"sqrt"``: :math:`\eta \sqrt k`. For SGD Hoffer et al. (2017), Section 4; for Adam Granziol et al. (2022).
    * ``"sde"``, for Adam: :math:`\eta \sqrt k`, :math:`1 - k (1 - \beta_i)` for both :math:`\beta`,
      :math:`\epsilon / \sqrt k`. Malladi et al. (2022), the square root scaling rule.
    * ``"half_life"``, for Adam: :math:`\beta_2^k`, so that :math:`v` forgets half of its content after the same
      number of samples as before. Marek et al. (2025).
    * ``"averaging_time"``, for AdamW: weight decay times k at the same :math:`\eta`, so that
      :math:`\tau = B / (\eta \lambda n)` epochs does not change. Wang and Aitchison (2024), Bergsma et al. (2025).

    Parameters
    ----------
    hyperparameters : dict
        The arguments of the ``torch.optim`` class: ``lr``, and ``momentum`` and ``weight_decay`` for SGD, or ``betas``,
        ``eps`` and ``weight_decay`` for Adam and AdamW. Only ``lr`` is required; the others have the defaults of torch.
    optimizer : {"SGD", "Adam", "AdamW"} or class
        The optimiser, or its class in ``torch.optim``.
    batch_size, new_batch_size : int
        The batch size at which the hyper-parameters were found, and the batch size for which you want them.
    n_samples : int, default=None
        Number of training samples. With it the averaging time is in epochs.

    Returns
    -------
    HyperparameterTransfer
        Every rule with its values, source and conditions, or the reason why it does not apply. If you print it, it has
        a line for each rule.

    Raises
    ------
    ValueError
        If a hyper-parameter is outside its range or belongs to another optimiser.

    Notes
    -----
    The rules disagree, and you cannot know in advance whether one of them holds on your data; `batch_size_curve`
    measures it. All rules assume that noise dominates the gradient. They end near the noise scale (the knee) that
    `BatchSizeMonitor` measures. Beyond it a larger batch cannot save updates.

    References
    ----------
    arXiv:1706.02677 (Goyal et al.), arXiv:1705.08741 (Hoffer et al.), arXiv:2006.09092 (Granziol et al.),
    arXiv:2205.10287 (Malladi et al.), arXiv:2507.07101 (Marek et al.), arXiv:2405.13698 (Wang and Aitchison),
    arXiv:2505.13738 (Bergsma et al.).

    Examples
    --------
    >>> from sklgap.regimes import transfer_hyperparameters
    >>> transfer = transfer_hyperparameters({"lr": 0.001, "betas": (0.9, 0.99)}, "Adam", 64, 256)
    >>> transfer["sde"].values["lr"], [round(beta, 6) for beta in transfer["sde"].values["betas"]]
    (0.002, [0.6, 0.96])
    >>> round(transfer["half_life"].values["betas"][1], 6)
    0.960596
    >>> transfer["linear"].values is None
    True
    """
    name = _optimizer_name(optimizer)
    check_integer("batch_size", batch_size)
    check_integer("new_batch_size", new_batch_size)
    check_integer("n_samples", n_samples, or_none=True)
    if n_samples is not None and max(batch_size, new_batch_size) > n_samples:
        raise ValueError(f"n_samples must be at least both batch sizes; got {n_samples}.")
    old = _checked(hyperparameters, name)
    k = int(new_batch_size) / int(batch_size)
    rules = [_linear, _sqrt, _sde, _half_life, _averaging_time]
    decay = old["lr"] * old["weight_decay"]
    averaging_time = None
    if name == "adamw" and decay:
        averaging_time = batch_size / decay / (n_samples or 1)
    found = tuple(rule(old, name, k, averaging_time, n_samples) for rule in rules)
    return HyperparameterTransfer(_SHOWN_AS[name], int(batch_size), int(new_batch_size), found, averaging_time)


# -- the rules ------------------------------------------------------------------------------------------------------


def _linear(old: dict[str, Any], optimizer: str, k: float, *_: Any) -> TransferRule:
    source = "Goyal et al. 2017, arXiv:1706.02677, Section 2.1"
    validity = (
        "Valid for SGD while the batch size is well below the noise scale and lr is small enough to be stable. A "
        "large change of lr needs a warm-up of some epochs."
    )
    if optimizer != "sgd":
        reason = (
            "it is derived for SGD, whose step grows with the gradient, while Adam divides the gradient by its size. "
            "Use 'sqrt' or 'sde'."
        )
        return TransferRule("linear", None, (), reason, source, validity)
    return _applied("linear", old, {"lr": old["lr"] * k}, source, validity)


def _sqrt(old: dict[str, Any], optimizer: str, k: float, *_: Any) -> TransferRule:
    new = {"lr": old["lr"] * math.sqrt(k)}
    if optimizer == "sgd":
        validity = (
            "Valid for SGD. It preserves the covariance of a single update, not the distance covered in an epoch."
        )
        return _applied("sqrt", old, new, "Hoffer et al. 2017, arXiv:1705.08741, Section 4", validity)
    validity = "Valid for Adam while noise dominates the gradient. It does not change betas and eps; 'sde' does."
    return _applied("sqrt", old, new, "Granziol et al. 2022, arXiv:2006.09092", validity)


def _sde(old: dict[str, Any], optimizer: str, k: float, *_: Any) -> TransferRule:
    source = "Malladi et al. 2022, arXiv:2205.10287, square root scaling rule"
    validity = (
        "Valid for Adam while noise dominates the gradient and the steps are small. It says nothing about weight decay."
    )
    if optimizer == "sgd":
        reason = "it is derived for Adam. For SGD the same argument gives 'linear'."
        return TransferRule("sde", None, (), reason, source, validity)
    betas = tuple(scaled_beta(beta, k) for beta in old["betas"])
    for i, (before, beta) in enumerate(zip(old["betas"], betas, strict=True), start=1):
        if beta < 0:
            reason = (
                f"beta{i} would be {beta:.3g}, which is below 0. With beta{i} = {before:g} the rule ends at "
                f"{largest_ratio(before):.4g} times the batch size."
            )
            return TransferRule("sde", None, (), reason, source, validity)
    new = {"lr": old["lr"] * math.sqrt(k), "betas": betas, "eps": scaled_eps(old["eps"], k)}
    return _applied("sde", old, new, source, validity)


def _half_life(old: dict[str, Any], optimizer: str, k: float, *_: Any) -> TransferRule:
    source = "Marek et al. 2025, arXiv:2507.07101"
    validity = "Valid for Adam, and tested on language models down to batch size 1. You still have to tune lr."
    if optimizer == "sgd":
        return TransferRule("half_life", None, (), "SGD has no beta2.", source, validity)
    first, second = old["betas"]
    return _applied("half_life", old, {"betas": (first, second**k)}, source, validity)


def _averaging_time(
    old: dict[str, Any], optimizer: str, k: float, averaging_time: float | None, n_samples: int | None
) -> TransferRule:
    source = "Wang and Aitchison 2024, arXiv:2405.13698; Bergsma et al. 2025, arXiv:2505.13738"
    validity = "Valid for AdamW, whose weight decay is decoupled, and tested on image and language models."
    if averaging_time is None:
        reason = "weight_decay is 0." if optimizer == "adamw" else "it is for the decoupled weight decay of AdamW."
        return TransferRule("averaging_time", None, (), reason, source, validity)
    decay = old["weight_decay"] * k
    if old["lr"] * decay >= 1:
        reason = (
            f"lr x weight_decay would be {old['lr'] * decay:.3g}, and it must be below 1, or a step would remove the "
            "weights."
        )
        return TransferRule("averaging_time", None, (), reason, source, validity)
    unit = "samples" if n_samples is None else "epochs"
    validity = (
        f"{validity} With the same lr, the averaging time remains {averaging_time:,.4g} {unit}. With lr x sqrt(k), "
        f"use weight_decay {_text(old['weight_decay'] * math.sqrt(k))}."
    )
    return _applied("averaging_time", old, {"weight_decay": decay}, source, validity)


def _applied(name: str, old: dict[str, Any], new: dict[str, Any], source: str, validity: str) -> TransferRule:
    numbers = [x for value in new.values() for x in (value if isinstance(value, tuple) else (value,))]
    if not all(math.isfinite(x) for x in numbers) or not new.get("lr", 1.0) > 0 or new.get("betas", (0.0,))[-1] >= 1:
        return TransferRule(name, None, (), "a value would be outside the range of a float.", source, validity)
    return TransferRule(name, {**old, **new}, tuple(new), "", source, validity)


# -- arguments ------------------------------------------------------------------------------------------------------


def _optimizer_name(optimizer: Any) -> str:
    name = optimizer.__name__ if isinstance(optimizer, type) else optimizer
    if not isinstance(name, str) or name.lower() not in _DEFAULTS:
        raise ValueError(f"optimizer must be 'SGD', 'Adam' or 'AdamW', or its class; got {shown(optimizer)}.")
    return name.lower()


def _checked(hyperparameters: Any, optimizer: str) -> dict[str, Any]:
    """Return the hyper-parameters with the defaults of torch; raise a ValueError if one is outside its range."""
    if not isinstance(hyperparameters, Mapping) or "lr" not in hyperparameters:
        raise ValueError(f"hyperparameters must be a dict with 'lr'; got {shown(hyperparameters)}.")
    allowed = ("lr", *_DEFAULTS[optimizer])
    for name in hyperparameters:
        if name not in allowed:
            raise ValueError(
                f"hyperparameters must be those of {_SHOWN_AS[optimizer]} ({', '.join(allowed)}); got {shown(name)}."
            )
    found = {**_DEFAULTS[optimizer], **hyperparameters}
    check_positive("hyperparameters['lr']", found["lr"])
    if not is_number(found["weight_decay"]) or found["weight_decay"] < 0:
        _refuse("weight_decay", "a number of at least 0", found)
    if "momentum" in found and not (is_number(found["momentum"]) and 0 <= found["momentum"] < 1):
        _refuse("momentum", "a number in [0, 1)", found)
    if "eps" in found and not (is_number(found["eps"]) and found["eps"] >= 0):
        _refuse("eps", "a number of at least 0", found)
    if "betas" in found:
        betas = found["betas"]
        right = isinstance(betas, tuple | list) and len(betas) == 2
        if not right or not all(is_number(beta) and 0 <= beta < 1 for beta in betas):
            _refuse("betas", "two numbers in [0, 1)", found)
        found["betas"] = tuple(float(beta) for beta in betas)
    return {name: found[name] for name in allowed}


def _refuse(name: str, what: str, found: Mapping[str, Any]) -> None:
    raise ValueError(f"hyperparameters[{name!r}] must be {what}; got {shown(found[name])}.")


def _text(value: Any) -> str:
    return f"({', '.join(map(_text, value))})" if isinstance(value, tuple) else f"{value:.6g}"
