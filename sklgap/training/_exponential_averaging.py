r"""Exponential moving average of the weights: Polyak and Juditsky (1992), in the form of Tarvainen and Valpola (2017).

.. math:: \bar w_t = \beta \bar w_{t-1} + (1 - \beta) w_t, \qquad \bar w_1 = w_1

over the updates t of one training.
"""

from typing import Any, Self

from sklgap._checks import is_number
from sklgap.training._averaging import Averaging, averaged_weights, check_every


class ExponentialAveraging(Averaging):
    """End ``fit`` with an exponential moving average of the weights after the updates.

    This is a skorch callback, like `WeightAveraging`: ``LBGapClassifier(callbacks=[("averaging",
    ExponentialAveraging())])``.

    Parameters
    ----------
    decay : float, default=0.99
        Weight of the average so far, in [0, 1). The average covers some ``1 / (1 - decay)`` updates. 0 gives the last
        weights, as plain training does. The default is our choice: training with a large batch makes few updates, and
        with 0.999 the first updates would still count.
    every : int, default=1
        Number of updates from one averaged set of weights to the next, at least 1.

    Attributes
    ----------
    n_averaged_ : int
        Number of sets of weights in the average.

    Notes
    -----
    The average begins with the weights after the first update. Batch-norm statistics are recomputed for it. The history
    describes the weights that were averaged; ``train_score_`` describes the average. A warm start continues from the
    last weights of the training, and continues the average. Cost: a second set of weights on the device of the net, and
    one pass over it per update.

    References
    ----------
    Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 30, 1992.
    Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017.

    Examples
    --------
    >>> from sklgap import ExponentialAveraging, LBGapClassifier
    >>> model = LBGapClassifier(batch_regime="LB", callbacks=[("averaging", ExponentialAveraging(decay=0.9))])
    """

    def __init__(self, decay: float = 0.99, every: int = 1) -> None:
        self.decay = decay
        self.every = every

    def initialize(self) -> Self:
        """Reset the callback for a new training."""
        self.batches_ = 0
        return super().initialize()

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Check the parameters, and restore the last weights of the training."""
        super().on_train_begin(net, **kwargs)
        devices = {name: w.device for name, w in averaged_weights(net).items()}
        self.average_ = {name: average.to(devices[name]) for name, average in self.average_.items()}

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Add the weights to the average every ``every`` updates."""
        if not training:
            return
        self.batches_ += 1
        if self.batches_ % self.every:
            return
        self.n_averaged_ += 1
        weights = averaged_weights(net)
        if self.n_averaged_ == 1:
            self.average_ = {name: w.clone() for name, w in weights.items()}
        for name, average in self.average_.items():
            average.lerp_(weights[name], 1 - self.decay)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Replace the weights by their average."""
        # a pickle may be loaded on another device
        self.average_ = {name: average.cpu() for name, average in self.average_.items()}
        super().on_train_end(net, **kwargs)

    def _check(self) -> None:
        if not is_number(self.decay) or not 0 <= self.decay < 1:
            raise ValueError(f"decay must be a number in [0, 1); got {self.decay!r}.")
        check_every(self.every)
