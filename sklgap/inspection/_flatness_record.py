"""The record that every measure of flatness returns: one number, how it was found, and what it cost."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from sklgap._typing import BatchNormPolicy
from sklgap.objective import Objective

# A forward pass takes a third of the operations of a forward and a backward pass.
EVALUATION = 1 / 3


@dataclass(frozen=True)
class Flatness:
    """The result of one measure of flatness at a solution. A larger value is sharper.

    Attributes
    ----------
    name : str
        Name of the measure.
    value : float
        The measured value, in ``unit``.
    standard_error : float or None
        Standard error of ``value`` over its random draws. None if the value is not a mean over draws.
    f0 : float
        The mean loss at the measured point. It is the loss of the normalised logits if the measure uses these.
    parameters : dict
        The numbers that define the measure.
    n_gradients : float
        Cost in gradients over all samples. An evaluation of the loss counts 1/3, because a backward pass takes twice
        the operations of a forward pass. A Hessian-vector product counts 2, or 3 if the data form several chunks. NaN
        if the cost is not counted.
    n_samples : int
        Number of samples over which the loss is averaged.
    batch_norm : str
        The batch-norm policy.
    unit : str
        ``"loss"`` for a rise of the loss, ``"%"`` for a rise relative to 1 + f0 in percent, ``""`` for anything else.
    is_lower_bound : bool
        Whether the value is the largest one that a search found, so that the true value may be larger.
    status : str
        How the value was found, in words.
    notes : tuple of str
        What to know before you trust the value, in sentences.
    """

    name: str
    value: float
    standard_error: float | None
    f0: float
    parameters: dict[str, Any]
    n_gradients: float
    n_samples: int
    batch_norm: BatchNormPolicy
    unit: str = ""
    status: str = ""
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    is_lower_bound: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        parts = [*self.parameter_texts(), f"{self.n_samples:,} samples", f"loss {self.f0:.2e}"]
        parts.append(f"batch norm: {self.batch_norm}")
        if not math.isnan(self.n_gradients):
            parts.append(f"{self.n_gradients:.3g} gradients")
        about = "; ".join([", ".join(parts), *([self.status] if self.status else [])])
        return " ".join([f"{self.name} {self.value_text()} ({about})", *self.notes])

    def value_text(self) -> str:
        """Return the value with its standard error and its unit."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        return f"{self.value:.4g}{error}{' %' if self.unit == '%' else ''}"

    def parameter_texts(self) -> list[str]:
        """Return each parameter with its value, and a flag by its name if it is set."""
        given = {name: value for name, value in self.parameters.items() if value is not False}
        return [name if value is True else f"{name} {_number(value)}" for name, value in given.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a dict of plain values."""
        return {**asdict(self), "notes": list(self.notes)}


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def product_cost(objective: Objective) -> int:
    """Return the cost of a Hessian-vector product in gradients; see `Objective.hessian_operator`."""
    return 2 if len(objective.data.sizes) == 1 else 3


def check_loss(f0: float, normalize_logits: bool = False) -> None:
    """Raise a ValueError if the loss at the measured point is not finite."""
    if not math.isfinite(f0):
        why = " (normalize_logits needs logits that differ within every sample)" if normalize_logits else ""
        raise ValueError(f"The loss must be finite at the measured point; got {f0}{why}.")
