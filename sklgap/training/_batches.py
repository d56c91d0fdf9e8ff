"""The index plan: which samples make up which batch. It depends only on the seed and the epoch.

NumPy draws the plan on the CPU. Therefore every loader on every device has the same batches, and an interrupted
training can continue at any epoch without repeating the earlier ones.
"""

import numpy as np

from sklgap._checks import check_integer
from sklgap.regimes import split_rows


def plan_epoch(n_rows: int, batch_size: int, seed: int, epoch: int) -> tuple[np.ndarray, list[slice]]:
    """Return the order of the samples in an epoch, and the batches as slices of that order.

    Parameters
    ----------
    n_rows : int
        Number of training samples, at least 1.
    batch_size : int
        Number of samples of a batch, at least 1.
    seed : int
        Seed of the training, at least 0.
    epoch : int
        Number of the epoch, counted from 0.

    Returns
    -------
    permutation : ndarray of shape (n_rows,)
        The positions of the samples in their order.
    slices : list of slice
        The batches, as `sklgap.regimes.split_rows` cuts them.

    Examples
    --------
    >>> from sklgap.training import plan_epoch
    >>> permutation, slices = plan_epoch(10, batch_size=4, seed=0, epoch=0)
    >>> sorted(permutation.tolist()) == list(range(10)), [s.stop - s.start for s in slices]
    (True, [4, 4, 2])
    """
    check_integer("n_rows", n_rows)
    check_integer("batch_size", batch_size)
    check_integer("seed", seed, least=0)
    check_integer("epoch", epoch, least=0)
    permutation = np.random.default_rng([seed, epoch]).permutation(n_rows)
    return permutation, split_rows(n_rows, batch_size)
