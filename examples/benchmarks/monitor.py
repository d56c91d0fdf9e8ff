"""How much time does the monitor cost? Trainings with `BatchSizeMonitor` against the same trainings without it.

The script trains in a plain loop, in Lightning and in the Trainer of Transformers, each with and without gradient
accumulation. Without accumulation, the monitor measures parts of a batch at the default ``max_overhead`` of 3 %.
Times are medians of interleaved repeats, in processor time of one core. All nets have about two and a half million
random parameters, and the data are random.

    pip install ".[adapters]"
    python examples/benchmarks/monitor.py --json monitor.json      # some minutes, on an idle machine
    python examples/benchmarks/monitor.py --quick                  # small nets, few updates
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
import transformers
from _common import environment, interleaved_medians
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sklgap.monitor import BatchSizeMonitor
from sklgap.monitor.lightning import BatchSizeCallback as LightningCallback
from sklgap.monitor.transformers import BatchSizeCallback as TransformersCallback

CE = nn.CrossEntropyLoss()
N_CLASSES, N_TOKENS, N_MICRO = 10, 32, 4
Case = dict[str, Callable[[], object]]


def mlp(width: int) -> nn.Module:
    """Return the net of the plain loop and of Lightning."""
    torch.manual_seed(0)
    hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, N_CLASSES))


def data(width: int, n_updates: int, batch_size: int) -> TensorDataset:
    """Return random samples for ``n_updates`` updates."""
    n = n_updates * batch_size
    return TensorDataset(torch.randn(n, width), torch.randint(N_CLASSES, (n,)))


def plain_loop(width: int, dataset: TensorDataset, batch_size: int, measure: bool, accumulate: bool) -> Any:
    """Train in a plain loop and return the monitor."""
    net = mlp(width)
    optimizer = torch.optim.Adam(net.parameters())
    monitor = BatchSizeMonitor(net, CE) if measure else None
    for X, y in DataLoader(dataset, batch_size):
        optimizer.zero_grad()
        if not accumulate:
            if monitor is not None:
                monitor.step((X, y))
            CE(net(X), y).backward()
        else:
            for part, target in zip(X.chunk(N_MICRO), y.chunk(N_MICRO), strict=True):
                loss = CE(net(part), target) / N_MICRO
                if monitor is None:
                    loss.backward()
                else:
                    with monitor.accumulate(len(part)):
                        loss.backward()
            if monitor is not None:
                monitor.step()
        optimizer.step()
    return monitor


class Module(lightning.LightningModule):
    """The net of the plain loop, for Lightning."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = mlp(width)

    def forward(self, X):
        """Return the logits."""
        return self.net(X)

    def training_step(self, batch, batch_idx):
        """Return the loss."""
        return CE(self(batch[0]), batch[1])

    def configure_optimizers(self):
        """Return ADAM."""
        return torch.optim.Adam(self.parameters())


def with_lightning(width: int, dataset: TensorDataset, batch_size: int, measure: bool, accumulate: bool) -> Any:
    """Train with Lightning and return the monitor."""
    steps = N_MICRO if accumulate else 1
    callback = LightningCallback(None if accumulate else CE, verbose=False) if measure else None
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=steps,
        callbacks=[callback] if callback is not None else [],
    )
    trainer.fit(Module(width), DataLoader(dataset, batch_size // steps))
    return None if callback is None else callback.monitor


def with_transformers(width: int, n_updates: int, batch_size: int, measure: bool, accumulate: bool) -> Any:
    """Train a small GPT-2 with the Trainer and return the monitor."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=width, vocab_size=1000, n_positions=N_TOKENS, bos_token_id=0, eos_token_id=0
    )
    tokens = torch.randint(1000, (n_updates * batch_size, N_TOKENS))
    steps = N_MICRO if accumulate else 1
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            num_train_epochs=1,
            per_device_train_batch_size=batch_size // steps,
            gradient_accumulation_steps=steps,
        )
        trainer = transformers.Trainer(
            transformers.GPT2LMHeadModel(config),
            arguments,
            train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        callback = TransformersCallback(trainer, verbose=False) if measure else None
        if callback is not None:
            trainer.add_callback(callback)
        trainer.train()
    return None if callback is None else callback.monitor


def overhead(train: Callable[[bool], Any], repeats: int) -> dict[str, float]:
    """Return median seconds without and with the monitor, its cost in percent, and its number of measurements."""
    found: list[Any] = []
    runs: Case = {"without": lambda: train(False), "with": lambda: found.append(train(True))}
    medians = interleaved_medians(runs, repeats, time.process_time)
    percent = 100 * (medians["with"] / medians["without"] - 1)
    return {**medians, "percent": percent, "n_measurements": found[-1].n_measurements}


def main() -> None:
    """Print a line for each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use small nets, few updates and few repeats")
    parser.add_argument("--repeats", type=int, help="repeats of every training after a warm-up")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # the other libraries warn about data loaders and devices
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # processor time, because wall time varies by more than the limit
    width, n_updates, batch_size = (32, 20, 64) if arguments.quick else (1024, 200, 256)
    embedding, n_texts = (16, 64) if arguments.quick else (256, 32)
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    dataset = data(width, n_updates, batch_size)
    print(f"{environment()}, lightning {lightning.__version__}, transformers {transformers.__version__}")
    found = {}
    for accumulate in (False, True):
        trainings = {
            "plain loop": lambda m, a=accumulate: plain_loop(width, dataset, batch_size, m, a),
            "Lightning": lambda m, a=accumulate: with_lightning(width, dataset, batch_size, m, a),
            "Transformers": lambda m, a=accumulate: with_transformers(embedding, n_updates // 2, n_texts, m, a),
        }
        for library, train in trainings.items():
            name = f"{library}, {f'{N_MICRO} micro-batches' if accumulate else 'parts of a batch'}"
            found[name] = figures = overhead(train, repeats)
            print(
                f"{name:34s} {figures['without']:8.3f} s without, {figures['with']:8.3f} s with the monitor: "
                f"{figures['percent']:+5.1f} %, {figures['n_measurements']} measurements",
                flush=True,
            )
    if arguments.json is not None:
        record = {"environment": environment(), "quick": arguments.quick, "repeats": repeats, "overhead": found}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
