"""Made-up results of experiments."""

from sklgap.experiments import MinimaCensus, SharpnessTrajectory, WarmStartCurve
from tests.experiments.records import SETTINGS, record

COMMON = {name: SETTINGS[name] for name in ("n_train", "n_test", "estimator", "batch_norm", "solver", "environment")}
COMMON |= {"n_samples_sharpness": 800, "random_state": 0}

# Two trials; after 0, 5 and 10 small-batch epochs.
WARM = {
    "test_accuracy": ((0.90, 0.91, 0.95), (0.92, 0.91, 0.96)),
    "small_test_accuracy": ((0.10, 0.94, 0.96), (0.12, 0.93, 0.97)),
    "sharpness_0.001": ((100.0, 80.0, 10.0), (200.0, 100.0, 5.0)),
}


def warm_record(trial, epochs, **values):
    """Return a record of a large-batch training after so many small-batch epochs, or what is given."""
    made_up = {key: table[trial][(0, 5, 10).index(epochs)] for key, table in WARM.items()}
    return {**record("LB", trial), "small_epochs": epochs, "small_train_loss": 0.5, **made_up, **values}


def warm_start(records=None, interrupted=False, **settings):
    if records is None:
        records = [warm_record(trial, epochs) for epochs in (10, 0, 5) for trial in (1, 0)]
    own = {"n_trials": 2, "small": "SB", "large": "LB", "small_epochs": [0, 5, 10], "epsilons": [1e-3]}
    return WarmStartCurve(records, {**COMMON, **own, **settings}, interrupted)


SB_SHARPNESS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
LB_ACCURACIES = (0.90, 0.89, 0.88, 0.86, 0.87, 0.85)
LB_SHARPNESS = (4.0, 8.0, 12.0, 16.0, 20.0, 24.0)


def census_record(regime, init, seed, **values):
    """Return a record of a minimum: LB is sharper, and its sharper minima test worse; "torch" is twice as sharp."""
    sharpness = (SB_SHARPNESS if regime == "SB" else LB_SHARPNESS)[seed] * (2 if init == "torch" else 1)
    accuracy = 0.95 + 0.01 * (seed % 2) if regime == "SB" else LB_ACCURACIES[seed]
    own = {"init": init, "sharpness_0.001": sharpness, "test_accuracy": accuracy, "train_loss": 0.01, "seed": 10 + seed}
    return {**record(regime, 0), "trial": seed, **own, **values}


GROUPS = [(regime, init) for regime in ("SB", "LB") for init in ("glorot_uniform", "torch")]


def census(records=None, interrupted=False, **settings):
    if records is None:
        records = [census_record(*group, seed) for seed in range(6) for group in reversed(GROUPS)]
    own = {"n_seeds": 6, "target_loss": None, "epsilon": 1e-3}
    return MinimaCensus(records, list(GROUPS), {**COMMON, **own, **settings}, interrupted)


def power_law(regime, trial, factor, power, losses=(2.0, 0.2, 0.02, 0.002)):
    """Return the records of a training along which sharpness is factor * loss ** power."""
    fit = {"regime": regime, "trial": trial, "seed": trial, "weight_distance": 1.0, "train_accuracy": 0.9}
    return [
        {**fit, "n_updates": 4**i, "epoch": float(i), "train_loss": loss, "sharpness": factor * loss**power}
        for i, loss in enumerate(losses)
    ]


def trajectory(records=None, interrupted=False, **settings):
    if records is None:
        records = [
            *power_law("SB", 0, 10.0, 0.5),
            *power_law("LB", 0, 20.0, 0.5),
            *power_law("SB", 1, 10.0, 0.5),
            *power_law("LB", 1, 80.0, 0.5),
        ]
    settings = {**COMMON, "n_trials": 2, "epsilon": 1e-3, **settings}
    return SharpnessTrajectory(records, ["SB", "LB"], settings, interrupted)
