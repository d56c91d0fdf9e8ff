import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap import WarmStartDisplay
from tests.experiments.experiments import WARM, warm_record, warm_start


def _axes(n=2):
    return Figure().subplots(1, n, squeeze=False)[0]


def _line(ax, label):
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return line.get_ydata()


def test_numbers():
    display = warm_start().plot(axes=_axes())
    assert isinstance(display, WarmStartDisplay)
    accuracy, sharpness = display.ax_
    large, small, sharp = (np.array(table) for table in WARM.values())
    np.testing.assert_allclose(_line(accuracy, "LB, started from SB"), 100 * large.mean(axis=0))
    np.testing.assert_allclose(_line(accuracy, "SB"), [np.nan, *100 * small.mean(axis=0)[1:]])
    np.testing.assert_allclose(_line(sharpness, "0.001"), np.exp(np.log(sharp).mean(axis=0)))
    assert accuracy.get_ylabel() == "test accuracy (%)"
    dots = [line.get_ydata().tolist() for line in sharpness.get_lines() if line.get_marker() == "."]
    assert dots == sharp.tolist()
    assert sharpness.get_yscale() == "log"
    assert accuracy.get_xlabel().replace("\n", " ") == "small-batch epochs before (0: from scratch)"
    assert display.figure_ is accuracy.figure


def test_sharpness_of_0_is_drawn():
    records = [warm_record(t, e, **{"sharpness_0.001": 0.0 if e else 1.0}) for t in (0, 1) for e in (0, 5, 10)]
    ax = warm_start(records).plot(axes=_axes()).ax_[1]
    assert ax.get_yscale() == "symlog"
    assert _line(ax, "0.001").tolist() == [1, 0, 0]


def test_without_sharpness_and_with_missing_fits():
    display = warm_start([warm_record(0, 0), warm_record(1, 5)], epsilon=[]).plot(axes=_axes(1))
    assert len(display.ax_) == 1
    assert _line(display.ax_[0], "LB, started from SB") == pytest.approx([90, 91, np.nan], nan_ok=True)


def test_a_score_in_its_own_units():
    display = WarmStartDisplay(
        small_epochs=np.array([0, 5]),
        score={"SB": np.array([[0.1], [0.7]]), "LB": np.array([[0.5], [0.6]])},
        sharpness={},
        name="test f1",
        percent=False,
    ).plot(axes=_axes(1))
    assert display.ax_[0].get_ylabel() == "test f1"
    assert _line(display.ax_[0], "LB").tolist() == [0.5, 0.6]


def test_nothing_but_the_small_batch_had_finished():
    small_records = [{"trial": 0, "seed": 1, "small_epochs": e, "small_test_accuracy": 0.9} for e in (0, 5)]
    display = warm_start([], interrupted=True, small_records=small_records).plot(axes=_axes())
    assert len(display.ax_) == 2
    assert _line(display.ax_[0], "SB") == pytest.approx([np.nan, 90, np.nan], nan_ok=True)


@pytest.mark.parametrize("value", [100.0, 7.3])
def test_a_single_point(value):
    display = warm_start([warm_record(0, 0, **{"sharpness_0.001": value})], interrupted=True).plot(axes=_axes())
    assert _line(display.ax_[1], "0.001")[0] == value
