"""Convert a noise scale that was measured outside an experiment into an `Estimate`, which results print."""

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
        Name of the parameter in errors.
    value : float, Estimate, GradientNoise, BatchSizeMonitor or dict
        Noise scale in samples, with or without an interval. A dict is the ``state()`` of a `BatchSizeMonitor`, or has
        at least its noise scale and both ends of the interval.

    Returns
    -------
    Estimate
        Its value is NaN if a monitor has measured nothing yet, and infinite if no gradient stands out from the noise. A
        plain number has no interval.

    Raises
    ------
    WrongArgument
        If the value has another type, or is a number or an Estimate that is not above 0.
    ValueError
        If a monitor does not count samples, or a dict has a negative noise scale.
    """
    if isinstance(value, BatchSizeMonitor):
        if not value.counts_samples:
            raise ValueError(
                f"{name} must be in samples, but this monitor counts in the units of its loss weights, such as tokens. "
                "Give the noise scale as a number, divided by the number of these units per sample."
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
