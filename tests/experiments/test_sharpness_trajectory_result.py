import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.inspection import SharpnessTrajectoryDisplay
from tests.experiments.experiments import power_law, trajectory


def _strictly(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"JSON has {name}"))


@pytest.mark.parametrize("loss", [1.0, 0.2, 0.05, 0.003])
def test_interpolation_is_exact_for_power_laws(loss):
    values = trajectory().at_loss(loss)
    np.testing.assert_allclose(values["SB"], 10 * np.sqrt([loss, loss]))
    np.testing.assert_allclose(values["LB"], np.array([20, 80]) * np.sqrt(loss))
    ratio = trajectory().ratio("LB", loss)
    assert (ratio.value, ratio.n) == (pytest.approx(4), 2)  # the geometric mean of 2 and 8


def test_a_loss_outside_of_what_was_recorded():
    for loss in (5.0, 2.0, 1e-3):
        assert np.isnan(trajectory().at_loss(loss)["SB"]).all()


def test_a_loss_that_rises_again_counts_where_it_is_first_passed():
    records = power_law("SB", 0, 10.0, 0.5, losses=(2.0, 0.2, 0.6, 0.02)) + power_law("LB", 0, 1.0, 0.0)
    found = trajectory(records, n_trials=1)
    assert found.at_loss(0.4)["SB"][0] == pytest.approx(10 * np.sqrt(0.4))


def test_levels_are_those_that_all_regimes_passed():
    assert trajectory().levels() == pytest.approx([1, 10**-0.5, 0.1, 10**-1.5, 0.01, 10**-2.5])
    records = power_law("SB", 0, 10.0, 0.5, losses=(2.0, 0.05)) + power_law("LB", 0, 10.0, 0.5)
    assert trajectory(records, n_trials=1).levels() == pytest.approx([1, 10**-0.5, 0.1])


def test_mean_curve_is_geometric_and_at_equal_updates():
    records = power_law("SB", 0, 10.0, 0.5) + power_law("SB", 1, 40.0, 0.5)[1:]
    loss, sharpness = trajectory(records).mean_curve("SB")
    np.testing.assert_allclose(loss, [0.2, 0.02, 0.002])
    np.testing.assert_allclose(sharpness, 20 * np.sqrt(loss))


def test_printed():
    text = str(trajectory())
    lines = text.splitlines()
    assert lines[0] == "1,000 training samples, 2 paired trials, mean ± std"
    (row,) = [line for line in lines if line.startswith("0.01 ")]
    for cell in ("1 ± 0", "5 ± 4.24", "4 ["):
        assert cell in row
    assert "at a training loss of 1, sharpness of LB / SB: 4, 95 % interval [" in text
    assert "at a training loss of 0.0032, sharpness of LB / SB: 4, " in text
    assert "over 2 paired trials (seeds)" in text
    assert "is not sharper" not in text
    assert "nan" not in text


def test_warnings():
    one = trajectory(power_law("SB", 0, 10.0, 0.5) + power_law("LB", 0, 5.0, 0.5), n_trials=1)
    assert "One trial shows the curves; what another starting point would change it does not show." in one.warnings()
    assert any(sentence.startswith("LB is not sharper than SB") for sentence in one.warnings())
    apart = power_law("SB", 0, 10.0, 0.5, (9.0, 7.0)) + power_law("LB", 0, 5.0, 0.5, (2.0, 0.5))
    assert any("cannot be compared" in sentence for sentence in trajectory(apart, n_trials=1).warnings())
    stopped = trajectory(power_law("SB", 0, 10.0, 0.5), interrupted=True)
    assert "Interrupted: 1 of 4 fits had finished and are reported." in stopped.warnings()
    for found in (one, trajectory(apart, n_trials=1), stopped):
        assert "nan" not in str(found)
        _strictly(found.to_json())


@pytest.mark.parametrize("failed", [np.nan, 0.0])  # 0: the solver stopped where it started
def test_a_measurement_that_failed(failed):
    records = power_law("SB", 0, 10.0, 0.5) + power_law("LB", 0, 5.0, 0.5)
    records[2]["sharpness"] = failed
    found = trajectory(records, n_trials=1)
    sentence = "1 of 8 measurements of sharpness failed, or found no rise, and are left out."
    assert sentence in found.warnings()
    assert found.levels() == pytest.approx([1, 10**-0.5])


def test_plot():
    display = trajectory().plot(ax=Figure().subplots())
    assert isinstance(display, SharpnessTrajectoryDisplay)
    assert [line.get_label() for line in display.lines_] == ["SB", "LB"]
    np.testing.assert_allclose(display.lines_[1].get_ydata(), 40 * np.sqrt([2, 0.2, 0.02, 0.002]))
    thin = [line.get_ydata() for line in display.ax_.get_lines() if line.get_linewidth() == 0.7]
    assert len(thin) == 4
    np.testing.assert_allclose(thin[3], 80 * np.sqrt([2, 0.2, 0.02, 0.002]))
    single = trajectory(power_law("SB", 0, 1.0, 1.0), n_trials=1).plot(ax=Figure().subplots())
    assert not [line for line in single.ax_.get_lines() if line.get_linewidth() == 0.7]


def test_files():
    found = trajectory()
    content = _strictly(found.to_json())
    assert content["records"] == found.records
    assert content["ratios"][0]["LB"]["value"] == pytest.approx(4)
    pytest.importorskip("pandas")
    assert len(found.to_frame()) == 16
