"""One look of all figures: the style of SB and LB, error bars that say what they are, legends that cover no data."""

from functools import lru_cache

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sklgap.experiments import BranchedCriticalBatchSizeDisplay, parallel_model, rank_measures, time_to_accuracy
from sklgap.inspection import (
    LearningCurvesDisplay,
    LossSurfaceDisplay,
    ParametricPlotDisplay,
    SharpnessTrajectoryDisplay,
    SpectrumDisplay,
    StabilityTrajectoryDisplay,
    WeightDistanceDisplay,
)
from sklgap.inspection._plot import _style as style
from tests.experiments.experiments import census, warm_start
from tests.experiments.plot.test_batch_size_curve import SHARPNESS, TEST, VALID
from tests.experiments.plot.test_branched_critical_batch_size import FOUND, SCALES
from tests.experiments.records import comparison, curve
from tests.experiments.searches import two
from tests.experiments.test_critical_batch_size import _result
from tests.experiments.test_explain_gap import explanation
from tests.experiments.test_rank_measures import minima
from tests.experiments.test_steps_to_loss import _measured
from tests.inspection.plot.test_learning_curves import CURVES as LEARNING
from tests.inspection.plot.test_parametric import TEST as TEST_LINE
from tests.inspection.plot.test_parametric import TRAIN as TRAIN_LINE
from tests.inspection.plot.test_spectrum import _density, _eigenvalues
from tests.inspection.plot.test_stability_trajectory import curve as stability
from tests.inspection.plot.test_surface import _surface

UPDATES = np.array([1.0, 10, 100, 1000])
GROWTH = {"SB": (UPDATES, np.array([1.0, 2, 4, 6])), "LB": (UPDATES, np.array([0.5, 1, 2, 3]))}


def report():
    from sklgap import gap_report

    return gap_report(two(train_sharpness=[[9, 8, 7, 8], [1, 2, 1, 2]]))


def times():
    def history(*accuracies):
        return [{"valid_acc": a, "dur": 2.0, "n_updates": 10 * (i + 1)} for i, a in enumerate(accuracies)]

    models = {"SB": [history(0.9), history(0.1, 0.9)], "LB": [history(0.1, 0.9), history(0.1, 0.2)]}
    return time_to_accuracy(models, 0.9, quantity="valid_acc")


# Each draws on axes that it is given; the second number is how many it needs.
DISPLAYS = {
    "learning curves": (lambda ax: LearningCurvesDisplay(LEARNING, batch_norm="batch").plot(ax), 1),
    "line": (lambda ax: ParametricPlotDisplay(TRAIN_LINE, TEST_LINE).plot(ax), 1),
    "distance": (lambda ax: WeightDistanceDisplay(GROWTH).plot(ax), 1),
    "trajectory": (lambda ax: SharpnessTrajectoryDisplay(GROWTH, batch_norm="batch").plot(ax), 1),
    "stability": (
        lambda ax: StabilityTrajectoryDisplay({"SB": [stability([0.5, 1])], "LB": [stability([1, 2], 3.0)]}).plot(ax),
        1,
    ),
    "spectrum": (
        lambda ax: SpectrumDisplay(
            {"SB": _density(), "LB": _density(2.0)}, {"SB": _eigenvalues(2.5, 2.0), "LB": _eigenvalues(3.0)}
        ).plot(ax),
        1,
    ),
    "surface": (
        lambda ax: LossSurfaceDisplay(_surface(directions=("towards", "towards")), names=("start", "SB", "LB")).plot(
            ax
        ),
        1,
    ),
    "comparison": (lambda axes: comparison().plot(axes=axes), 2),
    "curve": (lambda ax: curve(VALID, TEST, values=SHARPNESS).plot(ax, safe=200), 1),
    "warm start": (lambda axes: warm_start().plot(axes=axes), 2),
    "census": (lambda ax: census().plot(ax=ax), 1),
    "waterfall": (lambda ax: explanation().plot(ax=ax), 1),
    "search": (lambda axes: report().plot(axes=axes), 2),
    "times": (lambda ax: times().plot(ax=ax), 1),
    "steps": (lambda ax: _measured().plot(ax=ax), 1),
    "noise scale": (lambda ax: _result().plot(ax=ax), 1),
    "branches": (
        lambda ax: BranchedCriticalBatchSizeDisplay(FOUND, SCALES, own=10, largest=160, unit="epoch").plot(ax),
        1,
    ),
    "parallel": (lambda axes: parallel_model([32, 256, 2048], [1000, 250, 90]).plot(efficiency=10, axes=axes), 2),
    "ranking": (lambda ax: rank_measures(minima(), measures=["noise", "flat"]).plot(ax=ax), 1),
}


@lru_cache
def drawn(name):
    """Return the axes of a figure of 3.3 x 2.4 inches for each of them."""
    draw, n_axes = DISPLAYS[name]
    figure = Figure(figsize=(3.3 * n_axes, 2.4), layout="constrained")
    axes = figure.subplots(1, n_axes)
    draw(axes)
    axes = np.ravel(axes)
    for ax in axes:
        ax.set_title("F1 on MNIST")
    figure.draw_without_rendering()
    return axes


@pytest.mark.parametrize("name", DISPLAYS)
def test_no_legend_covers_data_or_a_title_or_leaves_a_small_figure(name):
    axes = drawn(name)
    for ax in axes:
        assert ax.get_window_extent().height > 40, "no room is left for the data"
        legend = ax.get_legend()
        if legend is None:
            continue
        place = legend.get_window_extent()
        # All data are within the axes, whose upper edge is half a point thick.
        assert place.y0 >= ax.get_window_extent().y1 - 1
        assert not place.overlaps(ax.title.get_window_extent())
        assert place.y1 <= ax.figure.bbox.y1 + 1
        assert ax.title.get_window_extent().y1 <= ax.figure.bbox.y1 + 1


@pytest.mark.parametrize("name", DISPLAYS)
def test_labels_fit_a_small_figure(name):
    for ax in drawn(name):
        box = ax.figure.bbox
        for axis in (ax.xaxis, ax.yaxis):
            if not axis.label.get_text():
                continue
            place = axis.label.get_window_extent()
            assert box.x0 - 1 <= place.x0
            assert place.x1 <= box.x1 + 1
            assert box.y0 - 1 <= place.y0
            assert place.y1 <= box.y1 + 1


@pytest.mark.parametrize("name", ["curve", "search", "branches", "ranking", "waterfall"])
def test_error_bars_say_what_they_are(name):
    (ax, *_) = drawn(name)
    legend = ax.get_legend()
    said = " ".join(text.get_text() for text in [legend.get_title(), *legend.get_texts()])
    assert "standard deviation" in said or "95 % interval" in said


@pytest.mark.parametrize("name", DISPLAYS)
def test_axes_name_what_they_show(name):
    for ax in drawn(name):
        ticks = ("".join(tick.get_text() for tick in axis.get_ticklabels()) for axis in (ax.yaxis, ax.xaxis))
        words = (text if text.strip("−0123456789.,") else "" for text in ticks)
        named = [label or text for label, text in zip((ax.get_ylabel(), ax.get_xlabel()), words, strict=True)]
        assert all(named)
        for label in named:
            if "accuracy" in label or label.startswith("sharpness"):
                assert "(%)" in label or "(points)" in label


def test_colours_differ_and_regimes_differ_without_colours():
    quantities = [style.ACCURACY, style.SHARPNESS, style.DISTANCE, style.LOSS, style.NOISE]
    colours = [style.SB, style.LB, *quantities, *(other.color for other in style._OTHERS)]
    assert len(set(colours)) == len(colours)
    for i, a in enumerate([style.SB, style.LB, *quantities]):
        for b in [style.SB, style.LB, *quantities][:i]:
            assert np.abs(np.subtract(to_rgb(a), to_rgb(b))).sum() > 0.2, (a, b)
    sb, lb = style.regime_style("SB"), style.regime_style("LB")
    assert all(one != other for one, other in zip(sb, lb, strict=True))
    marks = {(s.marker, s.linestyle) for s in [sb, lb, *style._OTHERS]}
    assert len(marks) == 2 + len(style._OTHERS)


@pytest.mark.parametrize(
    ("label", "expected"),
    [("SB", "SB"), ("LB", "LB"), ("LB augmented", "LB"), ("LB, started from SB", "LB"), ("LBFGS", None), (64, None)],
)
def test_a_name_that_begins_with_a_regime_has_its_style(label, expected):
    found = style.regime_style(label, 3)
    assert found == (style.other_style(3) if expected is None else style.regime_style(expected))


def test_every_colour_can_be_read_on_white():
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    for colour in [style.SB, style.LB, style.ACCURACY, style.SHARPNESS, style.DISTANCE, style.LOSS, style.NOISE]:
        assert 1.05 / (luminance(colour) + 0.05) >= 3, colour  # WCAG 2.1, graphical objects


@pytest.mark.parametrize("name", ["learning curves", "distance", "trajectory", "stability", "spectrum"])
def test_the_regimes_look_the_same_in_every_figure(name):
    (ax,) = drawn(name)
    for regime in ("SB", "LB"):
        lines = [line for line in ax.get_lines() if str(line.get_label()).startswith(regime)]
        expected = style.regime_style(regime)
        assert lines
        assert {line.get_color() for line in lines} == {expected.color}
        styles = {line.get_linestyle() for line in lines if "threshold" not in str(line.get_label())}
        assert styles == {expected.linestyle}


def test_every_trial_of_a_comparison_has_the_style_of_its_regime():
    for ax in drawn("comparison"):
        points = [line for line in ax.get_lines() if line.get_marker() in ("o", "s")]
        for line in points:
            expected = style.regime_style(("SB", "LB")[int(line.get_xdata()[0])])
            assert (line.get_color(), line.get_marker()) == (expected.color, expected.marker)


def test_deviations():
    values = np.array([[1.0, 3.0, np.nan], [2.0, np.nan, np.nan], [4.0, 4.0, 4.0]])
    np.testing.assert_allclose(style.deviation(values), [np.sqrt(2), np.nan, 0])


def test_a_second_legend_takes_the_place_of_the_first():
    ax = Figure(layout="constrained").subplots()
    ax.plot([1, 2], label="a")
    style.legend_above(ax)
    ax.plot([2, 1], label="b")
    style.legend_above(ax)
    assert len(ax.child_axes) == 1
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert style.legend_above(Figure().subplots()) is None


def test_figures_with_a_legend_pickle():
    import pickle

    (ax,) = drawn("trajectory")
    copy = pickle.loads(pickle.dumps(ax.figure))
    copy.draw_without_rendering()
    assert len(copy.axes) == 1
