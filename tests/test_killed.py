"""A process that is killed, and two that share one memory; examples/benchmarks/faults.py does it many times."""

import signal
import time

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklgap import SAM, LBGapClassifier
from tests.fresh import FRESH

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


def fit(memory):
    """A fit that takes a second or two, and what came of it."""
    torch.set_num_threads(1)  # in every process alike
    X, y = (part[:900] for part in load_digits(return_X_y=True))
    model = LBGapClassifier(
        module__width=64, max_epochs=25, tol=None, remedies=[SAM()], random_state=0, device="cpu", memory=memory
    ).fit(X / 16, y)
    return {"losses": model.history_[:, "train_loss"], "outputs": model.predict_proba(X / 16)}


def save(memory, output):
    np.savez(output, **fit(memory))


def start(memory, output):
    process = FRESH.Process(target=save, args=(memory, output))
    process.start()
    return process


def kept(folder):
    """When the unfinished fit was last saved; 0 if it was not."""
    return max((path.stat().st_mtime_ns for path in folder.glob("*.part")), default=0)


def kill_after_a_save(memory, output):
    before = kept(memory)
    process = start(memory, output)
    deadline = time.monotonic() + 240
    while kept(memory) == before and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def test_killed_and_shared(tmp_path):
    memory = tmp_path / "memory"
    memory.mkdir()
    assert [kill_after_a_save(memory, tmp_path / "killed.npz") for _ in range(2)] == [True, True]
    assert kept(memory)
    assert not (tmp_path / "killed.npz").exists()
    both = [start(memory, tmp_path / f"{name}.npz") for name in ("one", "other")]  # the same fit twice, at once
    expected = fit(None)
    for process in both:
        process.join(timeout=120)
    assert [process.exitcode for process in both] == [0, 0]
    assert [path.suffix for path in memory.glob("*.*")] == [".fit"]
    for name in ("one", "other"):
        result = np.load(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(result["losses"], expected["losses"])
        np.testing.assert_array_equal(result["outputs"], expected["outputs"])
