"""All measures of flatness: by name, or a user's own."""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from sklgap._checks import shown
from sklgap.inspection._adaptive_sharpness import adaptive_sharpness
from sklgap.inspection._flatness_record import EVALUATION, Flatness, check_loss, product_cost
from sklgap.inspection._hessian import hessian_eigenvalues
from sklgap.inspection._hessian_trace import hessian_trace
from sklgap.inspection._sharpness import Sharpness, sharpness
from sklgap.objective import Objective

# What `flatness` and `minima_census` call: (objective, random_state=int) -> Flatness.
Measure = Callable[..., Flatness]


def _metric_2_1(objective: Objective, *, random_state: Any = None) -> Flatness:
    return _of_sharpness(sharpness(objective, random_state=random_state))


def _adaptive_metric(objective: Objective, *, random_state: Any = None) -> Flatness:
    return _of_sharpness(adaptive_sharpness(objective, random_state=random_state))


def _of_sharpness(record: Sharpness) -> Flatness:
    return Flatness(
        name=record.name,
        value=record.value,
        standard_error=None,
        f0=record.f0,
        parameters={"epsilon": record.epsilon},
        n_gradients=float(record.n_evaluations),
        n_samples=record.n_samples,
        batch_norm=record.batch_norm,
        unit="%",
        status=f"solver {record.solver!r}: {record.status}",
    )


def _trace(objective: Objective, *, random_state: Any = None) -> Flatness:
    f0 = objective.value()
    check_loss(f0)
    record = hessian_trace(objective, random_state=random_state)
    return Flatness(
        name="Hessian trace",
        value=record.value,
        standard_error=None if record.method == "exact" else record.standard_error,
        f0=f0,
        parameters={},
        n_gradients=EVALUATION + product_cost(objective) * record.n_products,
        n_samples=record.n_samples,
        batch_norm=record.batch_norm,
        status=f"{record.method}, {record.n_products} products; second derivatives: {record.second_derivatives}",
    )


def _largest_eigenvalue(objective: Objective, *, random_state: Any = None) -> Flatness:
    f0 = objective.value()
    check_loss(f0)
    record = hessian_eigenvalues(objective, k=1, random_state=random_state)
    known = "" if record.converged else "The largest eigenvalue had not converged; its residual is in the status."
    return Flatness(
        name="largest eigenvalue",
        value=float(record.eigenvalues[0]),
        standard_error=None,
        f0=f0,
        parameters={},
        n_gradients=EVALUATION + product_cost(objective) * record.n_products,
        n_samples=record.n_samples,
        batch_norm=record.batch_norm,
        status=f"residual {record.residuals[0]:.1e}; {record.status}; second derivatives: {record.second_derivatives}",
        notes=(known,) if known else (),
    )


MEASURES: dict[str, Measure] = {
    "sharpness": _metric_2_1,
    "adaptive_sharpness": _adaptive_metric,
    "hessian_trace": _trace,
    "largest_eigenvalue": _largest_eigenvalue,
}


def check_measures(measures: str | Sequence[str] | Mapping[str, Any] | None = None) -> dict[str, Measure]:
    """Return measures of flatness by label, as functions that can be pickled.

    Parameters
    ----------
    measures : str, sequence of str, dict or None
        Names; None: all. Or a dict label -> name or callable: the callable takes an `Objective`, and ``random_state``
        where it has a parameter of this name, and returns a `Flatness` or a number.

    Returns
    -------
    dict label -> callable
        Each takes ``(objective, *, random_state)``, where the random state is an int or None, and returns a
        `Flatness`.

    Raises
    ------
    TypeError, ValueError
        In one sentence that names ``measures``.
    """
    if measures is None:
        return dict(MEASURES)
    if isinstance(measures, str):
        measures = [measures]
    if isinstance(measures, Mapping):
        entries = list(measures.items())
    elif isinstance(measures, Sequence) and not isinstance(measures, bytes):
        entries = [(name, name) for name in measures]
    else:
        raise TypeError(
            "measures must be None, a name, a sequence of names, or a dict label -> name or callable; "
            f"got {shown(measures)}."
        )
    if not entries:
        raise ValueError("measures must hold at least one measure; got none.")
    found: dict[str, Measure] = {}
    for label, measure in entries:
        if not isinstance(label, str) or not label:
            allowed = "the labels of measures must be texts" if isinstance(measures, Mapping) else _allowed()
            raise TypeError(f"measures must hold texts; {allowed}; got {shown(label)}.")
        if label in found:
            raise ValueError(f"measures must hold each measure once; got {label!r} several times.")
        found[label] = _check_measure(label, measure)
    return found


def _check_measure(label: str, measure: Any) -> Measure:
    if isinstance(measure, str):
        if measure not in MEASURES:
            raise ValueError(f"measures must hold {_allowed()}; got {shown(measure)}.")
        return MEASURES[measure]
    if not callable(measure) or isinstance(measure, type):
        raise TypeError(
            f"measures[{label!r}] must be a name or a function of an Objective that returns a Flatness or a number; "
            f"got {shown(measure)}."
        )
    return partial(_own_measure, label, measure)


def _own_measure(
    label: str, measure: Callable[..., Any], objective: Objective, *, random_state: Any = None
) -> Flatness:
    """Return what a user's function measures, as a record with its label as the name."""
    given = {"random_state": random_state} if _takes_random_state(measure) else {}
    found = measure(objective, **given)
    if isinstance(found, Flatness):
        return replace(found, name=label)
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        raise TypeError(f"measures[{label!r}] must return a Flatness or a number; got {shown(found)}.")
    f0 = objective.value()
    check_loss(f0)
    return Flatness(
        name=label,
        value=float(cast(Any, found)),
        standard_error=None,
        f0=f0,
        parameters={},
        n_gradients=math.nan,
        n_samples=objective.n_samples,
        batch_norm=objective.batch_norm,
        status="a function of the user; its cost is not counted",
    )


def _takes_random_state(measure: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(measure).parameters
    except (TypeError, ValueError):  # a builtin
        return False
    return "random_state" in parameters


def _allowed() -> str:
    return f"names among {', '.join(map(repr, MEASURES))}, or a dict label -> function of an Objective"
