import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier, SwitchBatch, batch_size_curve, sharpness
from sklgap.experiments import BatchSizeCurve
from sklgap.experiments._batch_size_curve import _best_rate, _different_seeds, _hold_out, ladder
from sklgap.objective import check_objective
from tests.cases import no_global_random_numbers
from tests.tiny import blobs, interrupting_at, small

X, Y = blobs(85)
DATA = (X[:60], Y[:60], X[60:], Y[60:])


def compute(estimator=None, data=DATA, **kwargs):
    defaults = {
        "batch_sizes": (9, 18, 54),
        "n_trials": 2,
        "epsilons": [],
        "random_state": 0,
        "verbose": 0,
    }
    return batch_size_curve(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


def _figures(curve):
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in curve.records]


def _same_start(one, other):
    starts = (one.net_.module_start_, other.net_.module_start_)
    return all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_one_fit_for_every_size_and_trial():
    curve = compute(epsilons=[1e-3], subspace_dims=[None, 3])
    assert isinstance(curve, BatchSizeCurve)
    assert curve.batch_sizes == [9, 18, 54]
    assert curve.reference == 9
    assert [(r["trial"], r["batch_size"]) for r in curve.records] == [
        (t, size) for t in range(2) for size in (9, 18, 54)
    ]
    assert [r["n_updates"] for r in curve.records] == [12, 6, 2] * 2
    assert (curve.settings["n_train"], curve.settings["n_valid"], curve.settings["n_test"]) == (54, 6, 25)
    seeds = [r["seed"] for r in curve.records]
    assert len(set(seeds)) == 2
    assert seeds[:3] == [seeds[0]] * 3
    for trial in range(2):
        models = [curve.estimators_[str(size)][trial] for size in (9, 18, 54)]
        assert all(_same_start(models[0], model) for model in models)
    assert not _same_start(*curve.estimators_["9"])


def test_figures_are_those_of_the_data_they_name():
    curve = compute(epsilons=[1e-3], max_samples=None)
    rng = np.random.RandomState(0)
    (X_train, y_train), (X_valid, y_valid) = _hold_out(*DATA[:2], 0.1, rng)
    for record in curve.records:
        model = curve.estimators_[record["regime"]][record["trial"]]
        for name, rows in (("train", (X_train, y_train)), ("valid", (X_valid, y_valid)), ("test", DATA[2:])):
            assert (record[f"{name}_loss"], record[f"{name}_accuracy"]) == check_objective(model, *rows).evaluate()
        expected = sharpness(model, X_train, y_train, random_state=record["seed"]).value
        assert record["sharpness_0.001"] == pytest.approx(expected, rel=1e-9)


def test_rows_held_out_are_not_trained_on():
    """What is held out moves neither the training nor what is said of other data."""
    curve = compute()
    rng = np.random.RandomState(0)
    index = np.arange(60)
    (_, _), (held_out, _) = _hold_out(index[:, None], DATA[1], 0.1, rng)
    other = DATA[0].copy()
    other[held_out[:, 0]] += 100
    again = compute(data=(other, *DATA[1:]))
    assert [r["test_accuracy"] for r in again.records] == [r["test_accuracy"] for r in curve.records]
    assert [r["train_loss"] for r in again.records] == [r["train_loss"] for r in curve.records]


def test_reference_and_sizes_as_fractions():
    curve = compute(batch_sizes=[1.0, 9, 1 / 3], reference=1 / 3, n_trials=1)
    assert curve.batch_sizes == [9, 18, 54]
    assert curve.reference == 18
    assert [gap.regime for gap in curve.gaps()] == ["9", "54"]


def test_the_estimators_own_size_is_overridden():
    expected = _figures(compute(n_trials=1))
    for model in (small(batch_size=7), small(batch_regime=SwitchBatch(1, first=5, then=10)), small(batch_regime="LB")):
        assert _figures(compute(model, n_trials=1)) == expected


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        # From 256 rows, doubled while at most 20 % of the rows.
        (60_000, [256, 512, 1024, 2048, 4096, 8192]),
        (10_240, [256, 512, 1024, 2048]),
        # Fewer than 10,240 rows begin with n // 40.
        (1131, [28, 56, 112, 224]),
        # The small batch is at least 8, and there is a second size where the data have it.
        (54, [8, 16]),
        (12, [8]),
    ],
)
def test_the_ladder(n, sizes):
    assert ladder(n) == sizes


def test_the_ladder_is_the_default():
    assert compute(batch_sizes=None, n_trials=1).batch_sizes == [8, 16]


# -- learning rates and budgets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr", "factors"), [("fixed", [1, 1, 1]), ("sqrt", [1, 2**0.5, 6**0.5]), ("linear", [1, 2, 6])]
)
def test_rates_follow_the_rule_from_the_reference(lr, factors):
    curve = compute(small(lr=0.01, lr_scaling="linear"), lr=lr, n_trials=1)
    expected = [0.01 * factor for factor in factors]
    assert [r["lr"] for r in curve.records] == pytest.approx(expected)
    used = [curve.estimators_[str(size)][0].history_[-1, "lr"] for size in curve.batch_sizes]
    assert used == pytest.approx(expected)


def test_a_warm_up_needs_a_rate_that_is_scaled():
    model = small(lr_scaling="linear", lr_warmup_epochs=1)
    fixed, linear = (compute(model, lr=lr, n_trials=1).estimators_["54"][0] for lr in ("fixed", "linear"))
    assert (fixed.lr_warmup_epochs, linear.lr_warmup_epochs) == (0, 1)


def test_budgets():
    assert [r["n_updates"] for r in compute(budget="updates", n_trials=1).records] == [12, 12, 12]
    assert [r["n_updates"] for r in compute(budget="updates", reference=18, n_trials=1).records] == [6, 6, 6]
    # An estimator that adapts, too, is trained for epochs where epochs are asked for.
    model = small(regime_adaptation=True)
    assert [r["n_updates"] for r in compute(model, n_trials=1).records] == [12, 6, 2]


def test_training_to_a_loss():
    model = small(max_epochs=200, target_loss=0.5, tol=0.5, n_iter_no_change=1)
    curve = compute(model, budget="loss", n_trials=1)
    for models in curve.estimators_.values():
        losses = [row["train_loss"] for row in models[0].history_]
        assert losses[-1] <= 0.5 < min(losses[:-1])
    assert [r["converged"] for r in curve.records] == [True] * 3
    short = compute(small(max_epochs=1, target_loss=1e-3), budget="loss", n_trials=1)
    assert any("Not reached target_loss" in sentence for sentence in short.warnings())


def test_rates_are_chosen_on_validation_data_and_other_seeds():
    lrs = [1e-5, 0.03]
    curve = compute(lr="tuned", lrs=lrs, batch_sizes=[9, 54])
    assert len(curve.tuning) == 2 * 2 * 2
    seeds = {record["seed"] for record in curve.tuning}
    assert seeds == set(curve.settings["tuning_seeds"])
    assert not seeds & {record["seed"] for record in curve.records}
    for size in curve.batch_sizes:
        means = [
            np.mean([r["valid_accuracy"] for r in curve.tuning if (r["batch_size"], r["lr"]) == (size, rate)])
            for rate in lrs
        ]
        assert means[1] > means[0]
        assert curve.values(size, "lr").tolist() == [0.03, 0.03]
        assert [model.lr for model in curve.estimators_[str(size)]] == [0.03, 0.03]


def test_what_a_rate_is_chosen_by():
    curve = compute(lr="tuned", lrs=[0.01], batch_sizes=[9])
    train, valid = _hold_out(*DATA[:2], 0.1, np.random.RandomState(0))
    for record in curve.tuning:
        model = small(batch_size=9, lr=0.01, random_state=record["seed"]).fit(*train)
        expected = check_objective(model, *valid).evaluate()
        assert (record["valid_loss"], record["valid_accuracy"]) == expected


def test_test_data_decide_nothing():
    wrong = (*DATA[:3], (DATA[3] + 1) % 3)
    curve, other = (compute(data=data, lr="tuned", lrs=[1e-5, 1e-3, 0.03]) for data in (DATA, wrong))
    assert [record["lr"] for record in curve.records] == [record["lr"] for record in other.records]
    assert [{k: v for k, v in r.items() if k != "fit_seconds"} for r in curve.tuning] == [
        {k: v for k, v in r.items() if k != "fit_seconds"} for r in other.tuning
    ]


def test_the_best_rate():
    def record(lr, trial, accuracy, loss):
        return {"batch_size": 9, "lr": lr, "trial": trial, "valid_accuracy": accuracy, "valid_loss": loss}

    tuning = [record(0.1, 0, 0.9, 1.0), record(0.1, 1, 0.8, 1.0), record(0.2, 0, 0.8, 0.5), record(0.2, 1, 0.8, 0.5)]
    assert _best_rate(tuning, 9) == 0.1
    tied = [*tuning[2:], record(0.3, 0, 0.8, 0.4), record(0.3, 1, 0.8, 0.4), record(0.4, 0, 0.8, np.nan)]
    assert _best_rate(tied, 9) == 0.3


# -- holding out -------------------------------------------------------------------------------------------------------


def test_classes_are_held_out_in_proportion():
    y = np.repeat(["a", "b", "c"], [600, 300, 100])
    rng = np.random.RandomState(0)
    (train, y_train), (valid, y_valid) = _hold_out(np.arange(1000)[:, None], y, 0.1, rng)
    assert sorted(np.r_[train, valid][:, 0]) == list(range(1000))
    np.testing.assert_array_equal(y[train[:, 0]], y_train)
    counts = [int((y_valid == label).sum()) for label in "abc"]
    assert counts == [60, 30, 10]


def test_a_class_of_one_row_stays_in_training():
    y = np.r_[np.zeros(30, int), np.ones(1, int), np.full(9, 2)]
    for seed in range(20):
        (_, y_train), (_, y_valid) = _hold_out(np.arange(40), y, 0.5, np.random.RandomState(seed))
        assert len(y_valid) == 20
        assert set(y_train) == {0, 1, 2}
        assert set(y_valid) == {0, 2}


def test_different_seeds():
    class Repeating:
        def randint(self, high, size):
            return np.array({4: [5, 5, 7, 8], 1: [9]}[size])

    assert _different_seeds(4, Repeating()) == [5, 7, 8, 9]


# -- inputs, random numbers, processes ---------------------------------------------------------------------------------


def test_a_pipeline_lists_and_pandas():
    pd = pytest.importorskip("pandas")
    expected = _figures(compute(n_trials=1))
    assert _figures(compute(data=[part.tolist() for part in DATA], n_trials=1)) == expected
    frames = [pd.DataFrame(p) if p.ndim == 2 else pd.Series(p, index=np.arange(len(p))[::-1]) for p in DATA]
    for frame in frames[::2]:
        frame.columns = list("abcd")
    assert _figures(compute(data=frames, n_trials=1)) == expected
    curve = compute(make_pipeline(StandardScaler(), small()), n_trials=1, lr="tuned", lrs=[0.01], verbose=1)
    assert curve.estimators_["9"][0][-1].batch_size == 9


def test_repeatable_and_without_global_random_numbers():
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        first = _figures(compute(lr="tuned", lrs=[0.01, 0.02], verbose=1))
    assert _figures(compute(lr="tuned", lrs=[0.01, 0.02])) == first
    assert _figures(compute(random_state=1)) != _figures(compute())


@pytest.mark.slow
def test_two_processes_find_what_one_finds():
    assert _figures(compute(n_trials=1, n_jobs=2)) == _figures(compute(n_trials=1))


def test_the_cost_is_told_first(capsys):
    compute(n_trials=1)
    assert capsys.readouterr() == ("", "")
    curve = compute(lr="tuned", lrs=[0.01, 0.02], verbose=1)
    out, err = capsys.readouterr()
    # Three sizes, two trials and two rates of two seeds each.
    assert out.startswith("cost: 18 fits, at most 120 updates, about")
    assert curve.settings["cost"]["n_fits"] == [6, 6, 6]
    assert sum(r["n_updates"] for r in (*curve.records, *curve.tuning)) == 120
    assert "validation accuracy" in err
    assert "test accuracy" in err


# -- Ctrl-C and bad input ----------------------------------------------------------------------------------------------


def test_ctrl_c():
    curve = compute(small(net=interrupting_at(19)))  # 12 and 6 steps before it
    assert [(r["trial"], r["batch_size"]) for r in curve.records] == [(0, 9), (0, 18)]
    assert curve.interrupted
    assert "Interrupted: 2 of 6 fits had finished" in str(curve)
    with pytest.raises(KeyboardInterrupt):  # before the rates are chosen
        compute(small(net=interrupting_at(19)), lr="tuned")


BAD = {
    "lr": ({"lr": "best"}, "lr must be one of 'fixed', 'sqrt', 'linear', 'tuned'; got 'best'"),
    "lr a number": ({"lr": 0.1}, "lr must be one of .*; got 0.1"),
    "lrs 0": ({"lrs": [0]}, r"lrs must be a sequence of numbers above 0; got \[0\]"),
    "lrs none": ({"lrs": []}, "lrs must be a sequence"),
    "lrs a number": ({"lrs": 0.1}, "lrs must be a sequence of numbers above 0; got 0.1"),
    "lrs twice": ({"lrs": [0.1, 0.1]}, "lrs must all be different"),
    "budget": ({"budget": "time"}, "budget must be one of 'epochs', 'updates', 'loss'; got 'time'"),
    "no target loss": ({"budget": "loss"}, "target_loss of the estimator must be a number above 0 .*; got None"),
    "n_trials": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0"),
    "sizes 0": ({"batch_sizes": [0, 9]}, "batch_sizes must be an integer of at least 1, .*; got 0"),
    "sizes none": ({"batch_sizes": []}, r"batch_sizes must be None or a sequence of batch sizes; got \[\]"),
    "sizes text": ({"batch_sizes": "SB"}, "batch_sizes must be None or a sequence .*; got 'SB'"),
    "sizes a number": ({"batch_sizes": 9}, "batch_sizes must be None or a sequence .*; got 9"),
    "sizes twice": ({"batch_sizes": [9, 54, 1.0]}, r"batch_sizes must all be different; got \[9, 54, 1.0\]"),
    "sizes too large": ({"batch_sizes": [9, 60]}, r"batch_sizes must be at most the 54 rows trained on; got \[9, 60\]"),
    "reference": ({"reference": 10}, "reference must be one of the batch sizes, 9, 18, 54; got 10"),
    "reference text": ({"reference": "SB"}, "reference must be .*; got 'SB'"),
    "fraction 0": ({"validation_fraction": 0}, "validation_fraction must be a number above 0 and below 1; got 0"),
    "fraction 1": ({"validation_fraction": 1.0}, "validation_fraction must be .*; got 1.0"),
    "fraction small": (
        {"validation_fraction": 0.01},
        "validation_fraction must leave at least 2 rows .*; got 0.01 of 60",
    ),
    "fraction large": ({"validation_fraction": 0.99}, "validation_fraction must leave .*; got 0.99"),
    "epsilons": ({"epsilons": 1e-3}, "epsilons must be a sequence"),
    "dims": ({"epsilons": [1e-3], "subspace_dims": [0]}, "subspace_dims must be a sequence"),
    "batch_norm": ({"batch_norm": "train"}, "batch_norm must be one of"),
    "solver": ({"solver": "best"}, "solver must be one of"),
    "max_samples": ({"max_samples": 0}, "max_samples must be None or an integer of at least 1; got 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_found_before_training(case, monkeypatch):
    def fit(self, *args):
        pytest.fail("trained before the error was found")

    monkeypatch.setattr(LBGapClassifier, "fit", fit)
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence):
        compute(**kwargs)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"lr": 0}, "lr of the estimator must be a number above 0; got 0"),
        ({"max_epochs": 0}, "max_epochs must be an integer of at least 1; got 0"),
        ({"target_loss": True}, "target_loss of the estimator must be .*; got True"),
    ],
)
def test_bad_parameters_of_the_estimator(params, sentence):
    with pytest.raises(ValueError, match=sentence):
        compute(small(**params), budget="loss" if "target_loss" in params else "epochs")


def test_bad_data():
    with pytest.raises(ValueError, match="y must have one label per row"):
        compute(data=(X[:60], np.c_[Y[:60], Y[:60]], X[60:], Y[60:]))
    with pytest.raises(ValueError, match="y_test must have labels that y has"):
        compute(data=(*DATA[:3], DATA[3] + 7))
