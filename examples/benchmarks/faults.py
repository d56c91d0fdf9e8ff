"""Kill trainings at random with SIGKILL, resume them from ``memory``, and compare with undisturbed ones.

The jobs: a single fit with a varying batch and averaged weights, a grid search, a fit with every remedy, and fits with
callbacks, augmentations, modules, criteria, optimisers and samplers of the user's own that have a state. Each job runs
in another process, which is killed at a random moment and started again with the same ``memory``, several times;
at last it is left alone. Its results must equal those of a run that nobody disturbed, bit for bit: weights, scores,
predictions, and what the user's objects have noted. It prints the counts, and fails if one result differs.

    python examples/benchmarks/faults.py --kills 80

The default takes some five minutes. Unix only.
"""

import argparse
import multiprocessing
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import environment
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import Sampler

from sklgap import (
    SAM,
    Adversarial,
    Augmentation,
    EntropySGD,
    LBGapClassifier,
    Remedy,
    SampleNoise,
    Stability,
    SwitchBatch,
    TrainingRecorder,
    WeightAveraging,
)

Results = dict[str, np.ndarray]


def some_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 600 images, so that many fits can be killed in a few minutes."""
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600]


class Cooling(Callback):
    """Lowers the rate by all that it has noted: numbers, lists, arrays, tensors, generators."""

    def initialize(self) -> "Cooling":
        """Begin with nothing noted."""
        self.count, self.seen, self.sums = 0, [], np.zeros(2)
        self.mean, self.random = torch.zeros(1), np.random.default_rng(0)
        return self

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Note the loss; set the rate."""
        loss = net.history[-1, "train_loss"]
        self.count, self.seen = self.count + 1, [*self.seen, (self.count, loss)]
        self.sums += [loss, loss**2]
        self.mean.lerp_(torch.tensor([loss]), 0.1)
        for group in net.optimizer_.param_groups:
            group["lr"] = 1e-3 * (1 + self.random.random() + self.mean.item() + self.sums[1]) / len(self.seen)


class Jitter:
    """An augmentation with a random state."""

    def __init__(self) -> None:
        self.random = np.random.RandomState(0)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Add noise."""
        return batch + 0.05 * torch.from_numpy(self.random.standard_normal(batch.shape)).to(batch)


class Drawing:
    """An initialisation with a generator."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self, module: nn.Module) -> None:
        """Draw the weights."""
        for p in module.parameters():
            nn.init.normal_(p, std=0.1, generator=self.generator)


class Counting(nn.Module):
    """Counts its calls, draws noise, and assigns a buffer again."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Dropout(0.2), nn.Linear(64, 10)
        )
        self.register_buffer("centre", torch.zeros(10))
        self.calls, self.noise = 0, torch.Generator().manual_seed(2)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        outputs = self.layers(X)
        if self.training:
            self.calls += 1
            self.centre = 0.9 * self.centre + 0.1 * outputs.detach().mean(0)
            outputs = outputs + 0.01 * torch.randn(outputs.shape, generator=self.noise)
        return outputs - self.centre.to(outputs) * (1 + 1e-3 * self.calls)


class Fading(nn.CrossEntropyLoss):
    """A criterion with a buffer and a count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.times = 0

    def forward(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        self.times += 1
        self.scale *= 0.9999
        return super().forward(outputs, y) * self.scale / (1 + 1e-4 * self.times)


class Slowing(torch.optim.SGD):
    """An optimiser with an attribute."""

    times = 0

    def step(self, closure: Any = None) -> Any:
        """Lower the rate, then step."""
        self.times += 1
        for group in self.param_groups:
            group["lr"] = 0.1 / (1 + 1e-3 * self.times)
        return super().step(closure)


class Turning(Sampler):
    """A sampler that counts epochs."""

    def __init__(self) -> None:
        self.epochs = 0

    def __len__(self) -> int:
        return 600

    def __iter__(self) -> Any:
        self.epochs += 1
        return iter(np.random.default_rng(self.epochs).permutation(600).tolist())


class Fainting(Remedy):
    """A remedy that counts."""

    def transform_batch(self, batch: Any, rng: torch.Generator) -> Any:
        """Scale the batch."""
        self.times_ = getattr(self, "times_", 0) + 1
        return batch._replace(X=batch.X * (1 + 1 / self.times_))


def fit(memory: str | None, **parameters: Any) -> Results:
    """Fit digits; return weights, losses, outputs, and what the user's objects have noted."""
    X, y = some_digits()
    sizes = {} if "net" in parameters else {"module__width": 64}
    parameters = {"max_epochs": 6, **sizes, **parameters}
    model = LBGapClassifier(tol=None, random_state=0, memory=memory, **parameters).fit(X / 16, y)
    net = model.net_
    parts = {"module": net.module_, "criterion": net.criterion_, "optimizer": net.optimizer_, **dict(net.callbacks_)}
    parts |= {f"remedy {i}": remedy for i, remedy in enumerate(net.remedies)}
    noted = {
        f"{part}.{name}": np.frombuffer(repr(value).encode(), np.uint8)
        for part, holder in parts.items()
        for name, value in vars(holder).items()
        if isinstance(value, int | float | list | np.ndarray | torch.Tensor)
        and not name.endswith(("time_", "sizes_", "param_groups"))
    }
    weights = {name: p.detach().numpy() for name, p in model.module_.state_dict().items()}
    losses = np.array(model.history_[:, "train_loss"])
    return {**weights, **noted, "loss": losses, "outputs": model.predict_proba(X / 16)}


def single_fit(memory: str | None) -> Results:
    """A varying batch, a remedy, averaged weights, more epochs than the others."""
    return fit(
        memory,
        module__width=64,
        batch_regime=SwitchBatch(8, first=32, then=200),
        max_epochs=16,
        remedies=[SAM()],
        callbacks=[("averaging", WeightAveraging())],
    )


def grid_search(memory: str | None) -> Results:
    """Eighteen candidates and folds, and the refit."""
    X, y = some_digits()
    model = LBGapClassifier(module__width=64, max_epochs=3, tol=None, random_state=0, memory=memory)
    grid = {"batch_size": [64, 100, 400], "proximal_lambda": [None, 1e-3]}
    search = GridSearchCV(model, grid, cv=3, return_train_score=True).fit(X / 16, y)
    scores = {name: values for name, values in search.cv_results_.items() if name.endswith("_score")}
    weights = {name: p.detach().numpy() for name, p in search.best_estimator_.module_.state_dict().items()}
    return {**{name: np.array(values) for name, values in scores.items()}, **weights}


def remedies(memory: str | None) -> Results:
    """Every remedy that goes with others, on images."""
    augmentation = Augmentation(flip=False, crop_padding=1, cutout=2, image_shape=(1, 8, 8))
    together = [Adversarial(), SAM(), SampleNoise(0.3)]
    images = {"augmentation": augmentation, "input_shape": (1, 8, 8)}
    return fit(memory, **images, remedies=together, proximal_lambda=1e-3, batch_size=64)


def other_remedies(memory: str | None) -> Results:
    """The remedies that replace one of those, and a schedule."""
    steps = ("steps", LRScheduler("StepLR", step_size=3))
    return fit(memory, remedies=[Stability(), EntropySGD(n_steps=3)], callbacks=[steps], max_epochs=5)


def users_callbacks(memory: str | None) -> Results:
    """A callback with a state, an augmentation and an initialisation that draw, a remedy that counts."""
    X, y = some_digits()
    recorder = ("recorder", TrainingRecorder({"some": (X[:200] / 16, y[:200])}))
    return fit(
        memory,
        callbacks=[("cooling", Cooling()), recorder],
        augmentation=Jitter(),
        init=Drawing(),
        remedies=[("fainting", Fainting())],
        train_split=ValidSplit(5),
        max_epochs=12,
    )


def users_modules(memory: str | None) -> Results:
    """A module, a criterion, an optimiser and a sampler that count."""
    return fit(
        memory,
        net=Counting,
        criterion=Fading,
        optimizer=Slowing,
        batch_size=64,
        iterator_train__sampler=Turning(),
        callbacks=[("cooling", Cooling())],
        max_epochs=8,
    )


JOBS: dict[str, Callable[[str | None], Results]] = {
    "single fit": single_fit,
    "grid search": grid_search,
    "remedies": remedies,
    "other remedies": other_remedies,
    "user's callbacks": users_callbacks,
    "user's modules": users_modules,
}


def work(job: str, memory: str | None, output: str) -> None:
    """Do the job in this process; the results appear in ``output`` when it is whole."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    results = JOBS[job](memory)
    unfinished = Path(output).with_suffix(".unfinished.npz")
    np.savez(unfinished, **results)
    unfinished.replace(output)


def run(job: str, memory: str | None, output: str, lifetime: float | None = None) -> bool:
    """Start the job; kill it after ``lifetime`` seconds. Say whether it was killed before it had finished."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sklgap", "sklearn.datasets", "_warm"])
    process = context.Process(target=work, args=(job, memory, output))
    process.start()
    process.join(lifetime)
    killed = process.is_alive()
    process.kill()
    process.join()
    if not killed and process.exitcode != 0:
        raise RuntimeError(f"the {job} failed with exit code {process.exitcode}")
    return killed


def same(one: Path, other: Path) -> bool:
    """Say whether two files of results are equal, bit for bit."""
    with np.load(one) as a, np.load(other) as b:
        return a.files == b.files and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a.files)


def torture(job: str, n_kills: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Return kills, kills after which something was saved, resumed runs, and results that were not the same."""
    kills = saved = rounds = wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(job, None, str(folder / "expected.npz"))
        started = time.perf_counter()  # of a second run: the first one waits for the server of processes
        run(job, None, str(folder / "again.npz"))
        seconds = time.perf_counter() - started
        while kills < n_kills:
            memory = folder / f"memory {rounds}"
            output = folder / f"output {rounds}.npz"
            deaths = rng.randint(1, 8)
            while deaths and kills < n_kills and run(job, str(memory), str(output), rng.uniform(0.1, 0.6) * seconds):
                deaths, kills = deaths - 1, kills + 1
                saved += memory.exists() and any(memory.iterdir())
            if not output.exists():
                run(job, str(memory), str(output))
            run(job, str(memory), str(folder / f"loaded {rounds}.npz"))  # what is finished is loaded
            wrong += not same(folder / "expected.npz", output)
            wrong += not same(folder / "expected.npz", folder / f"loaded {rounds}.npz")
            rounds += 1
    return kills, saved, rounds, wrong


def main() -> None:
    """Print a line for each job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=84, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(environment())
    rng = random.Random(arguments.seed)
    failed = 0
    for job in JOBS:
        kills, saved, rounds, wrong = torture(job, -(-arguments.kills // len(JOBS)), rng)
        failed += wrong
        text = f"{kills} kills, {saved} of them with work saved, {rounds} resumed to the end, {wrong} not the same"
        print(f"{job}: {text}", flush=True)
    if failed:
        raise SystemExit("results of resumed runs differ")


if __name__ == "__main__":
    main()
