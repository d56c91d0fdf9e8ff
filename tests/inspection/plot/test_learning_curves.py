import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap import TrainingRecorder
from sklgap.inspection import LearningCurvesDisplay, recorded
from tests.tiny import blobs, small

X, Y = blobs(60)
EPOCHS = np.array([1.0, 2.0])
CURVES = {
    "SB": {"epoch": EPOCHS, "train_accuracy": np.array([0.5, 1]), "test_accuracy": np.array([0.4, 0.9])},
    "LB": {"epoch": EPOCHS, "train_accuracy": np.array([0.3, 0.8]), "test_accuracy": np.array([0.2, 0.7])},
}


def _fit(size, batch_norm="batch", **kwargs):
    recorder = TrainingRecorder({"train": (X[:40], Y[:40]), "test": (X[40:], Y[40:])}, batch_norm=batch_norm, **kwargs)
    return small(batch_size=size, callbacks=[("recorder", recorder)]).fit(X[:40], Y[:40])


@pytest.fixture(scope="module")
def fitted():
    return {"SB": _fit(8), "LB": _fit(40)}


def _numbers(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_lines_and_axes():
    display = LearningCurvesDisplay(CURVES, batch_norm="batch").plot(ax=Figure().subplots())
    assert [line.get_label() for line in display.lines_] == ["SB, train", "SB, test", "LB, train", "LB, test"]
    assert [line.get_linestyle() for line in display.lines_] == ["-", "-", "--", "--"]
    widths = [line.get_linewidth() for line in display.lines_]
    assert widths[0] == widths[2] < widths[1] == widths[3]
    assert [line.get_marker() for line in display.lines_] == ["None", "o", "None", "s"]
    colours = [line.get_color() for line in display.lines_]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert _numbers(display.lines_[1]) == ([1, 2], [40, 90])
    assert _numbers(display.lines_[2]) == ([1, 2], [30, 80])
    assert display.ax_.get_xlabel() == "epoch"
    assert display.ax_.get_ylabel() == "accuracy (%), batch norm: batch"
    assert display.ax_.get_yscale() == "linear"
    assert len(display.ax_.get_legend().get_texts()) == 4
    assert display.figure_ is display.ax_.figure


def test_from_estimators_has_the_recorded_numbers(fitted):
    ax = Figure().subplots()
    display = LearningCurvesDisplay.from_estimators(fitted, ax=ax, marker="o")
    assert display.ax_ is ax
    lines = iter(display.lines_)
    for model in fitted.values():
        columns = recorded(model)
        for data in ("train", "test"):
            line = next(lines)
            assert _numbers(line) == (columns["epoch"].tolist(), (100 * columns[f"{data}_accuracy"]).tolist())
            assert line.get_marker() == "o"
    assert "batch norm: batch" in display.ax_.get_ylabel()


def test_loss_of_one_dataset(fitted):
    display = LearningCurvesDisplay.from_estimators(
        fitted, quantity="loss", datasets=("test",), recorder="recorder", ax=Figure().subplots()
    )
    assert [line.get_label() for line in display.lines_] == ["SB, test", "LB, test"]
    assert [line.get_linestyle() for line in display.lines_] == ["-", "--"]
    assert [line.get_marker() for line in display.lines_] == ["o", "s"]
    assert _numbers(display.lines_[0])[1] == recorded(fitted["SB"])["test_loss"].tolist()
    assert display.ax_.get_ylabel().startswith("mean loss")


@pytest.mark.parametrize(
    ("losses", "scale"), [([1, 0.1], "linear"), ([1, 0.01], "log"), ([1, 0], "linear"), ([np.nan, np.nan], "linear")]
)
def test_losses_over_orders_of_magnitude_are_drawn_on_a_logarithmic_scale(losses, scale):
    curves = {"SB": {"epoch": EPOCHS, "train_loss": np.array(losses, dtype=float)}}
    display = LearningCurvesDisplay(curves, quantity="loss", datasets=["train"]).plot(ax=Figure().subplots())
    assert display.ax_.get_yscale() == scale
    assert display.ax_.get_ylabel() == "mean loss"


def test_a_new_figure_where_no_axes_are_given():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    before = plt.get_fignums()
    LearningCurvesDisplay(CURVES)
    assert plt.get_fignums() == before
    display = LearningCurvesDisplay(CURVES).plot()
    assert len(plt.get_fignums()) == len(before) + 1
    plt.close(display.figure_)


def test_bad_input(fitted):
    draw = LearningCurvesDisplay.from_estimators
    with pytest.raises(ValueError, match="quantity must be 'accuracy' or 'loss'; got 'error'"):
        draw(fitted, quantity="error")
    for datasets in ("train", (), ("a", "b", "c")):
        with pytest.raises(ValueError, match="datasets must be the names of one or two datasets; got"):
            draw(fitted, datasets=datasets)
    with pytest.raises(
        ValueError, match=r"estimators\['SB'\] must have records of 'valid_accuracy', which datasets asks for; got"
    ):
        draw(fitted, datasets=("valid",))
    with pytest.raises(TypeError, match="estimators must be a dict that maps names to fitted estimators; got list"):
        draw(list(fitted.values()))
    with pytest.raises(TypeError, match="got an empty dict"):
        draw({})
    with pytest.raises(ValueError, match="recorder must be the name of a TrainingRecorder"):
        draw(fitted, recorder="other")
    with pytest.raises(ValueError, match=r"under the same batch-norm policy; got \['batch', 'running'\]"):
        draw({**fitted, "running": _fit(8, batch_norm="running")})
