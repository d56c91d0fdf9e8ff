"""Kill trainings at random with SIGKILL, resume them from ``memory``, and compare with uninterrupted ones.

A grid search and a single fit are started in processes of their own; each is killed again and again at random moments,
started anew with the same ``memory``, and at last left alone. Its results must equal those of a run that nobody
disturbed: weights, scores and predictions bit for bit. It prints the counts, and fails if one result differs.

    python examples/benchmarks/faults.py --kills 50

The default takes some three minutes. Unix only.
"""

import argparse
import multiprocessing
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import environment
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from sklgap import SAM, LBGapClassifier, SwitchBatch, WeightAveraging

Results = dict[str, np.ndarray]


def single_fit(memory: str | None) -> Results:
    """A fit with everything that has a state of its own: a varying batch, a remedy, averaged weights."""
    X, y = load_digits(return_X_y=True)
    model = LBGapClassifier(
        module__width=128,
        batch_regime=SwitchBatch(20, first=32, then=200),
        max_epochs=40,
        tol=None,
        remedies=[SAM()],
        callbacks=[("averaging", WeightAveraging())],
        random_state=0,
        memory=memory,
    ).fit(X / 16, y)
    weights = {name: p.detach().numpy() for name, p in model.module_.state_dict().items()}
    return {**weights, "loss": np.array(model.history_[:, "train_loss"]), "outputs": model.predict_proba(X / 16)}


def grid_search(memory: str | None) -> Results:
    """Eighteen candidates and folds, and the refit."""
    X, y = load_digits(return_X_y=True)
    model = LBGapClassifier(module__width=64, max_epochs=8, tol=None, random_state=0, memory=memory)
    grid = {"batch_size": [32, 100, 400], "proximal_lambda": [None, 1e-3]}
    search = GridSearchCV(model, grid, cv=3, return_train_score=True).fit(X / 16, y)
    scores = {name: values for name, values in search.cv_results_.items() if name.endswith("_score")}
    weights = {name: p.detach().numpy() for name, p in search.best_estimator_.module_.state_dict().items()}
    return {**{name: np.array(values) for name, values in scores.items()}, **weights}


JOBS: dict[str, Callable[[str | None], Results]] = {"single fit": single_fit, "grid search": grid_search}


def work(job: str, memory: str | None, output: str) -> None:
    """Do the job in this process; the results appear in ``output`` when it is whole."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    results = JOBS[job](memory)
    unfinished = Path(output).with_suffix(".unfinished.npz")
    np.savez(unfinished, **results)
    unfinished.replace(output)


def run(job: str, memory: str | None, output: str, lifetime: float | None = None) -> bool:
    """Start the job; kill it after ``lifetime`` seconds. Say whether it was killed before it had finished."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sklgap", "sklearn.datasets"])
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
    """Return kills, kills after which something had been kept, resumed runs, and results that were not the same."""
    kills = kept = rounds = wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        run(job, None, str(folder / "expected.npz"))
        seconds = time.perf_counter() - started
        while kills < n_kills:
            memory = folder / f"memory {rounds}"
            output = folder / f"output {rounds}.npz"
            deaths = rng.randint(1, 8)
            while deaths and kills < n_kills and run(job, str(memory), str(output), rng.uniform(0.1, 0.8) * seconds):
                deaths, kills = deaths - 1, kills + 1
                kept += memory.exists() and any(memory.iterdir())
            if not output.exists():
                run(job, str(memory), str(output))
            wrong += not same(folder / "expected.npz", output)
            rounds += 1
    return kills, kept, rounds, wrong


def main() -> None:
    """Print a line for each job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(environment())
    rng = random.Random(arguments.seed)
    failed = 0
    for job in JOBS:
        kills, kept, rounds, wrong = torture(job, -(-arguments.kills // len(JOBS)), rng)
        failed += wrong
        print(f"{job}: {kills} kills, {kept} of them with work kept, {rounds} resumed to the end, {wrong} not the same")
    if failed:
        raise SystemExit("results of resumed runs differ")


if __name__ == "__main__":
    main()
