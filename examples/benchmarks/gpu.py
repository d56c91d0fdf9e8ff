"""Run all checks and timings that need a GPU within a time limit.

The script first runs the tests marked ``gpu``. Then it measures the time of an epoch in five ways: eager, compiled,
compiled with CUDA graphs (``mode="reduce-overhead"``), in TensorFloat-32 and in bfloat16. It reports ratios to a loop
written by hand. In the remaining time it computes Tables 2, 3 and 4 of Keskar et al. (2017) for C1 on all of CIFAR-10.
Each record is written as soon as it is complete, so that no result is lost at the time limit.

    python examples/benchmarks/gpu.py --output results --seconds 570
    python examples/benchmarks/gpu.py --output results --device cpu --quick   # tries the script, measures nothing
"""

import argparse
import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import environment, interleaved_medians
from torch import nn
from training_overhead import Case, CifarC1, DigitsNet, MnistF1

from sklgap import LBGapClassifier

ROOT = Path(__file__).resolve().parents[2]
VARIANTS: dict[str, dict[str, Any]] = {
    "sklgap epochs": {},
    "compiled": {"compile": True},
    "CUDA graphs": {"compile": True, "compile__mode": "reduce-overhead"},
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}


def cases(quick: bool) -> list[Case]:
    """Return three nets, whose times are mostly Python, matrix products and convolutions."""
    few = 20 if quick else 1
    return [
        Case("digits 64-32-10, batch 144", DigitsNet, 1797, 144, 40 // few),
        Case("F1 on images of MNIST's size, batch 256", MnistF1, 20_000 // few, 256, 10 // min(few, 10)),
        Case("C1 on images of CIFAR's size, batch 256", CifarC1, 512 if quick else 20_000, 256, 2),
    ]


def loop(case: Case, X: np.ndarray, y: np.ndarray, device: str) -> float:
    """Return the seconds of an epoch of a loop written by hand, with the data on the device."""
    net = case.net().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    rows, labels = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    started = time.perf_counter()
    for _ in range(case.n_epochs):
        total = torch.zeros((), device=device)
        for batch in torch.randperm(len(X), device=device).split(case.batch_size):
            optimizer.zero_grad()
            loss = criterion(net(rows[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        total.item()  # waits for the device
    return (time.perf_counter() - started) / case.n_epochs


def ours(case: Case, X: np.ndarray, y: np.ndarray, device: str, setting: dict[str, Any]) -> float:
    """Return the median seconds of an epoch, without the first one, which compiles."""
    model = LBGapClassifier(case.net, batch_size=case.batch_size, max_epochs=case.n_epochs + 1, tol=None, device=device)
    return float(np.median(model.set_params(**setting).fit(X, y).history_[1:, "dur"]))


def overhead(case: Case, device: str, repeats: int) -> dict[str, Any]:
    """Return seconds of an epoch, ratios to the loop, and the errors of variants that fail or fall back."""
    X, y = case.data()
    seconds: dict[str, list[float]] = {}
    refused: dict[str, str] = {}

    def timed(name: str, run: Callable[[], float]) -> Callable[[], None]:
        def once() -> None:
            if name in refused:
                return
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # a variant that falls back must not count as measured
                    seconds.setdefault(name, []).append(run())
            except Exception as error:  # the other variants are still measured
                refused[name] = f"{type(error).__name__}: {error}"

        return once

    runs = {"loop": timed("loop", lambda: loop(case, X, y, device))}
    for name, setting in VARIANTS.items():
        runs[name] = timed(name, lambda setting=setting: ours(case, X, y, device, setting))  # type: ignore[misc] # a default binds it now
    interleaved_medians(runs, repeats)  # its times include compilation; `seconds` has those of the epochs
    medians = {name: float(np.median(values)) for name, values in seconds.items() if name not in refused}
    ratios = {name: value / medians["loop"] for name, value in medians.items()}
    return {"case": case.name, "seconds": medians, "ratios": ratios, "aims": {}, "refused": refused}


def run(command: list[str], log: Path, limit: float) -> None:
    """Run a command, and interrupt it at the time limit, so that it writes its finished results."""
    if limit <= 0:
        log.write_text("no time was left\n")
        return
    with log.open("w") as file:
        started = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            started.wait(limit)
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the records")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=570, help="time limit of the whole script (570)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="use tiny cases, to try the script")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds - 40
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu"],
        output / "tests.txt",
        min(150, arguments.seconds),
    )

    record: dict[str, Any] = {
        "command": "python examples/benchmarks/gpu.py " + " ".join(sys.argv[1:]),
        "environment": environment(),
        "cases": [],
    }
    for case in cases(arguments.quick):
        if time.monotonic() > end:
            break
        record["cases"].append(overhead(case, arguments.device, 1 if arguments.quick else arguments.repeats))
        (output / "gpu_overhead.json").write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record["cases"][-1], indent=1), flush=True)

    tables = [sys.executable, "examples/plot_keskar_tables_2_3_4.py", "--output", str(output / "cifar10_c1.png")]
    tables += ["--quick"] if arguments.quick else ["--net", "C1", "--memory", str(output / "saved")]
    run(tables, output / "cifar10_c1.txt", end - time.monotonic())


if __name__ == "__main__":
    main()
