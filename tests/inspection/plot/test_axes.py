"""The labels of logarithmic axes."""

import pickle

import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.inspection._plot._axes import plain_log_labels


def _labels(low, high, scale="log"):
    ax = Figure().subplots()
    ax.plot([0, 1], [low, high])
    ax.set_yscale(scale)
    ax.set_ylim(low, high)
    plain_log_labels(ax.yaxis)
    ax.figure.draw_without_rendering()
    ticks = [*ax.yaxis.get_major_ticks(), *ax.yaxis.get_minor_ticks()]
    return [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]


@pytest.mark.parametrize(("low", "high"), [(1.1, 2.1), (0.5, 3.0), (150, 270), (0.01, 500)])
def test_short_numbers_are_written_out(low, high):
    labels = _labels(low, high)
    assert len(labels) >= 2
    values = np.array([float(label) for label in labels])  # "6 x 10^-1" is no number to Python
    assert ((values >= low) & (values <= high)).all()


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1e-2), (1, 1e7)])
def test_long_numbers_keep_their_powers(low, high):
    assert all("10^" in label for label in _labels(low, high))


def test_other_scales_are_left():
    assert _labels(0, 20, "linear") == ["0.0", "2.5", "5.0", "7.5", "10.0", "12.5", "15.0", "17.5", "20.0"]


def test_a_figure_is_pickled_with_its_labels():
    ax = Figure().subplots()
    ax.plot([0, 1], [150, 270])
    ax.set_yscale("log")
    plain_log_labels(ax.yaxis)
    texts = []
    for figure in (ax.figure, pickle.loads(pickle.dumps(ax.figure))):
        figure.draw_without_rendering()
        texts.append([label.get_text() for label in figure.axes[0].get_yticklabels(which="both")])
    assert "200" in texts[0]
    assert texts[1] == texts[0]
