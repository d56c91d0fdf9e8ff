r"""Latest weight averaging (LAWA): Kaddour (2022).

.. math:: \frac{1}{k} \sum_{i=0}^{k-1} w_{E-i}

over the ends of the last k epochs.
"""

from typing import Any, Self

import torch

from sklgap._checks import check_integer
from sklgap._typing import Params
from sklgap.training._averaging import Averaging, check_every, weights_of


class LatestAveraging(Averaging):
    """End ``fit`` with the mean of the weights at the ends of the last epochs.

    This is a skorch callback, like `WeightAveraging`: ``LBGapClassifier(callbacks=[("averaging",
    LatestAveraging())])``. This average does not depend on when the training ends.

    Parameters
    ----------
    n_latest : int, default=6
        Number k of sets of weights in the mean, at least 1; fewer if the training is shorter. 1 gives the last weights,
        as plain training does. The default is our choice.
    every : int, default=1
        Number of epochs from one set of weights to the next, at least 1. The weights of the last epoch always belong to
        the mean.

    Attributes
    ----------
    n_averaged_ : int
        Number of sets of weights in the mean.

    Notes
    -----
    Batch-norm statistics are recomputed for the mean. The history describes the weights that were averaged;
    ``train_score_`` describes the mean. A warm start continues from the last weights of the training. Cost: a copy of
    the weights to the host per epoch, and ``n_latest`` sets of weights there (``n_latest * every`` with another
    ``every``).

    References
    ----------
    Kaddour, Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging,
    arXiv:2209.14981.

    Examples
    --------
    >>> from sklgap import LatestAveraging, LBGapClassifier
    >>> model = LBGapClassifier(batch_regime="LB", callbacks=[("averaging", LatestAveraging(n_latest=3))])
    """

    def __init__(self, n_latest: int = 6, every: int = 1) -> None:
        self.n_latest = n_latest
        self.every = every

    def initialize(self) -> Self:
        """Reset the callback for a new training."""
        self.latest_: list[Params] = []
        self.epochs_seen_ = 0
        return super().initialize()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Save the weights, and drop those that no mean can use any more."""
        self.epochs_seen_ = len(net.history)
        self.latest_.append({name: w.clone() for name, w in weights_of(net).items()})
        del self.latest_[: -((self.n_latest - 1) * self.every + 1)]

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Replace the weights by their mean."""
        if self.epochs_seen_ < len(net.history) and not net.interrupted_:
            self.on_epoch_end(net)  # a callback before this one has stopped the training
        found = self.latest_[:: -self.every]
        self.n_averaged_ = len(found)
        if found:
            self.average_ = {name: torch.stack([w[name] for w in found]).mean(dim=0) for name in found[0]}
        super().on_train_end(net, **kwargs)

    def _check(self) -> None:
        check_integer("n_latest", self.n_latest)
        check_every(self.every)
