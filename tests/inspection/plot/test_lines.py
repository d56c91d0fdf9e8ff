import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.inspection import LearningCurvesDisplay, SharpnessTrajectoryDisplay, WeightDistanceDisplay
from sklgap.inspection._plot._lines import draw_records, dress, spans_decades, with_policy
from sklgap.inspection._plot._style import LB, SB, other_style

X = np.array([1.0, 2.0])
CURVES = {"SB": (X, np.array([3.0, 4.0])), "LB": (X, np.array([5.0, 6.0]))}
LEARNING = {name: {"epoch": X, "train_accuracy": y / 10, "test_accuracy": y / 10} for name, (_, y) in CURVES.items()}
DISPLAYS = {
    "learning": lambda: LearningCurvesDisplay(LEARNING, datasets=("train",)),
    "distance": lambda: WeightDistanceDisplay(CURVES),
    "trajectory": lambda: SharpnessTrajectoryDisplay(CURVES),
}


@pytest.mark.parametrize("name", DISPLAYS)
def test_line_displays_look_alike(name):
    display = DISPLAYS[name]().plot(ax=Figure().subplots())
    assert [line.get_color() for line in display.lines_] == [SB, LB]
    assert [text.get_text().split(",")[0] for text in display.ax_.get_legend().get_texts()] == ["SB", "LB"]
    assert not display.ax_.get_legend().get_frame_on()
    assert any(line.get_visible() for line in display.ax_.get_ygridlines())
    assert display.figure_ is display.ax_.figure


@pytest.mark.parametrize("name", DISPLAYS)
def test_options_of_the_user_win(name):
    display = DISPLAYS[name]().plot(ax=Figure().subplots(), color="red", marker="x", linewidth=3)
    for line in display.lines_:
        assert (line.get_color(), line.get_marker(), line.get_linewidth()) == ("red", "x", 3)


def test_records_are_drawn_as_they_are():
    line = draw_records(Figure().subplots(), 3, "64", X, 2 * X, {"linestyle": ":"})
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1, 2], [2, 4])
    assert (line.get_color(), line.get_label(), line.get_linestyle()) == (
        other_style(3).color,
        "64",
        ":",
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 20], False),
        ([1, 20.1], True),
        ([0, 1, 19], False),
        ([-5, 1, 100], True),
        ([1, np.inf, np.nan], False),
        ([np.nan], False),
        ([], False),
    ],
)
def test_spans_decades(values, expected):
    assert spans_decades(np.array(values, dtype=float)) is expected
    assert spans_decades(*(np.array([value]) for value in values), np.empty(0)) is expected


def test_labels_name_the_policy_where_it_is_known():
    assert with_policy("mean loss", "batch") == "mean loss, batch norm: batch"
    assert with_policy("mean loss", None) == "mean loss"


@pytest.mark.parametrize(("grid", "vertical"), [("both", True), ("y", False)])
def test_labels_grid_and_legend(grid, vertical):
    ax = Figure().subplots()
    draw_records(ax, 0, "SB", X, X, {})
    dress(ax, "epoch", "loss", grid=grid)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert ax.get_xgridlines()[0].get_visible() is vertical
    assert ax.get_ygridlines()[0].get_visible()
    assert ax.get_legend().get_texts()[0].get_text() == "SB"
