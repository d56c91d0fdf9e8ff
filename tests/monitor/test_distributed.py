"""Two processes of distributed data parallel on the loopback interface."""

import sys

import pytest
import torch
from torch import distributed, nn

from sklgap.monitor import BatchSizeMonitor
from tests.fresh import FRESH
from tests.monitor import processes

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def of_both(folder, task):
    started = [FRESH.Process(target=processes.run_as, args=(rank, folder, LOOPBACK, task)) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=240)
    assert [process.exitcode for process in started] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return of_both(tmp_path_factory.mktemp("processes"), processes.all_of_it)


@pytest.mark.parametrize("way", processes.WAYS)
def test_training_is_bit_for_bit_the_same(both, way):
    for found in both:
        plain, measured = (found["ways"][way][key] for key in (False, True))
        for kind in ("weights", "gradients"):
            assert len(plain[kind]) == len(measured[kind]) > 5
            assert all(torch.equal(a, b) for a, b in zip(plain[kind], measured[kind], strict=True))


@pytest.mark.parametrize("way", processes.WAYS)
def test_all_processes_have_the_same_state(both, way):
    first, second = (found["ways"][way][True]["state"] for found in both)
    assert first == second
    assert first["n_measurements"] == processes.N_UPDATES
    assert first["batch_size"] == 2 * processes.WAYS[way][0] * processes.SIZE
    assert first["noise_scale"] > 0


def test_the_state_is_that_of_one_process_with_all_micro_batches(both):
    torch.manual_seed(0)
    module = nn.Linear(5, 1).double()
    monitor = BatchSizeMonitor(module, parameters={"weights": "weight", "bias": "bias"})
    of_ranks = [processes.micro_batches(rank, 2, torch.float64) for rank in (0, 1)]
    processes.update_all(module, monitor, of_ranks, 2)
    assert both[0]["linear"] == pytest.approx(monitor.state(), rel=1e-9, nan_ok=True)
    assert both[0]["linear"]["n_measurements"] == processes.N_UPDATES
    assert 0 < both[0]["linear"]["noise_scale"] < float("inf")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("unequal", "n_samples must be the same in all processes, because the average counts them equally; got [4, 5]"),
        ("not averaged", "The gradient must be averaged over the processes when an update ends"),
        ("no step", "step() must be called after the last micro-batch of an update in all processes."),
        ("not the wrapper", "module must be the DistributedDataParallel itself for accumulate in 2 processes"),
        ("hook", "module must have no communication hook for accumulate"),
        ("join", "module must not be in module.join() for accumulate"),
    ],
)
def test_refused_in_all_processes(both, name, sentence):
    assert all(found["refusals"][name].startswith(sentence) for found in both)


@pytest.mark.slow
def test_coverage(tmp_path):
    first, second = of_both(tmp_path, processes.coverage)
    assert first == second >= 0.9


def test_one_process_of_distributed_data_parallel_accumulates_as_without_it(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        states = []
        for wrap in (nn.parallel.DistributedDataParallel, lambda module: module):
            torch.manual_seed(0)
            module = wrap(nn.Linear(5, 1).double())
            monitor = BatchSizeMonitor(module)
            processes.update_all(module, monitor, [processes.micro_batches(0, 3, torch.float64)], 3)
            states.append(monitor.state())
    finally:
        distributed.destroy_process_group()
    assert states[0] == states[1]
    assert states[0]["n_measurements"] == processes.N_UPDATES
