import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.inspection import gradient_noise_scale
from sklgap.monitor import BatchSizeMonitor, BatchSizeSampler, _clock, check_accumulation
from sklgap.monitor._window import noise_scale_of

DIM, SIGMA = 4, 0.5


def half_square(y_pred, y):
    return (y_pred - y).square().mean() / 2


def regression(seed=0, distance=1.0):
    """A linear model at a known distance from the truth, and a function that draws batches.

    With x of unit covariance the gradient of a row is x (x d + e): its mean is d, and its summed variance
    (DIM + 1) |d|^2 + SIGMA^2 DIM.
    """
    net = nn.Linear(DIM, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight.fill_(distance / DIM**0.5)
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        X = torch.randn(n, DIM, generator=generator, dtype=torch.float64)
        return X, SIGMA * torch.randn(n, 1, generator=generator, dtype=torch.float64)

    return net, draw


TRACE = (DIM + 1) + SIGMA**2 * DIM


def logistic(seed=0):
    """A logistic model at 0, data that follow the weights 2 u: a gradient is (1 / 2 - y) x, for a unit vector u."""
    net = nn.Linear(DIM, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(net.weight)
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        X = torch.randn(n, DIM, generator=generator, dtype=torch.float64)
        p = torch.sigmoid(2 * X.sum(dim=1, keepdim=True) / DIM**0.5)
        return X, torch.bernoulli(p, generator=generator)

    return net, draw


def logistic_noise_scale():
    """E|g|^2 is E|x|^2 / 4, as (1 / 2 - y)^2 is 1 / 4; E g is u E[(1 / 2 - sigmoid(2 z)) z] with normal z."""
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    mean = weights @ ((0.5 - 1 / (1 + np.exp(-2 * z))) * z) / weights.sum()
    return (DIM / 4 - mean**2) / mean**2


PROBLEMS = {
    "linear": (regression, half_square, TRACE),  # |E g| is 1
    "logistic": (logistic, nn.BCEWithLogitsLoss(), logistic_noise_scale()),
}


def accumulated(monitor, net, batch, sizes, total=None, loss=half_square):
    net.zero_grad()
    X, y = batch
    for rows in torch.arange(len(y)).split(sizes):
        with monitor.accumulate(len(rows)):
            (loss(net(X[rows]), y[rows]) * len(rows) / (total or len(y))).backward()
    monitor.step()


# -- known answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["parts", "accumulation"])
def test_the_estimates_have_no_bias(way):
    net, draw = regression()
    monitor = BatchSizeMonitor(net, half_square, every=1, window=144)
    for _ in range(144):
        if way == "parts":
            monitor.step(draw(64))
        else:
            accumulated(monitor, net, draw(60), [8, 8, 8, 12, 12, 12])
    state = monitor.state()
    errors = np.array([rows[0] for _, rows in monitor._records]).std(axis=0) / 12
    assert abs(state["trace"] - TRACE) < 3.5 * errors[0]
    assert abs(state["squared_gradient_norm"] - 1) < 3.5 * errors[1]
    assert state["noise_scale"] == pytest.approx(TRACE, rel=0.15)


def test_a_batch_by_hand():
    net, draw = regression()
    X, y = draw(7)
    monitor = BatchSizeMonitor(net, half_square, every=1, parts=3)
    monitor.step((X, y))
    sizes = [2, 3, 2]
    gradients = []
    for rows in torch.arange(7).split(sizes):
        gradients.append(torch.autograd.grad(half_square(net(X[rows]), y[rows]), net.weight)[0].flatten().numpy())
    g = np.average(gradients, axis=0, weights=sizes)
    trace = sum(n * np.sum((a - g) ** 2) for n, a in zip(sizes, gradients, strict=True)) / 2
    assert monitor.state()["trace"] == pytest.approx(trace, rel=1e-12)
    assert monitor.state()["squared_gradient_norm"] == pytest.approx(g @ g - trace / 7, rel=1e-12)


@pytest.mark.parametrize("scaled", [1.0, 8.0])
def test_accumulation_measures_what_parts_measure(scaled):
    net, draw = regression()
    parts = BatchSizeMonitor(net, half_square, every=1, parts=4)
    micro = BatchSizeMonitor(net)
    for _ in range(10):
        batch = draw(32)
        parts.step(batch)
        accumulated(micro, net, batch, [8] * 4, total=32 / scaled)  # a loss that is not divided has the same ratio
    for name in ("noise_scale", "noise_scale_low", "noise_scale_high", "n_measurements", "batch_size"):
        assert micro.state()[name] == pytest.approx(parts.state()[name], rel=1e-9)
    assert micro.state()["trace"] == pytest.approx(parts.state()["trace"] * scaled**2, rel=1e-9)


def measured(problem, way, seed, n_measured):
    """What a monitor finds at one point, over so many batches of 32."""
    make, loss, _ = PROBLEMS[problem]
    net, draw = make(seed)
    monitor = BatchSizeMonitor(net, loss, every=1, window=n_measured)
    for _ in range(n_measured):
        if way == "parts":
            monitor.step(draw(32))
        else:
            accumulated(monitor, net, draw(32), [4] * 8, loss=loss)
    return monitor.state()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    ("way", "n_runs"),
    [
        ("parts", 20),
        pytest.param("parts", 100, marks=pytest.mark.slow),
        pytest.param("accumulation", 100, marks=pytest.mark.slow),
    ],
)
def test_coverage(problem, way, n_runs):
    known = PROBLEMS[problem][2]
    states = [measured(problem, way, seed, 40 if n_runs > 20 else 16) for seed in range(n_runs)]
    covered = [state["noise_scale_low"] <= known <= state["noise_scale_high"] for state in states]
    assert np.mean(covered) >= 0.9
    if n_runs > 20:  # and the sums of all runs have no bias
        trace, square = (np.array([state[k] for state in states]) for k in ("trace", "squared_gradient_norm"))
        assert abs((trace - known * square).mean()) < 3.5 * (trace - known * square).std() / n_runs**0.5


@pytest.mark.parametrize(("memory", "n"), [(0.0, 20), (0.0, 100), (0.7, 100)])
def test_coverage_of_the_ratio(memory, n):
    """Measurements that remember each other, drawn as pairs without a module."""
    rng = np.random.default_rng(0)
    covered, effective = [], []
    for _ in range(300):
        shocks = rng.standard_normal((n, 2)) * [0.6, 0.5]
        series = np.empty_like(shocks)
        series[0] = shocks[0]
        for i in range(1, n):
            series[i] = memory * series[i - 1] + (1 - memory**2) ** 0.5 * shocks[i]
        found = noise_scale_of(series + [3.0, 1.0])
        covered.append(found["noise_scale_low"] <= 3 <= found["noise_scale_high"])
        effective.append(found["n_effective"])
    assert np.mean(covered) >= 0.9
    if memory:  # (1 - memory) / (1 + memory) of them are independent
        assert np.median(effective) < 0.45 * n


def test_it_agrees_with_the_noise_scale_at_the_same_point():
    torch.manual_seed(0)
    X, y = torch.randn(2000, 5, dtype=torch.float64), torch.randint(3, (2000,))
    net, loss = nn.Linear(5, 3, dtype=torch.float64), nn.CrossEntropyLoss()
    exact = gradient_noise_scale((net, loss), X, y)
    monitor = BatchSizeMonitor(net, loss, every=1)
    for rows in torch.randint(2000, (100, 64)):
        monitor.step((X[rows], y[rows]))
    state = monitor.state()
    assert state["noise_scale_low"] <= exact.noise_scale <= state["noise_scale_high"]
    assert state["noise_scale_high"] < 4 * state["noise_scale_low"]


def test_without_signal_there_is_no_upper_end():
    net, draw = regression(distance=0.0)
    monitor = BatchSizeMonitor(net, half_square, every=1)
    for _ in range(40):
        monitor.step(draw(32))
    assert monitor.state()["noise_scale_high"] == float("inf")
    assert monitor.state()["noise_scale_low"] > 10
    assert "Measure longer to find its upper end" in monitor.verdict()


def test_few_measurements_have_no_interval():
    net, draw = regression()
    monitor = BatchSizeMonitor(net, half_square, every=1)
    assert np.isnan(monitor.state()["noise_scale"])
    assert monitor.verdict().startswith("Nothing has been measured yet")
    for _ in range(7):
        monitor.step(draw(32))
    assert (monitor.state()["noise_scale_low"], monitor.state()["noise_scale_high"]) == (0, float("inf"))
    monitor.step(draw(32))
    assert monitor.state()["noise_scale_low"] > 0


# -- groups, geometry, forms of the loss ----------------------------------------------------------------------------


def test_groups_add_up():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    batch = torch.randn(32, 3, dtype=torch.float64), torch.randn(32, 1, dtype=torch.float64)
    grouped = BatchSizeMonitor(net, half_square, every=1, parameters={"first": "0.*", "last": ["2.*"]})
    whole, first = (BatchSizeMonitor(net, half_square, every=1, parameters=p) for p in (None, "0.*"))
    for monitor in (grouped, whole, first):
        monitor.step(batch)
    state = grouped.state()
    for name in ("trace", "squared_gradient_norm"):
        assert state[name] == pytest.approx(whole.state()[name])
        assert state[name] == pytest.approx(state[f"{name}/first"] + state[f"{name}/last"])
        assert state[f"{name}/first"] == pytest.approx(first.state()[name])
    assert all(isinstance(value, int | float) for value in state.values())


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_geometry_of_adam(amsgrad):
    net, draw = regression()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, amsgrad=amsgrad)
    monitor = BatchSizeMonitor(net, half_square, every=1, parts=2, geometry="adam", optimizer=optimizer)
    X, y = draw(16)
    monitor.step((X, y))
    assert (monitor.n_measurements, monitor.n_skipped) == (0, 1)  # there is no v before the first update
    for _ in range(3):
        half_square(net(X), y).backward()
        optimizer.step()
    v = optimizer.state[net.weight]["max_exp_avg_sq" if amsgrad else "exp_avg_sq"] / (1 - 0.999**3)
    monitor.step((X, y))
    halves = [torch.autograd.grad(half_square(net(X[i]), y[i]), net.weight)[0] for i in (slice(8), slice(8, 16))]
    weight = 1 / (v.sqrt() + 1e-8)
    mean = (halves[0] + halves[1]) / 2
    trace = float(sum(8 * ((h - mean) ** 2 * weight).sum() for h in halves))
    assert monitor.state()["trace"] == pytest.approx(trace)
    assert monitor.state()["squared_gradient_norm"] == pytest.approx(float((mean**2 * weight).sum()) - trace / 16)
    assert "Measured in the geometry of Adam" in monitor.verdict()


def test_a_loss_of_the_whole_batch_with_its_weight():
    net, draw = regression()
    X, y = draw(24)
    mask = torch.arange(24) % 3 != 0

    def masked(model, batch):
        error = (model(batch["X"]) - batch["y"])[batch["mask"]]
        return error.square().mean() / 2, int(batch["mask"].sum())

    monitor = BatchSizeMonitor(net, masked, every=1, parts=4)
    monitor.step({"X": X, "y": y, "mask": mask})
    plain = BatchSizeMonitor(net, half_square, every=1, parts=4)
    plain.step((X[mask], y[mask]))
    assert monitor.state()["trace"] == pytest.approx(plain.state()["trace"])


def test_frozen_parameters_do_not_count():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)).double()
    net[0].requires_grad_(False)
    batch = torch.randn(32, 3, dtype=torch.float64), torch.randn(32, 1, dtype=torch.float64)
    monitor = BatchSizeMonitor(net, half_square, every=1)
    monitor.step(batch)
    only = BatchSizeMonitor(net, half_square, every=1, parameters="1.*")
    only.step(batch)
    assert monitor.state()["trace"] == only.state()["trace"]


# -- training is as it was ------------------------------------------------------------------------------------------


def _train(way):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    loss, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=0.01)
    monitor = BatchSizeMonitor(net, loss, every=2, parts=4)
    seen = []
    for _ in range(8):
        X, y = torch.randn(32, 6), torch.randint(3, (32,))
        optimizer.zero_grad()
        if way == "before backward":
            value = loss(net(X), y)
            monitor.step((X, y))
            value.backward()
        elif way == "accumulate":
            for rows in torch.arange(32).split(8):
                with monitor.accumulate(8):
                    (loss(net(X[rows]), y[rows]) / 4).backward()
            monitor.step()
        else:
            for rows in torch.arange(32).split(8 if way == "plain accumulation" else 32):
                (loss(net(X[rows]), y[rows]) * len(rows) / 32).backward()
        if way == "after backward":
            monitor.step((X, y))
        seen.append([p.grad.clone() for p in net.parameters()])
        optimizer.step()
        if way == "after the update":
            monitor.step((X, y))
    tensors = [*itertools.chain(*seen), *net.state_dict().values(), torch.get_rng_state()]
    state = [t for s in optimizer.state.values() for t in s.values()]
    return tensors + state, net.training, monitor.n_measurements


@pytest.mark.parametrize(
    ("way", "plain"),
    [
        ("after backward", "plain"),
        ("before backward", "plain"),
        ("after the update", "plain"),
        ("accumulate", "plain accumulation"),
    ],
)
def test_training_is_bit_for_bit_the_same(way, plain):
    measured, mode, n = _train(way)
    expected, _, none = _train(plain)
    assert (mode, n, none) == (True, 4, 0)
    assert all(torch.equal(a, b) for a, b in zip(measured, expected, strict=True))


def test_buffers_are_the_same_tensors_afterwards_even_if_the_loss_fails():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    buffers, values = list(net.buffers()), copy.deepcopy(net.state_dict())

    def fails(module, batch):
        module(batch[0])
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        BatchSizeMonitor(net, fails, every=1, parts=2).step((torch.randn(8, 2), torch.randn(8, 1)))
    assert all(a is b for a, b in zip(net.buffers(), buffers, strict=True))
    assert all(torch.equal(values[name], tensor) for name, tensor in net.state_dict().items())


def test_a_compiled_module_is_measured_as_it_is():
    net, draw = regression()
    batch = draw(32)
    results = []
    for module in (net, torch.compile(net, backend="eager")):
        monitor = BatchSizeMonitor(module, half_square, every=1)
        monitor.step(batch)
        results.append(monitor.state()["trace"])
    assert results[0] == results[1]


def test_no_graph_mode_is_needed():
    net, draw = regression()
    monitor = BatchSizeMonitor(net, half_square, every=1)
    with torch.no_grad():
        monitor.step(draw(32))
    assert monitor.n_measurements == 1


@pytest.mark.parametrize("way", ["parts", "accumulation"])
def test_a_gradient_scaler_is_taken_out(way):
    net, draw = regression()
    batch = draw(32)
    plain = BatchSizeMonitor(net, half_square, every=1, parts=4)
    plain.step(batch)
    scaled = BatchSizeMonitor(net, half_square, every=1, parts=4, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    if way == "parts":
        scaled.step(batch)
    else:
        accumulated(scaled, net, batch, [8] * 4, total=32 / 1024)
    for name in ("trace", "squared_gradient_norm"):
        assert scaled.state()[name] == pytest.approx(plain.state()[name])


def test_an_overflow_under_a_scaler_is_left_out():
    net, draw = regression()
    monitor = BatchSizeMonitor(
        net.float(),
        lambda a, b: half_square(a, b.float()),
        every=1,
        scaler=torch.amp.GradScaler("cpu", init_scale=1e38),
    )
    X, y = draw(32)
    monitor.step((X.float() * 1e3, y))
    assert (monitor.n_measurements, monitor.n_skipped) == (0, 1)


# -- how often ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "n"), [(1, 9), (2, 5), (4, 3)])
def test_every(every, n):
    net, draw = regression()
    monitor, micro = (BatchSizeMonitor(net, half_square, every=every) for _ in range(2))
    for _ in range(9):
        monitor.step(draw(32))
        accumulated(micro, net, draw(32), [16, 16])
    assert monitor.n_measurements == micro.n_measurements == n


@pytest.mark.parametrize(("cost", "share"), [(1.0, 0.03), (4.0, 0.1), (0.1, 0.5)])
def test_the_overhead_stays_below_its_bound(monkeypatch, cost, share):
    now, spent = [0.0], [0.0]
    monkeypatch.setattr(_clock.time, "perf_counter", lambda: now[0])
    net, draw = regression()
    monitor = BatchSizeMonitor(net, half_square, max_overhead=share)

    def measure(batch):
        now[0] += cost
        spent[0] += cost
        monitor.n_measurements += 1

    monkeypatch.setattr(monitor, "_measure", measure)
    for _ in range(500):
        now[0] += 1.0
        monitor.step(draw(32))
    assert spent[0] <= share * 500 + max(0, cost - 1)
    assert monitor.n_measurements >= 0.9 * share * 500 / max(cost, share)


def test_the_window_forgets():
    net, draw = regression()
    monitor = BatchSizeMonitor(net, half_square, every=1, window=8)
    for _ in range(10):
        monitor.step(draw(32))
    fresh = BatchSizeMonitor(net, half_square, every=1)
    _, draw = regression()
    for i in range(10):
        batch = draw(32)
        if i >= 2:
            fresh.step(batch)
    assert monitor.state()["trace"] == fresh.state()["trace"]
    assert (monitor.state()["n_window"], monitor.state()["n_measurements"]) == (8, 10)


# -- what it says ---------------------------------------------------------------------------------------------------


def _saying(monkeypatch, knee, size, low=600.0, high=1400.0, module=None):
    monitor = BatchSizeMonitor(module or nn.Linear(1, 1))
    monitor._records.append((size, np.zeros((1, 2))))
    state = {"noise_scale": knee, "noise_scale_low": low, "noise_scale_high": high}
    monkeypatch.setattr(monitor, "state", lambda: state)
    return monitor.verdict()


def test_verdict(monkeypatch):
    assert _saying(monkeypatch, 912.3, 64) == (
        "At a batch size of 64, each doubling still nearly halves the number of updates. The noise scale (the knee) is "
        "about 910, with a 95 % interval from 600 to 1,400. Beyond a batch size of 4,000, more samples are mostly "
        "wasted. This is about speed, not about accuracy."
    )
    assert "At a batch size of 1,024, a doubling saves 23 % of the updates" in _saying(monkeypatch, 900, 1024)
    assert "At a batch size of 16,384, a doubling saves only 3 %" in _saying(monkeypatch, 900, 16384)
    said = _saying(monkeypatch, 900, 64, high=float("inf"))
    assert said.startswith("At a batch size of 64, the noise scale (the knee) is above 600 (95 %). Measure longer")
    assert "the noise scale (the knee) is not determined" in _saying(monkeypatch, 900, 64, 0.0, float("inf"))
    assert "Under batch norm" in _saying(monkeypatch, 900, 64, module=nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)))


def _loop(monitor, net, sizes):
    """Train on batches of these sizes, and measure each."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        X = torch.randn(size, 3, generator=generator)
        y = X.sum(dim=1, keepdim=True)
        monitor.step((X, y))
        optimizer.zero_grad()
        nn.functional.mse_loss(net(X), y).backward()
        optimizer.step()


@pytest.mark.parametrize(("sizes", "in_use"), [([32, 32, 20], 32), ([32, 20, 32], 32), ([16, 32], 32), ([20], 20)])
def test_a_short_last_batch_is_not_the_size_in_use(sizes, in_use):
    net = nn.Linear(3, 1)
    monitor = BatchSizeMonitor(net, nn.MSELoss(), every=1)
    _loop(monitor, net, sizes)
    assert monitor.verdict().startswith(f"At a batch size of {in_use}, ")
    assert monitor.batch_size == sizes[-1]


@pytest.mark.parametrize(("sizes", "skipped"), [([32, 32, 15], 1), ([32, 5, 32, 1], 2), ([16, 16], 0)])
def test_a_last_batch_too_short_for_its_parts_is_left_out(sizes, skipped):
    net = nn.Linear(3, 1)
    monitor = BatchSizeMonitor(net, nn.MSELoss(), every=1)
    _loop(monitor, net, sizes)
    assert (monitor.n_measurements, monitor.n_skipped) == (len(sizes) - skipped, skipped)


def test_a_short_batch_that_is_not_due_counts_for_nothing():
    net = nn.Linear(3, 1)
    monitor = BatchSizeMonitor(net, nn.MSELoss(), every=2)
    _loop(monitor, net, [32, 3, 32, 3])
    assert (monitor.n_measurements, monitor.n_skipped) == (2, 0)


# -- refusals -------------------------------------------------------------------------------------------------------


class FullyShardedDataParallel(nn.Linear):
    """Has the name of torch's."""


class ZeroRedundancyOptimizer(torch.optim.Adam):
    """Has the name of torch's."""


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BatchSizeMonitor(len), "^module must be a torch module"),
        (lambda: BatchSizeMonitor(nn.ReLU()), "^module must have at least one trainable parameter; got 0"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1).requires_grad_(False)), "^module must have at least one trainable"),
        (lambda: BatchSizeMonitor(FullyShardedDataParallel(1, 1)), "^module must not be sharded"),
        (lambda: BatchSizeMonitor(nn.DataParallel(nn.Linear(1, 1))), "^module must not be a DataParallel"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), parts=1), "^parts must be"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), every=0), "^every must be"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), window=7), "^window must be"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), max_overhead=0), "^max_overhead must be"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), geometry="l2"), "^geometry must be .euclidean., .adam. or .l1."),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), geometry="adam"), "^optimizer must be given with"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), parameters="none.*"), "^parameters must match"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), parameters={}), "^parameters must be a non-empty dict"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), nn.MSELoss(reduction="sum")), "^loss must have reduction='mean'"),
        (lambda: BatchSizeMonitor(nn.Linear(1, 1), 3), "^loss must be a criterion"),
    ],
)
def test_refused_when_it_is_made(make, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        make()


def test_a_sharded_optimizer_is_refused():
    net = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"^module must not be sharded \(FSDP, ZeRO\)"):
        BatchSizeMonitor(net, geometry="adam", optimizer=ZeroRedundancyOptimizer(net.parameters()))


def _nan_loss(y_pred, y):
    return half_square(y_pred, y) * float("nan")


def _other_loss(y_pred, y):
    return y.mean()


@pytest.mark.parametrize(
    ("loss", "batch", "sentence"),
    [
        (_nan_loss, (torch.ones(32, 1), torch.ones(32, 1)), "^The loss must be finite to be measured; it is nan"),
        (_other_loss, (torch.ones(32, 1), torch.ones(32, 1)), "^loss must return a scalar tensor that depends on"),
        (half_square, (torch.ones(15, 1), torch.ones(15, 1)), "^batch must have at least 2 .* parts=8; got 15"),
        (half_square, (torch.ones(32, 1), torch.ones(31, 1)), "^batch must hold tensors with one row per sample"),
        (half_square, "text", "^batch must hold tensors with one row per sample"),
        (half_square, (torch.ones(32, 1), object()), "^batch must hold tensors, tuples and dicts"),
        (half_square, torch.ones(32, 1), r"^A batch must be \(inputs, target\)"),
        (None, (torch.ones(32, 1), torch.ones(32, 1)), "^loss must be given"),
        (half_square, None, "^batch must be given unless"),
    ],
)
def test_refused_batches(loss, batch, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        BatchSizeMonitor(nn.Linear(1, 1), loss, every=1).step(batch)


def test_wrong_optimizers():
    net = nn.Linear(1, 1)
    batch = torch.randn(32, 1), torch.randn(32, 1)
    sgd = torch.optim.SGD(net.parameters(), momentum=0.9, lr=0.1)
    half_square(net(batch[0]), batch[1]).backward()
    sgd.step()
    with pytest.raises(ValueError, match=r"^optimizer must be Adam, or store exp_avg_sq .* got SGD"):
        BatchSizeMonitor(net, half_square, every=1, geometry="adam", optimizer=sgd).step(batch)
    partial = torch.optim.Adam([net.bias])
    with pytest.raises(ValueError, match=r"^optimizer must train all measured parameters; .* 'weight'"):
        BatchSizeMonitor(net, half_square, every=1, geometry="adam", optimizer=partial).step(batch)


def test_wrong_accumulation():
    net, draw = regression()
    X, y = draw(8)
    monitor = BatchSizeMonitor(net)
    with pytest.raises(ValueError, match=r"^There is no gradient yet; call backward"), monitor.accumulate(4):
        pass
    half_square(net(X), y).backward()
    with (
        pytest.raises(ValueError, match=r"^The gradient must be cleared before the first"),
        BatchSizeMonitor(net).accumulate(4),
    ):
        pass
    net.zero_grad()
    monitor = BatchSizeMonitor(net, half_square)
    with monitor.accumulate(8):
        half_square(net(X), y).backward()
    with pytest.raises(ValueError, match=r"^batch must be None if accumulate"):
        monitor.step((X, y))
    nn.utils.clip_grad_norm_(net.parameters(), 0.01)
    with pytest.raises(ValueError, match=r"^The gradient must not change between"), monitor.accumulate(8):
        half_square(net(X), y).backward()
    with (
        pytest.raises(ValueError, match=r"float32 for accumulate"),
        BatchSizeMonitor(nn.Linear(1, 1).bfloat16()).accumulate(4),
    ):
        pass
    with pytest.raises(ValueError, match=r"^n_samples must be"), monitor.accumulate(0):
        pass


def update(net, monitor, optimizer, X, y, closing):
    """One update of two micro-batches, with parts of what must follow it."""
    for half in range(2):
        with monitor.accumulate(8):
            (half_square(net(X[8 * half : 8 * half + 8]), y[8 * half : 8 * half + 8]) / 2).backward()
    optimizer.step()
    if "step" in closing:
        monitor.step()
    if "zero_grad" in closing:
        optimizer.zero_grad()


class WritingToData(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.data.add_(p.grad, alpha=-0.01)


KINDS = {
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,
    "fused": partial(torch.optim.AdamW, fused=True),
    "data": WritingToData,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("net", ["linear", "frozen part"])
def test_updates_without_an_end_do_not_become_one(kind, net):
    torch.manual_seed(0)
    net = nn.Linear(DIM, 1) if net == "linear" else nn.Sequential(nn.Linear(DIM, 3), nn.Linear(3, 1))
    if isinstance(net, nn.Sequential):
        net[0].requires_grad_(False)
    X, y = torch.randn(16, DIM), torch.randn(16, 1)
    for closing, sentence in {
        (): r"^The parameters must not change between the micro-batches of an update.*monitor.step\(\)",
        ("step",): r"^The gradient must be cleared before the first micro-batch",
    }.items():
        net.zero_grad()
        monitor, optimizer = BatchSizeMonitor(net), kind(net.parameters(), lr=0.01)
        update(net, monitor, optimizer, X, y, closing)
        with pytest.raises(ValueError, match=sentence):
            update(net, monitor, optimizer, X, y, closing)
    for closing in (("zero_grad",), ("step", "zero_grad")):
        net.zero_grad()
        monitor, optimizer = BatchSizeMonitor(net), kind(net.parameters(), lr=0.01)
        for _ in range(3):
            update(net, monitor, optimizer, X, y, closing)
        assert (monitor.n_measurements, monitor.batch_size) == (3 if "step" in closing else 2, 16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Embedding(9, 3, max_norm=0.1), nn.Flatten(), nn.Linear(3, 1)),
        lambda: nn.Embedding(9, 1, max_norm=0.1),
    ],
)
def test_a_module_that_changes_itself_may_accumulate(make):
    net, X = make(), torch.arange(16) % 9
    monitor = BatchSizeMonitor(net)
    for part in X.split(4):
        loss = net(part).square().mean()  # the forward pass changes the embedding outside the context
        with monitor.accumulate(4):
            loss.backward()
    monitor.step()
    assert (monitor.n_measurements, monitor.batch_size) == (1, 16)


def test_a_micro_batch_without_gradient_belongs_to_its_update():
    net, draw = regression()
    X, y = draw(12)
    monitor = BatchSizeMonitor(net)
    for weight in (0.0, 1.0, 1.0):
        with monitor.accumulate(4):
            (half_square(net(X[:4]), y[:4]) * weight).backward()
    monitor.step()
    assert (monitor.n_measurements, monitor.n_skipped, monitor.batch_size) == (1, 0, 12)


def test_a_scale_that_changes_between_updates_is_that_of_the_update():
    net, draw = regression()
    X, y = draw(8)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitors = BatchSizeMonitor(net), BatchSizeMonitor(net, scaler=scaler)
    for monitor, scale in zip(monitors, (1.0, 1024.0), strict=True):
        net.zero_grad()
        for rows in torch.arange(8).split(4):
            with monitor.accumulate(4):
                (half_square(net(X[rows]), y[rows]) * scale / 2).backward()
        if scale > 1:
            scaler.scale(torch.ones(1))
            scaler.update(2048.0)
        monitor.step()
    assert monitors[1].state()["trace"] == pytest.approx(monitors[0].state()["trace"])


def test_accumulation_over_several_processes_needs_what_averages(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    net, _ = regression()
    with (
        pytest.raises(ValueError, match=r"^module must be the DistributedDataParallel itself .* in 4 processes"),
        BatchSizeMonitor(net).accumulate(4),
    ):
        pass


def test_cleared_gradients_end_an_update():
    net, draw = regression()
    monitor = BatchSizeMonitor(net)
    for update in range(3):
        net.zero_grad(set_to_none=update != 1)
        X, y = draw(8)
        for rows in torch.arange(8).split(8 if update == 1 else 4):
            with monitor.accumulate(len(rows)):
                half_square(net(X[rows]), y[rows]).backward()
    monitor.step()
    assert (monitor.n_measurements, monitor.n_skipped) == (2, 1)  # the second had a single micro-batch


@pytest.mark.parametrize("measured", ["before backward", "after backward"])
def test_inside_autocast_training_is_as_it_was(measured):
    def train(every):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        monitor = BatchSizeMonitor(net, lambda a, b: half_square(a.float(), b), every=every, parts=4)
        for _ in range(3):
            batch = torch.randn(16, 4), torch.randn(16, 1)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = half_square(net(batch[0]).float(), batch[1])
                if every and measured == "before backward":
                    monitor.step(batch)
                loss.backward()
                if every and measured == "after backward":
                    monitor.step(batch)
            optimizer.step()
        return list(net.parameters()), monitor.n_measurements

    with_it, n = train(1)
    without, none = train(None)
    assert (n, none) == (3, 0)
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))


def test_behind_data_parallel_wrappers_a_process_measures_its_own_share(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net, draw = regression()
        batch = draw(32)
        states = []
        for module in (net, nn.parallel.DistributedDataParallel(net)):
            monitor = BatchSizeMonitor(module, half_square, every=1)
            monitor.step(batch)
            states.append(monitor.state()["trace"])
            half_square(module(batch[0]), batch[1]).backward()
        assert states[0] == states[1]
    finally:
        torch.distributed.destroy_process_group()


def test_a_sampler_reads_rank_and_world_size_of_torch(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        sampler = BatchSizeSampler(10, 5)
        assert (sampler.rank, sampler.world_size) == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5])), nn.CrossEntropyLoss(ignore_index=2)]
)
def test_parts_count_by_what_their_samples_count_for(loss):
    """With class weights the mean gradient of a batch is that of its parts by their summed weights."""
    torch.manual_seed(0)
    net, X, y = nn.Linear(3, 3), torch.randn(16, 3), torch.randint(0, 3, (16,))
    monitor = BatchSizeMonitor(net, loss, every=1, parts=4)
    monitor.step((X, y))
    gradients, masses = [], []
    for rows in torch.arange(16).split(4):
        found = torch.autograd.grad(loss(net(X[rows]), y[rows]), list(net.parameters()))
        gradients.append(torch.cat([g.flatten() for g in found]).double().numpy())
        kept = y[rows] != 2 if loss.ignore_index == 2 else torch.ones(4, dtype=torch.bool)
        masses.append(float((torch.ones(3) if loss.weight is None else loss.weight)[y[rows]][kept].sum()))
    whole = torch.autograd.grad(loss(net(X), y), list(net.parameters()))
    mean = np.average(gradients, axis=0, weights=masses)
    np.testing.assert_allclose(mean, torch.cat([g.flatten() for g in whole]).numpy(), rtol=1e-4, atol=1e-6)
    trace = sum(m * np.sum((g - mean) ** 2) for m, g in zip(masses, gradients, strict=True)) / 3
    in_samples = 16 / sum(masses)
    assert monitor.state()["trace"] == pytest.approx(trace * in_samples, rel=1e-6)
    signal = mean @ mean - trace / sum(masses)
    assert monitor.state()["squared_gradient_norm"] == pytest.approx(signal, rel=1e-4)


def _measured(net, loss, batch, **options):
    monitor = BatchSizeMonitor(net, loss, every=1, parts=4, **options)
    for _ in range(8):
        monitor.step(batch)
    return monitor


@pytest.mark.parametrize("geometry", ["euclidean", "l1"])
@pytest.mark.parametrize("scale", [0.01, 7.0, 1000.0])
def test_the_scale_of_class_weights_does_not_matter(scale, geometry):
    """The loss is the same, and so is the noise scale: it counts samples."""
    torch.manual_seed(0)
    net, X, y = nn.Linear(3, 3), torch.randn(32, 3), torch.randint(0, 3, (32,))
    weight = torch.tensor([1.0, 2.0, 4.0])
    first, second = (
        _measured(net, nn.CrossEntropyLoss(weight=w), (X, y), geometry=geometry) for w in (weight, weight * scale)
    )
    assert second.state()["noise_scale"] == pytest.approx(first.state()["noise_scale"], rel=1e-4)
    assert second.verdict().startswith("At a batch size of 32, ")
    equal = _measured(net, nn.CrossEntropyLoss(weight=torch.full((3,), scale)), (X, y), geometry=geometry)
    plain = _measured(net, nn.functional.cross_entropy, (X, y), geometry=geometry)
    assert equal.state()["noise_scale"] == pytest.approx(plain.state()["noise_scale"], rel=1e-4)


@pytest.mark.parametrize("shape", [(), (5,), (4, 4)])
def test_targets_of_many_pixels_do_not_make_more_samples(shape):
    torch.manual_seed(0)
    net, y = nn.Sequential(nn.Linear(3, 3), nn.Unflatten(1, (3, *[1] * len(shape)))), torch.randint(0, 3, (32, *shape))
    X = torch.randn(32, 3)

    def loss(y_pred, y):
        return nn.functional.cross_entropy(y_pred.expand(-1, -1, *shape), y)

    class OfPixels(nn.CrossEntropyLoss):
        def forward(self, y_pred, y):
            return loss(y_pred, y)

    of_pixels, plain = _measured(net, OfPixels(), (X, y)), _measured(net, loss, (X, y))
    assert of_pixels.state()["noise_scale"] == pytest.approx(plain.state()["noise_scale"], rel=1e-6)


@pytest.mark.parametrize("ignored", [slice(8), slice(8, 24), slice(4, 20)])
@pytest.mark.parametrize("geometry", ["euclidean", "l1"])
def test_parts_of_ignored_targets_alone_are_no_parts(geometry, ignored):
    torch.manual_seed(0)
    net, X, y = nn.Linear(3, 3), torch.randn(32, 3), torch.randint(0, 3, (32,))
    y[ignored] = -100
    monitor = _measured(net, nn.CrossEntropyLoss(), (X, y), geometry=geometry)
    assert monitor.n_measurements == 8
    assert math.isfinite(monitor.state()["noise_l1" if geometry == "l1" else "trace"])


@pytest.mark.parametrize("n_counted", [0, 3, 8])
def test_targets_in_one_part_alone_are_skipped(n_counted):
    net, y = nn.Linear(3, 3), torch.full((32,), -100)
    y[:n_counted] = 1
    monitor = _measured(net, nn.CrossEntropyLoss(), (torch.randn(32, 3), y))
    assert (monitor.n_measurements, monitor.n_skipped) == (0, 8)


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    net = nn.Linear(3, 1)
    monitor = BatchSizeMonitor(net, lambda model, batch: (model(batch).mean(), weight), every=1)
    with pytest.raises(ValueError, match=r"^loss must return a weight of the batch"):
        monitor.step(torch.randn(32, 3))


def _freeze(net):
    net[0].requires_grad_(False)


def _thaw(net):
    net[2].requires_grad_(True)


def _replace(net):
    net[1] = nn.Linear(4, 4).double()


@pytest.mark.parametrize("way", ["parts", "accumulation"])
@pytest.mark.parametrize("change", [_freeze, _thaw, _replace])
def test_the_parameters_that_are_trained_now_are_measured(change, way):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)).double()
    net[2].requires_grad_(False)
    X, y = torch.randn(32, 3, dtype=torch.float64), torch.randn(32, 1, dtype=torch.float64)

    def measure(monitor):
        net.zero_grad()
        if way == "parts":
            monitor.step((X, y))
        else:
            accumulated(monitor, net, (X, y), 8)

    groups = {"first": "0.*", "rest": ["1.*"]} if change is _replace else None
    monitor = BatchSizeMonitor(net, half_square, every=1, parts=4, parameters=groups)
    measure(monitor)
    change(net)
    measure(monitor)
    fresh = BatchSizeMonitor(net, half_square, every=1, parts=4, parameters=groups)
    measure(fresh)
    state, expected = monitor.state(), fresh.state()
    for name in expected.keys() - {"n_measurements"}:
        assert state[name] == pytest.approx(expected[name], nan_ok=True), name
    assert (state["n_window"], state["n_measurements"]) == (1, 2)


class WithUnused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(3, 1).double(), nn.Linear(3, 1).double()

    def forward(self, X, both=False):
        return self.used(X) + (self.unused(X) if both else 0)


@pytest.mark.parametrize("way", ["parts", "accumulation"])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"fused": True}])
def test_a_parameter_without_v_counts_once_it_has_a_gradient(options, way):
    """BERT's pooler, for example, is never used where tokens are predicted."""
    torch.manual_seed(0)
    net, both = WithUnused(), False
    X, y = torch.randn(32, 3, dtype=torch.float64), torch.randn(32, 1, dtype=torch.float64)
    optimizer = torch.optim.Adam(net.parameters(), **options)

    def loss(model, batch):
        return half_square(model(batch[0], both), batch[1])

    monitor = BatchSizeMonitor(net, loss, every=1, parts=4, geometry="adam", optimizer=optimizer)

    def update():
        optimizer.zero_grad()
        if way == "parts":
            loss(net, (X, y)).backward()
            monitor.step((X, y))
        else:
            for rows in torch.arange(32).split(8):
                with monitor.accumulate(8):
                    (loss(net, (X[rows], y[rows])) / 4).backward()
            monitor.step()
        optimizer.step()

    for _ in range(4):
        update()
    assert (monitor.n_measurements, monitor.n_skipped) == (3, 1)
    both = True
    update()
    assert (monitor.n_measurements, monitor.n_skipped) == (3, 2)
    update()
    assert (monitor.n_measurements, monitor.n_skipped) == (4, 2)
    assert math.isfinite(monitor.state()["trace"])


class Clamped(nn.Linear):
    def forward(self, X):
        with torch.no_grad():
            self.weight.clamp_(-1, 1)
        return super().forward(X)


@pytest.mark.parametrize(
    ("net", "X"),
    [
        (nn.Sequential(nn.Embedding(9, 3, max_norm=0.1), nn.Linear(3, 1)), torch.arange(32) % 9),
        (nn.Sequential(nn.EmbeddingBag(9, 3, max_norm=0.1), nn.Linear(3, 1)), torch.arange(64).reshape(32, 2) % 9),
        (nn.Sequential(Clamped(3, 3), nn.Linear(3, 1)), torch.randn(32, 3)),
    ],
)
def test_a_module_that_changes_itself_is_refused(net, X):
    before = [p.detach().clone() for p in net.parameters()]
    monitor = BatchSizeMonitor(net, half_square, every=1)
    with pytest.raises(ValueError, match=r"^module must not change its parameters in its forward pass.*accumulate"):
        monitor.step((X, torch.zeros(32, 1)))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (nn.Linear(3, 1, device="meta"), r"^module must hold its parameters; they are on the device 'meta'"),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1, device="meta")), r"^module must hold its parameters"),
        (nn.LazyLinear(1), r"^module must know the shapes of its parameters; call it once"),
        (nn.Sequential(nn.Linear(3, 3), nn.LazyConv1d(1, 1)), r"^module must know the shapes of its parameters"),
    ],
)
def test_a_module_without_values_is_refused(net, sentence):
    with pytest.raises(ValueError, match=sentence):
        BatchSizeMonitor(net)
    with pytest.raises(ValueError, match=sentence):
        check_accumulation(lambda module, batches: None, net, torch.ones(4, 3), [2, 2])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "make", [lambda X: X.to_sparse(), lambda X: X.to_sparse_csr(), lambda X: torch.nested.nested_tensor(list(X))]
)
def test_batches_that_cannot_be_cut_are_refused(make):
    monitor = BatchSizeMonitor(nn.Linear(3, 1), lambda model, batch: model(batch).mean(), every=1)
    with pytest.raises(TypeError, match=r"^batch must hold dense tensors, .* use to_dense"):
        monitor.step({"X": make(torch.randn(32, 3)), "y": torch.zeros(32)})


@pytest.mark.parametrize("signal", [-1.0, -5.0, -0.1])
def test_a_signal_below_chance_has_a_verdict(signal):
    """The same batch again and again: no chance between measurements, and a negative estimate."""
    monitor = BatchSizeMonitor(nn.Linear(1, 1))
    for _ in range(10):
        monitor._record(np.array([[2.0, signal]]), 64.0, 64)
    assert monitor.verdict().startswith("At a batch size of 64, the noise scale (the knee) is not determined")


def test_inference_mode_is_refused():
    net, draw = regression()
    monitor, batch = BatchSizeMonitor(net, half_square, every=1), draw(32)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"^torch\.inference_mode must be off"):
        monitor.step(batch)
