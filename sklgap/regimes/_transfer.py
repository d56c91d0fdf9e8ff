"""What the published rules give for the hyper-parameters of an optimiser at another batch size."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sklgap._checks import check_integer, check_positive, is_number, shown
from sklgap.regimes._lr_scaling import largest_ratio, scaled_beta, scaled_eps

# Left out of what is given, torch.optim takes these.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0, "weight_decay": 0.0},
    "adam": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
}
_SHOWN_AS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


@dataclass(frozen=True)
class TransferRule:
    """What one published rule gives.

    Attributes
    ----------
    name : str
        ``"linear"``, ``"sqrt"``, ``"sde"``, ``"half_life"`` or ``"averaging_time"``.
    values : dict or None
        All hyper-parameters at the new batch size; None where the rule does not apply.
    changed : tuple of str
        The names of those that the rule changes.
    reason : str
        Why the rule does not apply; empty where it does.
    source : str
        Where it was published.
    validity : str
        Where it holds.
    """

    name: str
    values: dict[str, Any] | None
    changed: tuple[str, ...]
    reason: str
    source: str
    validity: str

    def __str__(self) -> str:
        if self.values is None:
            return f"{self.name}: does not apply: {self.reason}"
        new = ", ".join(f"{name} {_text(self.values[name])}" for name in self.changed) or "nothing changes"
        return f"{self.name}: {new}. {self.validity} [{self.source}]"


@dataclass(frozen=True)
class HyperparameterTransfer:
    """The rules for one optimiser and two batch sizes; ``transfer["sqrt"]`` is one of them.

    Attributes
    ----------
    optimizer : str
        ``"SGD"``, ``"Adam"`` or ``"AdamW"``.
    batch_size, new_batch_size : int
        Samples of a batch before and after.
    rules : tuple of TransferRule
        Also those that do not apply.
    averaging_time : float or None
        Samples, or epochs where ``n_samples`` was given, over which AdamW averages its updates, at the old batch size;
        None without decoupled weight decay.
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
    r"""Hyper-parameters at another batch size, by every published rule that applies.

    With :math:`k = B_{new} / B`:

    * ``"linear"``, for SGD: :math:`\eta k`. Goyal et al. (2017), Section 2.1.
    * ``"sqrt"``: :math:`\eta \sqrt k`. For SGD Hoffer et al. (2017), Section 4; for Adam Granziol et al. (2022).
    * ``"sde"``, for Adam: :math:`\eta \sqrt k`, :math:`1 - k (1 - \beta_i)` for both :math:`\beta`,
      :math:`\epsilon / \sqrt k`. Malladi et al. (2022), the square root scaling rule.
    * ``"half_life"``, for Adam: :math:`\beta_2^k`, so that :math:`v` forgets half of what it holds after as many
      samples as before. Marek et al. (2025).
    * ``"averaging_time"``, for AdamW: weight decay times k at the same :math:`\eta`, so that
      :math:`\tau = B / (\eta \lambda n)` epochs stays. Wang and Aitchison (2024), Bergsma et al. (2025).

    Parameters
    ----------
    hyperparameters : dict
        As ``torch.optim`` takes them: ``lr``, and ``momentum`` and ``weight_decay`` for SGD, or ``betas``, ``eps`` and
        ``weight_decay`` for Adam and AdamW. The defaults of torch hold for those left out, except ``lr``.
    optimizer : {"SGD", "Adam", "AdamW"} or class
        The optimiser or its class in ``torch.optim``.
    batch_size, new_batch_size : int
        Samples of a batch where the hyper-parameters were found, and where they are wanted.
    n_samples : int, default=None
        Training samples; the averaging time is then in epochs.

    Returns
    -------
    HyperparameterTransfer
        Every rule with its values, source and range of validity, or the reason why it does not apply. Printed, it has
        a line for each rule.

    Raises
    ------
    ValueError
        For a hyper-parameter outside its range or of another optimiser.

    Notes
    -----
    The rules disagree, and none of them is known to hold on your data: `batch_size_curve` measures. All assume that
    noise dominates the gradient: they end near the knee that `BatchSizeMonitor` measures, beyond which a larger batch
    cannot save updates.

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
        "For SGD while the batch is well below the noise scale and lr is small enough to be stable; a large step needs "
        "a warm-up of some epochs."
    )
    if optimizer != "sgd":
        reason = (
            "it is derived for SGD, whose step grows with the gradient; Adam divides the gradient by its size: use "
            "'sqrt' or 'sde'."
        )
        return TransferRule("linear", None, (), reason, source, validity)
    return _applied("linear", old, {"lr": old["lr"] * k}, source, validity)


def _sqrt(old: dict[str, Any], optimizer: str, k: float, *_: Any) -> TransferRule:
    new = {"lr": old["lr"] * math.sqrt(k)}
    if optimizer == "sgd":
        validity = "For SGD: holds the covariance of a single update, not the distance of an epoch."
        return _applied("sqrt", old, new, "Hoffer et al. 2017, arXiv:1705.08741, Section 4", validity)
    validity = "For Adam while noise dominates the gradient; betas and eps stay as they are, which 'sde' corrects."
    return _applied("sqrt", old, new, "Granziol et al. 2022, arXiv:2006.09092", validity)


def _sde(old: dict[str, Any], optimizer: str, k: float, *_: Any) -> TransferRule:
    source = "Malladi et al. 2022, arXiv:2205.10287, square root scaling rule"
    validity = "For Adam while noise dominates the gradient and the steps are small. It says nothing of weight decay."
    if optimizer == "sgd":
        reason = "it is derived for Adam; for SGD the same argument gives 'linear'."
        return TransferRule("sde", None, (), reason, source, validity)
    betas = tuple(scaled_beta(beta, k) for beta in old["betas"])
    for i, (before, beta) in enumerate(zip(old["betas"], betas, strict=True), start=1):
        if beta < 0:
            reason = (
                f"beta{i} would be {beta:.3g}, below 0: with beta{i} = {before:g} the rule ends at "
                f"{largest_ratio(before):.4g} times the batch size."
            )
            return TransferRule("sde", None, (), reason, source, validity)
    new = {"lr": old["lr"] * math.sqrt(k), "betas": betas, "eps": scaled_eps(old["eps"], k)}
    return _applied("sde", old, new, source, validity)


def _half_life(old: dict[str, Any], optimizer: str, k: float, *_: Any) -> TransferRule:
    source = "Marek et al. 2025, arXiv:2507.07101"
    validity = "For Adam, tested on language models down to batch size 1; lr is still to be tuned."
    if optimizer == "sgd":
        return TransferRule("half_life", None, (), "SGD has no beta2.", source, validity)
    first, second = old["betas"]
    return _applied("half_life", old, {"betas": (first, second**k)}, source, validity)


def _averaging_time(
    old: dict[str, Any], optimizer: str, k: float, averaging_time: float | None, n_samples: int | None
) -> TransferRule:
    source = "Wang and Aitchison 2024, arXiv:2405.13698; Bergsma et al. 2025, arXiv:2505.13738"
    validity = "For AdamW, whose weight decay is decoupled; tested on image and language models."
    if averaging_time is None:
        reason = "weight_decay is 0." if optimizer == "adamw" else "it is for the decoupled weight decay of AdamW."
        return TransferRule("averaging_time", None, (), reason, source, validity)
    decay = old["weight_decay"] * k
    if old["lr"] * decay >= 1:
        reason = f"lr x weight_decay would be {old['lr'] * decay:.3g}, and a step may not take all of the weights."
        return TransferRule("averaging_time", None, (), reason, source, validity)
    unit = "samples" if n_samples is None else "epochs"
    validity = (
        f"{validity} Holds the averaging time at {averaging_time:,.4g} {unit} with lr as it is; beside lr x sqrt(k) it "
        f"is weight_decay {_text(old['weight_decay'] * math.sqrt(k))}."
    )
    return _applied("averaging_time", old, {"weight_decay": decay}, source, validity)


def _applied(name: str, old: dict[str, Any], new: dict[str, Any], source: str, validity: str) -> TransferRule:
    numbers = [x for value in new.values() for x in (value if isinstance(value, tuple) else (value,))]
    if not all(math.isfinite(x) for x in numbers) or not new.get("lr", 1.0) > 0 or new.get("betas", (0.0,))[-1] >= 1:
        return TransferRule(name, None, (), "a value would be outside what a float can hold.", source, validity)
    return TransferRule(name, {**old, **new}, tuple(new), "", source, validity)


# -- arguments ------------------------------------------------------------------------------------------------------


def _optimizer_name(optimizer: Any) -> str:
    name = optimizer.__name__ if isinstance(optimizer, type) else optimizer
    if not isinstance(name, str) or name.lower() not in _DEFAULTS:
        raise ValueError(f"optimizer must be 'SGD', 'Adam' or 'AdamW', or its class; got {shown(optimizer)}.")
    return name.lower()


def _checked(hyperparameters: Any, optimizer: str) -> dict[str, Any]:
    """Return the hyper-parameters of the optimiser with torch's defaults; ValueError for one outside its range."""
    if not isinstance(hyperparameters, Mapping) or "lr" not in hyperparameters:
        raise ValueError(f"hyperparameters must be a dict with 'lr'; got {shown(hyperparameters)}.")
    allowed = ("lr", *_DEFAULTS[optimizer])
    for name in hyperparameters:
        if name not in allowed:
            raise ValueError(
                f"hyperparameters must be of {_SHOWN_AS[optimizer]}: {', '.join(allowed)}; got {shown(name)}."
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
