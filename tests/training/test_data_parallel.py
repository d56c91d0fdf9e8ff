"""Two processes that share every batch make the updates of one, on the loopback interface."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

import sklgap
from sklgap.training._data_parallel import share_of
from tests.cases import DOUBLE, N_ROWS, WITH_BATCH_NORM
from tests.fresh import FRESH
from tests.tiny import blobs, small
from tests.training import processes

# Two sums of float32 terms instead of one, carried through up to 32 updates of ADAM: seen, 2e-7; allowed, fifty times.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed")


LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def results_in(folder):
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return what the two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    started = [FRESH.Process(target=processes.run_as, args=(rank, 2, folder, LOOPBACK)) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=240)
    assert [process.exitcode for process in started] == [0, 0]
    return results_in(folder)


@pytest.fixture(scope="module")
def by_torchrun(tmp_path_factory):
    """Return the same, of processes that torchrun has started."""
    folder = tmp_path_factory.mktemp("torchrun")
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(sklgap.__file__).parents[1]),
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = subprocess.run(
        [*launcher, "-m", "tests.training.processes", str(folder)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return results_in(folder)


@pytest.fixture(scope="module")
def alone():
    """Return what one process finds with the same global batches."""
    return {"steps": processes.steps(parallel=False), "fits": processes.fits(parallel=False)}


# -- two processes against one -----------------------------------------------------------------------------------------


def test_the_updates_are_those_of_one_process(both, alone):
    assert len(alone["steps"]) > 15
    for name, expected in alone["steps"].items():
        torch.testing.assert_close(both[0]["steps"][name], expected, **DOUBLE, msg=lambda text, name=name: name + text)


@pytest.mark.slow
def test_by_torchrun_the_same(both, by_torchrun):
    for expected, found in zip(both, by_torchrun, strict=True):
        assert found["refusals"] == expected["refusals"]
        for name in ("no seed", "searched", "instance"):  # no two runs of these are alike
            assert found["fits"].pop(name).keys() == expected["fits"][name].keys()
        seeded = {name: expected["fits"][name] for name in found["fits"]}
        torch.testing.assert_close(found["fits"], seeded, rtol=0, atol=0)
        assert found["masks"].keys() == expected["masks"].keys()  # the net is not seeded: runs differ
        for kind in ("steps", "batch norm"):
            torch.testing.assert_close(found[kind], expected[kind], rtol=0, atol=0)


def test_fits_and_their_histories_are_those_of_one_process(both, alone):
    for name, expected in alone["fits"].items():
        torch.testing.assert_close(both[0]["fits"][name], expected, **FLOAT32, msg=lambda text, name=name: name + text)


def test_both_processes_end_with_the_same_weights_bit_for_bit(both):
    for kind in ("steps", "batch norm", "masks", "fits"):
        torch.testing.assert_close(both[0][kind], both[1][kind], rtol=0, atol=0)
    assert {"no seed", "searched", "instance", "warm", "running", "batch norm and dropout"} <= both[0]["fits"].keys()


def test_parameters_that_no_row_uses_have_no_gradient(both):
    """The second process alone has a row that leads to ``rare``; both step with its gradient."""
    names = {"always.weight", "always.bias", "rare.weight", "rare.bias"}
    assert set(both[0]["steps"]["moody"]) == set(both[1]["steps"]["moody"]) == names


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_batch_norm_sees_the_share_of_its_process(both, name):
    """Gradient and buffers are the means of those of the two halves, each normalised by its own statistics."""
    module, criterion, X, y = WITH_BATCH_NORM[name]()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    halves, buffers = [], []
    for rows in (slice(0, 11), slice(11, 22)):
        module.load_state_dict(before)
        halves.append(torch.autograd.grad(criterion(module(X[rows]), y[rows]), list(module.parameters())))
        buffers.append({key: value.clone() for key, value in module.named_buffers()})
    moves = [0.1 * (first + second) / 2 for first, second in zip(*halves, strict=True)]
    expected = {key: before[key] - move for (key, _), move in zip(module.named_parameters(), moves, strict=True)}
    expected |= {key: (first + buffers[1][key]) / 2 for key, first in buffers[0].items() if "running" in key}
    found = {key: value for key, value in both[0]["batch norm"][name].items() if "num_batches" not in key}
    torch.testing.assert_close(found, expected, **DOUBLE)


def test_dropout_draws_other_masks_in_every_process_and_leaves_the_generators_alike(both):
    rows = both[0]["masks"]["y_pred"]
    assert not torch.equal(rows[:4], rows[4:])
    assert torch.equal(both[0]["masks"]["next"], both[1]["masks"]["next"])


def test_processes_with_different_data_are_refused_by_all(both):
    for found in both:
        assert set(found["refusals"]) == {"other rows", "other number", "other labels", "other weights"}
        assert all("must be the same in all processes" in sentence for sentence in found["refusals"].values())


# -- one process -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_processes", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 5, 14, N_ROWS, 60])
def test_shares_are_consecutive_and_level(n_rows, n_processes):
    shares = [share_of(n_rows, process, n_processes) for process in range(n_processes)]
    rows = list(range(n_rows))
    assert [row for share in shares for row in rows[share]] == rows
    sizes = [share.stop - share.start for share in shares]
    working = [size for size in sizes if size]
    assert max(working) - min(working) <= 1
    assert min(working) >= min(2, n_rows)
    assert len(working) == min(n_processes, max(1, n_rows // 2))


def test_outside_a_process_group_it_is_refused():
    with pytest.raises(ValueError, match=r"data_parallel must be False outside a process group .* got True"):
        small(data_parallel=True).fit(*blobs())


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_data_parallel_is_true_or_false(value):
    with pytest.raises(ValueError, match="data_parallel must be True or False"):
        small(data_parallel=value).fit(*blobs())


@pytest.fixture
def group_of_one(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_single_process_trains_as_without(group_of_one):
    X, y = blobs()
    for params in ({}, {"batch_size": 20, "micro_batch_size": 7, "ghost_batch_size": 4}):
        model = small(data_parallel=True, **params).fit(X, y)
        plain = small(**params).fit(X, y)
        torch.testing.assert_close(model.module_.state_dict(), plain.module_.state_dict(), rtol=0, atol=0)


def test_ghost_batches_must_fit_into_a_share(monkeypatch, group_of_one):
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    with pytest.raises(ValueError, match="at most the largest batch that batch norm sees, 5 samples; got 8"):
        small(data_parallel=True, batch_size=20, ghost_batch_size=8).fit(*blobs())
