"""Which device a worker takes. There is no GPU here: torch is told what to say of the devices it sees."""

import multiprocessing
from types import SimpleNamespace

import joblib
import pytest
import torch

from sklgap.estimator._parameters import make_net
from sklgap.training._placement import default_device, worker_number
from tests.tiny import blobs, small


@pytest.fixture
def devices(monkeypatch):
    """Return a function that sets how many CUDA devices torch sees, and as which child process this one runs."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def see(n_devices, identity=(), local_rank=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_devices > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(_identity=identity))
        if local_rank is not None:
            monkeypatch.setenv("LOCAL_RANK", local_rank)

    return see


def test_workers_take_the_devices_in_turn(devices):
    taken = []
    for child in range(1, 7):
        devices(4, identity=(child,))
        taken.append(default_device())
    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1"]


def test_a_child_of_a_child_goes_by_its_own_number(devices):
    devices(4, identity=(3, 2))
    assert default_device() == "cuda:1"


@pytest.mark.parametrize(("rank", "device"), [("0", "cuda:0"), ("3", "cuda:3"), ("5", "cuda:1"), ("", "cuda")])
def test_torchrun_says_which(devices, rank, device):
    devices(4, local_rank=rank)
    assert default_device() == device


@pytest.mark.parametrize(
    ("n_devices", "identity", "device"),
    [(4, (), "cuda"), (1, (), "cuda"), (1, (3,), "cuda"), (0, (3,), "cpu"), (0, (), "cpu")],
)
def test_the_main_process_and_a_single_device(devices, n_devices, identity, device):
    devices(n_devices, identity)
    assert default_device() == device


def test_a_device_asked_for_is_the_device(devices):
    X, _ = blobs()
    for device in ("cuda", "cuda:2", "cpu"):
        devices(4, identity=(2,))
        assert make_net(small(device=device), X, n_classes=3).device == device
    assert make_net(small(), X, n_classes=3).device == "cuda:1"


def test_workers_of_joblib_have_numbers_of_their_own(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert worker_number() is None
    found = set()
    for _ in range(20):  # until both workers have been given a call
        found |= set(joblib.Parallel(n_jobs=2)(joblib.delayed(worker_number)() for _ in range(4)))
        if len(found) == 2:
            break
    assert len(found) == 2
    assert None not in found
    assert joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(worker_number)() for _ in range(2)) == [
        None,
        None,
    ]
