import matplotlib.pyplot as plt
import pytest

from sklgap import time_to_accuracy
from sklgap.experiments import TimeToAccuracyDisplay


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def found():
    def history(*accuracies):
        return [{"valid_acc": a, "dur": 2.0, "n_updates": 10 * (i + 1)} for i, a in enumerate(accuracies)]

    models = {"SB": [history(0.9), history(0.1, 0.9)], "LB": [history(0.1, 0.1, 0.9), history(0.1, 0.2, 0.3, 0.4)]}
    return time_to_accuracy(models, 0.9, quantity="valid_acc")


@pytest.mark.parametrize(("cost", "unit"), [("seconds", 2), ("n_updates", 10), ("epochs", 1)])
def test_every_training_is_a_point_or_a_bound(found, cost, unit):
    display = found.plot(cost)
    assert isinstance(display, TimeToAccuracyDisplay)
    points = [(line, *point) for line in display.ax_.get_lines() for point in zip(*line.get_data(), strict=True)]
    open_ones = [point for line, *point in points if line.get_markerfacecolor() == "none"]
    assert sorted(point for line, *point in points if line.get_markerfacecolor() != "none") == [
        [0, unit],
        [0, 2 * unit],
        [1, 3 * unit],
    ]
    assert open_ones == [[1, 4 * unit]]
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["reached", "never reached: above"]
    assert "90 %" in display.ax_.get_ylabel()
    display.figure_.canvas.draw()


def test_the_users_axes(found):
    figure, ax = plt.subplots()
    display = found.plot(ax=ax)
    assert display.figure_ is figure
    assert display.ax_ is ax


def test_no_such_cost(found):
    with pytest.raises(ValueError, match=r"^cost must be one of 'seconds', 'n_updates', 'epochs'; got 'euros'\.$"):
        found.plot("euros")
