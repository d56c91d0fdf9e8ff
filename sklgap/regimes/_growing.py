"""A batch size that grows geometrically: dynamic sampling in the sense of Keskar et al. (2017), Section 4.

The schedule is fixed in advance, as in Friedlander and Schmidt (2012).
"""

from sklgap._checks import is_integer, is_number
from sklgap.regimes._base import LARGE_BATCH_FRACTION, BatchRegime, check_batch_size


class GrowingBatch(BatchRegime):
    """Multiply the batch size by a factor every few epochs, up to a largest batch size.

    Parameters
    ----------
    initial : int, float or None, default=None
        Batch size of epoch 0: a number of samples, or a fraction of them. None means the small batch, which ``"SB"``
        stands for.
    factor : float, default=2.0
        Factor of each multiplication, at least 1.
    every : int, default=5
        Number of epochs between two multiplications.
    largest : int or float, default=0.1
        Largest batch size: a number of samples, or a fraction of them. The default is 10 % of the samples, as ``"LB"``.

    Examples
    --------
    >>> from sklgap.regimes import GrowingBatch
    >>> regime = GrowingBatch(initial=32, factor=2, every=1, largest=100)
    >>> [regime.batch_size(epoch, n_samples=1000) for epoch in range(4)]
    [32, 64, 100, 100]
    """

    def __init__(
        self,
        initial: int | float | None = None,
        factor: float = 2.0,
        every: int = 5,
        largest: int | float = LARGE_BATCH_FRACTION,
    ) -> None:
        self.initial = initial
        self.factor = factor
        self.every = every
        self.largest = largest

    def batch_size(self, epoch: int, n_samples: int) -> int:
        """Return the batch size of the epoch."""
        if not is_number(self.factor) or self.factor < 1:
            raise ValueError(f"factor must be a number of at least 1; got {self.factor!r}.")
        if not is_integer(self.every, 1):
            raise ValueError(f"every must be an integer of at least 1; got {self.every!r}.")
        largest = check_batch_size(self.largest, n_samples, "largest", or_none=False)
        size = check_batch_size(self.initial, n_samples, "initial")
        for _ in range(epoch // self.every):
            if size >= largest or self.factor == 1:
                break
            size = min(largest, max(size + 1, round(size * self.factor)))
        return min(size, largest)
