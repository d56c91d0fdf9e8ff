"""Small batches first, large ones later: the warm start of Keskar et al. (2017), Section 4 and Figure 5."""

from sklgap._checks import is_integer
from sklgap.regimes._base import LARGE_BATCH_FRACTION, BatchRegime, check_batch_size


class SwitchBatch(BatchRegime):
    """Use one batch size before an epoch, and another one from that epoch on.

    Parameters
    ----------
    switch_epoch : int, default=10
        First epoch with the second batch size, counted from 0. With 0 all epochs have the second batch size.
    first : int, float or None, default=None
        Batch size before the switch: a number of samples, or a fraction of them. None means the small batch, which
        ``"SB"`` stands for.
    then : int or float, default=0.1
        Batch size from the switch on: a number of samples, or a fraction of them. The default is 10 % of the samples,
        as ``"LB"``.

    Examples
    --------
    >>> from sklgap.regimes import SwitchBatch
    >>> regime = SwitchBatch(switch_epoch=2, first=32, then=0.5)
    >>> [regime.batch_size(epoch, n_samples=1000) for epoch in range(4)]
    [32, 32, 500, 500]
    """

    def __init__(
        self, switch_epoch: int = 10, first: int | float | None = None, then: int | float = LARGE_BATCH_FRACTION
    ) -> None:
        self.switch_epoch = switch_epoch
        self.first = first
        self.then = then

    def batch_size(self, epoch: int, n_samples: int) -> int:
        """Return the batch size of the epoch."""
        if not is_integer(self.switch_epoch, 0):
            raise ValueError(f"switch_epoch must be an integer of at least 0; got {self.switch_epoch!r}.")
        then = check_batch_size(self.then, n_samples, "then", or_none=False)
        first = check_batch_size(self.first, n_samples, "first")
        return then if epoch >= self.switch_epoch else first
