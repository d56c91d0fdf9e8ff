import matplotlib.pyplot as plt
import numpy as np
import pytest

from sklgap import gap_report
from sklgap.experiments import GapReportDisplay
from tests.experiments.searches import TEST, TRAIN, grid, two

SHARP = {"train_sharpness": [[9, 8, 7, 8], [1, 2, 1, 2]]}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def heights(ax, name):
    (container,) = [own for own in ax.containers if own.get_label() == name]
    return container.lines[0].get_ydata()


def test_the_numbers_are_those_of_the_report():
    display = gap_report(two(**SHARP)).plot()
    assert isinstance(display, GapReportDisplay)
    score, sharpness = display.ax_
    for part, values in (("train", TRAIN), ("test", TEST)):
        np.testing.assert_allclose(heights(score, part), [100 * np.mean(values["256"]), 100 * np.mean(values["32"])])
    np.testing.assert_allclose(heights(sharpness, "sharpness"), [8, 1.5])
    assert score.get_ylabel() == "accuracy (%)"
    assert [label.get_text() for label in score.get_xticklabels()] == ["batch_size=256", "batch_size=32"]
    assert sharpness.get_yscale() == "log"


def test_one_axis_without_sharpness_and_the_users_axes():
    assert len(gap_report(two()).plot().ax_) == 1
    figure, axes = plt.subplots(1, 2)
    display = gap_report(two(**SHARP)).plot(axes=axes)
    assert display.figure_ is figure
    assert display.ax_[1] is axes[1]


def test_a_score_in_its_own_units():
    ax = gap_report(grid([1, 2])).plot().ax_[0]
    assert ax.get_ylabel() == "score"
    np.testing.assert_allclose(heights(ax, "test"), [0.9, 0.9])


@pytest.mark.parametrize("values", [[[0, 0, 0, 0], [1, 2, 1, 2]], [[np.nan] * 4, [1, 2, 1, 2]]], ids=["zero", "nan"])
def test_sharpness_without_a_logarithm(values):
    display = gap_report(two(train_sharpness=values)).plot()
    assert display.ax_[1].get_yscale() == ("symlog" if values[0][0] == 0 else "log")
    display.figure_.canvas.draw()


def test_many_candidates_have_no_names():
    display = gap_report(grid(range(1, 101))).plot()
    assert display.ax_[0].get_xlabel() == "candidate"
    display.figure_.canvas.draw()
