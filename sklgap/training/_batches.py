"""The index plan: which rows make which batch, decided by seed and epoch alone.

Drawn on the CPU by NumPy, so that every loader on every device sees the same batches, and an interrupted training can
continue at any epoch without replaying the earlier ones.
"""

import numpy as np

from sklgap._checks import check_integer
from sklgap.regimes import split_rows


def plan_epoch(n_rows: int, batch_size: int, seed: int, epoch: int) -> tuple[np.ndarray, list[slice]]:
    """Return the permutation of an epoch, of shape (n_rows,), and the slices of it that are its batches."""
    check_integer("n_rows", n_rows)
    check_integer("batch_size", batch_size)
    check_integer("seed", seed, least=0)
    check_integer("epoch", epoch, least=0)
    permutation = np.random.default_rng([seed, epoch]).permutation(n_rows)
    return permutation, split_rows(n_rows, batch_size)
