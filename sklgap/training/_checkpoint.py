"""The state of a training between two epochs, as plain values: what a training needs to go on as if never stopped.

Random streams are no part of it: they come from the seed and the epoch.
"""

import time
import warnings
from types import FunctionType
from typing import Any

import torch
from skorch.history import History

from sklgap.memory import Memory, NotPlain, plain, unplain

# What a net learns of its data when it trains.
SIZES = ("n_samples_", "base_batch_size_", "size_")
# Saving may take this share of the time of a training: it waits until the last save has paid off.
SHARE = 0.05


class Checkpoint:
    """Keeps one training in a folder: now and then while it runs, and when it has finished.

    Parameters
    ----------
    memory : Memory
        The folder.
    key : str
        Of parameters, data, seed, versions and device.

    Attributes
    ----------
    train_score : float or None
        Of a finished fit that was loaded; None: this one is not finished yet.
    """

    def __init__(self, memory: Memory, key: str) -> None:
        self.memory, self.key = memory, key
        self.train_score: float | None = None
        self.resumed: dict[str, Any] | None = None
        self.before: dict[str, dict[str, Any]] = {}
        self.made_anew: dict[str, set[str]] = {}
        self.next_save = 0.0
        self.refused = False

    def load(self, net: Any) -> bool:
        """Put the net where the training stands; say whether it has finished."""
        finished = self._read(net, "fit")
        if finished is not None:
            self.train_score = finished["train_score"]
            return True
        self.resumed = self._read(net, "part")
        return False

    def _read(self, net: Any, kind: str) -> dict[str, Any] | None:
        state: dict[str, Any] | None = self.memory.read(self.key, kind)
        if state is not None:
            try:
                load_training_state(net, state)
                return state
            except Exception as error:  # whatever the file holds, the fit is made anew
                self.memory.distrust(self.key, kind, f"does not hold the state of this net ({error})")
                net.initialize()
                net.checkpoint_ = self
        return None

    def before_train_begin(self, net: Any) -> None:
        """Note what the callbacks hold before they make themselves ready."""
        self.before = {name: dict(vars(callback)) for name, callback in net.callbacks_}

    def after_train_begin(self, net: Any) -> None:
        """Note what the callbacks have made anew, and put back the state of the rest."""
        for name, callback in net.callbacks_:
            before = self.before.get(name, {})
            made = {key for key, value in vars(callback).items() if key not in before or before[key] is not value}
            self.made_anew[name] = made
        self.before = {}
        if self.resumed is not None:
            load_helpers_state(net, self.resumed)

    def after_epoch(self, net: Any) -> None:
        """Save the training, unless the last save was a moment ago."""
        started = time.perf_counter()
        if started < self.next_save or self.refused or self.memory.failed:
            return
        self._write(net, "part", {})
        now = time.perf_counter()
        self.next_save = now + (now - started) / SHARE

    def finish(self, net: Any, train_score: float) -> None:
        """Keep the finished fit in place of the unfinished one."""
        if self._write(net, "fit", {"train_score": train_score}):
            self.memory.forget(self.key, "part")

    def _write(self, net: Any, kind: str, more: dict[str, Any]) -> bool:
        if self.refused:
            return False
        try:
            state = training_state(net, self.made_anew)
        except NotPlain as error:
            self.refused = True
            warnings.warn(
                f"memory: this fit is not kept, for it cannot be told in plain values: {error}.", stacklevel=2
            )
            return False
        return self.memory.write(self.key, kind, {**state, **more}, sync=kind == "fit")


def training_state(net: Any, made_anew: dict[str, set[str]]) -> dict[str, Any]:
    """Return weights, buffers, optimiser, history and callbacks of a training net, as plain values on the host.

    Parameters
    ----------
    net : TrainingNet
        Between two epochs.
    made_anew : dict
        By name of a callback, the attributes that its ``on_train_begin`` makes.

    Raises
    ------
    NotPlain
        If the optimiser or a callback holds what only a pickle could keep.
    """
    return {
        "module": {name: plain(tensor) for name, tensor in _tensors(net).items()},
        "optimizer": plain(net.optimizer_.state_dict()),
        "history": plain(list(net.history)),
        "n_updates": net.n_updates_,
        "stopping_reason": net.stopping_reason_,
        "weights_averaged": net.weights_averaged_,
        "sizes": {name: plain(getattr(net, name, None)) for name in SIZES},
        "callbacks": {n: _callback_state(n, callback, made_anew.get(n, set())) for n, callback in net.callbacks_},
    }


def load_training_state(net: Any, state: dict[str, Any]) -> None:
    """Put the state into an initialised net of the same parameters.

    Raises
    ------
    Exception
        Of any kind, if the state is that of another net; the net is to be initialised anew then.
    """
    tensors, kept = _tensors(net), state["module"]
    if _shapes(tensors) != _shapes(kept):
        raise ValueError("it is that of another net")
    net.history_ = History(unplain(state["history"]))
    net.n_updates_ = state["n_updates"]
    net.stopping_reason_ = state["stopping_reason"]
    net.weights_averaged_ = state["weights_averaged"]
    vars(net).update({name: size for name, size in state["sizes"].items() if size is not None})
    load_helpers_state(net, state)
    with torch.no_grad():  # at last: initialising anew would keep the weights of a module that is an instance
        for name, tensor in tensors.items():
            tensor.copy_(kept[name])


def load_helpers_state(net: Any, state: dict[str, Any]) -> None:
    """Put back optimiser and callbacks: again after ``on_train_begin``, when callbacks make themselves ready anew."""
    net.optimizer_.load_state_dict(unplain(state["optimizer"]))
    for name, callback in net.callbacks_:
        for key, value in state["callbacks"].get(name, {}).items():
            if not (isinstance(value, dict) and value.keys() == {"__state__"}):
                setattr(callback, key, unplain(value))
            elif getattr(callback, key, None) is not None:  # a scheduler, which on_train_begin makes
                getattr(callback, key).load_state_dict(unplain(value["__state__"]))


def _tensors(net: Any) -> dict[str, torch.Tensor]:
    """Return parameters and buffers of the module: the tensors themselves, also buffers that torch does not save."""
    return {**dict(net.module_.named_parameters()), **dict(net.module_.named_buffers())}


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _callback_state(name: str, callback: Any, made_anew: set[str]) -> dict[str, Any]:
    """Return what a callback has noted beside its parameters.

    Left out are classes and functions, what ``on_train_begin`` makes (a progress bar), and what the callback itself
    does not pickle.
    """
    parameters, pickled = callback.get_params(deep=False), callback.__getstate__()
    state: dict[str, Any] = {}
    for key, value in vars(callback).items():
        if key in parameters or key not in pickled or isinstance(value, type | FunctionType):
            continue
        try:
            state[key] = {"__state__": plain(value.state_dict())} if hasattr(value, "state_dict") else plain(value)
        except NotPlain as error:
            if key not in made_anew:
                raise NotPlain(f"the callback {name!r} holds a {error} in {key}") from None
    return state
