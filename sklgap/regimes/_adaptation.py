"""Regime adaptation, "train longer" (Hoffer et al. 2017, Section 5): as many updates as with the small batch."""

from sklgap._checks import check_integer

# A last batch of fewer samples joins the batch before it, if batches have at least twice this number. Batch-norm
# statistics of two or three samples spoil a fit: F1 (32 units) on 898 digits in batches of 64, the last of 2, ended at
# 89.8 % test accuracy, on 896 digits at 96.2 %.
LEAST_REST = 8


def n_batches(n_samples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch.

    A partial last batch counts. If it would have fewer than 8 samples (fewer than 2 for batch sizes below 16), its
    samples join the batch before it.

    Parameters
    ----------
    n_samples : int
        Number of training samples, at least 0.
    batch_size : int
        Number of samples of a batch, at least 1.

    Returns
    -------
    int
        Number of batches; 0 only without samples.

    Examples
    --------
    >>> from sklgap.regimes import n_batches
    >>> n_batches(896, 64), n_batches(898, 64), n_batches(906, 64)
    (14, 14, 15)
    """
    check_integer("n_samples", n_samples, least=0)
    check_integer("batch_size", batch_size)
    full, rest = divmod(n_samples, batch_size)
    least = LEAST_REST if batch_size >= 2 * LEAST_REST else 2
    return full + (rest >= least or (rest > 0 and full == 0))


def split_rows(n_rows: int, batch_size: int) -> list[slice]:
    """Cut samples into consecutive batches, as many as `n_batches` returns.

    Parameters
    ----------
    n_rows : int
        Number of samples, at least 1.
    batch_size : int
        Number of samples of a batch, at least 1.

    Returns
    -------
    list of slice
        The positions of the samples of each batch.

    Examples
    --------
    >>> from sklgap.regimes import split_rows
    >>> split_rows(10, 4)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    check_integer("n_rows", n_rows)
    check_integer("batch_size", batch_size)
    starts = [i * batch_size for i in range(n_batches(n_rows, batch_size))]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n_rows], strict=True)]


def updates_of_epochs(n_epochs: int, batch_size: int, n_samples: int) -> int:
    """Return the number of updates in a number of epochs at a batch size.

    Parameters
    ----------
    n_epochs : int
        Number of epochs, at least 0.
    batch_size : int
        Number of samples of a batch, at least 1.
    n_samples : int
        Number of training samples, at least 0.

    Returns
    -------
    int
        ``n_epochs`` times the number of batches of an epoch.

    Examples
    --------
    >>> from sklgap.regimes import updates_of_epochs
    >>> updates_of_epochs(n_epochs=10, batch_size=64, n_samples=896)
    140
    """
    check_integer("n_epochs", n_epochs, least=0)
    return n_epochs * n_batches(n_samples, batch_size)
