"""The noise scale of steps by signs, where noise and gradient are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.monitor import BatchSizeMonitor
from sklgap.monitor._sign_geometry import sign_saving

DIM = 40


class Point(nn.Module):
    """Parameters that a row multiplies: the gradient of the mean of the outputs is the mean of the rows."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(DIM // 2, dtype=torch.float64))
        self.second = nn.Parameter(torch.zeros(DIM // 2, dtype=torch.float64))

    def forward(self, X):
        return X @ torch.cat([self.first, self.second])


def mean_output(module, batch):
    return module(batch).mean()


def problem(seed, scale=1.0):
    """Rows with a known mean and known deviations, and the noise scale of theirs."""
    rng = np.random.default_rng(seed)
    gradient = scale * rng.choice([-1.0, 1.0], DIM) * rng.uniform(0.5, 1.5, DIM)
    sigma = rng.uniform(1.0, 3.0, DIM)

    def draw(n):
        return torch.as_tensor(gradient + sigma * rng.standard_normal((n, DIM)))

    return draw, gradient, sigma


def measured(seed, n, size, scale=1.0, **options):
    draw, gradient, sigma = problem(seed, scale)
    monitor = BatchSizeMonitor(Point(), mean_output, every=1, geometry="l1", **options)
    for _ in range(n):
        monitor.step(draw(size))
    return monitor, gradient, sigma


def test_the_bounds_are_on_both_sides_of_the_norm():
    """At a signal that noise drowns, the plug-in norm is far too large, and the split one far too small."""
    monitor, gradient, sigma = measured(0, 60, 32, scale=0.1)
    state, norm = monitor.state(), np.abs(gradient).sum()
    assert state["gradient_l1_most"] > 2 * norm
    assert state["gradient_l1_least"] < 0.7 * norm
    assert state["noise_l1"] == pytest.approx(sigma.sum(), rel=0.02)


def test_both_bounds_are_right_where_signs_are_sure():
    monitor, gradient, sigma = measured(0, 20, 2000)
    state, norm = monitor.state(), np.abs(gradient).sum()
    assert state["gradient_l1_most"] == pytest.approx(norm, rel=0.02)
    assert state["gradient_l1_least"] == pytest.approx(norm, rel=0.02)
    assert state["noise_scale"] == pytest.approx((sigma.sum() / norm) ** 2, rel=0.05)


@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_coverage(scale):
    covered = []
    for seed in range(20):
        monitor, gradient, sigma = measured(seed, 16, 64, scale)
        state, known = monitor.state(), (sigma.sum() / np.abs(gradient).sum()) ** 2
        covered.append(state["noise_scale_low"] <= known <= state["noise_scale_high"])
    assert np.mean(covered) >= 0.9


def test_a_batch_by_hand():
    draw, *_ = problem(3)
    batch = draw(12)
    monitor = BatchSizeMonitor(Point(), mean_output, every=1, geometry="l1", parts=3)
    monitor.step(batch)
    g = batch.reshape(3, 4, DIM).mean(dim=1).numpy()
    variance = 4 * ((g - g.mean(axis=0)) ** 2).sum(axis=0) / 2
    unbiased = math.sqrt(math.pi) / 2  # of a root of two degrees of freedom
    a, b = (g[0] + g[2]) / 2, g[1]
    state = monitor.state()
    assert state["noise_l1"] == pytest.approx(np.sqrt(variance).sum() / unbiased, rel=1e-12)
    assert state["gradient_l1_most"] == pytest.approx(np.abs(g.mean(axis=0)).sum(), rel=1e-12)
    assert state["gradient_l1_least"] == pytest.approx((a @ np.sign(b) + b @ np.sign(a)) / 2, rel=1e-12)


def test_groups_add_up():
    monitor, *_ = measured(1, 10, 64, parameters={"one": "first", "two": "second"})
    state = monitor.state()
    for name in ("noise_l1", "gradient_l1_least", "gradient_l1_most"):
        assert state[name] == pytest.approx(state[f"{name}/one"] + state[f"{name}/two"], rel=1e-9)


def test_what_a_doubling_saves():
    assert sign_saving(1e6, 1) == pytest.approx(1 - 1 / math.sqrt(2), rel=1e-3)
    assert sign_saving(10, 40) < 0.05
    monitor, *_ = measured(0, 20, 64)
    assert "For optimisers that step by signs" in monitor.verdict()
    assert "% of the updates" in monitor.verdict()


def test_nothing_but_noise_has_no_upper_end():
    monitor, *_ = measured(2, 20, 32, scale=0.0)
    state = monitor.state()
    assert state["noise_scale_high"] == math.inf
    assert "the noise scale (the knee) is above" in monitor.verdict()
    assert not math.isnan(state["noise_scale_low"])


def test_before_the_first_measurement():
    state = BatchSizeMonitor(Point(), mean_output, geometry="l1").state()
    assert math.isnan(state["noise_scale"])
    assert math.isnan(state["gradient_l1_least"])


def test_refused():
    monitor = BatchSizeMonitor(Point(), geometry="l1")
    with pytest.raises(ValueError, match="geometry must be 'euclidean' or 'adam' for accumulate; got 'l1'"):  # noqa: SIM117 - what raises is the inner one
        with monitor.accumulate(4):
            pass
    with pytest.raises(ValueError, match="geometry must be 'euclidean', 'adam' or 'l1'; got 'l2'"):
        BatchSizeMonitor(Point(), geometry="l2")
    with pytest.raises(ValueError, match="optimizer must be given with geometry='adam'"):
        BatchSizeMonitor(Point(), geometry="l1", optimizer=torch.optim.Adam(Point().parameters()))
