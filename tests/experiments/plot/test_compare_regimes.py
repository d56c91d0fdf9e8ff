import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.experiments import RegimeComparisonDisplay
from tests.experiments.records import LB_ACCURACY, SB_ACCURACY, comparison, record


@pytest.fixture(autouse=True)
def _without_a_screen():
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def _points(ax):
    """The trials drawn as dots, by position."""
    return {int(line.get_xdata()[0]): line.get_ydata().tolist() for line in ax.get_lines() if line.get_marker() in "os"}


def _joined(ax):
    """The thin lines between regimes: one per trial, as tuples of their values."""
    return sorted(tuple(line.get_ydata()) for line in ax.get_lines() if line.get_linewidth() == 1)


def test_numbers():
    display = comparison().plot()
    assert isinstance(display, RegimeComparisonDisplay)
    assert display.labels == ["SB", "LB"]
    np.testing.assert_array_equal(display.score["LB"], LB_ACCURACY)
    assert list(display.sharpness) == ["0.001", "0.0005", "0.001, 100 dims", "0.0005, 100 dims"]
    np.testing.assert_array_equal(display.sharpness["0.001"]["LB"], [300, 301, 302])
    accuracy, sharpness = display.ax_
    assert _points(accuracy) == {0: [100 * a for a in SB_ACCURACY], 1: [100 * a for a in LB_ACCURACY]}
    assert _joined(accuracy) == sorted(zip(*_points(accuracy).values(), strict=True))
    means = [line.get_ydata()[0] for line in accuracy.get_lines() if line.get_marker() == "_"]
    assert means == pytest.approx([100 * np.mean(SB_ACCURACY), 100 * np.mean(LB_ACCURACY)])
    assert [tick.get_text() for tick in accuracy.get_xticklabels()] == ["SB", "LB"]
    assert accuracy.get_ylabel() == "test accuracy (%)"
    assert sharpness.get_ylabel() == "sharpness (%)"
    assert sharpness.get_yscale() == "log"
    assert [text.get_text() for text in sharpness.get_legend().get_texts()] == list(display.sharpness)
    assert display.figure_ is accuracy.figure


def test_sharpness_of_0_is_drawn():
    records = [record(label, t, **{"sharpness_0.001": 0.0}) for t in range(3) for label in ("SB", "LB")]
    assert comparison(records).plot().ax_[1].get_yscale() == "symlog"


def test_axes_given():
    import matplotlib.pyplot as plt

    before = len(plt.get_fignums())
    axes = Figure().subplots(1, 2)
    display = comparison().plot(axes=axes)
    assert display.ax_[0] is axes[0]
    assert display.figure_ is axes[0].figure
    assert len(plt.get_fignums()) == before


def test_without_sharpness_there_is_one_axes():
    display = comparison(epsilon=[], subspace_dims=[]).plot()
    assert len(display.ax_) == 1


def test_a_regime_without_a_finished_fit_is_left_out():
    display = comparison([record("SB", 0)], interrupted=True).plot()
    assert display.labels == ["SB"]
    assert _joined(display.ax_[0]) == []


def test_only_paired_trials_are_joined():
    records = [record("SB", 0), record("SB", 1), record("LB", 0), record("LB", 2)]
    ax = comparison(records, interrupted=True).plot().ax_[0]
    assert _joined(ax) == [(100 * SB_ACCURACY[0], 100 * LB_ACCURACY[0])]


def test_a_score_in_its_units():
    score = {"SB": np.array([-0.3, -0.2]), "LB": np.array([-0.5, -0.4])}
    display = RegimeComparisonDisplay(
        labels=["SB", "LB"], score=score, sharpness={}, name="test neg_log_loss", percent=False
    ).plot()
    assert display.ax_[0].get_ylabel() == "test neg_log_loss"
    assert _points(display.ax_[0]) == {0: [-0.3, -0.2], 1: [-0.5, -0.4]}


def test_labels_are_no_markup():
    labels = ["$a^", r"\b_$"]
    display = comparison([record(label, t) for label in labels for t in range(3)], labels, reference="$a^").plot()
    display.figure_.canvas.draw()
    assert [tick.get_text() for tick in display.ax_[0].get_xticklabels()] == [r"\$a^", r"\b_\$"]
