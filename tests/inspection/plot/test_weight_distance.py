import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap import TrainingRecorder
from sklgap.inspection import WeightDistanceDisplay, fit_diffusion, recorded
from tests.tiny import blobs, small

X, Y = blobs(60)
T = np.array([1, 2, 4, 8, 16])
CURVES = {"64": (T, 1 + 2 * np.log(T)), "6,000": (np.array([0, *T]), np.array([0, *(1 + np.log(T))]))}


def _numbers(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_lines_and_axes():
    fits = {"64": fit_diffusion(*CURVES["64"], window=(2, 8))}
    display = WeightDistanceDisplay(CURVES, fits).plot(ax=Figure().subplots())
    assert [line.get_label() for line in display.lines_] == ["64", "6,000"]
    assert _numbers(display.lines_[0]) == (T.tolist(), CURVES["64"][1].tolist())
    assert _numbers(display.lines_[1]) == (T.tolist(), (1 + np.log(T)).tolist())  # not the initial weights
    assert display.ax_.get_xscale() == "log"
    assert display.ax_.get_yscale() == "linear"
    assert display.ax_.get_xlabel() == "updates"
    assert display.ax_.get_ylabel() == "distance from the initial weights"
    (line,) = display.fit_lines_
    assert line.get_xdata().tolist() == [2, 8]  # thin, over its window
    np.testing.assert_allclose(line.get_ydata(), 1 + 2 * np.log([2, 8]))
    assert line.get_linewidth() < display.lines_[0].get_linewidth()
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["64", "6,000", "a + b log t, fitted"]
    assert display.figure_ is display.ax_.figure


def test_without_fits():
    display = WeightDistanceDisplay(CURVES).plot(ax=Figure().subplots(), color="black")
    assert display.fit_lines_ == []
    assert {line.get_color() for line in display.lines_} == {"black"}
    assert len(display.ax_.get_legend().get_texts()) == 2


def test_from_estimators_has_the_functions_numbers():
    models = {
        str(size): small(
            batch_size=size, callbacks=[("recorder", TrainingRecorder(every=None, at_updates=range(9)))]
        ).fit(X, Y)
        for size in (8, 15)
    }
    ax = Figure().subplots()
    display = WeightDistanceDisplay.from_estimators(models, window=(2, 7), ax=ax)
    assert display.ax_ is ax
    for name, model in models.items():
        columns = recorded(model)
        np.testing.assert_array_equal(display.curves[name], (columns["n_updates"], columns["weight_distance"]))
        assert display.fits[name] == fit_diffusion(columns["n_updates"], columns["weight_distance"], window=(2, 7))
        assert display.fits[name].n_points == 6
    whole = WeightDistanceDisplay.from_estimators(models, recorder="recorder", ax=Figure().subplots())
    assert whole.fits["8"].window == (1, 8)
    with pytest.raises(ValueError, match="recorder must be the name of a TrainingRecorder"):
        WeightDistanceDisplay.from_estimators({"8": small().fit(X, Y)})


def test_a_new_figure_where_no_axes_are_given():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    before = plt.get_fignums()
    display = WeightDistanceDisplay(CURVES).plot()
    assert len(plt.get_fignums()) == len(before) + 1
    plt.close(display.figure_)
