"""Made-up results of experiments."""

import numpy as np

from sklgap.experiments import MinimaCensus, SharpnessTrajectory, WarmStartCurve
from sklgap.experiments._scores import Samples
from sklgap.experiments._trials import Outcome

COMMON = {
    "n_train": 1000,
    "n_test": 200,
    "estimator": "LBGapClassifier()",
    "epsilon": [1e-3],
    "subspace_dims": [None],
    "batch_norm": "batch",
    "predict_batch_norm": "population",
    "n_samples_sharpness": 800,
    "solver": "auto",
    "scores": ["accuracy"],
    "random_state": 0,
    "environment": {"gpu": None},
}
# Two classes, half of the samples each.
LABELS = np.arange(200) % 2
TARGETS = {"test": LABELS, "classes": np.array([0, 1])}


def made_up_record(regime, trial, **values):
    """Return a record of a fit, or what is given."""
    defaults = {
        "regime": regime,
        "trial": trial,
        "seed": 10 + trial,
        "batch_size": 100,
        "train_accuracy": 0.99,
        "test_accuracy": 0.9,
        "train_loss": 0.010,
        "test_loss": 0.20,
        "weight_distance": 4.0,
        "n_epochs": 20,
        "n_updates": 200,
        "converged": True,
        "fit_seconds": 1.5,
        "sharpness_0.001": 300.0,
        "measure_seconds": 0.5,
    }
    return {**defaults, **values}


def right(accuracy, seed=0):
    """Return which of 200 samples are predicted right."""
    found = np.zeros(200, dtype=bool)
    found[np.random.default_rng(seed).permutation(200)[: round(200 * accuracy)]] = True
    return Samples(found)


def outcomes(records, names=(), seed=0):
    """Return the outcomes of fits; of the accuracies ``names`` also which samples are right."""
    return [
        Outcome(record, {name: right(record[name], seed + i) for name in names}, None)
        for i, record in enumerate(records)
    ]


# Two trials; after 0, 5 and 10 small-batch epochs.
WARM = {
    "test_accuracy": ((0.90, 0.91, 0.95), (0.92, 0.91, 0.96)),
    "small_test_accuracy": ((0.10, 0.94, 0.96), (0.12, 0.93, 0.97)),
    "sharpness_0.001": ((100.0, 80.0, 10.0), (200.0, 100.0, 5.0)),
}


def warm_record(trial, epochs, **values):
    """Return a record of a large-batch training after so many small-batch epochs, or what is given."""
    made_up = {key: table[trial][(0, 5, 10).index(epochs)] for key, table in WARM.items()}
    start = {"small_epochs": epochs, "small_train_loss": 0.5, "small_n_updates": 8 * epochs}
    return {**made_up_record(f"LB after {epochs} epochs", trial), **start, **made_up, **values}


def warm_start(records=None, interrupted=False, small_records=None, samples=False, **settings):
    """Return a result; with ``samples`` it knows which test samples are predicted right."""
    if records is None:
        records = [warm_record(trial, epochs) for epochs in (10, 0, 5) for trial in (1, 0)]
    if small_records is None:
        small_records = [
            {k: v for k, v in record.items() if k in ("trial", "seed") or k.startswith("small_")} for record in records
        ]
    own = {"n_trials": 2, "reference": "0", "small": "SB", "large": "LB", "small_epochs": [0, 5, 10]}
    names = ("test_accuracy", "small_test_accuracy") if samples else ()
    return WarmStartCurve(
        outcomes(records, names),
        {**COMMON, **own, **settings},
        interrupted,
        small_records=small_records,
        targets=TARGETS if samples else None,
    )


SB_SHARPNESS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
LB_ACCURACIES = (0.90, 0.89, 0.88, 0.86, 0.87, 0.85)
LB_SHARPNESS = (4.0, 8.0, 12.0, 16.0, 20.0, 24.0)


def census_record(regime, init, trial, **values):
    """Return a record of a minimum: LB is sharper, and its sharper minima test worse; "torch" is twice as sharp."""
    sharpness = (SB_SHARPNESS if regime == "SB" else LB_SHARPNESS)[trial] * (2 if init == "torch" else 1)
    accuracy = 0.95 + 0.01 * (trial % 2) if regime == "SB" else LB_ACCURACIES[trial]
    own = {"init": init, "sharpness_0.001": sharpness, "test_accuracy": accuracy}
    return {**made_up_record(regime, trial), **own, **values}


GROUPS = [(regime, init) for regime in ("SB", "LB") for init in ("glorot_uniform", "torch")]


def census(records=None, interrupted=False, samples=False, **settings):
    """Return a result; with ``samples`` it knows which test samples are predicted right."""
    if records is None:
        records = [census_record(*group, trial) for trial in range(6) for group in reversed(GROUPS)]
    own = {"n_trials": 6, "reference": "SB, glorot_uniform", "target_loss": None}
    found = outcomes(records, ("test_accuracy",) if samples else ())
    targets = TARGETS if samples else None
    return MinimaCensus(found, list(GROUPS), {**COMMON, **own, **settings}, interrupted, targets=targets)


def power_law(regime, trial, factor, power, losses=(2.0, 0.2, 0.02, 0.002)):
    """Return the records of a training along which sharpness is factor * loss ** power."""
    fit = {"regime": regime, "trial": trial, "seed": trial, "weight_distance": 1.0, "train_accuracy": 0.9}
    return [
        {**fit, "n_updates": 4**i, "epoch": float(i), "train_loss": loss, "sharpness": factor * loss**power}
        for i, loss in enumerate(losses)
    ]


def trajectory(records=None, interrupted=False, labels=("SB", "LB"), **settings):
    if records is None:
        records = [
            *power_law("SB", 0, 10.0, 0.5),
            *power_law("LB", 0, 20.0, 0.5),
            *power_law("SB", 1, 10.0, 0.5),
            *power_law("LB", 1, 80.0, 0.5),
        ]
    return SharpnessTrajectory(records, list(labels), {**COMMON, "n_trials": 2, **settings}, interrupted)


def said(result, *words):
    """Return whether one note, and one alone, has all these words."""
    found = [sentence for sentence in result.notes if all(word in sentence for word in words)]
    return len(found) == 1 and found[0] in str(result)


def leaves(result):
    """Check that a result leaves in all forms, each without a number that is none; return the others as text."""
    forms = {
        "latex": result.to_latex(),
        "markdown": result.to_markdown(),
        "html": result._repr_html_(),
        "text": str(result),
        "json": result.to_json(),
    }
    for name, form in forms.items():
        assert "nan" not in form.lower().replace("nanmean", ""), name
        assert "NaN" not in form, name
    return forms
