import json
import signal

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import LBGapClassifier, SwitchBatch, batch_size_curve, sharpness
from sklgap.experiments import BatchSizeCurve, _trials
from sklgap.experiments._batch_size_curve import _best_rate, _hold_out, ladder
from sklgap.objective import check_objective
from tests.cases import no_global_random_numbers
from tests.counting import growth
from tests.experiments.records import curve as made_up
from tests.tiny import TinyF1, blobs, interrupting_at, small

X, Y = blobs(85)
DATA = (X[:60], Y[:60], X[60:], Y[60:])


TUNED = {"lr": "tuned", "learning_rates": [0.01, 0.03], "batch_sizes": [9, 54]}


def compute(estimator=None, data=DATA, **kwargs):
    defaults = {
        "batch_sizes": (9, 18, 54),
        "n_trials": 2,
        "epsilon": [],
        "random_state": 0,
        "verbose": 0,
    }
    return batch_size_curve(small() if estimator is None else estimator, *data, **{**defaults, **kwargs})


def _figures(curve):
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in curve.records]


def _tuning(curve):
    return [{k: v for k, v in record.items() if k != "fit_seconds"} for record in curve.tuning]


def _same_start(one, other):
    starts = (one.net_.module_start_, other.net_.module_start_)
    return all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_one_fit_for_every_size_and_trial():
    curve = compute(epsilon=[1e-3], subspace_dims=[None, 3], solver="power")
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
    curve = compute(epsilon=[1e-3], max_samples=None, solver="power")
    rng = np.random.RandomState(0)
    (X_train, y_train), (X_valid, y_valid) = _hold_out(*DATA[:2], 0.1, rng)
    for record in curve.records:
        model = curve.estimators_[record["regime"]][record["trial"]]
        for name, rows in (("train", (X_train, y_train)), ("valid", (X_valid, y_valid)), ("test", DATA[2:])):
            assert (record[f"{name}_loss"], record[f"{name}_accuracy"]) == check_objective(model, *rows).evaluate()
        expected = sharpness(model, X_train, y_train, solver="power", random_state=record["seed"]).value
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
    assert list(curve.gaps()) == ["9", "54"]


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
    assert any("did not reach the target loss" in note for note in short.notes)


def test_rates_are_chosen_on_validation_data_and_other_seeds():
    rates = [1e-5, 0.03]
    curve = compute(lr="tuned", learning_rates=rates, batch_sizes=[9, 54])
    assert len(curve.tuning) == 2 * 2 * 2
    seeds = {record["seed"] for record in curve.tuning}
    assert seeds == set(curve.settings["tuning_seeds"])
    assert not seeds & {record["seed"] for record in curve.records}
    for size in curve.batch_sizes:
        means = [
            np.mean([r["valid_accuracy"] for r in curve.tuning if (r["batch_size"], r["lr"]) == (size, rate)])
            for rate in rates
        ]
        assert means[1] > means[0]
        assert curve.values(size, "lr").tolist() == [0.03, 0.03]
        assert [model.lr for model in curve.estimators_[str(size)]] == [0.03, 0.03]


def test_what_a_rate_is_chosen_by():
    curve = compute(lr="tuned", learning_rates=[0.01], batch_sizes=[9])
    train, valid = _hold_out(*DATA[:2], 0.1, np.random.RandomState(0))
    for record in curve.tuning:
        model = small(batch_size=9, lr=0.01, random_state=record["seed"]).fit(*train)
        expected = check_objective(model, *valid).evaluate()
        assert (record["valid_loss"], record["valid_accuracy"]) == expected


def test_test_data_decide_nothing():
    wrong = (*DATA[:3], (DATA[3] + 1) % 3)
    curve, other = (compute(data=data, **{**TUNED, "learning_rates": [1e-5, 0.03]}) for data in (DATA, wrong))
    assert [record["lr"] for record in curve.records] == [record["lr"] for record in other.records]
    assert _tuning(curve) == _tuning(other)


def test_the_best_rate():
    def record(lr, trial, accuracy, loss):
        return {"batch_size": 9, "lr": lr, "trial": trial, "valid_accuracy": accuracy, "valid_loss": loss}

    tuning = [record(0.1, 0, 0.9, 1.0), record(0.1, 1, 0.8, 1.0), record(0.2, 0, 0.8, 0.5), record(0.2, 1, 0.8, 0.5)]
    assert _best_rate(tuning) == 0.1
    tied = [*tuning[2:], record(0.3, 0, 0.8, 0.4), record(0.3, 1, 0.8, 0.4), record(0.4, 0, 0.8, np.nan)]
    assert _best_rate(tied) == 0.3


@pytest.mark.parametrize("score", ["accuracy", "f1"])
def test_choosing_a_rate_takes_time_in_proportion_to_the_rates(score):
    def make(n):
        records = [{"lr": i % n, f"valid_{score}": i, "valid_loss": 1.0} for i in range(2 * n)]
        return lambda: _best_rate(records, score)

    assert growth(make, 50) < 2.3


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


# -- inputs, random numbers, processes ---------------------------------------------------------------------------------


def test_a_pipeline_lists_and_pandas():
    pd = pytest.importorskip("pandas")
    expected = _figures(compute(n_trials=1))
    assert _figures(compute(data=[part.tolist() for part in DATA], n_trials=1)) == expected
    frames = [pd.DataFrame(p) if p.ndim == 2 else pd.Series(p, index=np.arange(len(p))[::-1]) for p in DATA]
    for frame in frames[::2]:
        frame.columns = list("abcd")
    assert _figures(compute(data=frames, n_trials=1)) == expected
    curve = compute(make_pipeline(StandardScaler(), small()), n_trials=1, lr="tuned", learning_rates=[0.01], verbose=1)
    assert curve.estimators_["9"][0][-1].batch_size == 9


def test_repeatable_and_without_global_random_numbers():
    once = {**TUNED, "learning_rates": [0.01], "n_trials": 1}
    with torch.random.fork_rng(devices=[]), no_global_random_numbers():
        first = _figures(compute(verbose=1, **once))
    assert _figures(compute(**once)) == first
    assert _figures(compute(random_state=1, **once)) != first


@pytest.mark.slow
def test_two_processes_find_what_one_finds():
    assert _figures(compute(n_trials=1, n_jobs=2)) == _figures(compute(n_trials=1))


def test_the_cost_is_told_first(capsys):
    compute(n_trials=1)
    assert capsys.readouterr() == ("", "")
    curve = compute(lr="tuned", learning_rates=[0.01, 0.02], verbose=1)
    out, err = capsys.readouterr()
    # Three sizes, two trials and two rates of two seeds each.
    assert out.startswith("cost: 18 fits, at most 120 updates, about")
    assert curve.settings["cost"]["n_fits"] == [6, 6, 6]
    assert "margin of at least" in out
    assert "6 validation samples" in out
    assert sum(r["n_updates"] for r in (*curve.records, *curve.tuning)) == 120
    assert "validation accuracy" in err
    assert "test accuracy" in err


# -- Ctrl-C and bad input ----------------------------------------------------------------------------------------------


def test_ctrl_c():
    curve = compute(small(net=interrupting_at(19)))  # 12 and 6 steps before it
    assert [(r["trial"], r["batch_size"]) for r in curve.records] == [(0, 9), (0, 18)]
    assert curve.interrupted
    assert any("Interrupted" in note and "2 of 6 fits" in note for note in curve.notes)
    with pytest.raises(KeyboardInterrupt):
        compute(small(net=interrupting_at(1)))


def test_ctrl_c_while_rates_are_tried(tmp_path):
    """The first fits are those of trial 0 of tuning: 12, 12 and 2 steps, and then the fourth."""
    curve = compute(small(net=interrupting_at(27)), **TUNED)
    assert curve.records == []
    whole = compute(small(net=TinyF1), **TUNED)
    assert _tuning(curve) == [r for r in _tuning(whole) if r["trial"] == 0 and (r["batch_size"], r["lr"]) != (54, 0.03)]
    assert any("Interrupted" in note and "3 of 8" in note for note in curve.notes)
    texts = [str(curve), curve.to_latex(), curve.to_markdown(), curve._repr_html_()]
    assert all("nan" not in text for text in texts)
    assert len(json.loads(curve.to_json(), parse_constant=pytest.fail)["tuning"]) == 3
    with pytest.raises(KeyboardInterrupt):
        compute(small(net=interrupting_at(1)), **TUNED)


def test_a_signal_between_tuning_and_trials(monkeypatch):
    def best_rate(*args):
        signal.raise_signal(signal.SIGTERM)
        return _best_rate(*args)

    monkeypatch.setattr("sklgap.experiments._batch_size_curve._best_rate", best_rate)
    curve = compute(**TUNED)
    assert curve.interrupted
    assert (curve.records, len(curve.tuning)) == ([], 8)
    assert any("Interrupted" in note and "0 of 4 fits" in note for note in curve.notes)


@pytest.mark.parametrize("n_measured", [3, 6])
def test_an_interrupted_curve_goes_on(n_measured, tmp_path, monkeypatch):
    """Interrupted while rates are tried, and in the trials: nothing that had finished is done again."""
    calls, real = [], _trials.measure

    def measure(*args):
        calls.append(1)
        if len(calls) == n_measured:
            signal.raise_signal(signal.SIGTERM)
        return real(*args)

    monkeypatch.setattr(_trials, "measure", measure)
    one_size = {**TUNED, "batch_sizes": [54]}
    assert compute(memory=tmp_path, **one_size).interrupted
    again = compute(memory=tmp_path, **one_size)
    assert len(calls) == 4 + 2 + 1
    monkeypatch.setattr(_trials, "measure", real)
    plain = compute(**one_size)
    assert _figures(again) == _figures(plain)
    assert _tuning(again) == _tuning(plain)


def test_scores_decide_in_the_place_of_accuracy():
    """The rate is chosen by the first score, and a difference of it has an interval for new samples."""
    rates = {"lr": "tuned", "learning_rates": [1e-5, 0.03], "batch_sizes": [9, 30]}
    curve = compute(scoring=["balanced_accuracy", "neg_log_loss"], validation_fraction=0.5, **rates)
    names = [f"{part}_{name}" for part in ("train", "valid", "test") for name in ("accuracy", "balanced_accuracy")]
    assert all(name in curve.records[0] for name in names)
    assert {"valid_neg_log_loss", "valid_balanced_accuracy", "valid_accuracy"} <= set(curve.tuning[0])
    model = curve.estimators_[30][1]
    recalls = [(model.predict(DATA[2][DATA[3] == label]) == label).mean() for label in range(3)]
    assert curve.by_trial(30, "test_balanced_accuracy")[1] == pytest.approx(np.mean(recalls))
    assert set(curve.gaps("neg_log_loss")) == {"30"}
    assert curve.samples_of(30, 0, "valid_balanced_accuracy").method == "predict"
    assert curve.samples_of(30, 0, "train_balanced_accuracy") is None
    assert "balanced_accuracy, population" in str(curve)


def test_a_class_that_is_not_tested_is_found_before_training(monkeypatch):
    monkeypatch.setattr(LBGapClassifier, "fit", None)
    two = DATA[3] < 2
    with pytest.raises(ValueError, match="scoring must be defined for these labels; roc_auc_ovr"):
        compute(
            data=(*DATA[:2], DATA[2][two], DATA[3][two]),
            scoring="roc_auc_ovr",
            validation_fraction=0.5,
            batch_sizes=[9],
        )


BAD = {
    "lr": ({"lr": "best"}, "lr must be one of 'fixed', 'sqrt', 'linear', 'sde', 'tuned'; got 'best'"),
    "lr a number": ({"lr": 0.1}, "lr must be one of .*; got 0.1"),
    "rates 0": ({"learning_rates": [0]}, r"learning_rates must be a sequence of numbers above 0; got \[0\]"),
    "no rates": ({"learning_rates": []}, "learning_rates must be a sequence"),
    "rates a number": ({"learning_rates": 0.1}, "learning_rates must be a sequence of numbers above 0; got 0.1"),
    "rates twice": ({"learning_rates": [0.1, 0.1]}, "learning_rates must all be different"),
    "budget": ({"budget": "time"}, "budget must be one of 'epochs', 'updates', 'loss'; got 'time'"),
    "no target loss": ({"budget": "loss"}, "target_loss of the estimator must be a number above 0 .*; got None"),
    "n_trials": ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0"),
    "sizes 0": ({"batch_sizes": [0, 9]}, "batch_sizes must be an integer of at least 1, .*; got 0"),
    "sizes none": ({"batch_sizes": []}, r"batch_sizes must be None or a sequence of batch sizes; got \[\]"),
    "sizes text": ({"batch_sizes": "SB"}, "batch_sizes must be None or a sequence .*; got 'SB'"),
    "sizes a number": ({"batch_sizes": 9}, "batch_sizes must be None or a sequence .*; got 9"),
    "sizes twice": ({"batch_sizes": [9, 54, 1.0]}, r"batch_sizes must all be different; got \[9, 54, 1.0\]"),
    "sizes too large": (
        {"batch_sizes": [9, 60]},
        r"batch_sizes must be at most the 54 training samples; got \[9, 60\]",
    ),
    "reference": ({"reference": 10}, "reference must be one of the batch sizes, 9, 18, 54; got 10"),
    "reference text": ({"reference": "SB"}, "reference must be .*; got 'SB'"),
    "fraction 0": ({"validation_fraction": 0}, "validation_fraction must be a number above 0 and below 1; got 0"),
    "fraction 1": ({"validation_fraction": 1.0}, "validation_fraction must be .*; got 1.0"),
    "fraction small": (
        {"validation_fraction": 0.01},
        "validation_fraction must leave at least 2 validation samples .*; got 0.01 of 60",
    ),
    "fraction large": ({"validation_fraction": 0.99}, "validation_fraction must leave .*; got 0.99"),
    "epsilon": ({"epsilon": 0}, "epsilon must be .* above 0"),
    "scoring": ({"scoring": "f1"}, "scoring must be defined for these labels; f1"),
    "memory": ({"memory": "folder", "random_state": None}, "memory must be None while random_state is None"),
    "dims": ({"epsilon": [1e-3], "subspace_dims": [0]}, "subspace_dims must be a non-empty sequence"),
    "batch_norm": ({"batch_norm": "train"}, "batch_norm must be one of"),
    "solver": ({"solver": "best"}, "solver must be one of"),
    "max_samples": ({"max_samples": 0}, "max_samples must be .*; got 0"),
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
    with pytest.raises(ValueError, match="y must have one label per sample"):
        compute(data=(X[:60], np.c_[Y[:60], Y[:60]], X[60:], Y[60:]))
    with pytest.raises(ValueError, match="y_test must not have labels that y does not have"):
        compute(data=(*DATA[:3], DATA[3] + 7))


# -- print -------------------------------------------------------------------------------------------------------------

VALID = {100: (0.96, 0.95, 0.955), 200: (0.96, 0.951, 0.954), 400: (0.90, 0.91, 0.92)}
TEST = {100: (0.95, 0.94, 0.945), 200: (0.951, 0.939, 0.945), 400: (0.90, 0.91, 0.90)}
SHARPNESS = {size: {"sharpness_0.001": size / 50} for size in VALID}


def test_the_answer_stands_first():
    first = str(made_up(VALID, TEST, values=SHARPNESS)).splitlines()[0]
    for words in ("400", "4.17 points of accuracy", "below batches of 100", "3 trials", "8 % instead of 2 %"):
        assert words in first
    doubtful = str(made_up({100: TEST[100], 200: TEST[200]})).splitlines()[0]
    assert "0.00 points" in doubtful
    assert "contains 0" in doubtful
    one = {size: accuracies[:1] for size, accuracies in VALID.items()}
    assert "without an interval" in str(made_up(one)).splitlines()[0]


def test_the_table():
    text = str(made_up(VALID, TEST, values=SHARPNESS))
    rows = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in text.split("\n")]
    cells = {}  # of all tables, for a wide one is folded
    for row in (row for row in rows if row and row[0] in ("batch size", "100", "400")):
        cells.setdefault(row[0], []).extend(row[1:])
    named = dict(zip(cells["batch size"], cells["100"], strict=False))
    assert named["lr"] == "0.001"
    assert named["updates"] == "80"
    assert named["valid. accuracy (%), batch"] == "95.50 ± 0.50"
    assert named["test accuracy (%), batch"] == "94.50 ± 0.50"
    assert named["sharpness 0.001 (%)"] == "2 ± 0"
    assert named["regime gap (points)"] == "reference"
    gap = made_up(VALID, TEST).gap(400).scaled(100)
    last = dict(zip(cells["batch size"], cells["400"], strict=True))
    assert last["regime gap (points)"] == f"+4.17 [{gap.low:+.2f}, {gap.high:+.2f}]"
    assert last["worst trial"] == "+5.00"
    for words in ("1,000 training, 1,000 validation and 1,000 test samples", "3 paired trials", "batch_norm='batch'"):
        assert words in text
    assert text.count("95 % interval, for new seeds and new test samples") == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["lr='fixed'", "the same for all batch sizes"]),
        ({"lr": "sqrt"}, ["lr='sqrt'", "square root of the batch size"]),
        ({"lr": "linear"}, ["lr='linear'", "in proportion to the batch size"]),
        ({"lr": "tuned"}, ["lr='tuned'", "validation data", "seeds that the trials below do not use"]),
        ({}, ["budget='epochs'", "20 epochs"]),
        ({"budget": "updates"}, ["budget='updates'", "as many updates", "20 epochs"]),
        ({"budget": "loss", "target_loss": 0.05}, ["budget='loss'", "0.05", "20 epochs"]),
    ],
)
def test_the_question_is_printed(settings, words):
    text = str(made_up(VALID, **settings))
    assert all(word in text for word in words)


def test_files(tmp_path):
    tuning = [{"batch_size": 100, "lr": 1e-3, "valid_accuracy": 0.9}]
    c = made_up(VALID, TEST, tuning=tuning)
    text = c.to_json(tmp_path / "curve.json")
    assert (tmp_path / "curve.json").read_text(encoding="utf-8") == text + "\n"
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["records"] == c.records
    assert content["tuning"] == c.tuning == tuning
    assert content["settings"]["batch_sizes"] == [100, 200, 400]
    assert "95.50 ± 0.50" in c.to_markdown()
    assert c.to_latex().count(r"\\") == 4
    pytest.importorskip("pandas")
    assert c.to_frame()["valid_accuracy"].tolist() == [record["valid_accuracy"] for record in c.records]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_verdict_says_nothing_of_a_sharpness_that_is_no_number(value):
    accuracies = {10: [0.9, 0.91], 100: [0.8, 0.82]}
    found = made_up(accuracies, values={100: {"sharpness_0.001": value}})
    assert "sharpness" not in str(found).splitlines()[0]
    assert "sharpness 0.001 is 300 %" in str(made_up(accuracies, values={100: {"sharpness_0.001": 300.0}}))


def test_the_next_call_goes_with_the_notes():
    found = made_up(VALID, TEST)
    assert "call largest_safe_batch_size(curve" in found.text()
    assert "call largest_safe_batch_size" not in found.text(notes=False)
