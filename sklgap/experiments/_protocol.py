"""What is trained and what is measured: the classes that all experiments share."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from sklearn.base import clone

from sklgap._checks import (
    WrongArgument,
    check_integer,
    check_max_samples,
    check_random_state,
    is_flat,
    is_one_of,
    shown,
)
from sklgap._typing import BatchNormPolicy, Solver
from sklgap.estimator._nested_parameters import drop_nested
from sklgap.experiments._scores import Score, Scoring, check_scoring
from sklgap.inspection._sharpness import SOLVERS, check_epsilons
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.objective._check import drawn_samples
from sklgap.objective._estimators import final_estimator, parameter_prefix


@dataclass(frozen=True)
class Trial:
    """One fit to run: the ``parameters`` of the classifier, and the ``seed`` that is its ``random_state``."""

    label: str
    parameters: dict[str, Any]
    trial: int
    seed: int


@dataclass(frozen=True)
class Measurement:
    """What an experiment measures on every model that it compares.

    Every experiment takes these parameters by their names, or all of them in one object as
    ``measurement=Measurement(...)``.

    Parameters
    ----------
    epsilon : float or sequence of float, default=(1e-3,)
        Sizes of the box around the weights in which sharpness is measured (1e-3 and 5e-4 in Keskar et al., Metric 2.1).
        With an empty sequence, sharpness is not measured.
    subspace_dims : sequence of int or None, default=(None,)
        Numbers of dimensions in which sharpness is measured; None is the full space. Keskar et al. use ``(None, 100)``.
        In trial i, all models are measured in the same random subspace.
    batch_norm : {"batch", "population", "running"}, default="batch"
        The batch-norm policy of losses, accuracies and sharpness; see `sklgap.objective.Objective`. Other scores use
        the outputs of ``predict``, which uses population statistics.
    max_samples : int, float or None, default=10_000
        Training samples that sharpness is measured on, the same in all trials: their number, or a fraction in (0, 1].
        None means all training samples.
    solver : {"auto", "lbfgsb", "lbfgsb-scaled", "power"}, default="auto"
        Method that maximises the loss in the box; see `sklgap.inspection.sharpness`.
    scoring : str, callable, sequence of str, dict or None, default=None
        The scores of a model: the name of one of scikit-learn's scorers, a scorer ``scorer(estimator, X, y)``, several
        names, or a dict from your names to either. Comparisons use the first one. None and "accuracy" mean accuracy
        under ``batch_norm``, which is always recorded.

    Notes
    -----
    A difference in accuracy, or in another score that is a mean over samples, has an interval for new seeds and new
    test samples. For a score that is not such a mean (average precision, F1), the interval comes from resamples of the
    test samples, which are the same in all trials. If a scorer reads more of a model than its outputs, the interval
    covers new seeds alone. Every interval says what it covers.

    Examples
    --------
    >>> from sklgap.experiments import Measurement
    >>> Measurement(epsilon=[1e-3, 5e-4], scoring="balanced_accuracy").batch_norm
    'batch'
    """

    epsilon: float | Sequence[float] = (1e-3,)
    subspace_dims: Sequence[int | None] = (None,)
    batch_norm: BatchNormPolicy = "batch"
    max_samples: int | float | None = 10_000
    solver: Solver = "auto"
    scoring: Scoring = None

    def __post_init__(self) -> None:
        self.settle(2, np.random.RandomState(0))

    def settle(self, n_samples: int, rng: np.random.RandomState) -> "Measuring":
        """Return the checked measurement, with its drawn samples; raise an error for a value that is not allowed."""
        check_batch_norm(self.batch_norm)
        if not is_one_of(self.solver, SOLVERS):
            raise ValueError(f"solver must be one of {', '.join(map(repr, SOLVERS))}; got {shown(self.solver)}.")
        empty = is_flat(self.epsilon) and not len(np.atleast_1d(self.epsilon))
        epsilons = () if empty else tuple(check_epsilons(self.epsilon))
        if len(set(epsilons)) < len(epsilons):
            raise ValueError(f"epsilon must not have the same box size twice; got {shown(self.epsilon)}.")
        check_max_samples(self.max_samples)
        dims = _check_dims(self.subspace_dims)
        rows = drawn_samples(n_samples, self.max_samples, rng)
        return Measuring(
            epsilons, dims if epsilons else (), self.batch_norm, self.solver, rows, check_scoring(self.scoring)
        )


MEASUREMENT_NAMES = tuple(f.name for f in fields(Measurement))


@dataclass(frozen=True)
class Measuring:
    """A `Measurement` whose values are checked.

    ``rows`` are the positions of the training samples that sharpness is measured on. ``measures`` are further measures
    of flatness, by their names in the records.
    """

    epsilons: tuple[float, ...]
    subspace_dims: tuple[int | None, ...]
    batch_norm: BatchNormPolicy
    solver: Solver
    rows: np.ndarray
    scores: tuple[Score, ...] = field(default=(Score("accuracy"),))
    measures: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the measurements for a report."""
        return {
            "epsilon": list(self.epsilons),
            "subspace_dims": list(self.subspace_dims),
            "batch_norm": self.batch_norm,
            "n_samples_sharpness": len(self.rows),
            "solver": self.solver,
            "scores": [score.name for score in self.scores],
        }

    def sharpness_keys(self) -> list[str]:
        """Return the names of all sharpnesses in a record."""
        return [sharpness_key(epsilon, dim) for dim in self.subspace_dims for epsilon in self.epsilons]

    def flatness_keys(self) -> list[str]:
        """Return the names of all measures of flatness: the sharpnesses and the further measures."""
        return [*self.sharpness_keys(), *self.measures]


def given_measurement(experiment: Callable[..., Any], given: Mapping[str, Any]) -> Measurement:
    """Return the measurement of a call of an experiment, from ``measurement`` or from its separate parameters.

    Parameters
    ----------
    experiment : callable
        The public function.
    given : mapping
        Its arguments by name, which are ``locals()`` in its first lines. Some parameters of `Measurement` may be
        missing.
    """
    parameters = inspect.signature(experiment).parameters
    names = [name for name in MEASUREMENT_NAMES if name in parameters]
    whole = given.get("measurement")
    if whole is None:
        return Measurement(**{name: given[name] for name in names})
    if not isinstance(whole, Measurement):
        raise WrongArgument(f"measurement must be None or a Measurement; got {shown(whole)}.")
    beside = given_beside(experiment, given, names)
    if beside:
        raise WrongArgument(
            f"measurement must be None if {', '.join(beside)} is given, because it holds all of these parameters."
        )
    return whole


def given_beside(experiment: Callable[..., Any], given: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return which of these parameters of a call of an experiment differ from their defaults."""
    defaults = {name: inspect.signature(experiment).parameters[name].default for name in names}
    return [
        name
        for name, default in defaults.items()
        if given[name] is not default and (type(given[name]) is not type(default) or given[name] != default)
    ]


def sharpness_key(epsilon: float, subspace_dim: int | None) -> str:
    """Return the name of a sharpness in a record."""
    return f"sharpness_{epsilon:g}" + ("" if subspace_dim is None else f"_dim{subspace_dim}")


def draw_seeds(n_trials: Any, random_state: int | np.random.RandomState | None) -> list[int]:
    """Return one seed per trial."""
    check_integer("n_trials", n_trials)
    rng = check_random_state(random_state)
    return [int(seed) for seed in rng.randint(2**31 - 1, size=n_trials)]


def draw_different_seeds(n: int, rng: np.random.RandomState) -> list[int]:
    """Return seeds that are all different."""
    seeds: dict[int, None] = {}
    while len(seeds) < n:
        seeds |= dict.fromkeys(rng.randint(2**31 - 1, size=n - len(seeds)).tolist())
    return list(seeds)


def with_parameters(estimator: Any, parameters: Mapping[str, Any]) -> Any:
    """Return a clone in which the parameters of the classifier, which may be the end of a pipeline, are set."""
    prefix = parameter_prefix(estimator)
    return clone(estimator).set_params(**{prefix + name: value for name, value in parameters.items()})


def as_saved(estimator: Any, parameters: Mapping[str, Any]) -> Any:
    """Return what `with_parameters` returns, without ``compile``, which is not part of the key of saved work."""
    found = with_parameters(estimator, {**parameters, "compile": False})
    drop_nested(final_estimator(found), "compile")
    return found


def take(data: Any, rows: np.ndarray) -> Any:
    """Return the rows of an array, a DataFrame, a Series, a tensor or a list."""
    if hasattr(data, "iloc"):
        return data.iloc[rows]
    return data[rows] if hasattr(data, "shape") else np.asarray(data)[rows]


def _check_dims(dims: Any) -> tuple[int | None, ...]:
    allowed = (
        isinstance(dims, Sequence)
        and not isinstance(dims, str)
        and len(dims)
        and all(
            dim is None or (isinstance(dim, int | np.integer) and not isinstance(dim, bool) and dim >= 1)
            for dim in dims
        )
    )
    if not allowed:
        raise ValueError(
            f"subspace_dims must be a non-empty sequence of None and integers of at least 1; got {shown(dims)}."
        )
    return tuple(dims)
