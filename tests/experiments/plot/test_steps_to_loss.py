import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.experiments import StepsToLossDisplay, fit_steps_to_loss
from tests.experiments.test_steps_to_loss import _measured

SIZES = [20, 100, 500, 2500]


def _ax():
    return Figure().subplots()


def _line(ax, label):
    (line,) = [line for line in ax.get_lines() if str(line.get_label()).startswith(label)]
    return line


def test_numbers():
    display = _measured().plot(ax=_ax())
    assert isinstance(display, StepsToLossDisplay)
    ax = display.ax_
    points = _line(ax, "trainings")
    assert sorted(set(points.get_xdata())) == SIZES
    assert len(points.get_ydata()) == 8
    fitted = _line(ax, "fitted")
    np.testing.assert_allclose(fitted.get_ydata(), 50 * (1 + 200 / fitted.get_xdata()), rtol=1e-3)
    assert _line(ax, "critical batch size: 200").get_xdata()[0] == pytest.approx(200, rel=1e-3)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["20", "100", "500", "2,500"]
    assert "0.25" in ax.get_ylabel()
    assert display.figure_ is ax.figure


def test_a_fit_alone_is_drawn_with_its_points():
    fit = fit_steps_to_loss([10, 100, 1000], [1050, 150, 60])
    ax = fit.plot(ax=_ax()).ax_
    assert _line(ax, "trainings").get_ydata().tolist() == [1050, 150, 60]
    assert "the training loss" in ax.get_ylabel()


@pytest.mark.parametrize("steps", [[500, 50, 5], [50, 50, 50]], ids=["in proportion", "constant"])
def test_a_critical_batch_size_beyond_those_measured_has_no_line(steps):
    ax = fit_steps_to_loss([10, 100, 1000], steps).plot(ax=_ax()).ax_
    assert not any(str(line.get_label()).startswith("critical") for line in ax.get_lines())
    assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()


def test_without_a_trade_off():
    display = StepsToLossDisplay(np.array([]), np.array([])).plot(ax=_ax())
    assert len(_line(display.ax_, "trainings").get_xdata()) == 0


@pytest.mark.parametrize("result", [None, "result", 3])
def test_bad_result(result):
    with pytest.raises(TypeError, match="result must be a StepsToLoss or a StepsTradeoff; got"):
        StepsToLossDisplay.from_result(result)


def test_bad_axes():
    with pytest.raises(TypeError, match="ax must be"):
        _measured().plot(ax="left")
