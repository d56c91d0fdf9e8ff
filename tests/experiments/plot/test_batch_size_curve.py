import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap import largest_safe_batch_size
from sklgap.experiments import BatchSizeCurveDisplay
from sklgap.experiments._scores import check_scoring
from tests.experiments.records import curve, scored_curve

VALID = {100: (0.96, 0.95, 0.955), 200: (0.96, 0.951, 0.954), 400: (0.90, 0.91, 0.92)}
TEST = {size: tuple(np.subtract(accuracies, 0.01)) for size, accuracies in VALID.items()}
SHARPNESS = {100: {"sharpness_0.001": 2.0}, 200: {"sharpness_0.001": 20.0}, 400: {"sharpness_0.001": 300.0}}


@pytest.fixture(autouse=True)
def _without_a_screen():
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def _lines(ax):
    return [container.lines[0] for container in ax.containers]


def test_numbers():
    c = curve(VALID, TEST, values=SHARPNESS)
    display = c.plot()
    assert isinstance(display, BatchSizeCurveDisplay)
    assert display.batch_sizes == [100, 200, 400]
    np.testing.assert_array_equal(display.score["test"], list(TEST.values()))
    np.testing.assert_array_equal(display.score["validation"], list(VALID.values()))
    np.testing.assert_array_equal(display.sharpness["sharpness 0.001 (%)"], [[2] * 3, [20] * 3, [300] * 3])
    test, validation = _lines(display.ax_)
    np.testing.assert_allclose(test.get_ydata(), [100 * np.mean(accuracies) for accuracies in TEST.values()])
    np.testing.assert_allclose(validation.get_ydata(), [100 * np.mean(accuracies) for accuracies in VALID.values()])
    (sharpness,) = _lines(display.sharpness_ax_)
    np.testing.assert_array_equal(sharpness.get_xdata(), [100, 200, 400])
    np.testing.assert_array_equal(sharpness.get_ydata(), [2, 20, 300])
    assert (display.ax_.get_xscale(), display.sharpness_ax_.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["100", "200", "400"]
    assert display.figure_ is display.ax_.figure


def test_bars_are_standard_deviations():
    ax = curve(VALID, TEST).plot().ax_
    segments = ax.containers[0].lines[2][0].get_segments()
    values = 100 * np.array(list(TEST.values()))
    expected = values.mean(axis=1)[:, None] + values.std(axis=1, ddof=1)[:, None] * [-1, 1]
    np.testing.assert_allclose([segment[:, 1] for segment in segments], expected)
    assert ax.get_legend().get_title().get_text() == "mean ± standard deviation over trials"


def test_a_single_trial_has_no_bar():
    ax = curve({size: accuracies[:1] for size, accuracies in VALID.items()}).plot().ax_
    assert "standard deviation" not in ax.get_legend().get_title().get_text()


def test_the_safe_size_is_marked():
    c = curve(VALID, TEST)
    safe = largest_safe_batch_size(c)
    display = c.plot(safe=safe)
    assert display.safe == 200
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels[-1] == "largest shown safe: 200"
    assert c.plot(safe=400).safe == 400
    assert c.plot().safe is None
    refuted = largest_safe_batch_size(c, confirm=curve({100: VALID[100], 200: VALID[400]}, first_seed=99))
    display = c.plot(safe=refuted)
    assert display.confirmed is False
    assert display.ax_.get_legend().get_texts()[-1].get_text() == "largest shown safe: 200, NOT confirmed"


def test_axes_given():
    import matplotlib.pyplot as plt

    before = len(plt.get_fignums())
    ax = Figure().subplots()
    display = curve(VALID).plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert len(plt.get_fignums()) == before


def test_without_sharpness():
    display = curve(VALID, epsilon=[], subspace_dims=[]).plot()
    assert display.sharpness_ax_ is None
    assert display.sharpness == {}


def test_sharpness_of_0_is_drawn():
    values = {200: {"sharpness_0.001": 0.0}}
    assert curve(VALID, values=values).plot().sharpness_ax_.get_yscale() == "symlog"


def test_what_had_not_finished_is_left_out():
    display = curve(VALID, skip=[(200, 0), *((400, t) for t in range(3))], interrupted=True).plot()
    np.testing.assert_array_equal(_lines(display.ax_)[0].get_xdata(), [100, 200])
    assert np.isnan(display.score["test"][2]).all()
    assert _lines(display.ax_)[0].get_ydata()[1] == pytest.approx(100 * np.mean(VALID[200][1:]))


def test_a_score_in_its_units():
    c = scored_curve(check_scoring("neg_log_loss")[0], {100: (-0.3, -0.2), 200: (-0.5, -0.4)})
    display = c.plot(safe=100)
    assert display.ax_.get_ylabel() == "neg_log_loss"
    np.testing.assert_allclose(_lines(display.ax_)[0].get_ydata(), [-0.25, -0.45])
