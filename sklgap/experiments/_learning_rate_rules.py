"""Sentences for `batch_size_curve` on whether a rule for the learning rate held on these data."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import get_args

from sklgap._typing import LRScaling
from sklgap.experiments._estimate import Estimate
from sklgap.experiments._result import listed

# How the learning rate grows with the batch size under each rule.
_EXPONENTS = {"the same rate for all sizes": 0.0, "the square-root rule": 0.5, "the linear rule": 1.0}
_ROUNDING = 1e-9
# A rule holds if the score, which is a fraction, loses less than this.
_POINT = 0.01


def rule_held(lr: str, gaps: Mapping[str, Estimate], *, is_fraction: bool) -> list[str]:
    """Report for which batch sizes the score under a rule equals that of the reference.

    Parameters
    ----------
    lr : str
        The rule of the curve.
    gaps : mapping of str to Estimate
        Score of the reference minus that of each batch size.
    is_fraction : bool
        Whether the score is a fraction. A rule then holds if less than one percentage point is lost.
    """
    known = {label: gap for label, gap in gaps.items() if gap.has_interval}
    if lr not in get_args(LRScaling) or not known:
        return []
    worse = [label for label, gap in known.items() if gap.low > 0]
    held = [label for label, gap in known.items() if is_fraction and gap.high < _POINT]
    undecided = [label for label in known if label not in (*held, *worse)]
    found = []
    if held:
        found.append(f"it held within a point for {listed(held)}")
    if worse := [label for label in worse if label not in held]:
        found.append(f"it did not hold for {listed(worse)}, where the score is lower than that of the reference")
    if undecided:
        found.append(f"these trials do not decide it for {listed(undecided)}")
    return [f"The rule lr={lr!r}, by batch size: {'; '.join(found)}."]


def tuned_exponents(rates: Mapping[str, float], tried: Sequence[float]) -> list[str]:
    """Report with which power of the batch size the chosen learning rates grow.

    A rate that was chosen from a grid stands for all rates up to half way to its neighbours. Rates at an end of the
    grid are left out, because the best rate may lie beyond.

    Parameters
    ----------
    rates : mapping of str to float
        Learning rate of each batch size, which is given as text.
    tried : sequence of float
        The grid of learning rates.
    """
    grid = sorted(map(math.log, tried))
    points: list[tuple[float, float, float]] = []
    if not grid:
        return []
    for label, rate in rates.items():
        place = min(range(len(grid)), key=lambda i: abs(grid[i] - math.log(rate)))
        if 0 < place < len(grid) - 1:
            half = max(grid[place] - grid[place - 1], grid[place + 1] - grid[place]) / 2
            points.append((math.log(int(label)), grid[place], half))
    if len(points) < 2:
        return []
    # Three intervals on a line have a point in common if every two have: pairs decide.
    low, high = -math.inf, math.inf
    for (size, rate, half), (other, other_rate, other_half) in itertools.combinations(sorted(points), 2):
        low = max(low, (other_rate - rate - half - other_half) / (other - size))
        high = min(high, (other_rate - rate + half + other_half) / (other - size))
    if low > high + _ROUNDING:
        return ["The chosen learning rates do not follow a power of the batch size."]
    if low <= 0 and high >= 1:
        return ["The grid learning_rates is too coarse to decide which rule the chosen learning rates follow."]
    fitting = [name for name, exponent in _EXPONENTS.items() if low - _ROUNDING <= exponent <= high + _ROUNDING]
    rules = f"{listed(fitting)} {'fits' if len(fitting) == 1 else 'fit'}" if fitting else "no usual rule fits"
    return [
        f"The chosen learning rates grow like a power of the batch size between {low:.2g} and {high:.2g}: {rules}. "
        "This range comes from the spacing of learning_rates alone; it does not include the randomness of the choice."
    ]
