import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.experiments import GapExplanationDisplay
from sklgap.experiments._estimate import Estimate
from tests.experiments.test_explain_gap import ACCURACY, explanation


@pytest.fixture(autouse=True)
def _without_a_screen():
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def _bars(display):
    """The lower and upper ends of the bars."""
    return [tuple(sorted((bar.get_y(), bar.get_y() + bar.get_height()))) for bar in display.ax_.patches]


def test_numbers():
    display = explanation().plot()
    assert isinstance(display, GapExplanationDisplay)
    gap, a, b = 37 / 3, 7, 10 / 3
    ends = [(0, gap), (gap - a, gap), (gap - a - b, gap - a), (0, 2)]
    np.testing.assert_allclose(_bars(display), ends, atol=1e-9)
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["gap", "a", "b", "not\nexplained"]
    assert display.ax_.get_ylabel().replace("\n", " ") == "loss of test accuracy (points)"
    assert [text.get_text() for text in display.ax_.texts] == ["+12.3", "+7.0", "+3.3", "+2.0"]
    assert display.figure_ is display.ax_.figure


def test_a_part_that_is_negative_goes_up():
    display = explanation({**ACCURACY, "without a": (0.70, 0.76, 0.72)}).plot()
    (_, top), (low, high), *_ = _bars(display)
    assert low == pytest.approx(top)
    assert high == pytest.approx(top + 10)


def test_a_large_batch_that_does_not_lose():
    display = explanation({**ACCURACY, "small batch": (0.75, 0.78, 0.74)}).plot()
    assert _bars(display)[0] == pytest.approx((-7, 0))
    assert _bars(display)[-1][1] == pytest.approx(0)


@pytest.mark.parametrize("label", ["a $1 and $2^", r"\frac $x_$", "<b>"])
def test_names_are_no_markup(label):
    estimate = Estimate(0.1, 0.05, 0.15, 3)
    display = GapExplanationDisplay(estimate, [(label, estimate), ("not explained", Estimate(0.0, -np.inf, np.inf, 1))])
    display.plot().figure_.canvas.draw()
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()][1].replace("\n", " ") == label.replace(
        "$", r"\$"
    )


def test_axes_given():
    ax = Figure().subplots()
    assert explanation().plot(ax=ax).ax_ is ax
    with pytest.raises(TypeError, match="explanation must be"):
        GapExplanationDisplay.from_explanation("a gap")
