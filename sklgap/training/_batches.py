"""The index plan: which rows make which batch, decided by seed and epoch alone.

Drawn on the CPU by NumPy, so that every loader on every device sees the same batches, and an interrupted training can
continue at any epoch without replaying the earlier ones.
"""

import numpy as np

from sklgap.regimes import n_batches


def split_rows(n_rows: int, batch_size: int) -> list[slice]:
    """Cut n_rows into consecutive batches: a partial last one is kept, a single last row joins the batch before it."""
    starts = [i * batch_size for i in range(n_batches(n_rows, batch_size))]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n_rows], strict=True)]


def plan_epoch(n_rows: int, batch_size: int, seed: int, epoch: int) -> tuple[np.ndarray, list[slice]]:
    """Return the permutation of an epoch, of shape (n_rows,), and the slices of it that are its batches."""
    permutation = np.random.default_rng([seed, epoch]).permutation(n_rows)
    return permutation, split_rows(n_rows, batch_size)
