"""The state of a training between two epochs, as plain values, from which an interrupted training can continue.

A fit that continues begins like any other: it makes its parts and calls ``on_train_begin``. Then the saved state
replaces the content of these parts (`sklgap.memory.saved_state`). The state does not contain streams of random numbers
that come from the seed and the epoch.
"""

import random
import time
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, LRScheduler
from torch.utils.data import DataLoader

from sklgap.memory import Graph, Memory, NotPlain, fingerprint, is_library, restore_state, saved_state
from sklgap.training._callbacks import TrainingProgress
from sklgap.training._random import global_state

# Saving may take this share of the training time. After a save, the next one waits long enough for that.
SHARE = 0.05
# Attributes of a net that are data, follow from the parameters alone, or belong to the process.
NOT_STATE = {
    *("checkpoint_", "encoding_", "trained_on_", "module_start_", "interrupted_"),
    *("device", "verbose", "warm_start", "callbacks_", "torch_compile_options", "compiles_"),
    # These follow from the trained parameters, and are rebuilt if a callback freezes or unfreezes some.
    *("step_", "watched_", "trained_"),
}


class Checkpoint:
    """Save one training in a folder: from time to time while it runs, and when it has finished.

    Parameters
    ----------
    memory : Memory
        The folder.
    key : str
        Key made of parameters, data, seed, versions and device.
    inputs : callable
        Function that returns a fingerprint of the parameters. A training that changes the fingerprint changes the
        user's objects, and is not saved.

    Attributes
    ----------
    train_score : float or None
        Training score of a finished fit that was loaded; None if this fit is not finished yet.
    epochs_done : int
        Number of epochs of the saved fit that this fit continues.
    """

    def __init__(self, memory: Memory, key: str, inputs: Callable[[], str]) -> None:
        self.memory, self.key, self.inputs = memory, key, inputs
        self.inputs_before = inputs()
        self.draws_before, self.torch_before = _global_draws(), global_state()
        self.callbacks: list[str] = []
        self.train_score: float | None = None
        self.epochs_done = 0
        self.updates_done: int | None = None  # number of updates at which a continued training began
        self.resumed: dict[str, Any] | None = None
        self.at_start: Graph | None = None
        self.at_train_begin: Graph | None = None
        self.next_save = 0.0
        self.refused = False

    def add_to_key(self, *values: Any) -> None:
        """Add plain values to the key that were not known before."""
        self.key = fingerprint(self.key, *values)

    def load(self, net: Any) -> bool:
        """Load a finished training into the net. Otherwise note where to continue, and return False."""
        self.at_start = self._graph(net)
        finished = self.memory.read(self.key, "fit")
        if finished is not None and self._put(net, finished, "fit", self.at_start):
            return True
        self.resumed = self._begun(net)
        if self.resumed is not None:
            self.epochs_done = self.resumed["epochs"]
        return False

    def _begun(self, net: Any) -> dict[str, Any] | None:
        """Return the saved state of an unfinished fit; None if there is no valid one."""
        begun = self.memory.read(self.key, "part")
        if begun is None:
            return None
        epochs = begun.get("epochs") if isinstance(begun, dict) and begun.keys() == {"state", "epochs"} else None
        if type(epochs) is int and epochs >= 1 and (net.regime_adaptation or epochs <= net.max_epochs):
            return dict(begun)
        self.memory.distrust(self.key, "part", "does not hold the state of this net")
        return None

    def after_train_begin(self, net: Any) -> None:
        """Load the state of an unfinished training into the net, if there is one."""
        self.at_train_begin = self._graph(net)
        self.callbacks = [name for name, _ in _with_state(net)]
        self._note_draws()
        if self.resumed is not None:
            if self._put(net, self.resumed, "part", self.at_train_begin):
                self.updates_done = net.n_updates_
            self.resumed = None

    def after_epoch(self, net: Any) -> None:
        """Save the training, unless the last save was too recent."""
        started = time.perf_counter()
        if started < self.next_save or self.refused or self.memory.failed:
            return
        try:
            _check_iterators(net)
            state = self._state(net, self.at_train_begin)
            self.memory.write(self.key, "part", {"state": state, "epochs": len(net.history)}, sync=False)
        except NotPlain as error:
            self.refused = True
            warnings.warn(
                f"memory: this fit cannot continue after an interruption, because {error}.", UserWarning, stacklevel=2
            )
        now = time.perf_counter()
        self.next_save = now + (now - started) / SHARE

    def finish(self, net: Any, train_score: float) -> None:
        """Save the finished fit, and remove the unfinished one."""
        assert self.at_start is not None
        self._note_draws()
        for callback in _schedulers(net):
            path = self.at_start.paths[id(callback)]
            self.at_start.add(f"{path}.lr_scheduler_", callback.lr_scheduler_)
            for name in vars(net.optimizer_).keys() - {"param_groups", "state"}:
                self.at_start.add(f"{self.at_start.paths[id(net.optimizer_)]}.{name}", vars(net.optimizer_)[name])
        try:
            state = self._state(net, self.at_start, gradients=False)
        except NotPlain as error:
            warnings.warn(f"memory: this finished fit is not saved, because {error}.", UserWarning, stacklevel=2)
            return
        if self.memory.write(self.key, "fit", {"state": state, "train_score": train_score}):
            self.memory.forget(self.key, "part")

    def _note_draws(self) -> None:
        """Note whether the training drew from torch's global generator outside the training loop."""
        if not torch.equal(global_state(), self.torch_before):
            self.draws_before = "drawn"

    def _state(self, net: Any, graph: Graph | None, gradients: bool = True) -> dict[str, Any]:
        assert graph is not None
        if [name for name, _ in _with_state(net)] != self.callbacks:
            raise NotPlain("its list of callbacks has changed")
        if self.inputs() != self.inputs_before:
            raise NotPlain("it changes its parameters, their classes, or globals that their code reads")
        if _global_draws() != self.draws_before:
            raise NotPlain("it draws from global random numbers, which its random_state does not determine")
        return saved_state(graph, gradients=gradients)

    def _put(self, net: Any, entry: dict[str, Any], kind: str, graph: Graph) -> bool:
        """Put a saved state into the net, and return whether that worked. If not, the net is unchanged."""
        before = saved_state(graph, whole=True)
        try:
            if kind == "fit":
                for callback in _schedulers(net, made=False):
                    callback.on_train_begin(net)
                self.train_score = float(entry["train_score"])
                if not 0 <= self.train_score <= 1:
                    raise ValueError("its accuracy is not between 0 and 1")
            restore_state(self._graph(net), entry["state"])
            if kind == "part" and len(net.history) != entry["epochs"]:
                raise ValueError("its number of epochs does not match its history")
            return True
        except Exception as error:  # whatever the file holds, the fit runs again
            restore_state(graph, before)
            self.train_score, self.epochs_done = None, 0
            self.memory.distrust(self.key, kind, f"does not hold the state of this net ({error})")
            return False

    def is_to_blame(self, net: Any, error: Exception) -> bool:
        """Return whether the loaded state broke the first step after it. Then remove it; the fit starts again.

        A file may hold the right names and types and still be a state with which the optimiser cannot work.
        """
        if self.updates_done is None or net.n_updates_ > self.updates_done + net.step_.inner_steps:
            return False
        reason = str(error).partition("\n")[0]  # a kernel of torch adds a list of the types it accepts
        self.memory.distrust(self.key, "part", f"holds a state from which training cannot continue ({reason})")
        self.memory.forget(self.key, "part")
        return True

    def _graph(self, net: Any) -> Graph:
        def skipped(value: Any) -> set[str]:
            if value is net:
                return NOT_STATE
            return _no_state(value) if isinstance(value, Callback) else set()

        callbacks = {f"the callback {name!r}": callback for name, callback in _with_state(net)}
        parts = {"module": net.module_, "criterion": net.criterion_, "optimizer": net.optimizer_}
        return Graph({**parts, **callbacks, "net": net}, skipped)


def _with_state(net: Any) -> list[tuple[str, Callback]]:
    """Return the callbacks that have a state, with their names. The progress bar of `verbose` has no state."""
    return [(name, callback) for name, callback in net.callbacks_ if not isinstance(callback, TrainingProgress)]


def _no_state(callback: Callback) -> set[str]:
    """Return the attributes of a library's callback that are functions, or that it leaves out of its pickle."""
    found = set()
    if is_library(type(callback).__module__):
        found = {name for name, held in vars(callback).items() if isinstance(held, type | FunctionType)}
    owner = next(cls for cls in type(callback).__mro__ if "__getstate__" in vars(cls))
    if owner is not object and is_library(owner.__module__):
        found |= vars(callback).keys() - callback.__getstate__().keys()
    return found


def _schedulers(net: Any, made: bool = True) -> list[LRScheduler]:
    """Return the callbacks of skorch that make a scheduler when the training begins."""
    found = [callback for _, callback in net.callbacks_ if type(callback) is LRScheduler]
    return [callback for callback in found if callback.lr_scheduler_ is not None or not made]


def _check_iterators(net: Any) -> None:
    """Raise NotPlain for the user's own data sets and iterators, whose state cannot be read between two epochs."""
    for name in ("iterator_train", "iterator_valid"):
        if getattr(net, name) is not DataLoader:
            raise NotPlain(f"{name} is the user's own, whose state cannot be saved")
    if not isinstance(net.dataset, type) or not is_library(net.dataset.__module__):
        raise NotPlain("dataset is the user's own, whose state cannot be saved")


def _global_draws() -> str:
    return fingerprint(np.random.get_state(), random.getstate())  # noqa: NPY002 - to see whether it was drawn from
