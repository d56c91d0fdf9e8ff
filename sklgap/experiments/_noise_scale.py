"""A noise scale that was measured beside an experiment, as an estimate: the form in which a result prints it."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from sklgap._checks import WrongArgument, is_number, shown
from sklgap.experiments._estimate import Estimate
from sklgap.inspection import GradientNoise
from sklgap.monitor import BatchSizeMonitor

NoiseScale = float | Estimate | GradientNoise | BatchSizeMonitor | Mapping[str, float]
_OF_A_MONITOR = ("noise_scale", "noise_scale_low", "noise_scale_high")


def check_noise_scale(name: str, value: Any) -> Estimate:
    """Return a noise scale as an estimate.

    Parameters
    ----------
    name : str
        What an error calls it.
    value : float, Estimate, GradientNoise, BatchSizeMonitor or dict
        Samples, with or without an interval; a dict is the ``state()`` of a `BatchSizeMonitor`, or has at least its
        noise scale and both ends.

    Returns
    -------
    Estimate
        Its value is NaN where a monitor has measured nothing yet, and infinite where no gradient can be told from the
        noise. A plain number has no interval.

    Raises
    ------
    WrongArgument
        For anything else, and for a number or an Estimate that is not above 0.
    ValueError
        For a monitor that does not count samples, and for a negative noise scale in a dict.
    """
    if isinstance(value, BatchSizeMonitor):
        if not value.counts_samples:
            raise ValueError(
                f"{name} must be in samples; the noise scale of this monitor counts what the weights of its loss "
                "count, such as tokens: give it as a number, divided by what a sample counts for."
            )
        value = value.state()
    if isinstance(value, Mapping) and all(isinstance(value.get(key), numbers.Real) for key in _OF_A_MONITOR):
        scale, low, high = (float(value[key]) for key in _OF_A_MONITOR)
        if scale < 0:
            raise ValueError(f"{name} must be a noise scale of at least 0; got {shown(scale)}.")
        n = int(value.get("n_window", 0))
        return Estimate(scale, low, high, n, covers="the noise of the measurements in the monitor's window")
    if isinstance(value, GradientNoise):
        return Estimate(value.noise_scale, value.low, value.high, value.n_batches, covers="other mini-batches there")
    if isinstance(value, Estimate) and not value.value <= 0:
        return value
    if is_number(value) and value > 0:
        return Estimate(float(value), -math.inf, math.inf, 0)
    raise WrongArgument(
        f"{name} must be a number above 0, an Estimate above 0, what gradient_noise_scale returns, or a "
        f"BatchSizeMonitor or its state(); got {shown(value)}."
    )
