"""A constant batch size, such as the small-batch and large-batch regimes of Keskar et al. (2017)."""

from sklgap.regimes._base import BatchRegime, check_batch_size


class ConstantBatch(BatchRegime):
    """Use the same batch size in every epoch.

    Parameters
    ----------
    size : int, float or None, default=None
        Number of samples, a fraction of the training samples in (0, 1], or -1 for all of them. None means the small
        batch, which ``"SB"`` stands for. A size larger than the data means all samples.

    Examples
    --------
    >>> from sklgap.regimes import ConstantBatch
    >>> ConstantBatch(0.1).batch_size(epoch=0, n_samples=60000)
    6000
    """

    varies = False

    def __init__(self, size: int | float | None = None) -> None:
        self.size = size

    def batch_size(self, epoch: int, n_samples: int) -> int:
        """Return the batch size."""
        return check_batch_size(self.size, n_samples, "size")
