r"""Stochastic weight averaging: Izmailov et al. (2018), Algorithm 1.

.. math:: w_{SWA} = \frac{1}{K} \sum_{k=1}^K w_{i_k}

over the ends of epochs :math:`i_1 < \dots < i_K` of one training.
"""

import numbers
from typing import Any

from sklgap.training._averaging import Averaging, check_every, weights_of


class WeightAveraging(Averaging):
    """End ``fit`` with the mean of the weights at the ends of the later epochs: often a wider minimum.

    A skorch callback: ``LBGapClassifier(callbacks=[("averaging", WeightAveraging())])``, with parameters reached as
    ``callbacks__averaging__start``; ``callbacks__averaging=None`` turns it off.

    Parameters
    ----------
    start : int or float, default=0.75
        The first weights averaged: those after this fraction, in [0, 1], of ``max_epochs`` (of the updates, with
        ``regime_adaptation``), or, as an integer, those at the end of this epoch of the history, counted from 1; 0:
        all epochs. (0.75: Izmailov et al.)
    every : int, default=1
        Epochs from one to the next; at least 1.

    Attributes
    ----------
    n_averaged_ : int
        Number of weights in the mean.

    Warns
    -----
    UserWarning
        When training ended before ``start``: the weights are then those of the last epoch.

    Notes
    -----
    The average is put in place however training ends: by ``max_epochs``, a stopping rule, or Ctrl-C. Batch-norm
    statistics are recomputed for it in any case, whatever ``recompute_batch_norm`` says. The history describes the
    weights that were averaged, ``train_score_`` the average.

    A warm start goes on from the last weights of the training, not from their average, unless something else has
    changed the weights in between. It then starts a new average where ``start`` is a fraction, and goes on with the
    old one where it is an integer.

    The paper averages under a constant or cyclic rate that is high enough to leave the minimum; see ``lr_milestones``
    for a rate that falls to a constant. Cost: a copy of the weights to the host per epoch; two sets of weights there.

    References
    ----------
    Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier, WeightAveraging
    >>> X, y = load_digits(return_X_y=True)
    >>> averaging = WeightAveraging(start=0.5)
    >>> model = LBGapClassifier(module__width=16, max_epochs=4, tol=None, callbacks=[("averaging", averaging)])
    >>> dict(model.fit(X / 16, y).net_.callbacks_)["averaging"].n_averaged_  # after epochs 2, 3 and 4
    3
    """

    def __init__(self, start: int | float = 0.75, every: int = 1) -> None:
        self.start = start
        self.every = every

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Check the parameters; put the last weights of the training back."""
        super().on_train_begin(net, **kwargs)
        if not isinstance(self.start, numbers.Integral):
            self.n_averaged_ = 0
        self.epochs_before_ = self.epochs_seen_ = len(net.history)
        self.updates_before_ = net.n_updates_

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Take the weights into the average, if it is their turn."""
        self.epochs_seen_ = epoch = len(net.history)
        if not self._has_started(net):
            return
        if self.n_averaged_ == 0:
            self.first_epoch_ = epoch
        if (epoch - self.first_epoch_) % self.every:
            return
        self.n_averaged_ += 1
        weights = weights_of(net)
        if self.n_averaged_ == 1:
            self.average_ = {name: w.clone() for name, w in weights.items()}
        for name, average in self.average_.items():
            average.lerp_(weights[name], 1 / self.n_averaged_)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Replace the weights by their average."""
        if self.epochs_seen_ < len(net.history) and not net.interrupted_:
            self.on_epoch_end(net)  # a callback before this one has stopped the training
        super().on_train_end(net, **kwargs)

    def _has_started(self, net: Any) -> bool:
        if isinstance(self.start, numbers.Integral):
            return len(net.history) >= self.start
        if net.max_updates_ is not None:
            return net.n_updates_ - self.updates_before_ >= self.start * (net.max_updates_ - self.updates_before_)
        return len(net.history) - self.epochs_before_ >= self.start * net.max_epochs

    def _check(self) -> None:
        start = self.start
        valid = isinstance(start, numbers.Real) and not isinstance(start, bool)
        if not valid or not 0 <= start <= (float("inf") if isinstance(start, numbers.Integral) else 1):
            raise ValueError(
                f"start must be a fraction of the training in [0, 1], or an integer of at least 0; got {start!r}."
            )
        check_every(self.every)

    def _nothing(self, n_epochs: int) -> str:
        return (
            f"WeightAveraging averaged nothing: training ended after {n_epochs} epochs, before "
            f"start={self.start!r}; the weights are those of the last epoch."
        )
