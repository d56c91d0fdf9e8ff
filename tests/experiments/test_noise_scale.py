"""A noise scale in every form in which one is given."""

import math

import pytest
import torch
from torch import nn

from sklgap.experiments import Estimate
from sklgap.experiments._noise_scale import check_noise_scale
from sklgap.inspection import gradient_noise_scale
from sklgap.monitor import BatchSizeMonitor


@pytest.fixture(scope="module")
def monitor():
    net = nn.Linear(3, 1)
    monitor = BatchSizeMonitor(net, nn.MSELoss(), every=1)
    for seed in range(9):
        X = torch.randn(32, 3, generator=torch.Generator().manual_seed(seed))
        monitor.step((X, X.sum(dim=1, keepdim=True)))
    return monitor


def test_a_monitor_and_its_state_are_the_same(monitor):
    state = monitor.state()
    found = check_noise_scale("useful", monitor)
    assert found == check_noise_scale("useful", state)
    assert (found.value, found.low, found.high, found.n) == (
        state["noise_scale"],
        state["noise_scale_low"],
        state["noise_scale_high"],
        9,
    )
    assert "monitor's window" in found.covers


def test_a_record_of_a_monitor_has_both_ends_at_least(monitor):
    logged = {name: value for name, value in monitor.state().items() if name.startswith("noise_scale")}
    found, whole = check_noise_scale("useful", logged), check_noise_scale("useful", monitor)
    assert (found.value, found.low, found.high) == (whole.value, whole.low, whole.high)
    assert found.has_interval


def test_what_gradient_noise_scale_returns():
    data = (torch.eye(3), torch.tensor([[1.0], [2.0], [3.0]]))
    exact = gradient_noise_scale((nn.Linear(3, 1), nn.MSELoss()), *data)
    found = check_noise_scale("useful", exact)
    assert (found.value, found.low, found.high) == (exact.noise_scale, exact.low, exact.high)


@pytest.mark.parametrize("value", [1, 0.5, 900.0])
def test_a_number_has_no_interval(value):
    found = check_noise_scale("useful", value)
    assert found.value == value
    assert not found.has_interval


@pytest.mark.parametrize("value", [3.0, math.inf, math.nan])
def test_an_estimate_stays_what_it_is(value):
    estimate = Estimate(value, 1.0, math.inf, 5, "new seeds")
    assert check_noise_scale("useful", estimate) is estimate


def test_a_monitor_without_a_measurement_has_no_value():
    found = check_noise_scale("useful", BatchSizeMonitor(nn.Linear(2, 1)))
    assert math.isnan(found.value)
    assert found.n == 0


@pytest.mark.parametrize(
    "value",
    [0, -1.0, math.inf, math.nan, True, None, "900", [900], {}, {"noise_scale": 3.0}, Estimate(-1.0, -2.0, 0.0, 3)],
    ids=repr,
)
def test_what_is_no_noise_scale(value):
    with pytest.raises(ValueError, match=r"^its name must be a number above 0, an Estimate above 0, what"):
        check_noise_scale("its name", value)
