"""Regime adaptation, "train longer" (Hoffer et al. 2017, Section 5): as many updates as the small batch makes."""


def n_batches(n_samples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch: a partial one is kept, a remainder of one row joins its neighbour."""
    full, remainder = divmod(n_samples, batch_size)
    return full + (remainder > 1 or (remainder == 1 and full == 0))


def split_rows(n_rows: int, batch_size: int) -> list[slice]:
    """Cut n_rows into consecutive batches: a partial last one is kept, a single last row joins the batch before it."""
    starts = [i * batch_size for i in range(n_batches(n_rows, batch_size))]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], n_rows], strict=True)]


def updates_of_epochs(n_epochs: int, batch_size: int, n_samples: int) -> int:
    """Return the number of updates that so many epochs at a batch size have."""
    return n_epochs * n_batches(n_samples, batch_size)
