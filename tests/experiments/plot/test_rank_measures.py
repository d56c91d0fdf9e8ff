import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.experiments import MeasureRankingDisplay
from sklgap.experiments import rank_measures as rank
from sklgap.experiments._estimate import Estimate
from tests.experiments.test_rank_measures import minima


@pytest.fixture(autouse=True)
def _without_a_screen():
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def test_numbers():
    ranking = rank(minima(), measures=["noise", "flat"])
    display = ranking.plot()
    assert isinstance(display, MeasureRankingDisplay)
    ax = display.ax_
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["noise", "flat"]
    drawn = [container.lines[0].get_xdata() for container in ax.containers]
    for kind, values in zip(("plain", "granulated", "within"), drawn, strict=True):
        np.testing.assert_allclose(values, [getattr(m, kind).value for m in ranking.measures.values()])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        *("all minima", "one setting differs", "only the seed differs")
    ]
    assert "test error" in ax.get_xlabel()
    assert display.figure_ is ax.figure


def test_kinds_differ_by_colour_and_marker():
    lines = [container.lines[0] for container in rank(minima(), measures=["flat"]).plot().ax_.containers]
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 3


def test_the_zero_line_and_what_is_not_defined():
    nothing = Estimate(np.nan, np.nan, np.nan, 1)
    some = {"all minima": Estimate(0.5, 0.25, 1.0, 3), "one setting differs": nothing, "only the seed differs": nothing}
    display = MeasureRankingDisplay({"a $1": some}).plot()
    (container,) = display.ax_.containers
    (bar,) = container.lines[2]
    assert bar.get_segments()[0][:, 0].tolist() == [0.25, 1.0]
    assert any(np.allclose(line.get_xdata(), 0) for line in display.ax_.lines)
    assert display.ax_.get_yticklabels()[0].get_text() == r"a \$1"
    empty = MeasureRankingDisplay({"a": dict.fromkeys(some, nothing)}).plot()
    assert not empty.ax_.containers


def test_the_gap_and_axes_given():
    ax = Figure().subplots()
    display = rank(minima(), measures=["flat"], target="gap").plot(ax=ax)
    assert display.ax_ is ax
    assert "gap" in ax.get_xlabel()
    with pytest.raises(TypeError, match="ranking must be"):
        MeasureRankingDisplay.from_ranking("a ranking")
