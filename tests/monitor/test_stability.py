import copy

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sklgap.inspection import hessian_eigenvalues
from sklgap.monitor import StabilityMonitor
from tests.cases import no_global_random_numbers
from tests.references import dense_hessian, flat
from tests.tiny import Mlp, blobs

X, Y = (torch.from_numpy(part) for part in blobs(40))
CE = nn.CrossEntropyLoss()


def net(seed=0, width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Mlp(width=width)


def regression(seed=0, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        data = torch.randn(30, 5, dtype=dtype), torch.randn(30, 1, dtype=dtype)
        layers = [nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1)]
        return nn.Sequential(*layers).to(dtype), *data


def train(module, data, make, n=12, loss=CE, **options):
    """Train on all samples; options of the monitor, or None without one."""
    optimizer = make(module.parameters())
    monitor = StabilityMonitor(module, loss, optimizer, data, **options) if options else None
    for _ in range(n):
        optimizer.zero_grad()
        loss(module(data[0]), data[1]).backward()
        optimizer.step()
        if monitor is not None:
            monitor.step()
    return monitor, optimizer


def sgd(**options):
    return lambda params: torch.optim.SGD(params, **{"lr": 0.1, **options})


@pytest.mark.parametrize(("make", "line"), [(sgd(lr=0.1), 20), (sgd(lr=0.1, momentum=0.3), 26)])
def test_gradient_descent_sharpens_until_the_edge_and_rides_there(make, line):
    """Cohen et al. (2021), on 30 samples and a net of 561 weights."""
    module, rows, target = regression()
    monitor, _ = train(module, (rows, target), make, n=700, loss=nn.MSELoss(), every=50)
    relative = np.array([record["relative"] for record in monitor.records])
    assert relative[0] < 0.5
    assert np.median(relative[-4:]) == pytest.approx(1, abs=0.06)
    assert monitor.records[-1]["threshold"] == pytest.approx(line)
    assert "at the edge of stability" in monitor.verdict()
    assert str(monitor) == monitor.verdict()


def test_a_small_rate_stays_below():
    module, rows, target = regression()
    monitor, _ = train(module, (rows, target), sgd(lr=0.001), n=60, loss=nn.MSELoss(), every=20)
    assert max(record["relative"] for record in monitor.records) < 0.2
    assert "below the edge" in monitor.verdict()


def test_clipped_gradients_stay_far_above():
    """What bounds the updates cannot be seen from outside the loop, but that the threshold is not theirs shows."""
    module, rows, target = regression()
    optimizer, loss = torch.optim.SGD(module.parameters(), lr=5.0), nn.MSELoss()
    monitor = StabilityMonitor(module, loss, optimizer, (rows, target), every=5)
    for _ in range(20):
        optimizer.zero_grad()
        loss(module(rows), target).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1e-4)
        optimizer.step()
        monitor.step()
    assert min(record["relative"] for record in monitor.records) > 2
    assert "far above the edge of stability" in monitor.verdict()
    assert "gradient clipping" in monitor.verdict()


def test_records_against_dense_eigenvalues():
    module, rows, target = regression()
    loss = nn.MSELoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    monitor = StabilityMonitor(module, loss, optimizer, (rows, target), every=1, n_eigenvalues=3, tol=1e-5)
    shapes = {name: p.shape for name, p in module.named_parameters()}

    def of_flat(theta):
        pieces = theta.split([shape.numel() for shape in shapes.values()])
        params = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        return loss(torch.func.functional_call(module, params, (rows,)), target)

    for _ in range(3):
        optimizer.zero_grad()
        loss(module(rows), target).backward()
        optimizer.step()
        monitor.step()
        exact = torch.linalg.eigvalsh(dense_hessian(of_flat, flat(module))).flip(0)[:3]
        last = monitor.records[-1]
        found = [last["eigenvalue"], last["eigenvalue_2"], last["eigenvalue_3"]]
        np.testing.assert_allclose(found, exact.numpy(), rtol=1e-6)
        assert last["loss"] == pytest.approx(float(loss(module(rows), target).detach()))
    assert [record["n_updates"] for record in monitor.records] == [1, 2, 3]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD])
def test_the_training_is_bit_for_bit_what_it_is_without_it(kind):
    plain, watched = net(), net()
    _, first = train(plain, (X, Y), lambda params: kind(params, lr=0.01))
    with no_global_random_numbers():
        _, second = train(watched, (X, Y), lambda params: kind(params, lr=0.01), every=2)
    for p, q in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p.grad, q.grad)
        for name, value in first.state[p].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, second.state[q][name])


def test_mode_buffers_and_data_are_as_before():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    rows, before = X.clone(), copy.deepcopy(module.state_dict())
    with no_global_random_numbers():
        monitor = StabilityMonitor(module, CE, optimizer, (rows, Y), every=1)
        monitor.step()
    assert module.training
    assert all(part.training for part in module)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(rows, X)
    assert "policy of the measurement is 'batch'" in monitor.verdict()


def test_the_rate_of_a_scheduler():
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
    monitor = StabilityMonitor(module, CE, optimizer, (X, Y), every=1)
    for _ in range(3):
        optimizer.zero_grad()
        CE(module(X), Y).backward()
        optimizer.step()
        monitor.step()
        scheduler.step()
    np.testing.assert_allclose([record["threshold"] for record in monitor.records], [20, 20, 200])


def test_adam_before_and_after_its_first_update():
    module = net()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    monitor = StabilityMonitor(module, CE, optimizer, (X, Y), every=1)
    monitor.step()
    assert (monitor.n_updates, monitor.n_measurements, monitor.n_skipped) == (1, 0, 1)
    assert monitor.state() == {}
    assert "Nothing" in monitor.verdict()
    CE(module(X), Y).backward()
    optimizer.step()
    monitor.step()
    assert monitor.state()["threshold"] == pytest.approx(3800)
    assert "preconditioned" in monitor.verdict()


def test_a_loader_with_a_loss_of_batches_and_half_precision():
    module = net().to(torch.bfloat16)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def loss(module, batch):
        return CE(module(batch[0]), batch[1])

    loader = DataLoader(TensorDataset(X, Y), batch_size=20)
    monitor = StabilityMonitor(module, loss, optimizer, loader, every=1, dtype=torch.float32)
    monitor.step()
    expected = hessian_eigenvalues((module, CE), X, Y, k=1, dtype=torch.float32, random_state=0).eigenvalues[0]
    assert monitor.records[0]["eigenvalue"] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="dtype"):
        StabilityMonitor(module, CE, optimizer, (X, Y))


@pytest.mark.parametrize(("threshold", "said"), [(None, "no threshold"), (5.0, "of the threshold 5")])
def test_other_thresholds_and_other_optimisers(threshold, said):
    module = net()
    monitor, _ = train(module, (X, Y), torch.optim.NAdam, n=3, every=1, threshold=threshold)
    assert said in monitor.verdict()
    assert "Hessian" in monitor.verdict()
    with pytest.raises(ValueError, match="NAdam"):
        train(net(), (X, Y), torch.optim.NAdam, n=3, every=1)


def test_products_that_were_spent_are_said():
    monitor, _ = train(net(), (X, Y), sgd(), n=1, every=1, max_iter=2)
    assert monitor.records[0]["converged"] == 0
    assert "max_iter" in monitor.verdict()


def test_a_hessian_that_is_not_finite_is_skipped():
    module, rows, target = regression()
    monitor, _ = train(module, (rows, target * 1e200), sgd(), n=3, loss=nn.MSELoss(), every=1)
    assert monitor.n_skipped
    assert monitor.n_skipped + monitor.n_measurements == 3


ALL = {
    "SGD": sgd(),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.01),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
    "two groups": lambda params: torch.optim.SGD(
        [{"params": [p], "lr": rate} for p, rate in zip(params, (0.1, 0.02, 0.1, 0.02), strict=True)]
    ),
}


@pytest.mark.parametrize("thaw", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_layers_that_are_frozen_or_thawed_between_two_measurements(name, thaw):
    """Every measurement equals one without a memory."""
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    module[0].requires_grad_(not thaw)
    optimizer = ALL[name](module.parameters())
    options = {"every": 1, "n_eigenvalues": 2, "tol": 1e-5}
    monitor = StabilityMonitor(module, CE, optimizer, (X, Y), **options)
    for i in range(6):
        if i == 3:
            module[0].requires_grad_(thaw)
        optimizer.zero_grad()
        CE(module(X), Y).backward()
        optimizer.step()
        monitor.step()
        fresh = StabilityMonitor(module, CE, optimizer, (X, Y), **options)
        fresh.step()
        for key in ("eigenvalue", "eigenvalue_2", "threshold", "relative"):
            assert monitor.records[-1][key] == pytest.approx(fresh.records[-1][key], rel=1e-5)
    assert (monitor.n_measurements, monitor.n_skipped) == (6, 0)


@pytest.mark.parametrize("frozen", [3, 4])
def test_fewer_parameters_than_eigenvalues_are_skipped(frozen):
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    monitor = StabilityMonitor(module, CE, optimizer, (X, Y), every=1, n_eigenvalues=4)
    monitor.step()
    for p in list(module.parameters())[:frozen]:
        p.requires_grad_(False)
    monitor.step()
    assert (monitor.n_measurements, monitor.n_skipped) == (1, 1)
    assert "fewer parameters" in monitor.skipped[0]["reason"]
    assert "n_eigenvalues must be at most" in monitor.skipped[0]["error"]
    module.requires_grad_(True)
    monitor.step()
    assert (monitor.n_measurements, monitor.n_skipped) == (2, 1)


SILENT = torch.cat([X, torch.zeros(len(X), 1)], dim=1)


@pytest.mark.parametrize(
    ("make", "decoupled"),
    [
        (lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=1e-3), False),
        (lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=1e-3, amsgrad=True), False),
        (lambda params: torch.optim.Adam([{"params": [p]} for p in params], lr=0.01, weight_decay=1e-3), False),
        (lambda params: torch.optim.RMSprop(params, lr=0.01, weight_decay=1e-3), False),
        (lambda params: torch.optim.Adagrad(params, lr=0.01, weight_decay=1e-3), False),
        (lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=1e-3, decoupled_weight_decay=True), True),
        (lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=1e-3), True),
    ],
)
def test_decay_alone_does_not_end_the_loop(make, decoupled):
    """The weight of an input that is always zero has no gradient but that of the decay."""
    module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        module[0].weight[0, -1] = 1e-6
    monitor, _ = train(module, (SILENT, Y), make, n=8, every=1)
    assert monitor.n_updates == monitor.n_skipped + monitor.n_measurements == 8
    assert monitor.n_measurements > 0
    assert (monitor.n_skipped == 0) == decoupled
    if not decoupled:
        assert monitor.skipped[0]["n_updates"] == 1
        assert monitor.skipped[0]["reason"].startswith("weight decay alone")
        assert "'0.weight'" in monitor.skipped[0]["error"]
        assert "weight decay alone" in monitor.verdict()


def test_a_decay_that_is_always_too_large_is_said():
    monitor, _ = train(net(), (X, Y), sgd(weight_decay=30.0), n=3, every=1)
    assert monitor.n_skipped == 3
    assert monitor.verdict().startswith("Nothing has been measured")
    assert "3 of the updates could not be measured, because weight decay alone" in monitor.verdict()


@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_a_diverged_training_with_adam_is_not_blamed_on_the_decay(decay):
    module = net()
    monitor, optimizer = train(
        module, (X, Y), lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=decay), n=2, every=1
    )
    n_skipped = monitor.n_skipped
    for p in module.parameters():
        p.grad.fill_(float("nan"))
    optimizer.step()
    monitor.step()
    assert monitor.n_skipped == n_skipped + 1
    assert monitor.skipped[-1]["reason"] == "the measured Hessian was not finite"


def test_no_place_if_most_late_measurements_were_skipped():
    monitor, _ = train(net(), (X, Y), sgd(), n=3, every=1)
    assert "below the edge" in monitor.verdict()
    for p in monitor.module.parameters():
        p.requires_grad_(False)
    monitor.step()  # updates 2 and 3 are measured, and 4 is not
    assert "below the edge" in monitor.verdict()
    assert "1 of the updates could not be measured" in monitor.verdict()
    for _ in range(4):
        monitor.step()
    assert "is not known" in monitor.verdict()
    assert "below" not in monitor.verdict()
    assert "fewer parameters" in monitor.verdict()


def test_it_draws():
    monitor, _ = train(net(), (X, Y), sgd(), n=6, every=2, n_eigenvalues=2)
    display = monitor.plot(ax=Figure().subplots())
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), [1, 3, 5])
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), [r["eigenvalue"] for r in monitor.records])
    with pytest.raises(ValueError, match="step"):
        StabilityMonitor(net(), CE, torch.optim.SGD(net().parameters(), lr=0.1), (X, Y)).plot()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"every": 0}, "every"),
        ({"n_eigenvalues": 1.5}, "n_eigenvalues"),
        ({"n_eigenvalues": 10**6}, "n_eigenvalues"),
        ({"loss": None}, "loss"),
        ({"threshold": "none"}, "threshold"),
        ({"batch_norm": None}, "batch_norm"),
        ({"tol": 1}, "tol"),
        ({"max_iter": 0}, "max_iter"),
        ({"max_samples": -1}, "max_samples"),
        ({"random_state": "x"}, "random_state"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"data": X}, "data"),
        ({"module": 3}, "module"),
        ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "reduction"),
    ],
)
def test_wrong_parameters(given, match):
    module = net()
    good = {"module": module, "loss": CE, "optimizer": torch.optim.SGD(module.parameters(), lr=0.1), "data": (X, Y)}
    with pytest.raises((ValueError, TypeError), match=match):
        StabilityMonitor(**{**good, **given})
