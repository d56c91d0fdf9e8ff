"""How much does each remedy cost? The time of a training step as a multiple of that of a plain step.

The net is F1 of the papers with Adam. Batches have 256, 1,024 and 6,000 samples; MNIST's small batch size is 256, and
its large one is 6,000. The data are random in MNIST's shape, because the time does not depend on the values. The steps
are those of a fitted estimator. Its learning rate is so small that the weights do not move.

The expected multiple counts evaluations. A gradient is one forward and one backward pass, and the backward pass
counts twice as much. The gradient penalty differentiates both once more, which counts twice as much as both.
`SAM(every=5)` costs, on average, a fifth of the extra cost of SAM. Averages of weights and gradient clipping are
callbacks outside the step, so they are not timed. On one thread of a CPU, the time is the processor time of this
process, which other programs do not change.

    python examples/benchmarks/remedy_cost.py             # ten minutes on one core
    python examples/benchmarks/remedy_cost.py --quick     # a narrow F1, seconds

``--json FILE`` writes the medians with command, versions and hardware.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from _common import environment, interleaved_medians, write_record

from sklgap import (
    SAM,
    Adversarial,
    Augmentation,
    BatchAugmentation,
    EntropySGD,
    GradientPenalty,
    LabelSmoothing,
    LBGapClassifier,
    Mixup,
    Proximal,
    SampleNoise,
    Stability,
)
from sklgap._typing import Batch

# The remedies to time, and the expected multiples from the numbers of evaluations.
CASES = {
    "plain": ({}, 1.0),
    "ghost batch norm, 128": ({"ghost_batch_size": 128}, 1.0),
    "sample noise": ({"remedies": [SampleNoise(1.0)]}, 1.0),
    "augmentation": ({"augmentation": Augmentation(flip=False)}, 1.0),
    "stability": ({"remedies": [Stability()]}, 2.0),
    "SAM": ({"remedies": [SAM()]}, 2.0),
    "ASAM": ({"remedies": [SAM(2.0, adaptive=True)]}, 2.0),
    "SAM, parts of 128": ({"remedies": [SAM(sub_batch_size=128)]}, 2.0),
    "gradient penalty": ({"remedies": [GradientPenalty()]}, 3.0),
    "penalty, parts of 128": ({"remedies": [GradientPenalty(sub_batch_size=128)]}, 3.0),
    "batch augmentation, 2": ({"remedies": [BatchAugmentation(Augmentation(flip=False), 2)]}, 2.0),
    "label smoothing": ({"remedies": [LabelSmoothing()]}, 1.0),
    "mixup": ({"remedies": [Mixup()]}, 1.0),
    "adversarial": ({"remedies": [Adversarial()]}, 7 / 3),
    "proximal, 3 steps": ({"remedies": [Proximal()]}, 3.0),
    "Entropy-SGD, 5 steps": ({"remedies": [EntropySGD(5)]}, 5.0),
}


def step_on(X, y, width, **params):
    """Return a function that makes one step of a fitted estimator on these samples."""
    model = LBGapClassifier(
        "F1", module__width=width, batch_size=-1, lr=1e-12, max_epochs=1, tol=None, random_state=0, **params
    ).fit(X, y)
    batch = Batch(torch.from_numpy(X).to(model.net_.device), torch.from_numpy(y).to(model.net_.device))
    model.module_.train()
    return lambda: model.net_.step_(batch)["loss"].item()  # waits for the device


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use a narrow F1, two batch sizes and few repeats")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--json", type=Path, help="file to write the medians to")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(environment())
    clock = time.perf_counter if torch.cuda.is_available() or arguments.threads > 1 else time.process_time
    width = 64 if arguments.quick else 512
    rng = np.random.default_rng(0)
    rows = []
    for n_rows in (256, 1024) if arguments.quick else (256, 1024, 6000):
        X, y = rng.random((n_rows, 784), dtype=np.float32), np.arange(n_rows) % 10
        steps = {name: step_on(X, y, width, **params) for name, (params, _) in CASES.items()}
        repeats = arguments.repeats or (5 if arguments.quick else max(9, 15_000 // n_rows))
        medians = interleaved_medians(steps, repeats, clock)
        print(f"\nF1 of width {width}, batches of {n_rows:,}: a plain step takes {1000 * medians['plain']:.1f} ms")
        for name, (_, expected) in CASES.items():
            times = medians[name] / medians["plain"]
            print(f"  {name:24s} {times:6.2f}x   (expected {expected:.2f}x)", flush=True)
            rows.append(
                {"remedy": name, "batch_size": n_rows, "seconds": medians[name], "times": times, "expected": expected}
            )
    if arguments.json:
        write_record(arguments.json, width=width, rows=rows)


if __name__ == "__main__":
    main()
