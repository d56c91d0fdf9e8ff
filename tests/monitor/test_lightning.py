"""The callback with Lightning itself, on nets with random weights."""

import copy
import doctest
import os
import socket
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sklgap.monitor import BatchSizeMonitor
from sklgap.monitor import lightning as adapter
from sklgap.monitor.lightning import BatchSizeCallback
from tests.fresh import FRESH

L = pytest.importorskip("lightning")
from lightning.pytorch.callbacks import GradientAccumulationScheduler  # noqa: E402 - after the check that it is there
from lightning.pytorch.loggers import CSVLogger  # noqa: E402 - after the check that it is there
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402 - after the check that it is there

CE = nn.CrossEntropyLoss()
pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",
    "ignore:The number of training batches .* is smaller than the logging interval",
)


class Net(L.LightningModule):
    def __init__(self, moody=True):
        super().__init__()
        between = [nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3)] if moody else [nn.Tanh()]
        self.layers = nn.Sequential(nn.Linear(5, 8), *between, nn.Linear(8, 3))
        self.calls, self.gradients = 0, []

    def forward(self, X):
        return self.layers(X)

    def training_step(self, batch, batch_idx):
        self.calls += 1
        loss = CE(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.gradients.append(torch.cat([p.grad.flatten() for p in self.parameters()]).clone())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Manual(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


def loader(n=70, batch_size=16):
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(n, 5, generator=generator), torch.randint(3, (n,), generator=generator)
    return DataLoader(TensorDataset(X, y), batch_size)


def fitted(callbacks=(), module=None, data=None, **kwargs):
    torch.manual_seed(0)
    module = module() if module is not None else Net()
    options = {"logger": False, "max_epochs": 3, "accelerator": "cpu", **kwargs}
    if options.get("plugins") == "scaler":
        options["plugins"] = [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0))]
    trainer = L.Trainer(
        callbacks=list(callbacks), enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        **options,
    )  # fmt: skip
    trainer.fit(module, data or loader())
    return module


@pytest.mark.parametrize(
    ("options", "trainer", "counts"),
    [
        # Five batches an epoch, the last of six samples; with accumulation the last update of an epoch has 16 + 6.
        ({"loss": CE, "every": 1, "parts": 4}, {}, (12, 3)),
        ({"loss": CE, "every": 2, "parts": 4, "geometry": "adam"}, {}, None),
        ({"loss": CE, "every": 1, "parts": 4}, {"precision": "bf16-mixed"}, (12, 3)),
        ({}, {"accumulate_grad_batches": 2}, (6, 3)),
        ({}, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}, (3, 3)),
        ({"geometry": "adam"}, {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}, None),
        ({"loss": CE, "every": 1, "parts": 4}, {"plugins": "scaler"}, (12, 3)),
        ({}, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "plugins": "scaler"}, (6, 3)),
    ],
)
def test_training_is_bit_for_bit_the_same(options, trainer, counts):
    callback = BatchSizeCallback(**options, verbose=False)
    module, plain = fitted([callback], **trainer), fitted(**trainer)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name
    assert module.calls == plain.calls == 15
    assert all(torch.equal(a, b) for a, b in zip(module.gradients, plain.gradients, strict=True))
    assert callback.monitor.n_measurements
    if counts is not None:
        assert (callback.monitor.n_measurements, callback.monitor.n_skipped) == counts


def test_micro_batches_are_measured_as_in_a_loop():
    callback = BatchSizeCallback(verbose=False)
    data = loader(64)
    fitted([callback], lambda: Net(moody=False), data, accumulate_grad_batches=2, max_epochs=2)
    torch.manual_seed(0)
    net = Net(moody=False)
    optimizer, monitor = net.configure_optimizers(), BatchSizeMonitor(net)
    for _ in range(2):
        for i, (X, y) in enumerate(data):
            with monitor.accumulate(len(X)):
                (CE(net(X), y) / 2).backward()
            if i % 2:
                monitor.step()
                optimizer.step()
                optimizer.zero_grad()
    state = callback.monitor.state()
    assert state["batch_size"] == 32
    assert state == pytest.approx(monitor.state(), rel=1e-12, nan_ok=True)


def test_parts_are_measured_as_in_a_loop():
    callback = BatchSizeCallback(lambda module, batch: CE(module(batch[0]), batch[1]), every=1, parts=4, verbose=False)
    data = loader(64)
    fitted([callback], lambda: Net(moody=False), data, max_epochs=2)
    torch.manual_seed(0)
    net = Net(moody=False)
    optimizer, monitor = net.configure_optimizers(), BatchSizeMonitor(net, CE, every=1, parts=4)
    for X, y in [*data, *data]:
        monitor.step((X, y))
        CE(net(X), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert callback.monitor.state() == pytest.approx(monitor.state(), rel=1e-12, nan_ok=True)


def test_it_logs_and_says_the_verdict(tmp_path, capsys):
    logger = CSVLogger(tmp_path)
    fitted([BatchSizeCallback()], accumulate_grad_batches=2, logger=logger, log_every_n_steps=4, max_epochs=4)
    rows = np.genfromtxt(tmp_path / "lightning_logs/version_0/metrics.csv", delimiter=",", names=True)
    assert rows["step"].tolist() == [3, 7, 11]
    assert rows["batch_size_monitorn_measurements"].tolist() == [3, 6, 8]
    assert (rows["batch_size_monitornoise_scale"] > 0).all()
    assert "Under batch norm" in capsys.readouterr().out
    fitted([BatchSizeCallback(verbose=False)], accumulate_grad_batches=2)
    assert "about speed" not in capsys.readouterr().out


def test_updates_of_one_micro_batch_are_left_out():
    callback = BatchSizeCallback(verbose=False)
    schedule = GradientAccumulationScheduler({0: 2, 1: 1})
    fitted([schedule, callback], data=loader(64), max_epochs=2)
    assert (callback.monitor.n_measurements, callback.monitor.n_skipped) == (2, 4)


@pytest.mark.parametrize(
    ("options", "trainer", "sentence"),
    [
        ({}, {}, "^loss must be given to BatchSizeCallback in one process without accumulate_grad_batches"),
        ({"loss": 3}, {}, "^loss must be a criterion"),
        ({"every": 0}, {"accumulate_grad_batches": 2}, "^every must be"),
        ({"loss": CE, "every": 1, "parts": 9}, {}, "^batch must have at least 2 samples .* parts=9; got 16"),
        ({}, {"module": Manual}, "^module must have automatic_optimization=True"),
        ({}, {"accumulate_grad_batches": 2, "precision": "bf16-true"}, "^module must have parameters in float32"),
    ],
)
def test_refused(options, trainer, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        fitted([BatchSizeCallback(**options)], **trainer)


def in_two_processes(rank, folder, interface, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    torch.set_num_threads(1)
    found = {}
    for steps in (1, 2):
        # 64 samples in each process, in batches of 16.
        run = {"devices": 2, "strategy": "ddp", "data": loader(128), "accumulate_grad_batches": steps, "max_epochs": 2}
        callback = BatchSizeCallback(verbose=False)
        measured, plain = fitted([callback], **run), fitted(**run)
        pairs = zip(measured.state_dict().values(), plain.state_dict().values(), strict=True)
        found[steps] = {"same": all(torch.equal(a, b) for a, b in pairs), **callback.monitor.state()}
    torch.save(found, folder / f"{rank}.pt")


def test_processes_are_parts(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    interface = "lo" if sys.platform == "linux" else "lo0"
    started = [FRESH.Process(target=in_two_processes, args=(rank, tmp_path, interface, port)) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=240)
    assert [process.exitcode for process in started] == [0, 0]
    first, second = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for steps in (1, 2):
        assert first[steps] == pytest.approx(second[steps], rel=0, abs=0, nan_ok=True)
        assert first[steps]["same"]
        assert (first[steps]["n_measurements"], first[steps]["batch_size"]) == (8 / steps, 32 * steps)


class Fails(Net):
    def backward(self, loss):
        raise RuntimeError("no backward")


def test_a_failed_backward_leaves_no_hook():
    callback = BatchSizeCallback(verbose=False)
    module = Fails()
    with pytest.raises(RuntimeError, match="no backward"):
        fitted([callback], lambda: module, accumulate_grad_batches=2)
    before = callback.monitor.state()
    CE(module(torch.randn(4, 5)), torch.zeros(4, dtype=torch.long)).backward()
    assert callback.monitor.state() == pytest.approx(before, nan_ok=True)


def test_the_callback_can_be_copied_before_a_fit():
    assert copy.deepcopy(BatchSizeCallback(CE, every=3)).every == 3


def test_the_example_of_the_docstring_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failures = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(BatchSizeCallback, module=adapter):
        if test.examples:
            doctest.DocTestRunner().run(test, out=failures.append)
    assert not failures, "".join(failures)
    assert ">>> " in BatchSizeCallback.__doc__
