import matplotlib.pyplot as plt
import numpy as np
import pytest

from sklgap.experiments import ParallelModelDisplay, parallel_model

MODEL = parallel_model([32, 256, 2048], [1000, 250, np.nan])


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_the_numbers_are_the_models():
    display = MODEL.plot(efficiency=10)
    assert isinstance(display, ParallelModelDisplay)
    needed, speed_up = display.ax_
    lines = {line.get_label(): line for line in needed.get_lines()}
    np.testing.assert_allclose(lines["batches of 256"].get_ydata(), [0, 200])
    assert "batches of 2,048" not in lines  # it never got there
    line = next(line for line in speed_up.get_lines() if line.get_label() == "batches of 256")
    processors = line.get_xdata()
    assert (processors[0], processors[-1]) == (1, pytest.approx(2048))
    np.testing.assert_array_equal(line.get_ydata(), MODEL.speed_up(10, processors)[1])


def test_one_axis_without_efficiency_and_the_users_axes():
    assert len(MODEL.plot().ax_) == 1
    figure, axes = plt.subplots(1, 2)
    display = MODEL.plot(efficiency=10, axes=axes)
    assert display.figure_ is figure
    assert display.ax_[1] is axes[1]
