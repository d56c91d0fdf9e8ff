"""Made-up results of a comparison and of a curve."""

import numpy as np

from sklgap.experiments import BatchSizeCurve, RegimeComparison
from sklgap.experiments._scores import Samples, Score
from sklgap.experiments._trials import Outcome

SETTINGS = {
    "n_train": 1000,
    "n_test": 200,
    "n_trials": 3,
    "reference": "SB",
    "regimes": {"SB": {}, "LB": {}},
    "estimator": "LBGapClassifier()",
    "epsilon": [1e-3, 5e-4],
    "subspace_dims": [None, 100],
    "batch_norm": "batch",
    "n_samples_sharpness": 800,
    "solver": "auto",
    "scores": ["accuracy"],
    "random_state": 0,
    "environment": {"gpu": None},
}
SB_ACCURACY, LB_ACCURACY = (0.950, 0.960, 0.955), (0.900, 0.925, 0.915)


def record(regime, trial, **values):
    """Return a record of SB (small batch, flat) or of any other regime (large batch, sharp), or what is given."""
    small = regime == "SB"
    defaults = {
        "regime": regime,
        "trial": trial,
        "seed": 10 + trial,
        "batch_size": 25 if small else 100,
        "train_accuracy": 0.99,
        "test_accuracy": (SB_ACCURACY if small else LB_ACCURACY)[trial % 3],
        "train_loss": 0.010,
        "test_loss": 0.20,
        "weight_distance": 12.0 if small else 4.0,
        "n_epochs": 20,
        "n_updates": 800 if small else 200,
        "converged": True,
        "fit_seconds": 1.5,
        "sharpness_0.001": 2.0 + trial if small else 300.0 + trial,
        "sharpness_0.0005": 1.0 if small else 50.0,
        "sharpness_0.001_dim100": 0.5 if small else 9.0,
        "sharpness_0.0005_dim100": 0.25 if small else 6.0,
        "measure_seconds": 0.5,
    }
    return {**defaults, **values}


def targets(*sizes):
    """Return labels of two classes in turn, by part of the data."""
    parts = {part: np.arange(n) % 2 for part, n in zip(("test", "valid"), sizes, strict=False)}
    return {**parts, "classes": np.array([0, 1])}


def right(accuracy, n, trial):
    """Return which samples are predicted right: the worse of two models of one trial is wrong where the other is."""
    hardest = np.random.RandomState(trial).permutation(n)
    found = np.ones(n, dtype=bool)
    found[hardest[: n - round(accuracy * n)]] = False
    return Samples(found)


def outcome(one, model=None, *, sizes, own=None):
    """Return the outcome of a record: which samples are right follows from its accuracies."""
    samples = {
        f"{part}_accuracy": right(one[f"{part}_accuracy"], n, one["trial"])
        for part, n in zip(("test", "valid"), sizes, strict=False)
    }
    return Outcome(one, {**samples, **(own or {})}, model or f"model {one['regime']} {one['trial']}")


def comparison(records=None, labels=("SB", "LB"), interrupted=False, *, samples=True, **settings):
    """Return a comparison of these records; ``samples=False``: it is not known which samples were right."""
    if records is None:
        records = [record(label, trial) for trial in range(3) for label in labels]
    settings = {**SETTINGS, **settings}
    sizes = (settings["n_test"],) if samples else ()
    outcomes = [outcome(r, sizes=sizes) for r in records]
    return RegimeComparison(outcomes, list(labels), settings, interrupted, targets=targets(settings["n_test"]))


def curve(
    valid, test=None, *, interrupted=False, first_seed=10, tuning=None, skip=(), values=None, samples=True, **settings
):
    """A curve with these validation (and test) accuracies, by batch size; the smallest is the reference.

    ``skip``: pairs of size and trial that had not finished; ``values``: further values of the records, by size;
    ``samples=False``: it is not known which samples were right.
    """
    n_trials = len(next(iter(valid.values())))
    sizes = sorted(valid)
    own = {
        "n_valid": 1000,
        "n_test": 1000,
        "n_trials": n_trials,
        "batch_sizes": sizes,
        "reference": str(sizes[0]),
        "lr": "fixed",
        "learning_rates": [],
        "budget": "epochs",
        "max_epochs": 20,
        "target_loss": None,
        "subspace_dims": [None],
        "epsilon": [1e-3],
        "tuning_seeds": [],
    }
    settings = {**SETTINGS, **own, **settings}
    parts = (settings["n_test"], settings["n_valid"])
    outcomes = []
    for size, accuracies in valid.items():
        for trial in range(n_trials):
            if (size, trial) in skip:
                continue
            extra = {
                "batch_size": size,
                "seed": first_seed + trial,
                "lr": 1e-3,
                "n_updates": 8000 // size,
                "valid_accuracy": accuracies[trial],
                "valid_loss": 0.2,
                "test_accuracy": (test or valid)[size][trial],
                **((values or {}).get(size, {})),
            }
            outcomes.append(outcome(record(str(size), trial, **extra), sizes=parts if samples else ()))
    return BatchSizeCurve(outcomes, settings, interrupted, tuning=tuning, targets=targets(*parts))


def scored_curve(score, values, samples=None, **settings):
    """Return a curve of one further score: its values on validation data (and test data) by size and trial.

    ``samples``: what they rest on, likewise.
    """
    plain = curve({size: [0.9] * len(of_size) for size, of_size in values.items()}, samples=False, **settings)
    outcomes = []
    for one in plain.records:
        size, trial = one["batch_size"], one["trial"]
        own = {f"{part}_{score.name}": values[size][trial] for part in ("train", "valid", "test")}
        rests_on = (
            {} if samples is None else {f"{part}_{score.name}": samples[size][trial] for part in ("valid", "test")}
        )
        outcomes.append(Outcome({**one, **own}, rests_on, None))
    parts = targets(plain.settings["n_test"], plain.settings["n_valid"])
    settings = {**plain.settings, "scores": [score.name]}
    return BatchSizeCurve(outcomes, settings, targets=parts, scores=(score, Score("accuracy")))
