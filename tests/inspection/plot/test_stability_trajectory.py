import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sklgap import TrainingRecorder
from sklgap.inspection import StabilityMeasurement, StabilityTrajectoryDisplay, recorded
from sklgap.inspection._plot._stability_trajectory import StabilityCurve, stability_curve
from tests.tiny import blobs, small

X, Y = blobs(40)


def curve(values, threshold=2.0, updates=None):
    values = np.asarray(values, dtype=float).reshape(len(values), -1)
    updates = np.arange(1, len(values) + 1) if updates is None else np.asarray(updates)
    return StabilityCurve(updates, values, np.full(len(values), threshold))


def drawn(curves, **options):
    return StabilityTrajectoryDisplay(curves, **options).plot(ax=Figure().subplots())


def test_one_colour_and_one_dashed_line_per_label():
    display = drawn({"SB": [curve([0.5, 1.0])], "LB": [curve([1, 2], 3.0), curve([1, 3], 3.0)]})
    assert len(display.lines_) == 3
    assert len(display.thresholds_) == 2
    assert display.lines_[1].get_color() == display.lines_[2].get_color() == display.thresholds_[1].get_color()
    np.testing.assert_array_equal(display.thresholds_[1].get_ydata(), [3, 3])
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["SB", "SB: threshold", "LB", "LB: threshold"]


def test_one_threshold_of_all_is_one_line():
    display = drawn({"SB": [curve([0.5, 1.0])], "LB": [curve([1, 2])]})
    assert [set(line.get_ydata()) for line in display.thresholds_] == [{2.0}]
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["SB", "LB", "threshold"]


def test_without_a_threshold_there_is_no_line():
    display = drawn({"SB": [curve([0.5, 1.0], np.nan)]})
    assert display.thresholds_ == []
    assert display.ax_.get_yscale() == "linear"


@pytest.mark.parametrize(("values", "scale"), [([1, 2], "linear"), ([1, 200], "log"), ([-1, 200], "linear")])
def test_the_scale_follows_the_values(values, scale):
    assert drawn({"SB": [curve(values)]}).ax_.get_yscale() == scale


@pytest.mark.parametrize(("updates", "scale"), [([1, 3], "linear"), ([1, 300], "log")])
def test_the_scale_follows_the_updates(updates, scale):
    assert drawn({"SB": [curve([1, 2], updates=updates)]}).ax_.get_xscale() == scale


def test_labels_say_what_was_measured():
    assert "preconditioned" in drawn({"SB": [curve([1, 2])]}, preconditioned=True).ax_.get_ylabel()
    label = drawn({"SB": [curve([1, 2])]}, batch_norm="running").ax_.get_ylabel()
    assert "batch norm: running" in label.replace("\n", " ")


def test_columns_without_values_are_left_out():
    columns = {
        "n_updates": np.array([0, 1, 2]),
        "s_eigenvalue": np.array([np.nan, 1.0, 2.0]),
        "s_eigenvalue_2": np.array([np.nan, 0.5, 0.6]),
        "s_threshold": np.array([np.nan, 4.0, 4.0]),
    }
    found = stability_curve(columns, "s_")
    np.testing.assert_array_equal(found.n_updates, [1, 2])
    np.testing.assert_array_equal(found.eigenvalues, [[1.0, 0.5], [2.0, 0.6]])


def test_from_estimators_draws_what_was_recorded():
    recorder = TrainingRecorder(measurements={"edge": StabilityMeasurement(X, Y)})
    model = small(optimizer=torch.optim.SGD, callbacks=[("recorder", recorder)]).fit(X, Y)
    display = StabilityTrajectoryDisplay.from_estimators({"one": model}, name="edge", ax=Figure().subplots())
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), recorded(model)["edge_eigenvalue"])
    with pytest.raises(ValueError, match="name"):
        StabilityTrajectoryDisplay.from_estimators({"one": model}, ax=Figure().subplots())
