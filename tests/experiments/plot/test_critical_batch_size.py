import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.experiments import CriticalBatchSizeDisplay
from tests.experiments.test_critical_batch_size import _result


def _ax():
    return Figure().subplots()


def _lines(ax, label):
    return [line for line in ax.get_lines() if str(line.get_label()).startswith(label)]


def test_numbers():
    result = _result()
    display = result.plot(ax=_ax())
    assert isinstance(display, CriticalBatchSizeDisplay)
    ax = display.ax_
    (curve,) = _lines(ax, "noise scale")
    assert (curve.get_xdata().tolist(), curve.get_ydata().tolist()) == ([100], [100])  # 0 updates: lost in noise
    (size,) = _lines(ax, "critical batch size")
    assert size.get_ydata()[0] == result.critical_batch_size
    (end,) = _lines(ax, "end of training")
    assert end.get_xdata()[0] == 100
    assert (ax.get_xscale(), ax.get_yscale()) == ("symlog", "log")
    assert display.figure_ is ax.figure


def test_the_target_is_named():
    assert len(_lines(_result(target_loss=0.3).plot(ax=_ax()).ax_, "loss of 0.3")) == 1


def test_a_size_that_is_infinite_has_no_line():
    ax = _result(steps=(-1.0, -2.0)).plot(ax=_ax()).ax_
    assert not _lines(ax, "critical batch size")
    assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()


def test_one_trial_has_no_band():
    assert len(_result(steps=(10.0,), examples=(1000.0,)).plot(ax=_ax()).ax_.patches) == 0
    assert len(_result().plot(ax=_ax()).ax_.patches) == 1


@pytest.mark.parametrize("result", [None, "result", 3])
def test_bad_result(result):
    with pytest.raises(TypeError, match="result must be a CriticalBatchSize; got"):
        CriticalBatchSizeDisplay.from_result(result)


def test_bad_axes():
    with pytest.raises(TypeError, match="ax must be"):
        _result().plot(ax="left")
