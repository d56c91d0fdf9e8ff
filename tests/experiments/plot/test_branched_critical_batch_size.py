import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.experiments import BranchedCriticalBatchSizeDisplay, Estimate
from tests.experiments.test_branched_critical_batch_size import BASE, FINE, WORSE, of_losses

FOUND = {
    "1": Estimate(40.0, 20.0, 80.0, 3),
    "4": Estimate(160.0, 80.0, math.inf, 3),
    "8": Estimate(20.0, -math.inf, math.inf, 1),
}
SCALES = {"1": Estimate(300.0, 200.0, 700.0, 3), "4": Estimate(math.inf, 90.0, math.inf, 3)}


def _ax():
    return Figure().subplots()


def _draw(branched=FOUND, scales=SCALES, **params):
    return BranchedCriticalBatchSizeDisplay(branched, scales, own=10, largest=160, **params).plot(ax=_ax()).ax_


def _line(ax, label):
    (line,) = [line for line in ax.get_lines() if str(line.get_label()).startswith(label)]
    return line


def test_numbers():
    ax = _draw(unit="epoch")
    assert list(_line(ax, "loses nothing").get_ydata()) == [40, 160, 20]
    assert list(_line(ax, "twice the samples").get_ydata()) == [300]  # one is infinite
    assert list(_line(ax, "batch size of the run").get_ydata()) == [10, 10]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "4", "8"]
    assert (ax.get_xlabel(), ax.get_yscale()) == ("epochs", "log")


def test_intervals():
    lines = [list(line.get_ydata()) for line in _draw().get_lines()]
    assert [20, 80] in lines
    assert [80, 160] in lines  # not bounded: up to the largest size tried, with an arrow
    assert [160] in lines
    assert [200, 700] in lines
    assert sum(len(line) == 2 for line in lines) == 4  # with that of the run; none where there is no interval


def test_without_noise_scales():
    ax = _draw(scales={})
    assert not [line for line in ax.get_lines() if "noise" in str(line.get_label())]
    assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()
    assert ax.get_xlabel() == "checkpoint"


def test_from_a_result():
    result = of_losses(dict(zip([5, 10, 20], [BASE, FINE, WORSE], strict=True)))
    display = result.plot(ax=_ax())
    assert isinstance(display, BranchedCriticalBatchSizeDisplay)
    assert display.branched == {"4": result.estimates[4]}
    assert (display.own, display.largest, display.unit) == (5, 20, "epoch")
    assert display.figure_ is display.ax_.figure


@pytest.mark.parametrize("result", [None, "result", 3])
def test_bad_result(result):
    with pytest.raises(TypeError, match="result must be a BranchedCriticalBatchSize; got"):
        BranchedCriticalBatchSizeDisplay.from_result(result)


@pytest.mark.parametrize("ax", ["left", 3, object()])
def test_bad_axes(ax):
    with pytest.raises(TypeError, match="ax must be"):
        BranchedCriticalBatchSizeDisplay(FOUND, SCALES, own=10, largest=160).plot(ax=ax)
