"""Curves during training: loss, accuracy and any measurement, at the ends of epochs or at chosen updates."""

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.dataset import get_len
from torch.utils.data import DataLoader, Dataset
from torch.utils.hooks import RemovableHandle

from sklgap._checks import check_integer, check_max_samples, is_integer, shown
from sklgap._typing import ArrayLike, BatchNormPolicy, Inputs, Params
from sklgap.inspection._weight_distance import distance
from sklgap.objective import Objective, check_objective
from sklgap.objective._batch_norm import check_batch_norm
from sklgap.objective._check import own_loss
from sklgap.objective._copy import deepcopy
from sklgap.objective._parameters import copy_of
from sklgap.objective._stream import is_stream
from sklgap.training._learning_rate import scale_step
from sklgap.training._optimizer_mode import evaluating
from sklgap.training._random import derive_seed, seeded

Measurement = Callable[[Any], float | Mapping[str, float]]

# The values in every record.
ALWAYS = ("n_updates", "epoch", "weight_distance")


class TrainingRecorder(Callback):
    """Record curves while a net is trained, without changing the training.

    This is a skorch callback: ``LBGapClassifier(callbacks=[("recorder", TrainingRecorder(...))])``. After ``fit``,
    `sklgap.inspection.recorded` returns the records as arrays.

    Parameters
    ----------
    datasets : dict of str to (X, y), Dataset or DataLoader, default=None
        Samples in the form that ``score`` accepts, or a Dataset or DataLoader of them. For example, ``{"train": (X, y),
        "test": (X_test, y_test)}`` records ``train_loss``, ``train_accuracy``, ``test_loss`` and ``test_accuracy``, in
        evaluation mode. In a pipeline, give the output of the earlier steps.
    measurements : dict of str to callable, default=None
        Functions of the net. Each is called with its own copy of the current net, and returns a number or a dict of
        numbers. They are recorded as ``{name}``, or ``{name}_{key}``. ``check_objective(net, X, y)``, ``sharpness(net,
        X, y)`` and similar functions accept the net, with X and labels in the form that ``fit`` accepts. The
        ``optimizer_`` of the net is that of the last update, and may only be read. A measurement that remembers its
        last call has a method ``fresh()``, which returns a copy for one fit.
    every : int, default=1
        Number of epochs between two records. The last epoch of a fit is also recorded. None does not record at the ends
        of epochs.
    at_updates : "log" or sequence of int, default=None
        Numbers of updates (optimiser steps) after which to record as well. With several steps per batch, the record is
        made at the end of the batch. ``"log"`` means 1, 2, 3, 4, 6, 8, 11, 16, ..., two for every doubling (some 6.6
        per decade). 0 in a sequence records the initial weights before training.
    batch_norm : {"batch", "population", "running"}, default="batch"
        Batch-norm policy of loss and accuracy on ``datasets``; see `sklgap.Objective`.
    chunk_size : int, default=5000
        Number of samples of ``datasets`` evaluated at once.
    max_samples : int, float or None, default=None
        Number of samples of each of ``datasets`` to evaluate on (int), or a fraction of them in (0, 1] (float). All
        records use the same samples. None uses all samples.
    random_state : int, default=0
        Seed of the choice of samples, and of torch's generators for measurements that draw from them.

    Attributes
    ----------
    records_ : list of dict
        One dict per record, which `sklgap.inspection.recorded` reads. A warm start adds to them.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, before training, if a parameter is outside its allowed values, if the net does not accept the
        datasets, or if a measurement fails on the initial weights (tested if ``at_updates`` has 0).

    Warns
    -----
    UserWarning
        If a measurement fails during training. Its value is NaN, and training continues.

    See Also
    --------
    sklgap.inspection.recorded : The records as arrays.
    sklgap.inspection.LearningCurvesDisplay : Plot of loss and accuracy.
    sklgap.inspection.SharpnessTrajectoryDisplay : Plot of the sharpness during training.
    sklgap.inspection.WeightDistanceDisplay : Plot of the distance from the initial weights.

    Notes
    -----
    Weights, optimiser and history are bit for bit the same as without the recorder. It measures a copy of the module in
    evaluation mode, and restores torch's generators. A record costs one forward pass over ``datasets``, plus the
    measurements. ``dur`` in the history includes the records within an epoch. Copies of a recorder share its data and
    measurements. A pickle contains them, so measurements must be functions of an importable module to be pickled.

    Any skorch net may have a recorder. X and y are then the inputs of its module and its criterion, and an update is a
    step of its optimiser, also if the net accumulates the gradients of several batches. With several optimisers, the
    updates are those of the optimiser with the most steps.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, TrainingRecorder, sharpness
    >>> from sklgap.inspection import recorded
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16
    >>> recorder = TrainingRecorder(
    ...     {"train": (X[:1000], y[:1000]), "test": (X[1000:], y[1000:])},
    ...     {"sharpness": lambda net: sharpness(net, X[:200], y[:200], max_iter=5).value},
    ... )
    >>> model = LBGapClassifier(module__width=16, max_epochs=2, tol=None, callbacks=[("recorder", recorder)])
    >>> sorted(recorded(model.fit(X[:1000], y[:1000])))  # doctest: +NORMALIZE_WHITESPACE
    ['epoch', 'n_updates', 'sharpness', 'test_accuracy', 'test_loss', 'train_accuracy', 'train_loss',
     'weight_distance']
    """

    reads_batches = False
    changes_gradient = False  # on_grad_computed only reads the learning rates
    # Its last record belongs to the training, so callbacks that replace the weights at the end run after it.
    ends_first = True

    def __init__(
        self,
        datasets: Mapping[str, tuple[Inputs, ArrayLike] | Dataset[Any] | DataLoader[Any]] | None = None,
        measurements: Mapping[str, Measurement] | None = None,
        *,
        every: int | None = 1,
        at_updates: Literal["log"] | Sequence[int] | None = None,
        batch_norm: BatchNormPolicy = "batch",
        chunk_size: int = 5000,
        max_samples: int | float | None = None,
        random_state: int = 0,
    ) -> None:
        self.datasets = datasets
        self.measurements = measurements
        self.every = every
        self.at_updates = at_updates
        self.batch_norm = batch_norm
        self.chunk_size = chunk_size
        self.max_samples = max_samples
        self.random_state = random_state

    def initialize(self) -> Self:
        """Drop the records of an earlier fit."""
        self.records_: list[dict[str, float]] = []
        self.keys_: dict[str, list[str]] = {}  # the names of the values of each measurement, after its first result
        # Values that a net of another package does not store.
        self.n_steps_: dict[str, int] = {}  # by the name of the optimiser
        self.start_: Params | None = None
        self.hooks_: list[RemovableHandle] = []
        self.before_: tuple[int, torch.Tensor, torch.Tensor] | None = None
        return self

    # -- when ------------------------------------------------------------------------------------------------------

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Check the parameters, and record the initial weights if asked."""
        self._check()
        evaluations = {name: self._evaluation(net, name, rows) for name, rows in (self.datasets or {}).items()}
        own = {name: _fresh(measure) for name, measure in (self.measurements or {}).items()}
        self.measures_: dict[str, Measurement] = {**evaluations, **own}
        self.warned_: set[str] = set()
        self.used_: list[dict[str, Any]] | None = None
        net.interrupted_ = False
        if self.start_ is None and not hasattr(net, "module_start_"):
            self.start_ = {name: p.cpu() for name, p in copy_of(dict(net.module_.named_parameters())).items()}
        n_updates = self._n_updates(net)
        self.next_ = _next_update(self.at_updates, n_updates)
        if n_updates == 0 and _next_update(self.at_updates, -1) == 0:
            self._record(net, 0)

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Restart the count of samples at 0, and watch the optimisers, which a callback may have replaced."""
        self.n_seen_, self.n_rows_ = 0, len(dataset_train)
        self._watch_steps(net)

    def on_grad_computed(self, net: Any, **kwargs: Any) -> None:
        """Save the settings that the optimiser is about to use, because schedulers change them after the update."""
        if self.measurements:
            self.used_ = [_settings(group) for group in net.optimizer_.param_groups]

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        """Record if this number of updates was asked for."""
        if not training:
            return
        self.n_seen_ += get_len(batch[0])
        n_updates = self._n_updates(net)
        if n_updates >= self.next_:
            self.next_ = _next_update(self.at_updates, n_updates)
            self._record(net, len(net.history) - 1 + self.n_seen_ / self.n_rows_)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Record every ``every`` epochs."""
        self._check_steps(net)
        if self.every is not None and len(net.history) % self.every == 0:
            self._record(net, len(net.history))

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Record the last epoch, unless it is recorded already or Ctrl-C has ended the training."""
        if self.every is not None and len(net.history) and not getattr(net, "interrupted_", False):
            with contextlib.suppress(KeyboardInterrupt):  # the finished training must not be lost
                self._record(net, len(net.history))
        del self.measures_, self.used_
        self.before_ = None
        self._leave_steps()

    def _n_updates(self, net: Any) -> int:
        return getattr(net, "n_updates_", max(self.n_steps_.values(), default=0))

    def _watch_steps(self, net: Any) -> None:
        """Count the steps of the optimisers of a net of another package. Its batches may not be its updates."""
        self._leave_steps()
        if hasattr(net, "n_updates_"):
            return
        for name, optimizer in _optimizers_of(net).items():
            self.n_steps_.setdefault(name, 0)
            self.hooks_ += _at_steps(optimizer, partial(self._count_step, name))
        smallest = min((p for p in net.module_.parameters() if p.requires_grad), key=torch.Tensor.numel, default=None)
        self.before_ = None if smallest is None else (self._n_updates(net), smallest, smallest.detach().clone())

    def _check_steps(self, net: Any) -> None:
        """Raise a ValueError if the weights of a net of another package moved in an epoch without a step."""
        if self.before_ is None or hasattr(net, "n_updates_"):
            return
        n_updates, parameter, start = self.before_
        if n_updates == self._n_updates(net) and not torch.allclose(parameter, start, rtol=0, atol=0, equal_nan=True):
            raise ValueError(
                "net must make its updates by the step method of an optimiser in one of its attributes, such as "
                f"optimizer_, so that TrainingRecorder can count them; {type(net).__name__} made no such step in an "
                "epoch."
            )

    def _count_step(self, name: str) -> None:
        self.n_steps_[name] += 1

    def _leave_steps(self) -> None:
        """Remove the hooks of this fit, or of one that has failed."""
        while self.hooks_:
            self.hooks_.pop().remove()

    # -- what ------------------------------------------------------------------------------------------------------

    def _record(self, net: Any, epoch: float) -> None:
        """Add a record, unless there is already one for this update."""
        n_updates = self._n_updates(net)
        if self.records_ and self.records_[-1]["n_updates"] == n_updates:
            self.records_[-1]["epoch"] = float(epoch)
            return
        with evaluating(net):
            self._record_now(net, epoch, n_updates)

    def _record_now(self, net: Any, epoch: float, n_updates: int) -> None:
        start = self.start_ if self.start_ is not None else net.module_start_
        # this includes frozen parameters, which may have moved before
        moved = distance(dict(net.module_.named_parameters()), start)
        record = {"n_updates": n_updates, "epoch": float(epoch), "weight_distance": moved}
        device = torch.device(net.device or "cpu")
        try:
            for name, measure in self.measures_.items():
                with seeded(derive_seed(self.random_state, n_updates), device):
                    record |= self._values(name, measure, net, n_updates)
        except KeyboardInterrupt:
            net.interrupted_ = True  # at the end of an epoch it would look like skorch's early stopping
            raise
        self.records_.append(record)

    def _values(self, name: str, measure: Measurement, net: Any, n_updates: int) -> dict[str, float]:
        """Return the values of a measurement by name; NaN and a warning if it fails."""
        what = f"{'datasets' if name in (self.datasets or ()) else 'measurements'}[{name!r}]"
        try:
            values = _named(name, measure(snapshot(net, self.used_)))
        except Exception as error:  # a user's function may raise any exception, and must not end a long training
            if n_updates == 0:
                raise ValueError(f"{what} fails on the initial weights: {error}") from error
            if name not in self.warned_:
                self.warned_.add(name)
                warnings.warn(
                    f"{what} failed after {n_updates} updates, and is recorded as NaN: {type(error).__name__}: {error}",
                    UserWarning,
                    stacklevel=2,
                )
            return dict.fromkeys(self.keys_.get(name, [name]), math.nan)
        self.keys_[name] = list(values)
        return values

    def _evaluation(self, net: Any, name: str, rows: Any) -> Measurement:
        """Return the measurement of loss and accuracy on samples, which are checked and encoded only once, here."""
        X, y = (rows, None) if is_stream(rows) else rows
        try:
            first = check_objective(
                net,
                X,
                y,
                max_samples=self.max_samples,
                random_state=self.random_state,
                batch_norm=self.batch_norm,
                chunk_size=self.chunk_size,
            )
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"datasets[{name!r}]: {error}") from error
        assert isinstance(first, Objective)

        def evaluate(snapshot: Any) -> dict[str, float]:
            module, loss = snapshot.module_, own_loss(snapshot)
            objective = Objective(module, loss, first.data, batch_norm=self.batch_norm, check=False)
            return objective.evaluate()._asdict()

        return evaluate

    # -- parameters and copies -------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.every is not None and not is_integer(self.every, least=1):
            raise ValueError(f"every must be None or an integer of at least 1; got {shown(self.every)}.")
        check_updates(self.at_updates)
        if self.every is None and self.at_updates is None:
            raise ValueError("every and at_updates must not both be None, because there would be no record.")
        check_batch_norm(self.batch_norm)
        check_integer("chunk_size", self.chunk_size)
        check_max_samples(self.max_samples)
        if not is_integer(self.random_state, least=0):
            raise ValueError(f"random_state must be an integer of at least 0; got {self.random_state!r}.")
        for name, rows in _check_named("datasets", self.datasets):
            if not is_stream(rows) and (not isinstance(rows, tuple | list) or len(rows) != 2):
                raise TypeError(
                    f"datasets[{name!r}] must be a pair (X, y), a Dataset or a DataLoader; got {type(rows).__name__}."
                )
        for name, measure in _check_named("measurements", self.measurements):
            if not callable(measure):
                raise TypeError(f"measurements[{name!r}] must be a function of the net; got {measure!r}.")
        taken = {*ALWAYS, *(f"{name}{end}" for name in self.datasets or () for end in ("", "_loss", "_accuracy"))}
        clash = sorted(taken & {*(self.measurements or ())})
        if clash:
            raise ValueError(f"measurements must not have a name that the recorder uses itself; got {clash[0]!r}.")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the attributes that every fit makes for itself."""
        own = {name: value for name, value in vars(self).items() if name not in ("measures_", "used_")}
        return own | ({"hooks_": [], "before_": None} if "hooks_" in own else {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that shares data and measurements, which are only read, and has its own records."""
        copied = type(self)(**self.get_params(deep=False))
        own = {name: value for name, value in self.__getstate__().items() if name.endswith("_")}
        copied.__dict__.update(copy.deepcopy(own, memo))
        return copied

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self.get_params(deep=False))


def snapshot(net: Any, used: list[dict[str, Any]] | None = None) -> Any:
    """Return the net with a private copy of its module, in evaluation mode.

    ``used`` holds the settings of the optimiser's groups in the last update. None means the current settings, scaled to
    the batch size.
    """
    copied = object.__new__(type(net))
    vars(copied).update(vars(net))
    vars(copied)["module_"] = deepcopy(net.module_).eval()
    if isinstance(getattr(net, "optimizer_", None), torch.optim.Optimizer):
        vars(copied)["optimizer_"] = _optimizer_of(net, copied.module_, used)
    return copied


def _optimizer_of(net: Any, module: torch.nn.Module, used: list[dict[str, Any]] | None) -> torch.optim.Optimizer:
    """Return the optimiser of a net during an update, for a copy of its module; it may only be read.

    Its state is not copied, because it may be as large as the net.
    """
    optimizer = net.optimizer_
    places = {id(p): copied for p, copied in zip(net.module_.parameters(), module.parameters(), strict=True)}
    seen = object.__new__(type(optimizer))
    vars(seen).update(vars(optimizer))
    seen.param_groups = [
        {**group, "params": [places.get(id(p), p) for p in group["params"]]} for group in optimizer.param_groups
    ]
    seen.state = {places.get(id(p), p): state for p, state in optimizer.state.items()}
    if used is None or len(used) != len(seen.param_groups):  # a callback has added a group
        scale_step(seen, getattr(net, "lr_factor_", 1.0), getattr(net, "moments_ratio_", 1.0))
    else:
        for group, settings in zip(seen.param_groups, used, strict=True):
            group.update(settings)
    return seen


def _optimizers_of(net: Any) -> dict[str, torch.optim.Optimizer]:
    """Return the optimisers of a skorch net by the names of its attributes, without their wrappers.

    An attribute may be a list or a dict of optimisers.
    """
    held = dict(vars(net))
    for name, value in vars(net).items():
        if isinstance(value, Mapping):
            held |= {f"{name}[{key!r}]": one for key, one in value.items()}
        elif isinstance(value, list | tuple):
            held |= {f"{name}[{i}]": one for i, one in enumerate(value)}
    found: dict[str, torch.optim.Optimizer] = {}
    seen: set[int] = set()
    waiting = [(name, value) for name, value in held.items() if isinstance(value, torch.optim.Optimizer)]
    while waiting:
        name, optimizer = waiting.pop()
        seen.add(id(optimizer))
        # The wrapper of accelerate and many kinds of SAM leave the update to an optimiser inside.
        parts = {f"{name}.{key}": part for key, part in vars(optimizer).items()}
        inner = [(key, part) for key, part in parts.items() if isinstance(part, torch.optim.Optimizer)]
        waiting += [(key, part) for key, part in inner if id(part) not in seen]
        if not inner:
            found[name] = optimizer
    return found


def _at_steps(optimizer: torch.optim.Optimizer, call: Callable[[], None]) -> list[RemovableHandle]:
    """Call a function after every step of an optimiser; return the handles that end this."""
    depth = 0

    def begin(*args: Any) -> None:
        nonlocal depth
        depth += 1

    def end(*args: Any) -> None:
        nonlocal depth
        depth -= 1
        if not depth:  # a step may call that of its base class, which runs the hooks too
            call()

    return [optimizer.register_step_pre_hook(begin), optimizer.register_step_post_hook(end)]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return learning rates, momenta and other settings of a group, with copies of tensors that schedulers change."""
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in group.items()
        if name != "params"
    }


def _fresh(measure: Measurement) -> Measurement:
    """Return a measurement for one fit: a fresh copy if it remembers its last call."""
    fresh = getattr(measure, "fresh", None)
    return measure if fresh is None else fresh()


def _named(name: str, value: Any) -> dict[str, float]:
    values = {f"{name}_{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
    try:
        return {key: float(v) for key, v in values.items()}
    except (TypeError, ValueError) as error:
        raise TypeError(f"it must return a number or a dict of numbers; got {type(value).__name__}.") from error


def log_spaced_updates(per_doubling: int) -> list[int]:
    """Return the numbers of updates from 1 to 2 ** 30, with ``per_doubling`` numbers for every doubling."""
    return sorted({round(2 ** (k / per_doubling)) for k in range(30 * per_doubling + 1)})


def _next_update(at_updates: str | Sequence[int] | None, n_updates: int) -> float:
    """Return the smallest requested number of updates above ``n_updates``; infinity if there is no such number."""
    if at_updates is None:
        return math.inf
    asked = log_spaced_updates(per_doubling=2) if isinstance(at_updates, str) else at_updates
    return min((int(n) for n in asked if n > n_updates), default=math.inf)


def check_updates(at_updates: str | Sequence[int] | None) -> None:
    """Raise a ValueError unless ``at_updates`` is a valid choice."""
    if at_updates is None or (isinstance(at_updates, str) and at_updates == "log"):
        return
    try:
        listed = isinstance(at_updates, list | tuple | range | np.ndarray)
        good = listed and len(at_updates) > 0 and all(is_integer(n, 0) for n in at_updates)
    except TypeError:
        good = False
    if not good:
        raise ValueError(
            f"at_updates must be None, 'log' or a sequence of integers of at least 0; got {shown(at_updates)}."
        )


def _check_named(parameter: str, given: Any) -> list[tuple[str, Any]]:
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise TypeError(f"{parameter} must be None or a dict with names as keys; got a {type(given).__name__}.")
    for name in given:
        if not isinstance(name, str) or not name:
            raise TypeError(f"{parameter} must have names as keys; got the key {name!r}.")
    return list(given.items())
