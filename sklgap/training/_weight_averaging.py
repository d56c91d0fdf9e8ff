r"""Stochastic weight averaging: Izmailov et al. (2018), Algorithm 1.

.. math:: w_{SWA} = \frac{1}{K} \sum_{k=1}^K w_{i_k}

over the ends of epochs :math:`i_1 < \dots < i_K` of one training.
"""

import numbers
from typing import Any

from sklgap.training._averaging import Averaging, check_every, weights_of


class WeightAveraging(Averaging):
    """End ``fit`` with the mean of the weights at the ends of the later epochs, which is often a wider minimum.

    This is a skorch callback: ``LBGapClassifier(callbacks=[("averaging", WeightAveraging())])``. Its parameters are set
    as ``callbacks__averaging__start``. ``callbacks__averaging=None`` turns it off.

    Parameters
    ----------
    start : int or float, default=0.75
        The first weights to average (0.75 in Izmailov et al.). A float in [0, 1] is a fraction of ``max_epochs``, or of
        the updates with ``regime_adaptation``. An integer is an epoch of the history, counted from 1; 0 means all
        epochs.
    every : int, default=1
        Number of epochs from one averaged set of weights to the next, at least 1.

    Attributes
    ----------
    n_averaged_ : int
        Number of sets of weights in the mean.

    Warns
    -----
    UserWarning
        If training ends before ``start``. The weights are then those of the last epoch.

    Notes
    -----
    The average replaces the weights however training ends: by ``max_epochs``, by a stopping rule, or by Ctrl-C.
    Batch-norm statistics are always recomputed for it, whatever ``recompute_batch_norm`` says. The history describes
    the weights that were averaged; ``train_score_`` describes the average.

    A warm start continues from the last weights of the training, not from their average, unless something else has
    changed the weights in between. If ``start`` is a fraction, it then starts a new average. If ``start`` is an
    integer, it continues the old one.

    The paper averages with a constant or cyclic learning rate that is high enough to leave the minimum; see
    ``lr_milestones`` for a rate that falls to a constant. Cost: a copy of the weights to the host per epoch, and two
    sets of weights there.

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
        """Check the parameters, and restore the last weights of the training."""
        super().on_train_begin(net, **kwargs)
        if not isinstance(self.start, numbers.Integral):
            self.n_averaged_ = 0
        self.epochs_before_ = self.epochs_seen_ = len(net.history)
        self.updates_before_ = net.n_updates_

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Add the weights to the average every ``every`` epochs from ``start`` on."""
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
            f"WeightAveraging averaged nothing, because training ended after {n_epochs} epochs, before "
            f"start={self.start!r}; the weights are those of the last epoch."
        )
