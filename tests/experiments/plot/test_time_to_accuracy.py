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
    lines = {line.get_label(): line for line in display.ax_.get_lines()}
    reached, never = lines["reached"], lines["never reached: above"]
    assert sorted(zip(reached.get_xdata(), reached.get_ydata(), strict=True)) == [
        (0, unit),
        (0, 2 * unit),
        (1, 3 * unit),
    ]
    assert (never.get_xdata()[0], never.get_ydata()[0], never.get_markerfacecolor()) == (1, 4 * unit, "none")
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
