"""All measures of flatness in one table, including a user's own measures."""

import html
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
from tqdm.auto import tqdm

from sklgap import _tables
from sklgap._checks import WrongArgument, check_arguments, check_random_state, shown
from sklgap._threads import using_threads
from sklgap._typing import ArrayLike, Inputs
from sklgap.inspection._adaptive_sharpness import adaptive_sharpness
from sklgap.inspection._average_sharpness import average_sharpness
from sklgap.inspection._ball_sharpness import ball_sharpness
from sklgap.inspection._fisher_sharpness import fisher_sharpness
from sklgap.inspection._fisher_trace import fisher_trace
from sklgap.inspection._flatness_record import EVALUATION, Flatness, check_loss, product_cost
from sklgap.inspection._hessian import hessian_eigenvalues
from sklgap.inspection._hessian_trace import hessian_trace
from sklgap.inspection._m_sharpness import m_sharpness
from sklgap.inspection._points import full_space_objective
from sklgap.inspection._sharpness import Sharpness, sharpness
from sklgap.objective import Objective
from sklgap.objective._check import Measurable, ObjectiveOptions

# The form of function that `flatness` and `minima_census` call: (objective, random_state=int) -> Flatness.
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
        is_lower_bound=True,
        status=f"solver {record.solver!r}: {record.status}",
        notes=record.notes,
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
    note = (
        "The search for the largest eigenvalue did not converge within its budget of products, "
        "so the eigenvalue may be larger."
    )
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
        notes=() if record.converged else (note,),
    )


MEASURES: dict[str, Measure] = {
    "sharpness": _metric_2_1,
    "adaptive_sharpness": _adaptive_metric,
    "average_sharpness": average_sharpness,
    "adaptive_average_sharpness": partial(average_sharpness, adaptive=True),
    "normalized_average_sharpness": partial(average_sharpness, adaptive=True, normalize_logits=True),
    "ball_sharpness": ball_sharpness,
    "adaptive_ball_sharpness": partial(ball_sharpness, adaptive=True),
    "normalized_ball_sharpness": partial(ball_sharpness, adaptive=True, normalize_logits=True),
    "m_sharpness": m_sharpness,
    "fisher_sharpness": fisher_sharpness,
    "fisher_trace": fisher_trace,
    "hessian_trace": _trace,
    "largest_eigenvalue": _largest_eigenvalue,
}


@using_threads()
def flatness(
    estimator: Measurable,
    X: Inputs | None = None,
    y: ArrayLike | None = None,
    *,
    measures: str | Sequence[str] | Mapping[str, Any] | None = None,
    max_samples: int | float | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
    **kwargs: Unpack[ObjectiveOptions],
) -> "FlatnessTable":
    """Measure how flat a solution is by every measure of this package, and what each measure costs.

    Measures of flatness need not agree. No measure predicts the test accuracy in all settings that were studied (Jiang
    et al., 2020; Andriushchenko et al., 2023).

    Parameters
    ----------
    estimator : estimator or Objective
        A fitted `LBGapClassifier` or skorch net, a pipeline or a search that ends in one, a pair
        (module, criterion), or an `Objective` in the full space.
    X, y : array-like
        Samples over which the loss is averaged, usually the training data. None with an `Objective`, which holds its
        data.
    measures : str, sequence of str or dict, default=None
        Names of measures: ``"sharpness"``, ``"adaptive_sharpness"``, ``"average_sharpness"``,
        ``"adaptive_average_sharpness"``, ``"normalized_average_sharpness"``, ``"ball_sharpness"``,
        ``"adaptive_ball_sharpness"``, ``"normalized_ball_sharpness"``, ``"m_sharpness"``, ``"fisher_sharpness"``,
        ``"fisher_trace"``, ``"hessian_trace"``, ``"largest_eigenvalue"``. The ``"normalized_..."`` measures are
        adaptive, with ``normalize_logits=True``. Each measure has the default parameters of its function. A dict maps a
        label to a name or to a function. The function takes an `Objective`, and ``random_state`` if it has a parameter
        of this name, and returns a `Flatness` or a number. Use ``functools.partial`` to give a measure other
        parameters. None measures everything that the loss and the data allow; ``notes`` says which measures are left
        out, and why.
    max_samples : int, float or None, default=None
        Number of samples to measure on (int), or a fraction of them (float in (0, 1]). None uses all samples.
    random_state : int, RandomState or None, default=None
        Seed of the samples and the random state of every measure.
    verbose : int, default=0
        1 shows a progress bar.
    **kwargs
        Options of `Objective`: ``batch_norm``, ``chunk_size``, ``dtype`` and ``device``.

    Returns
    -------
    FlatnessTable
        The table; ``print`` it.

    Raises
    ------
    ValueError, TypeError
        If a parameter is outside its allowed values, if the loss is not finite at the measured point, or if you ask for
        a measure that the loss or the data do not allow.

    See Also
    --------
    sharpness : Metric 2.1, the worst case in a box.
    adaptive_sharpness : The worst case in a box that scales with the weights.
    average_sharpness : The mean over random steps.
    ball_sharpness : The worst case in a ball.
    m_sharpness : The worst case in a ball for each group of m samples.
    fisher_sharpness : The worst case in an ellipsoid of the Fisher matrix.
    fisher_trace : The trace of the Fisher matrix.
    hessian_trace : The trace of the Hessian.
    hessian_eigenvalues : The largest eigenvalues of the Hessian.

    References
    ----------
    .. [1] Jiang et al., Fantastic Generalization Measures and Where to Find Them, ICLR 2020.
    .. [2] Andriushchenko et al., A Modern Look at the Relationship between Sharpness and Generalization, ICML 2023,
       arXiv:2302.07011.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from sklgap.inspection import ball_sharpness, flatness
    >>> net = torch.nn.Linear(2, 2, bias=False).double()
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> X, y = torch.eye(2).double(), torch.tensor([0, 1])
    >>> pair = (net, torch.nn.CrossEntropyLoss())
    >>> measures = {"trace": "hessian_trace", "ball": partial(ball_sharpness, rho=0.1)}
    >>> table = flatness(pair, X, y, measures=measures, random_state=0)
    >>> [(label, round(record.value, 4)) for label, record in table.measures.items()]
    [('trace', 0.5), ('ball', 0.0512)]
    """
    check_arguments(flatness, locals())
    asked = check_measures(measures)
    rng = check_random_state(random_state)
    objective = full_space_objective(estimator, X, y, "estimator", max_samples=max_samples, random_state=rng, **kwargs)
    check_loss(objective.value())
    seed = int(rng.randint(2**31 - 1)) if random_state is None or rng is random_state else int(cast(int, random_state))
    found: dict[str, Flatness] = {}
    left_out: dict[str, str] = {}
    with tqdm(asked.items(), disable=not verbose, unit="measure") as bar:
        for label, measure in bar:
            try:
                found[label] = measure(objective, random_state=seed)
            except (ValueError, TypeError) as error:
                if measures is not None:
                    raise
                left_out[label] = str(error)  # the loss or the data do not allow it; the notes say so
    return FlatnessTable(found, left_out)


class FlatnessTable:
    """The measurements of `flatness` as a table; ``print`` it.

    Attributes
    ----------
    measures : dict of label to Flatness
        The record of each measure.
    records : list of dict
        The records as plain values, with the label as ``"measure"``.
    left_out : dict of label to str
        Measures that the loss or the data do not allow, with the reason.
    notes : list of str
        What to know before you trust the values, in sentences.
    """

    def __init__(self, measures: dict[str, Flatness], left_out: dict[str, str]) -> None:
        self.measures = measures
        self.left_out = left_out

    @property
    def records(self) -> list[dict[str, Any]]:
        """The measures as a list of dicts of plain values."""
        return [{"measure": label, **record.to_dict()} for label, record in self.measures.items()]

    @property
    def notes(self) -> list[str]:
        """What to know before you trust the values, in sentences."""
        found = [f"{label}: {note}" for label, record in self.measures.items() for note in record.notes]
        found += [f"{label} is left out. {why}" for label, why in self.left_out.items()]
        if any(record.is_lower_bound for record in self.measures.values()):
            found.append("Worst cases are lower bounds, because a search found them.")
        return found

    def _table(self) -> list[list[str]]:
        rows = [["measure", "value", "loss", "gradients", "parameters"]]
        for label, record in self.measures.items():
            cost = "-" if math.isnan(record.n_gradients) else f"{record.n_gradients:.0f}"
            given = ", ".join(record.parameter_texts())
            rows.append([label, record.value_text(), f"{record.f0:.2e}", cost, given])
        return rows

    def _head(self) -> str:
        policies = ", ".join(dict.fromkeys(record.batch_norm for record in self.measures.values()))
        samples = ", ".join(dict.fromkeys(f"{record.n_samples:,}" for record in self.measures.values()))
        return f"Measures of flatness on {samples} samples (batch norm: {policies}). A larger value is sharper."

    _READING = (
        "The value is a rise of the loss, unless it is a percentage, a trace or an eigenvalue. ± gives the standard "
        "error over random draws. The column gradients gives the cost, in gradients over all samples."
    )

    def __str__(self) -> str:
        rows = self._table()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "   ".join(
                [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:4], widths[1:4], strict=True)), row[4]]
            )
            for row in rows
        ]
        notes = ["", "Please note:", *(f"* {note}" for note in self.notes)] if self.notes else []
        return "\n".join([self._head(), "", *(line.rstrip() for line in lines), "", self._READING, *notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table and the notes for a notebook."""
        table, notes = _tables.to_html(self._table()), _tables.notes_in_html(self.notes)
        return f"<div><p>{html.escape(self._head())}</p>{table}<p>{self._READING}</p>{notes}</div>"

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per measure; needs pandas."""
        return _tables.to_frame(self.records)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return records and notes as JSON, and write it to ``path`` if given; numbers that JSON lacks become null."""
        return _tables.to_json({"records": self.records, "left_out": self.left_out, "notes": self.notes}, path)

    def to_latex(self, path: str | Path | None = None) -> str:
        r"""Return the table as a LaTeX ``tabular`` with the rules of booktabs; write it to ``path`` if given.

        Needs ``\usepackage{booktabs}``.
        """
        return _tables.to_latex(self._table(), path)

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return the table in Markdown; write it to ``path`` if given."""
        return _tables.to_markdown(self._table(), path)


def check_measures(measures: str | Sequence[str] | Mapping[str, Any] | None = None) -> dict[str, Measure]:
    """Return measures of flatness by label, as functions that can be pickled.

    Parameters
    ----------
    measures : str, sequence of str, dict or None
        Names of measures; None stands for all. Or a dict that maps a label to a name or a callable. The callable takes
        an `Objective`, and ``random_state`` if it has a parameter of this name, and returns a `Flatness` or a number.

    Returns
    -------
    dict label -> callable
        Each callable takes ``(objective, *, random_state)``, where the random state is an int or None, and returns a
        `Flatness`.

    Raises
    ------
    TypeError, ValueError
        With one sentence that names ``measures``.
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
            "measures must be None, a name, a sequence of names, or a dict that maps labels to names or callables; "
            f"got {shown(measures)}."
        )
    if not entries:
        raise ValueError("measures must contain at least one measure; got an empty one.")
    found: dict[str, Measure] = {}
    for label, measure in entries:
        if not isinstance(label, str) or not label:
            allowed = "labels that are strings" if isinstance(measures, Mapping) else _allowed()
            raise TypeError(f"measures must contain {allowed}; got {shown(label)}.")
        if label in found:
            raise ValueError(f"measures must contain each measure once; got {label!r} several times.")
        found[label] = _check_measure(label, measure)
    return found


def _check_measure(label: str, measure: Any) -> Measure:
    if isinstance(measure, str):
        if measure not in MEASURES:
            raise ValueError(f"measures must contain {_allowed()}; got {shown(measure)}.")
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
    """Return the measurement of a user's function as a record whose name is the label."""
    given = {"random_state": random_state} if _takes_random_state(measure) else {}
    try:
        found = measure(objective, **given)
    except Exception as error:  # a function of the user may raise anything
        raise WrongArgument(f"measures[{label!r}] failed on the Objective with {shown(error)}") from error
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
        status="a user's own function, whose cost is not counted",
    )


def _takes_random_state(measure: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(measure).parameters
    except (TypeError, ValueError):  # a builtin
        return False
    return "random_state" in parameters


def _allowed() -> str:
    return f"names from {', '.join(map(repr, MEASURES))}, or map labels to functions of an Objective"
