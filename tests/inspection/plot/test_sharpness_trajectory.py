import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap import TrainingRecorder
from sklgap.inspection import SharpnessTrajectoryDisplay, recorded
from tests.tiny import blobs, small

X, Y = blobs(40)
CURVES = {
    "SB": (np.array([2.0, 0.2, 0.02]), np.array([5.0, 2.0, 1.0])),
    "LB": (np.array([2.0, 0.3]), np.array([5.0, 90.0])),
}


def _numbers(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_lines_and_axes():
    display = SharpnessTrajectoryDisplay(CURVES, batch_norm="batch").plot(ax=Figure().subplots())
    assert [line.get_label() for line in display.lines_] == ["SB", "LB"]
    for line, curve in zip(display.lines_, CURVES.values(), strict=True):
        assert _numbers(line) == tuple(values.tolist() for values in curve)
    assert (display.ax_.get_xscale(), display.ax_.get_yscale()) == ("log", "log")
    assert display.ax_.get_xlabel().startswith("mean loss, batch norm: batch")
    assert display.ax_.get_ylabel() == "sharpness (%)"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["SB", "LB"]
    assert display.figure_ is display.ax_.figure
    # The end of training is marked, in the colour of its line.
    ends = [line for line in display.ax_.lines if line not in display.lines_]
    assert [_numbers(line) for line in ends] == [([0.02], [1.0]), ([0.3], [90.0])]
    assert [line.get_color() for line in ends] == [line.get_color() for line in display.lines_]


def test_from_estimators_has_the_recorded_numbers():
    counted = {"sharpness": lambda net: 1.0 + len(net.history), "other": lambda net: 7.0}
    models = {
        size: small(
            batch_size=size, callbacks=[("recorder", TrainingRecorder({"train": (X, Y), "test": (X, Y)}, counted))]
        ).fit(X, Y)
        for size in (8, 40)
    }
    ax = Figure().subplots()
    display = SharpnessTrajectoryDisplay.from_estimators(models, ax=ax, linestyle=":")
    assert display.ax_ is ax
    for line, model in zip(display.lines_, models.values(), strict=True):
        assert _numbers(line) == (recorded(model)["train_loss"].tolist(), [2, 3])
        assert line.get_linestyle() == ":"
    other = SharpnessTrajectoryDisplay.from_estimators(
        models, loss="test_loss", sharpness="other", recorder="recorder", ax=Figure().subplots()
    )
    assert _numbers(other.lines_[0]) == (recorded(models[8])["test_loss"].tolist(), [7, 7])
    with pytest.raises(
        ValueError, match=r"estimators\[8\] must have records of 'valid_loss', which loss asks for; got n_updates"
    ):
        SharpnessTrajectoryDisplay.from_estimators(models, loss="valid_loss")


def test_measurements_that_failed_leave_a_gap():
    curves = {"SB": (np.array([2.0, 0.2, 0.02]), np.array([5.0, np.nan, np.nan]))}
    display = SharpnessTrajectoryDisplay(curves).plot(ax=Figure().subplots())
    display.figure_.canvas.draw()
    assert display.ax_.get_xlabel().startswith("mean loss (")


def test_a_new_figure_where_no_axes_are_given():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    before = plt.get_fignums()
    display = SharpnessTrajectoryDisplay(CURVES).plot()
    assert len(plt.get_fignums()) == len(before) + 1
    plt.close(display.figure_)
