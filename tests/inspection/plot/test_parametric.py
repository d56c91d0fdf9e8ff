import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.inspection import LossCurve, ParametricPlotDisplay, loss_along_arc, loss_along_line
from tests.fresh import call
from tests.tiny import blobs, small

ALPHAS = np.array([-1.0, 0.0, 1.0, 2.0])


def _curve(loss, accuracy, **kwargs):
    return LossCurve(ALPHAS, np.array(loss), np.array(accuracy), **{"batch_norm": "batch", "n_samples": 7, **kwargs})


TRAIN = _curve([0.4, 0.1, 0.2, 0.5], [0.8, 1.0, 0.9, 0.7])
TEST = _curve([0.5, 0.3, 0.4, 0.6], [0.7, 0.9, 0.8, 0.6])


@pytest.fixture(autouse=True)
def _without_a_screen():
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    plt.close("all")  # what other tests have left open
    before = plt.get_fignums()
    yield
    plt.close("all")
    plt.switch_backend(backend)
    assert plt.get_fignums() == before


def _numbers(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_lines_and_axes():
    display = ParametricPlotDisplay(TRAIN, TEST).plot()
    loss_train, loss_test, accuracy_train, accuracy_test = display.lines_
    assert [line.get_label() for line in display.lines_] == [
        "loss, train",
        "loss, test",
        "accuracy, train",
        "accuracy, test",
    ]
    for line, curve, quantity, scale in (
        (loss_train, TRAIN, "loss", 1),
        (loss_test, TEST, "loss", 1),
        (accuracy_train, TRAIN, "accuracy", 100),
        (accuracy_test, TEST, "accuracy", 100),
    ):
        assert _numbers(line) == (ALPHAS.tolist(), (scale * getattr(curve, quantity)).tolist())
    # Keskar et al., Figure 3: train solid, test dashed; loss on the left axis, accuracy on the right.
    assert [line.get_linestyle() for line in display.lines_] == ["-", "--", "-", "--"]
    assert [line.axes for line in display.lines_] == [display.ax_] * 2 + [display.accuracy_ax_] * 2
    assert loss_train.get_color() == loss_test.get_color() != accuracy_train.get_color()
    assert display.accuracy_ax_.get_shared_x_axes().joined(display.ax_, display.accuracy_ax_)
    assert display.accuracy_ax_.yaxis.get_label_position() == "right"
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_xlabel() == "alpha along the line (0 = SB, 1 = LB)"
    assert "loss" in display.ax_.get_ylabel()
    assert "batch" in display.ax_.get_ylabel()
    assert display.accuracy_ax_.get_ylabel() == "accuracy (%)"
    assert len(display.ax_.get_legend().get_texts()) == 4


def test_without_test_data_and_with_other_names():
    display = ParametricPlotDisplay(TRAIN, names=("small", "large")).plot()
    assert [line.get_label() for line in display.lines_] == ["loss, train", "accuracy, train"]
    assert display.ax_.get_xlabel() == "alpha along the line (0 = small, 1 = large)"


@pytest.mark.parametrize(("lowest", "scale"), [(0.1, "linear"), (1e-4, "log"), (0.0, "linear")])
def test_losses_over_orders_of_magnitude_are_drawn_on_a_logarithmic_scale(lowest, scale):
    display = ParametricPlotDisplay(_curve([0.4, lowest, 0.2, 0.5], [1, 1, 1, 1])).plot()
    assert display.ax_.get_yscale() == scale


def test_axes_given_and_keywords_pass_through():
    ax = Figure().subplots()
    display = ParametricPlotDisplay(TRAIN, TEST).plot(ax=ax, linewidth=3.5, marker="o")
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert {line.get_linewidth() for line in display.lines_} == {3.5}
    assert {line.get_marker() for line in display.lines_} == {"o"}
    black = ParametricPlotDisplay(TRAIN, TEST).plot(ax=Figure().subplots(), color="black")
    assert {line.get_color() for line in black.lines_} == {"black"}


def test_one_figure_and_none_for_axes_given():
    import matplotlib.pyplot as plt

    before = len(plt.get_fignums())
    ParametricPlotDisplay(TRAIN).plot(ax=Figure().subplots())
    ParametricPlotDisplay(TRAIN)
    assert len(plt.get_fignums()) == before
    ParametricPlotDisplay(TRAIN).plot()
    assert len(plt.get_fignums()) == before + 1


def test_the_arc_is_called_so():
    display = ParametricPlotDisplay(_curve([0.4, 0.1, 0.2, 0.5], [1, 1, 1, 1], path="arc")).plot()
    assert display.ax_.get_xlabel() == "alpha along the arc (0 = SB, 1 = LB)"


@pytest.mark.parametrize("path", ["line", "arc"])
def test_from_estimators_has_the_functions_numbers(path):
    along = {"line": loss_along_line, "arc": loss_along_arc}[path]
    X, y = blobs(60)
    sb, lb = (small(batch_regime=size).fit(X[:40], y[:40]) for size in (10, 40))
    ax, options = Figure().subplots(), {"alphas": [-0.5, 0, 1], "batch_norm": "population"}
    display = ParametricPlotDisplay.from_estimators(
        sb, lb, X[:40], y[:40], X[40:], y[40:], names=("a", "b"), path=path, ax=ax, **options
    )
    for curve, rows in ((display.train, slice(40)), (display.test, slice(40, None))):
        expected = along(sb, lb, X[rows], y[rows], **options)
        np.testing.assert_array_equal(curve.loss, expected.loss)
        np.testing.assert_array_equal(curve.accuracy, expected.accuracy)
    assert (display.ax_, display.names) == (ax, ("a", "b"))
    assert _numbers(display.lines_[0])[1] == display.train.loss.tolist()
    only_train = ParametricPlotDisplay.from_estimators(sb, lb, X[:40], y[:40], ax=Figure().subplots(), alphas=[0])
    assert only_train.test is None
    assert only_train.train.path == "line"


@pytest.mark.parametrize("path", ["curve", None])
def test_bad_paths(path):
    with pytest.raises(ValueError, match=f"path must be one of 'line', 'arc'; got {path!r}"):
        ParametricPlotDisplay.from_estimators(None, None, None, None, path=path)


def test_matplotlib_is_imported_in_plot_only():
    code = (
        "import sys, sklgap, sklgap.inspection, sklgap.experiments\n"
        "assert not {'matplotlib', 'mpl_toolkits'} & set(sys.modules)\n"
        "sys.modules['matplotlib'] = None\n"
        "for display in (sklgap.inspection.ParametricPlotDisplay, sklgap.inspection.LossSurfaceDisplay):\n"
        "    try:\n"
        "        display(None).plot()\n"
        "    except ImportError as error:\n"
        "        assert f'{display.__name__}.plot requires matplotlib' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError('no ImportError')\n"
    )
    call(exec, code, {})
