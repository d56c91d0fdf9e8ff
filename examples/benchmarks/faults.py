"""Stop trainings and experiments at random, resume them from ``memory``, and compare them with undisturbed ones.

The jobs are a single fit with a varying batch and averaged weights, a grid search, a fit with every remedy, several
experiments, and fits with stateful objects of the user: callbacks, augmentations, modules, criteria, optimisers and
samplers.

Each job runs in another process. The script stops this process at a random moment, by SIGKILL, SIGTERM and SIGINT in
turn, and starts it again with the same ``memory``. After several rounds the process runs to its end. Its weights,
scores, predictions, records and the notes of the user's objects must equal those of an undisturbed run, bit for bit.

After SIGTERM and SIGINT, an experiment returns its finished records. Each of these records must also be one of the
undisturbed run. Later runs with the same ``memory`` must not lose a record or train it again. The script prints the
counts, and fails if one result differs.

    python examples/benchmarks/faults.py --kills 132

The default takes some ten minutes. The script needs Unix.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
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
    batch_size_curve,
    compare_regimes,
    critical_batch_size,
    explain_gap,
    minima_census,
    sharpness_trajectory,
    warm_start_curve,
)
from sklgap.experiments import steps_to_loss
from sklgap.training import TrainingNet

Results = dict[str, np.ndarray]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def some_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 600 images, so that many fits end in a few minutes."""
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600]


class Cooling(Callback):
    """A callback that sets the rate from its state: numbers, lists, arrays, tensors and generators."""

    def initialize(self) -> "Cooling":
        """Start with an empty state."""
        self.count, self.seen, self.sums = 0, [], np.zeros(2)
        self.mean, self.random = torch.zeros(1), np.random.default_rng(0)
        return self

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Save the loss and set the rate."""
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
    """A module that counts its calls, draws noise and assigns a buffer."""

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
    """An optimiser with an attribute as its state."""

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
    """Fit digits and return weights, losses, outputs, and the state of the user's objects."""
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
    """Fit with a varying batch, a remedy, averaged weights and many epochs."""
    return fit(
        memory,
        module__width=64,
        batch_regime=SwitchBatch(8, first=32, then=200),
        max_epochs=16,
        remedies=[SAM()],
        callbacks=[("averaging", WeightAveraging())],
    )


def grid_search(memory: str | None) -> Results:
    """Search with eighteen fits and the refit."""
    X, y = some_digits()
    model = LBGapClassifier(module__width=64, max_epochs=3, tol=None, random_state=0, memory=memory)
    grid = {"batch_size": [64, 100, 400], "proximal_lambda": [None, 1e-3]}
    search = GridSearchCV(model, grid, cv=3, return_train_score=True).fit(X / 16, y)
    scores = {name: values for name, values in search.cv_results_.items() if name.endswith("_score")}
    weights = {name: p.detach().numpy() for name, p in search.best_estimator_.module_.state_dict().items()}
    return {**{name: np.array(values) for name, values in scores.items()}, **weights}


def remedies(memory: str | None) -> Results:
    """Fit images with all remedies that can be combined."""
    augmentation = Augmentation(flip=False, crop_padding=1, cutout=2, image_shape=(1, 8, 8))
    together = [Adversarial(), SAM(), SampleNoise(0.3)]
    images = {"augmentation": augmentation, "input_shape": (1, 8, 8)}
    return fit(memory, **images, remedies=together, proximal_lambda=1e-3, batch_size=64)


def other_remedies(memory: str | None) -> Results:
    """Fit with the remedies that replace one of these, and with a schedule."""
    steps = ("steps", LRScheduler("StepLR", step_size=3))
    return fit(memory, remedies=[Stability(), EntropySGD(n_steps=3)], callbacks=[steps], max_epochs=5)


def users_callbacks(memory: str | None) -> Results:
    """Fit with a stateful callback, a random augmentation and initialisation, and a counting remedy."""
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
    """Fit with a module, a criterion, an optimiser and a sampler that count."""
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


# -- experiments -------------------------------------------------------------------------------------------------------

COMMON = {"random_state": 0, "verbose": 0}


def small_net(**parameters: Any) -> LBGapClassifier:
    """Return a classifier that trains within a second."""
    return LBGapClassifier(**{"module__width": 32, "max_epochs": 4, "tol": None, **parameters})


def parts() -> tuple[np.ndarray, ...]:
    """Return training and test data."""
    X, y = some_digits()
    return X[:400] / 16, y[:400], X[400:] / 16, y[400:]


def comparison(memory: str | None) -> Any:
    """Compare two regimes in three trials, with sharpness."""
    return compare_regimes(small_net(), *parts(), n_trials=3, max_samples=100, memory=memory, **COMMON)


def tuned_curve(memory: str | None) -> Any:
    """Train two batch sizes at the best of two rates, in two phases."""
    rates = {"lr": "tuned", "learning_rates": [1e-3, 1e-2]}
    sizes = {"batch_sizes": [20, 100], "n_trials": 2, "max_samples": 100}
    return batch_size_curve(small_net(), *parts(), **sizes, **rates, memory=memory, **COMMON)


def predicted_size(memory: str | None) -> Any:
    """Measure the noise of four trainings."""
    X, y, *_ = parts()
    return critical_batch_size(small_net(batch_size=40), X, y, n_trials=4, n_batches=5, memory=memory, **COMMON)


def measured_steps(memory: str | None) -> Any:
    """Train two batch sizes at two rates."""
    X, y, *_ = parts()
    sizes = {"batch_sizes": [40, 100], "learning_rates": [1e-3, 1e-2], "n_trials": 2}
    return steps_to_loss(small_net(), X, y, target_loss=1.8, **sizes, memory=memory, **COMMON)


def started_warm(memory: str | None) -> Any:
    """Train with small batches, then with large ones from these weights, in two phases."""
    points = {"max_small_epochs": 4, "every": 2, "n_trials": 2, "max_samples": 100}
    return warm_start_curve(small_net(), *parts(), **points, memory=memory, **COMMON)


def census(memory: str | None) -> Any:
    """Train two regimes from two initialisations."""
    return minima_census(small_net(), *parts(), n_trials=2, max_samples=100, memory=memory, **COMMON)


def trajectory(memory: str | None) -> Any:
    """Measure sharpness during the trainings of two regimes."""
    X, y, *_ = parts()
    return sharpness_trajectory(small_net(), X, y, n_trials=2, every=2, max_samples=100, memory=memory, **COMMON)


def explanation(memory: str | None) -> Any:
    """Train six settings, one of them with averaged weights."""
    sizes = {"small": 20, "large": 100, "causes": ("fewer updates", "last weights"), "n_trials": 2}
    return explain_gap(small_net(), *parts(), **sizes, memory=memory, **COMMON)


FITS: dict[str, Callable[[str | None], Results]] = {
    "single fit": single_fit,
    "grid search": grid_search,
    "remedies": remedies,
    "other remedies": other_remedies,
    "user's callbacks": users_callbacks,
    "user's modules": users_modules,
}
# A new experiment must return a result with ``records`` and ``interrupted``. Records of an earlier phase must be in
# one of the attributes ``RECORDS``.
EXPERIMENTS: dict[str, Callable[[str | None], Any]] = {
    "compare_regimes": comparison,
    "batch_size_curve, tuned": tuned_curve,
    "critical_batch_size": predicted_size,
    "steps_to_loss": measured_steps,
    "warm_start_curve": started_warm,
    "minima_census": census,
    "sharpness_trajectory": trajectory,
    "explain_gap": explanation,
}
RECORDS = ("records", "tuning", "small_records")
# Fields that identify a record.
ABOUT = ("regime", "init", "batch_size", "lr", "learning_rate", "small_epochs", "trial", "seed")
# Fields that differ between two runs or depend on all records.
NO_FIGURES = ("chosen",)


def figures(result: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the identity of each record of a result, and its numbers without seconds."""
    for part in RECORDS:
        for record in getattr(result, part, []):
            saved = {k: v for k, v in record.items() if "seconds" not in k and k not in NO_FIGURES}
            about = {k: saved[k] for k in ABOUT if k in saved}
            if "epoch" in saved:  # one of several records of a training
                about["n_updates"] = saved["n_updates"]
            values = [np.nan if isinstance(v, str) or v is None else float(v) for v in saved.values()]
            yield f"{part} {json.dumps(about)}", np.array(values)


JOBS = (*FITS, *EXPERIMENTS)


def work(job: str, memory: str | None, output: str) -> None:
    """Run the job in this process, and write the results to ``output`` at its end."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    steps = counted_steps()
    interrupted = False
    try:
        if job in FITS:
            results = FITS[job](memory)
        else:
            found = EXPERIMENTS[job](memory)
            results, interrupted = dict(figures(found)), found.interrupted
    except KeyboardInterrupt:  # no training had finished
        results, interrupted = {}, True
    path = Path(output).with_suffix(".interrupted.npz") if interrupted else Path(output)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, **results, steps=len(steps))
    unfinished.replace(path)


def counted_steps() -> list[None]:
    """Return a list that grows with every training step of this process."""
    steps: list[None] = []
    train_step = TrainingNet.train_step

    def counting(net: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append(None)
        return train_step(net, *args, **kwargs)

    TrainingNet.train_step = counting
    return steps


def run(job: str, memory: str | None, output: str, lifetime: float | None = None, number: int = signal.SIGKILL) -> bool:
    """Start the job, stop it after ``lifetime`` seconds, and return whether it stopped before its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sklgap", "sklearn.datasets", "_warm"])
    process = context.Process(target=work, args=(job, memory, output))
    process.start()
    process.join(lifetime)
    stopped = process.is_alive()
    if stopped and process.pid is not None:
        os.kill(process.pid, number)
    process.join()
    if Path(output).exists():
        return False  # the job finished before the signal
    if not stopped and process.exitcode != 0:
        raise RuntimeError(f"the {job} failed with exit code {process.exitcode}")
    return True


def same(one: Path, other: Path) -> bool:
    """Return whether two files of results are equal, bit for bit."""
    a, b = contents(one), contents(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def within(part: Path, whole: Path) -> bool:
    """Return whether every record of an interrupted run is one of the whole run."""
    a, b = contents(part), contents(whole)
    return all(name in b and np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def contents(path: Path) -> Results:
    """Return results by name, without the number of training steps."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "steps"}


def n_steps(path: Path) -> int:
    """Return the training steps of a run."""
    with np.load(path) as file:
        return int(file["steps"])


class Counts(dict[str, int]):
    """Numbers of stops and of faults after them."""

    def __missing__(self, name: str) -> int:
        return 0


def torture(job: str, n_kills: int, rng: random.Random) -> Counts:
    """Stop the job ``n_kills`` times and return the counts."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = folder / "expected.npz"
        run(job, None, str(expected))
        started = time.perf_counter()  # time of a second run, because the first one waits for the server of processes
        run(job, None, str(folder / "again.npz"))
        seconds = time.perf_counter() - started
        while counts["stops"] < n_kills:
            rounds = counts["rounds"]
            memory, output = folder / f"memory {rounds}", folder / f"output {rounds}.npz"
            part = output.with_suffix(".interrupted.npz")
            had: set[str] = set()
            for _ in range(rng.randint(1, 8)):
                if counts["stops"] == n_kills:
                    break
                number = SIGNALS[counts["stops"] % len(SIGNALS)]
                part.unlink(missing_ok=True)
                if not run(job, str(memory), str(output), rng.uniform(0.1, 0.6) * seconds, number):
                    break
                counts["stops"] += 1
                counts["saved"] += memory.exists() and any(memory.iterdir())
                if part.exists():
                    counts["returned"] += bool(contents(part))
                    counts["wrong"] += not within(part, expected)
                    had |= contents(part).keys()
            if not output.exists():
                run(job, str(memory), str(output))
            counts["lost"] += len(had - contents(output).keys())
            # A run with saved work trains less than one without it, and loads finished results.
            counts["trained again"] += bool(had) and n_steps(output) >= n_steps(expected)
            loaded = folder / f"loaded {rounds}.npz"
            run(job, str(memory), str(loaded))
            counts["trained again"] += n_steps(loaded) > 0
            counts["wrong"] += (not same(expected, output)) + (not same(expected, loaded))
            counts["rounds"] += 1
    return counts


def main() -> None:
    """Print a line for each job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=132, help="stops in all, by the three signals in turn (132)")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS, help="jobs to run (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # The server of processes reads this variable instead of sys.path, and would otherwise not find its import.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    print(environment())
    rng = random.Random(arguments.seed)
    failed = 0
    for job in arguments.jobs:
        counts = torture(job, -(-arguments.kills // len(arguments.jobs)), rng)
        failed += counts["wrong"] + counts["lost"] + counts["trained again"]
        print(
            f"{job}: {counts['stops']} stops, {counts['saved']} of them with work saved, {counts['returned']} with a "
            f"result returned, {counts['rounds']} resumed to the end, {counts['wrong']} not the same, "
            f"{counts['lost']} records lost, {counts['trained again']} times trained again",
            flush=True,
        )
    if failed:
        raise SystemExit("Results of resumed runs must equal those of undisturbed runs; some differ.")


if __name__ == "__main__":
    main()
