"""The conversion of the parameter ``batch_regime`` to a regime."""

import numbers

from sklgap._checks import check_integer, shown
from sklgap.regimes._base import LARGE_BATCH_FRACTION, BatchRegime, check_batch_size
from sklgap.regimes._constant import ConstantBatch


def check_batch_regime(batch_regime: str | int | float | BatchRegime, n_samples: int) -> BatchRegime:
    """Return the regime that ``batch_regime`` stands for.

    Parameters
    ----------
    batch_regime : str, int, float or BatchRegime
        ``"SB"`` is the small batch of `default_base_batch_size`, and ``"LB"`` is 10 % of the training samples. An int
        or a fraction is a constant batch size. A `BatchRegime` is returned unchanged.
    n_samples : int
        Number of training samples.

    Returns
    -------
    BatchRegime
        The regime.

    Raises
    ------
    ValueError
        If ``batch_regime`` is something else.

    Examples
    --------
    >>> from sklgap.regimes import check_batch_regime
    >>> check_batch_regime("LB", n_samples=60000)
    ConstantBatch(size=0.1)
    """
    check_integer("n_samples", n_samples)
    if isinstance(batch_regime, str) and batch_regime == "SB":
        return ConstantBatch()
    if isinstance(batch_regime, str) and batch_regime == "LB":
        return ConstantBatch(max(LARGE_BATCH_FRACTION, min(1.0, 2 / n_samples)))  # batch norm needs two samples
    if isinstance(batch_regime, numbers.Real):
        check_batch_size(batch_regime, n_samples, "batch_regime")
        return ConstantBatch(batch_regime)
    if isinstance(batch_regime, BatchRegime):
        return batch_regime
    raise ValueError(
        f"batch_regime must be 'SB', 'LB', an integer, a fraction or a BatchRegime; got {shown(batch_regime)}."
    )
