import numpy as np
from matplotlib.figure import Figure

from sklgap.experiments import MinimaCensusDisplay
from tests.experiments.experiments import GROUPS, SB_SHARPNESS, census, census_record


def test_numbers():
    ax = Figure().subplots()
    display = census().plot(ax=ax)
    assert isinstance(display, MinimaCensusDisplay)
    assert list(display.groups) == GROUPS
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == [", ".join(group) for group in GROUPS]
    np.testing.assert_array_equal(lines["SB, glorot_uniform"].get_xdata(), SB_SHARPNESS)
    np.testing.assert_allclose(lines["SB, torch"].get_ydata(), [95, 96] * 3)
    colours, markers, fills = (
        [getattr(line, f"get_{what}")() for line in lines.values()] for what in ("color", "marker", "fillstyle")
    )
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert markers == ["o", "o", "s", "s"]
    assert fills[0] == fills[2] != fills[1] == fills[3]
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "sharpness (%)", "test accuracy (%)")
    assert display.ax_ is ax
    assert display.figure_ is ax.figure


def test_zeros_are_drawn_and_what_diverged_is_not():
    values = [0.0, np.nan, 1.0]
    records = [census_record("SB", "torch", i, **{"sharpness_0.001": value}) for i, value in enumerate(values)]
    display = census(records).plot(ax=Figure().subplots())
    assert display.ax_.get_xscale() == "symlog"
    assert display.groups["SB", "torch"][0].tolist() == [0.0, 1.0]


def test_names_are_no_markup():
    display = MinimaCensusDisplay({("$a_", "b^$"): (np.ones(2), np.ones(2)), ("c", "d"): (np.ones(2), np.ones(2))})
    legend = display.plot(ax=Figure().subplots()).ax_.get_legend()
    display.figure_.draw_without_rendering()
    assert [text.get_text() for text in legend.get_texts()] == [r"\$a_, b^\$", "c, d"]
