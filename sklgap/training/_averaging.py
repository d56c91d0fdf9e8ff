"""Code that the callbacks for weight averaging share: when they begin, and how the average replaces the weights."""

import numbers
import warnings
from typing import Any, Self

import torch
from skorch.callbacks import Callback

from sklgap._typing import Params
from sklgap.objective._parameters import has_fractions


class Averaging(Callback):
    """Base class of callbacks that end ``fit`` with an average of weights.

    A subclass sets ``average_`` and ``n_averaged_`` in its hooks. ``last_`` holds the weights that the average has
    replaced. A warm start continues from them, unless something else has changed the weights in between.
    """

    reads_batches = False
    n_averaged_: int
    average_: Params
    last_: Params

    def initialize(self) -> Self:
        """Reset the callback for a new training."""
        self.n_averaged_ = 0
        self.average_ = {}
        self.last_ = {}
        return self

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Check the parameters, and restore the last weights of the training."""
        self._check()
        name = type(self).__name__
        if not hasattr(net, "weights_averaged_"):
            raise TypeError(f"{name} needs the net of an LBGapClassifier; got {type(net).__name__}.")
        found = [type(callback).__name__ for _, callback in net.callbacks_ if isinstance(callback, Averaging)]
        if len(found) > 1:
            raise ValueError(f"callbacks must hold at most one that averages weights; got {', '.join(found)}.")
        best = [type(callback).__name__ for _, callback in net.callbacks_ if getattr(callback, "load_best", False)]
        if best:
            raise ValueError(
                f"callbacks must not hold both {name} and {best[0]}(load_best=True), because each of them sets the "
                "weights at the end, and one would undo the other; leave out one, or set load_best=False."
            )
        if self.last_ and all(torch.equal(w, self.average_[name]) for name, w in weights_of(net).items()):
            _assign(net, self.last_)
        self.last_ = {}
        net.weights_averaged_ = False

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Replace the weights by their average."""
        if self.n_averaged_:
            self.last_ = {name: w.clone() for name, w in weights_of(net).items()}
            _assign(net, self.average_)
            net.weights_averaged_ = True
        elif not net.interrupted_:
            warnings.warn(self._nothing(len(net.history)), UserWarning, stacklevel=2)

    def _check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""

    def _nothing(self, n_epochs: int) -> str:
        """Return the warning that no weights were averaged."""
        return (
            f"{type(self).__name__} averaged nothing, because training ended after {n_epochs} epochs; the weights are "
            "those of the last update."
        )


def check_every(every: Any) -> None:
    """Raise a ValueError unless ``every`` is an integer of at least 1."""
    if isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 1:
        raise ValueError(f"every must be an integer of at least 1; got {every!r}.")


def weights_of(net: Any) -> Params:
    """Return all weights on the host; on a CPU these are the tensors of the net."""
    return {name: w.cpu() for name, w in averaged_weights(net).items()}


def averaged_weights(net: Any) -> Params:
    """Return all weights that have an average, as the tensors of the net. Integer weights have no average."""
    return {name: p.detach() for name, p in net.module_.named_parameters() if has_fractions(p)}


def _assign(net: Any, values: Params) -> None:
    for name, w in averaged_weights(net).items():
        w.copy_(values[name])
