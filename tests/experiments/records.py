"""Made-up results of a comparison."""

from sklgap.experiments import BatchSizeCurve, RegimeComparison

SETTINGS = {
    "n_train": 1000,
    "n_test": 200,
    "n_trials": 3,
    "reference": "SB",
    "regimes": {"SB": {}, "LB": {}},
    "estimator": "LBGapClassifier()",
    "epsilons": [1e-3, 5e-4],
    "subspace_dims": [None, 100],
    "batch_norm": "batch",
    "n_samples_sharpness": 800,
    "solver": "auto",
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


def comparison(records=None, labels=("SB", "LB"), interrupted=False, **settings):
    if records is None:
        records = [record(label, trial) for trial in range(3) for label in labels]
    results = [(r, f"model {r['regime']} {r['trial']}") for r in records]
    return RegimeComparison(results, list(labels), {**SETTINGS, **settings}, interrupted)


def curve(valid, test=None, *, interrupted=False, first_seed=10, tuning=None, skip=(), values=None, **settings):
    """A curve with these validation (and test) accuracies, by batch size; the smallest is the reference.

    ``skip``: pairs of size and trial that had not finished; ``values``: further values of the records, by size.
    """
    n_trials = len(next(iter(valid.values())))
    results = []
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
            results.append((record(str(size), trial, **extra), f"model {size} {trial}"))
    sizes = sorted(valid)
    own = {
        "n_valid": 1000,
        "n_trials": n_trials,
        "batch_sizes": sizes,
        "reference": str(sizes[0]),
        "lr": "fixed",
        "lrs": [],
        "budget": "epochs",
        "max_epochs": 20,
        "target_loss": None,
        "subspace_dims": [None],
        "epsilons": [1e-3],
        "tuning_seeds": [],
    }
    return BatchSizeCurve(results, {**SETTINGS, **own, **settings}, interrupted, tuning)
