"""The jobs of `branched_critical_batch_size`: a training from a checkpoint, or the noise scale at a checkpoint."""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklgap._checks import shown
from sklgap._threads import using_threads
from sklgap._typing import BatchNormPolicy
from sklgap.estimator._parameters import check_device
from sklgap.experiments._estimate import Estimate
from sklgap.experiments._protocol import as_saved
from sklgap.experiments._recorded_training import in_memory
from sklgap.experiments._run import run
from sklgap.inspection import gradient_noise_scale
from sklgap.memory import Memory, fingerprint, key_of, plain, surroundings, unplain
from sklgap.objective import check_objective
from sklgap.regimes._lr_scaling import lr_factor

_NEW_BATCHES = "other mini-batches at this checkpoint"
# The stopping reason of a net that diverged.
_DIVERGED = "loss not finite"
# Parameters of a run and its branches, in addition to those of the estimator.
RUN_PARAMETERS = {
    "tol": None,
    "target_loss": None,
    "warm_start": True,  # weights, buffers, the optimiser's state and the number of epochs continue
    "recompute_batch_norm": False,
    "memory": None,
    "verbose": 0,
}


class Branch(NamedTuple):
    """One training from a checkpoint, which is an epoch or a name given by the user.

    ``factor`` multiplies the learning rate of the run. ``order`` is the number of the data order, and ``seed`` is its
    seed.
    """

    checkpoint: Any
    batch_size: int
    factor: float
    order: int
    seed: int


class Noise(NamedTuple):
    """A measurement of the noise scale at a checkpoint."""

    checkpoint: Any


Case = Branch | Noise


class Setting(NamedTuple):
    """The common settings of all branches of an estimator.

    ``train`` and ``valid`` are (X, y) of the training and of the held-out data. ``n_epochs`` is the number of epochs of
    a branch. ``batch_size`` (that of the run), ``n_batches``, ``max_samples`` and ``seed`` are for the measurement of
    the noise.
    """

    train: tuple[Any, Any]
    valid: tuple[Any, Any]
    n_epochs: int
    batch_norm: BatchNormPolicy
    batch_size: int
    n_batches: int
    max_samples: int | float | None
    seed: int


def cases_of(settings: dict[str, Any], seeds: Sequence[int]) -> list[Case]:
    """Return the cases to measure, checkpoint by checkpoint: for each data order all batch sizes, then the noise."""
    own, rule = settings["batch_sizes"][0], settings["lr_scaling"]
    found: list[Case] = []
    for checkpoint in settings["checkpoints"]:
        found += [
            Branch(checkpoint, size, lr_factor(rule, size, own), order, seed)
            for order, seed in enumerate(seeds)
            for size in settings["batch_sizes"]
        ]
        found += [Noise(checkpoint)] if settings["noise"] else []
    return found


def describe(record: dict[str, Any]) -> str:
    """Return the text of the progress bar for a finished case."""
    if "loss" not in record:
        return f"noise scale {record['noise_scale'].value:,.3g}"
    return f"{record['checkpoint']}, batches of {record['batch_size']:,}: loss {record['loss']:.4g}"


def _record(branch: Branch, learning_rate: float, loss: float) -> dict[str, Any]:
    if not math.isnan(loss) and loss <= 0:
        raise ValueError(f"The held-out loss must be above 0, because the tolerance is relative to it; got {loss:g}.")
    return {
        "checkpoint": branch.checkpoint,
        "batch_size": branch.batch_size,
        "learning_rate": branch.factor * learning_rate,
        "order": branch.order,
        "seed": branch.seed,
        "loss": loss if math.isfinite(loss) else math.inf,
    }


def call_branch(
    train_from: Callable[..., Any], state: Any, branch: Branch, learning_rate: float, n_samples: int
) -> dict[str, Any]:
    """Train a branch with a user's function."""
    loss = train_from(
        _copy(state),
        batch_size=branch.batch_size,
        learning_rate=branch.factor * learning_rate,
        n_samples=n_samples,
        random_state=branch.seed,
    )
    return _record(branch, learning_rate, _number(loss))


def _copy(state: Any) -> Any:
    """Return a copy of a saved state, so that a branch does not start where another one ended."""
    try:
        return copy.deepcopy(state)
    except Exception as error:  # copying runs the code of a user's state
        raise ValueError(
            f"checkpoints must hold states that can be copied, such as a state_dict or the path of a file; "
            f"{type(state).__name__} cannot ({type(error).__name__}: {error})."
        ) from error


def _number(loss: Any) -> float:
    try:
        if isinstance(loss, bool | np.bool_ | str) or np.ndim(loss):
            raise TypeError
        return float(loss)
    except OverflowError:  # an integer beyond all floats
        return math.inf
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"train_from must return the held-out loss, a number; got {shown(loss)}.") from None


def run_branches(
    model: Any, setting: Setting, cases: list[Case], memory: str | Path | None, n_jobs: int | None, verbose: int
) -> tuple[list[dict[str, Any]], bool, list[int]]:
    """Return the records, whether an interruption left some out, and the checkpoints that were not reached."""
    key, records = None, []
    if memory is not None:
        # This runs as a job, because the key holds the number of threads, which may differ in joblib's processes.
        looked_up, interrupted = run([partial(_look_up, model, setting, cases, memory)], n_jobs=n_jobs, verbose=0)
        if interrupted or not looked_up:
            raise KeyboardInterrupt
        key, saved = looked_up[0]
        records = [
            _with_case(case, found, model, setting)
            for case, found in zip(cases, saved, strict=True)
            if found is not None
        ]
        cases = [case for case, found in zip(cases, saved, strict=True) if found is None]
    if not cases:
        return records, False, []
    wanted = list(dict.fromkeys(case.checkpoint for case in cases))
    runs, interrupted = run([partial(train_run, model, setting, wanted)], n_jobs=n_jobs, verbose=verbose, unit=" run")
    if interrupted:
        return records, True, []
    states = runs[0]
    lost = [epoch for epoch in wanted if epoch not in states]
    if not states and not records:
        raise ValueError(
            f"lr must be smaller, because the training loss was no longer finite before the end of epoch {wanted[0]}."
        )
    jobs = [
        partial(_measure, states[case.checkpoint], setting, case, memory, key)
        for case in cases
        if case.checkpoint in states
    ]
    found, interrupted = run(jobs, n_jobs=n_jobs, verbose=verbose, unit=" branches", describe=describe)
    return records + found, interrupted, lost


def train_run(model: Any, setting: Setting, epochs: Sequence[int]) -> dict[int, Any]:
    """Train the run, and return a copy of the fitted estimator after each of these epochs that it reached."""
    X, y = (in_memory(part) for part in setting.train)
    states: dict[int, Any] = {}
    for done, epoch in zip([0, *epochs], epochs, strict=False):
        _go_on(model, X, y, epoch - done)
        if model.net_.stopping_reason_ == _DIVERGED:
            break
        states[epoch] = copy.deepcopy(model)
    return states


def _go_on(model: Any, X: Any, y: Any, n_epochs: int) -> None:
    model.set_params(max_epochs=n_epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result reports trainings that diverged
        model.fit(X, y)


def _measure(state: Any, setting: Setting, case: Case, memory: str | Path | None, key: str | None) -> dict[str, Any]:
    """Measure one case and save the result."""
    if isinstance(case, Branch):
        found = {"loss": _branch_loss(state, setting, case)}
    else:
        found = _noise(state, setting)
    if memory is not None and key is not None:
        Memory(memory, _about(case)).write(_key(key, setting, case), "branch", plain(found))
    return _with_case(case, found, state, setting)


def _with_case(case: Case, found: dict[str, float], model: Any, setting: Setting) -> dict[str, Any]:
    if isinstance(case, Branch):
        return _record(case, float(model.lr), found["loss"])
    scale = Estimate(found["noise_scale"], found["low"], found["high"], setting.n_batches, _NEW_BATCHES)
    return {"checkpoint": case.checkpoint, "noise_scale": scale}


def branch_from(state: Any, setting: Setting, branch: Branch) -> Any:
    """Return the estimator at the end of a branch, which starts from the full state of the run."""
    model = copy.deepcopy(state)
    model.net_.seed = branch.seed  # for the order of the data, and all other random numbers from here on
    for group in model.net_.optimizer_.param_groups:
        group["lr"] = group["lr"] * branch.factor
    model.set_params(batch_size=branch.batch_size)
    X, y = (in_memory(part) for part in setting.train)
    _go_on(model, X, y, setting.n_epochs)
    return model


def _branch_loss(state: Any, setting: Setting, branch: Branch) -> float:
    model = branch_from(state, setting, branch)
    if model.net_.stopping_reason_ == _DIVERGED:
        return math.inf
    with using_threads(model.n_threads_):
        X_valid, y_valid = (in_memory(part) for part in setting.valid)
        return float(check_objective(model, X_valid, y_valid, batch_norm=setting.batch_norm).evaluate().loss)


def _noise(state: Any, setting: Setting) -> dict[str, float]:
    with using_threads(state.n_threads_):
        found = gradient_noise_scale(
            state,
            *(in_memory(part) for part in setting.train),
            method="batches",
            batch_size=setting.batch_size,
            n_batches=setting.n_batches,
            max_samples=setting.max_samples,
            random_state=setting.seed % 2**32,
            batch_norm=setting.batch_norm,
        )
    return {"noise_scale": found.noise_scale, "low": found.low, "high": found.high}


# -- saved work --------------------------------------------------------------------------------------------------------


def _look_up(
    model: Any, setting: Setting, cases: Sequence[Case], memory: str | Path
) -> tuple[str | None, list[dict[str, float] | None]]:
    """Return the key of the run, and the saved result of each case."""
    plainly = as_saved(model, {"device": "auto"})
    data = tuple(in_memory(part) for part in (*setting.train, *setting.valid))
    key = key_of("branched", plainly, *data, surroundings(check_device(model.device)))
    if key is None:
        return None, [None] * len(cases)
    return key, [_loaded(Memory(memory, _about(case)), _key(key, setting, case), case) for case in cases]


def _loaded(store: Memory, key: str, case: Case) -> dict[str, float] | None:
    saved = unplain(store.read(key, "branch"))
    if saved is None:
        return None
    names = {"loss"} if isinstance(case, Branch) else {"noise_scale", "low", "high"}
    if not isinstance(saved, dict) or saved.keys() != names or not all(type(v) is float for v in saved.values()):
        store.distrust(key, "branch", "does not hold the figures of this branch")
        return None
    return saved


def _key(key: str, setting: Setting, case: Case) -> str:
    """Return the key of one case, which does not depend on the other cases or on the number of its order."""
    if isinstance(case, Branch):
        own = (case.checkpoint, case.batch_size, case.factor, case.seed, setting.n_epochs)
        return fingerprint(key, "branch", own, setting.batch_norm)
    return fingerprint(key, "noise", case.checkpoint, setting.n_batches, setting.max_samples, setting.batch_norm)


def _about(case: Case) -> str:
    if isinstance(case, Branch):
        return f"branch after epoch {case.checkpoint}, batches of {case.batch_size}, order {case.order}"
    return f"noise scale after epoch {case.checkpoint}"
