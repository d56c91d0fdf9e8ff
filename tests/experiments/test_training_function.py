"""A training function of the user's own in place of an estimator: what it is called with, and what its scores say."""

import fractions
import functools
import json
import math

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from sklgap import LBGapClassifier, batch_size_curve, explain_gap, largest_safe_batch_size
from sklgap.experiments import BatchSizeCurve, Estimate, GapExplanation, Measurement
from sklgap.experiments._estimate import crossed_components
from sklgap.experiments._training_function import is_training_function
from tests import nonsense
from tests.ids import plain
from tests.tiny import blobs

N = 400  # validation samples


def right(batch_size, random_state, rate=0.0, n=N):
    """Which samples are right: the hard ones are the same in all trials, and large batches have more of them wrong."""
    rng = np.random.RandomState([random_state % 1000, batch_size])
    return np.linspace(0, 1, n) + 0.1 * rng.randn(n) > 0.1 + 0.0001 * batch_size - rate


def train(batch_size, random_state):
    return {"correct": right(batch_size, random_state)}


def train_at_a_rate(batch_size, learning_rate, random_state):
    """Best at a rate of 0.001 for each sample of the batch."""
    loss = abs(math.log10(learning_rate) - math.log10(0.001 * batch_size))
    return {"gain": -loss - 0.01 * np.random.RandomState(random_state % 1000).rand(), "train_loss": loss}


def compute(function=train, **kwargs):
    defaults = {"batch_sizes": [10, 100, 1000], "n_trials": 4, "random_state": 0, "verbose": 0}
    return batch_size_curve(function, **{**defaults, **kwargs})


def recorded(result=0.5):
    """Return a function that returns this, or calls it with the arguments, and the list of its calls."""
    calls = []

    def function(**arguments):
        calls.append(arguments)
        return result(**arguments) if callable(result) else result

    return function, calls


def varying(batch_size, random_state, **more):
    return float(np.random.RandomState([random_state % 1000, batch_size]).rand())


# -- what it is called with --------------------------------------------------------------------------------------------


def test_every_size_of_a_trial_is_called_with_one_seed():
    function, calls = recorded(varying)
    curve = compute(function, n_trials=3)
    assert [call["batch_size"] for call in calls] == [10, 100, 1000] * 3
    seeds = [call["random_state"] for call in calls]
    assert len(set(seeds)) == 3
    assert all(len(set(seeds[3 * i : 3 * i + 3])) == 1 for i in range(3))
    assert [record["seed"] for record in curve.records] == seeds
    assert all(call.keys() == {"batch_size", "random_state"} for call in calls)
    assert all(type(value) is int for call in calls for value in call.values())


@pytest.mark.parametrize(
    ("lr", "rates"),
    [("fixed", [0.1, 0.1, 0.1]), ("sqrt", [0.1, 0.1 * 10**0.5, 1.0]), ("linear", [0.1, 1.0, 10.0])],
)
def test_the_rate_follows_the_rule_from_the_reference(lr, rates):
    function, calls = recorded(varying)
    curve = compute(function, n_trials=1, lr=lr, learning_rate=0.1)
    assert [call["learning_rate"] for call in calls] == pytest.approx(rates)
    assert [record["lr"] for record in curve.records] == pytest.approx(rates)
    assert f"lr={lr!r}" in str(curve)


def test_the_rate_is_that_at_the_reference_where_it_is_not_the_smallest():
    function, calls = recorded(varying)
    compute(function, n_trials=1, lr="linear", learning_rate=0.1, reference=100)
    assert [call["learning_rate"] for call in calls] == pytest.approx([0.01, 0.1, 1.0])


def test_rates_are_chosen_by_seeds_that_the_trials_do_not_use():
    curve = compute(train_at_a_rate, lr="tuned", learning_rates=[0.01, 0.1, 1.0], scoring="gain")
    assert {r["batch_size"]: r["lr"] for r in curve.records} == {10: 0.01, 100: 0.1, 1000: 1.0}
    assert len(curve.tuning) == 3 * 3 * 2
    assert {r["seed"] for r in curve.tuning}.isdisjoint({r["seed"] for r in curve.records})
    assert {"batch_size", "lr", "trial", "seed", "valid_gain", "train_loss"} <= curve.tuning[0].keys()


def test_of_equal_scores_the_smallest_rate_is_chosen():
    function, _ = recorded(varying)
    curve = compute(function, lr="tuned", learning_rates=[0.3, 0.1, 0.2], n_trials=2)
    assert {r["lr"] for r in curve.records} == {0.1}


def test_partial_functions_and_objects_are_called_as_well():
    class Trainer:
        def __call__(self, batch_size, random_state):
            return train(batch_size, random_state)

    def three(batch_size, random_state, more):
        return train(batch_size, random_state)

    plain = compute()
    for function in (Trainer(), functools.partial(three, more=1), lambda batch_size, random_state: train(10, 0)):
        curve = compute(function)
        assert len(curve.records) == len(plain.records)
    assert compute(functools.partial(three, more=1)).settings["training_function"] == "three"


def test_parallel_calls_give_the_same():
    one = compute()
    with joblib.parallel_config(backend="threading"):
        two = compute(n_jobs=2)
    assert [r["valid_accuracy"] for r in one.records] == [r["valid_accuracy"] for r in two.records]


# -- what it returns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [0.25, 1, np.float32(0.25), np.array(0.25), torch.tensor(0.25), {"gain": 0.25}, (nn.Linear(1, 1), 0.25)],
    ids=["float", "int", "numpy", "0-d", "tensor", "dict", "pair"],
)
def test_one_number_is_the_score(value):
    function, _ = recorded(value)
    curve = compute(function, n_trials=1)
    name = curve.scores[0].name
    assert name == ("gain" if isinstance(value, dict) else "score")
    assert [r[f"valid_{name}"] for r in curve.records] == [1 if value == 1 else 0.25] * 3
    assert not curve.scores[0].is_fraction


@pytest.mark.parametrize(
    "kind", [np.asarray, list, torch.tensor, lambda v: torch.tensor(v).requires_grad_(False)], ids=plain
)
def test_correct_makes_intervals_cover_new_samples(kind):
    curve = compute(lambda batch_size, random_state: {"correct": kind(right(batch_size, random_state))})
    gap = curve.gap(1000)
    assert "seeds" in gap.covers
    assert "validation samples" in gap.covers
    seeds = sorted({r["trial"]: r["seed"] for r in curve.records}.items())
    differences = [right(10, s) * 1.0 - right(1000, s) for _, s in seeds]
    expected = crossed_components(np.array(differences)).estimate()
    assert (gap.value, gap.low, gap.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert curve.settings["n_valid"] == N
    assert curve.samples_of(10, 0, "valid_accuracy").values.tolist() == right(10, seeds[0][1]).tolist()


def test_without_correct_an_interval_covers_seeds_only_and_says_so():
    curve = compute(lambda batch_size, random_state: float(right(batch_size, random_state).mean()))
    full = compute()
    gap = curve.gap(1000)
    assert gap.covers == "new seeds"
    assert gap.value == pytest.approx(full.gap(1000).value)
    notes = " ".join(curve.notes)
    assert "covers new seeds but not new samples" in notes
    assert "'correct'" in notes
    assert "but not new samples" not in " ".join(full.notes)


def test_models_are_there_by_batch_size():
    curve = compute(lambda batch_size, random_state: (f"model {batch_size}", train(batch_size, random_state)))
    assert curve.estimators_[100] == ["model 100"] * 4
    assert compute().estimators_[100] == [None] * 4


def test_other_numbers_are_recorded_and_some_have_their_columns_and_notes():
    def function(batch_size, random_state):
        return {**train(batch_size, random_state), "n_updates": 4000 / batch_size, "train_loss": batch_size, "own": 3}

    curve = compute(function)
    assert {r["own"] for r in curve.records} == {3.0}
    text = str(curve)
    assert "updates" in text
    assert "train loss" in text
    assert "longer training" in text
    bare = compute()
    assert "updates" not in bare._table()[0]
    assert "lr" not in bare._table()[0]


def test_a_score_that_is_not_finite_is_a_training_that_diverged():
    def function(batch_size, random_state):
        return math.inf if batch_size == 1000 and random_state % 2 else varying(batch_size, random_state) / 100

    curve = compute(function, n_trials=8)
    lost = int(np.isnan(curve.values(1000, "valid_score")).sum())
    assert 0 < lost < 8
    assert f"(in {lost} of 8 trials)" in " ".join(curve.notes)
    safe = largest_safe_batch_size(curve, 0.5)
    assert int(safe) == 100
    assert safe.tests[-1].n_failed == lost


def test_accuracy_beside_correct_must_be_their_share():
    def function(batch_size, random_state):
        correct = right(batch_size, random_state)
        return {"correct": correct, "accuracy": np.float32(correct.mean())}

    assert compute(function).values(10, "valid_accuracy").tolist() == compute().values(10, "valid_accuracy").tolist()
    with pytest.raises(ValueError, match=r"accuracy.*share of True"):
        compute(lambda **k: {**train(**k), "accuracy": 91.0})


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "number"),
        ("0.9", "number"),
        (True, "number"),
        ([0.9, 0.8], "number"),
        ((0.9, 0.8), "number"),
        (1j, "number"),
        ({"correct": [1, 0, 1]}, "True or False"),
        ({"correct": 0.9}, "True or False"),
        ({"correct": [True]}, "True or False"),
        ({"correct": [[True, False]]}, "True or False"),
        ({"gain": "high"}, "gain"),
        ({1: 0.5}, "names with numbers"),
        ({"gain": 0.5, "seed": 3}, "seed"),
        ({"one": 0.5, "two": 0.7}, "scoring must name"),
        ({"loss": 0.5}, "neg_loss"),
        ({"valid_error": 0.5}, "neg_valid_error"),
        ({"perplexity": 5.0}, "neg_perplexity"),
        ({"valLoss": 0.5}, "neg_valLoss"),
        ({"val/logloss": 0.5}, "neg_val/logloss"),
        ({"bits_per_byte": 1.1}, "neg_bits_per_byte"),
        ({"crossentropy": 0.5}, "neg_crossentropy"),
        ({}, "empty dict"),
    ],
)
def test_what_is_not_understood_is_refused_at_the_first_call(returned, words):
    function, calls = recorded(returned)
    with pytest.raises((ValueError, TypeError), match=words):
        compute(function)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda batch_size, random_state: {"correct": right(batch_size, 0, n=batch_size)},
        lambda batch_size, random_state: 0.5 if batch_size == 10 else {"gain": 0.5},
        lambda batch_size, random_state: {"accuracy": 0.5} if batch_size == 10 else {"correct": [True, False]},
    ],
    ids=["other samples", "other names", "with and without correct"],
)
def test_calls_that_cannot_be_compared_are_refused_at_once(function):
    counted, calls = recorded(function)
    with pytest.raises(ValueError, match=r"same scores, on the same validation samples.*batches of 10, .*of 100, "):
        compute(counted)
    assert len(calls) == 2


def test_exceptions_of_the_function_are_its_own():
    def function(batch_size, random_state):
        raise ZeroDivisionError("of mine")

    with pytest.raises(ZeroDivisionError, match="of mine"):
        compute(function)


def loop(batch_size, learning_rate, random_state):
    """A plain loop of PyTorch."""
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        net = nn.Linear(4, 3)
        start = net.weight.detach().clone()
        sgd = torch.optim.SGD(net.parameters(), lr=learning_rate)
        for rows in torch.randperm(300).split(batch_size):
            sgd.zero_grad()
            nn.functional.cross_entropy(net(X[rows]), Y[rows]).backward()
            sgd.step()
        correct = net(X[300:]).argmax(dim=1) == Y[300:]
    return (start, net), {"correct": correct, "train_loss": nn.functional.cross_entropy(net(X[:300]), Y[:300])}


X, Y = (torch.as_tensor(part) for part in blobs(600, seed=3))


def test_a_loop_of_pytorch():
    curve = compute(loop, batch_sizes=[5, 150], learning_rate=0.01, n_trials=3)
    assert curve.gap(150).value > 0.05
    for record in curve.records:
        start, net = curve.estimators_[record["regime"]][record["trial"]]
        assert torch.equal(start, curve.estimators_[5][record["trial"]][0])
        assert record["valid_accuracy"] == pytest.approx(float((net(X[300:]).argmax(1) == Y[300:]).float().mean()))
    assert curve.values(150, "train_loss").min() > curve.values(5, "train_loss").max()


# -- which number is the score -----------------------------------------------------------------------------------------


def several(batch_size, random_state, learning_rate=0.1, epochs=1):
    correct = right(batch_size // epochs, random_state)
    return {"correct": correct, "f1": correct.mean() ** 2, "loss": 1 - correct.mean()}


def test_correct_is_judged_unless_another_score_is_named():
    assert [score.name for score in compute(several).scores] == ["accuracy"]
    assert [score.name for score in compute(several, scoring="f1").scores] == ["f1", "accuracy"]
    named = compute(several, scoring=["accuracy", "f1"])
    assert [score.name for score in named.scores] == ["accuracy", "f1"]
    assert named.gap(1000, "f1").covers == "new seeds"
    assert "samples" in named.gap(1000, "accuracy").covers
    assert {"loss", "valid_f1", "valid_accuracy"} <= named.records[0].keys()


@pytest.mark.parametrize("scoring", ["mine", ["accuracy", "recall"]])
def test_a_score_that_is_not_returned_is_refused(scoring):
    with pytest.raises(ValueError, match=r"scoring must name scores that.*'f1'"):
        compute(several, scoring=scoring)


def test_a_loss_is_refused_as_a_score_even_if_it_is_named():
    with pytest.raises(ValueError, match="neg_loss"):
        compute(several, scoring="loss")
    assert compute(lambda **k: {"neg_loss": varying(**k)}).scores[0].name == "neg_loss"


@pytest.mark.parametrize("scoring", [3, [], [1], {"f1": "f1"}, lambda e, X, y: 0.0, ["f1", "f1"]], ids=plain)
def test_scoring_must_be_names(scoring):
    function, calls = recorded()
    with pytest.raises((ValueError, TypeError), match="scoring must be"):
        compute(function, scoring=scoring)
    assert not calls


# -- what is refused before anything is trained ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"X": np.zeros((3, 1)), "y": np.zeros(3)}, "X, y must be left out"),
        ({"X_test": [[0]]}, "X_test must be left out"),
        ({"epsilon": [1e-3, 1e-4]}, "epsilon must be left out"),
        ({"batch_norm": "running"}, "batch_norm must be left out"),
        ({"measurement": Measurement()}, "measurement must be left out"),
        ({"budget": "updates"}, "budget must be left out"),
        ({"validation_fraction": 0.5}, "validation_fraction must be left out"),
        ({"batch_sizes": None}, "batch_sizes must be a sequence of integers"),
        ({"batch_sizes": []}, "batch_sizes"),
        ({"batch_sizes": [0.1, 0.2]}, "batch_sizes must be integers"),
        ({"batch_sizes": [0, 10]}, "batch_sizes"),
        ({"batch_sizes": [10, 10]}, "batch_sizes must all be different"),
        ({"batch_sizes": [10, 10**12]}, "batch_sizes must be an integer from 1"),
        ({"reference": 50}, "reference must be one of"),
        ({"reference": 2000}, "reference must be one of"),
        ({"reference": 0.5}, "reference must be an integer"),
        ({"lr": "sqrt"}, "learning_rate must be the learning rate at the reference"),
        ({"lr": "linear"}, "learning_rate must be the learning rate at the reference"),
        ({"lr": "tuned", "learning_rate": 0.1}, "learning_rate must be None"),
        ({"lr": "half"}, "lr must be one of"),
        ({"lr": "tuned", "learning_rates": []}, "learning_rates"),
        ({"learning_rate": -0.1}, "learning_rate must be a number above 0"),
        ({"learning_rate": "high"}, "learning_rate must be a number above 0"),
        ({"n_trials": 0}, "n_trials"),
        ({"random_state": None, "memory": "somewhere"}, "memory must be None"),
    ],
)
def test_wrong_parameters(parameters, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, calls = recorded()
    with pytest.raises((ValueError, TypeError), match=words):
        compute(function, **parameters)
    assert not calls


@pytest.mark.parametrize(
    ("function", "parameters", "words"),
    [
        (train, {"learning_rate": 0.1}, "learning_rate"),
        (train, {"lr": "tuned"}, "learning_rate"),
        (train_at_a_rate, {}, "give learning_rate"),
        (lambda: 0.5, {}, r"batch_size=\.\.\., random_state=\.\.\."),
        (lambda size, seed: 0.5, {}, r"batch_size=\.\.\., random_state=\.\.\."),
        (lambda batch_size: 0.5, {}, "random_state"),
        (lambda batch_size, random_state, data: 0.5, {}, "'data'"),
        (lambda batch_size, random_state, /: 0.5, {}, "train"),
    ],
)
def test_a_function_that_cannot_be_called_so(function, parameters, words):
    with pytest.raises(TypeError, match=f"^estimator must be .*{words}"):
        compute(function, **parameters)


def test_nonsense_in_every_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = {"estimator": several, "n_trials": 1, "random_state": 0, "verbose": 0}
    calls = {
        "batch_size_curve": nonsense.plain(batch_size_curve, **good, batch_sizes=[4, 8]),
        "explain_gap": nonsense.plain(explain_gap, **good, small=4, large=8, causes={"a": {"epochs": 2}}),
    }
    cases = list(nonsense.nonsense(calls))
    assert len(cases) > 2000
    for i in np.random.default_rng(0).choice(len(cases), 400, replace=False):
        name, call, argument, value, thunk = cases[i]
        why = nonsense.verdict(call, argument, thunk)
        assert not why, f"{name}({argument}={value}): {why}"


def test_an_estimator_needs_data_and_has_its_own_rate():
    with pytest.raises(ValueError, match="X must be an array"):
        batch_size_curve(LBGapClassifier(), batch_sizes=[10])
    data = np.zeros((20, 2)), np.arange(20) % 2
    with pytest.raises(ValueError, match="learning_rate must be None"):
        batch_size_curve(LBGapClassifier(), *data, *data, learning_rate=0.1)
    with pytest.raises(ValueError, match="learning_rate must be None"):
        explain_gap(LBGapClassifier(), *data, *data, learning_rate=0.1)


def test_what_is_a_training_function():
    assert all(map(is_training_function, (train, lambda: 0, functools.partial(train, 3), print)))
    assert not any(map(is_training_function, (LBGapClassifier(), LBGapClassifier, nn.Linear(1, 1), "train", None)))


# -- what it says ------------------------------------------------------------------------------------------------------


def test_it_prints_and_leaves_like_a_curve_of_an_estimator(tmp_path):
    curve = compute()
    assert isinstance(curve, BatchSizeCurve)
    text = str(curve)
    assert text.startswith("Batches of 1,000 score")
    assert "scores that train returns of 400 validation samples" in text
    assert "test " not in text.split("Please note")[0]
    assert json.loads(curve.to_json(samples=True))["settings"]["training_function"] == "train"
    for written in (curve.to_latex(), curve.to_markdown(), curve._repr_html_()):
        assert "valid. accuracy" in written
    frame = curve.to_frame()
    assert {"valid_accuracy", "fit_seconds"} <= set(frame.columns)


def test_the_plot_has_the_scores_that_there_are():
    display = compute().plot()
    assert list(display.score) == ["validation"]
    assert display.score["validation"].shape == (3, 4)
    assert display.sharpness_ax_ is None


def test_notes_say_what_cannot_be_checked():
    notes = " ".join(compute().notes)
    for words in (
        "cannot check that the trials are paired",
        "random_state",
        "validation samples are not among the training samples",
        "test samples",
        "same order",
        "400",
    ):
        assert words in notes


def test_trials_that_are_all_the_same_have_no_interval_and_are_said():
    for same in (0.5, {"correct": right(10, 0)}):
        function, _ = recorded(same)
        curve = compute(function)
        assert "not to use random_state" in " ".join(curve.notes)
        assert not curve.gap(1000).has_interval
        safe = largest_safe_batch_size(curve, 0.1)
        assert int(safe) == 10
        assert not safe.tests[0].shown
    assert "not to use random_state" not in " ".join(compute().notes)


def test_equal_shares_of_other_samples_are_not_the_same_trial():
    curve = compute(lambda batch_size, random_state: {"correct": np.roll(np.arange(100) > 5, random_state % 97)})
    assert set(curve.values(10, "valid_accuracy")) == {0.94}
    assert "not to use random_state" not in " ".join(curve.notes)


def test_the_cost_is_said_first(capsys):
    curve = compute(train_at_a_rate, verbose=1, lr="tuned", learning_rates=[0.01, 0.1], scoring="gain")
    assert "cost: 24 trainings by train_at_a_rate" in capsys.readouterr().out
    assert curve.settings["cost"] == {"n_fits": 24}


# -- safe --------------------------------------------------------------------------------------------------------------


def test_the_safe_size_is_tested_as_of_an_estimator():
    safe = largest_safe_batch_size(compute(n_trials=6), 0.05)
    assert int(safe) == 100
    assert [test.shown for test in safe.tests] == [True, False]
    assert "validation samples" in str(safe)
    with pytest.raises(ValueError, match=r"0\.0125 with 400 validation"):
        largest_safe_batch_size(compute(), 0.005)


def test_a_score_of_unknown_range_needs_a_margin_and_of_unknown_samples_it_is_said():
    curve = compute(lambda **k: {"gain": right(**k).mean()}, n_trials=6)
    with pytest.raises(ValueError, match="margin must be given for gain"):
        largest_safe_batch_size(curve)
    safe = largest_safe_batch_size(curve, 0.05)
    assert int(safe) == 100
    assert "It covers new seeds." in str(safe)
    assert "is not known" in str(safe)


def test_accuracy_is_no_score_of_a_function_that_does_not_return_it():
    curve = compute(lambda **k: {"gain": varying(**k)})
    with pytest.raises(ValueError, match=r"scoring must name scores that the curve has measured, 'gain'"):
        largest_safe_batch_size(curve, 0.5, scoring="accuracy")
    with pytest.raises(ValueError, match="'gain'"):
        curve.gap(100, "accuracy")


def test_a_function_is_no_curve_and_the_way_out_is_named():
    with pytest.raises(
        TypeError, match=r"curve must be a BatchSizeCurve; got a function.* by batch_size_curve\(train, "
    ):
        largest_safe_batch_size(train, 0.05)


def test_a_second_function_confirms_on_what_it_returns():
    curve = compute(n_trials=6)
    second = compute(n_trials=6, random_state=1, batch_sizes=[10, 100])
    safe = largest_safe_batch_size(curve, 0.05, confirm=second)
    assert safe.confirmed is True
    assert "confirmed by 6 trials with other seeds" in str(safe)
    bad = compute(
        lambda batch_size, random_state: {"correct": right(batch_size**2, random_state)},
        **{"n_trials": 6, "random_state": 1, "batch_sizes": [10, 100]},
    )
    assert largest_safe_batch_size(curve, 0.05, confirm=bad).confirmed is False


@pytest.mark.parametrize(
    ("function", "parameters", "words"),
    [
        (train, {"random_state": 0}, "other seeds"),
        (train, {"reference": 100}, "reference 10"),
        (lambda **k: {"accuracy": right(**k).mean()}, {}, "'correct'"),
        (lambda **k: {"gain": right(**k).mean()}, {}, "accuracy"),
        (lambda batch_size, random_state: {"correct": right(batch_size, random_state, n=50)}, {}, "validation samples"),
        (lambda learning_rate, **k: train(**k), {"learning_rate": 0.1}, "learning_rate"),
    ],
)
def test_second_curves_that_confirm_nothing(function, parameters, words):
    second = compute(function, **{"random_state": 1, **parameters})
    with pytest.raises(ValueError, match=f"^confirm must .*{words}"):
        largest_safe_batch_size(compute(n_trials=6), 0.05, confirm=second)


# -- interruption and memory -------------------------------------------------------------------------------------------


def interrupting(call):
    """Return a function that is interrupted, as by Ctrl-C, in that call."""
    n_calls = 0

    def function(batch_size, random_state, learning_rate=None):
        nonlocal n_calls
        n_calls += 1
        if n_calls == call:
            raise KeyboardInterrupt
        return train(batch_size, random_state)

    return function


def test_interrupted_in_a_trial():
    curve = compute(interrupting(6))
    assert curve.interrupted
    assert len(curve.records) == 5
    assert "5 of 12" in curve.notes[0]
    assert int(largest_safe_batch_size(curve, 0.05)) == 10  # one trial shows nothing


def test_interrupted_while_rates_are_tried():
    curve = compute(interrupting(6), lr="tuned", learning_rates=[0.1, 0.2])
    assert curve.interrupted
    assert (len(curve.tuning), len(curve.records)) == (5, 0)
    assert "5 of 12" in curve.notes[0]
    assert str(curve)


def test_interrupted_before_anything_had_finished():
    with pytest.raises(KeyboardInterrupt):
        compute(interrupting(1))
    with pytest.raises(KeyboardInterrupt):
        explain_gap(interrupting(1), small=10, large=100, causes={"a": {"learning_rate": 1.0}}, verbose=0)


SHIFT = 0.0


def saved(batch_size, random_state):
    """Say in the time that it takes whether it was called."""
    return {"correct": right(batch_size, random_state, rate=SHIFT), "gain": 0.25}


def test_memory_holds_scores(tmp_path, monkeypatch):
    first = compute(saved, memory=tmp_path)
    again = compute(saved, memory=tmp_path)
    assert again.records == first.records  # with their seconds, which no second training repeats
    assert again.gap(1000) == first.gap(1000)
    more = compute(saved, memory=tmp_path, scoring="gain")  # the same trainings, judged by another score
    assert [r["fit_seconds"] for r in more.records] == [r["fit_seconds"] for r in first.records]
    monkeypatch.setitem(globals(), "SHIFT", 0.3)
    other = compute(saved, memory=tmp_path)
    assert other.records[0]["valid_accuracy"] > first.records[0]["valid_accuracy"]


def test_memory_does_not_hold_models(tmp_path):
    def function(batch_size, random_state):
        return "model", train(batch_size, random_state)

    assert compute(function, memory=tmp_path).estimators_[10] == ["model"] * 4
    assert compute(function, memory=tmp_path).estimators_[10] == [None] * 4


def test_memory_is_refused_for_a_function_that_cannot_be_followed(tmp_path):
    file = (tmp_path / "log").open("w")

    def function(batch_size, random_state):
        file.write("called")
        return train(batch_size, random_state)

    with pytest.raises(ValueError, match=r"^memory must be None for function.*file"):
        compute(function, memory=tmp_path)
    file.close()


def test_a_function_that_changes_what_it_reads_is_not_saved(tmp_path):
    calls = []

    def function(batch_size, random_state):
        calls.append(batch_size)
        return train(batch_size, random_state)

    with pytest.warns(UserWarning, match="changes what it reads"):
        compute(function, memory=tmp_path, n_trials=1)
    with pytest.warns(UserWarning, match="changes what it reads"):
        compute(function, memory=tmp_path, n_trials=1)
    assert len(calls) == 6


def test_a_damaged_file_is_not_believed(tmp_path):
    first = compute(saved, memory=tmp_path, n_trials=1)
    for path in tmp_path.glob("*.scores"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match="damaged"):
        again = compute(saved, memory=tmp_path, n_trials=1)
    assert [r["valid_accuracy"] for r in again.records] == [r["valid_accuracy"] for r in first.records]


# -- explain_gap -------------------------------------------------------------------------------------------------------


def trained_longer(batch_size, random_state, learning_rate=0.1, epochs=1):
    """Lose by the batch size, less so after more epochs and at larger rates."""
    return {"correct": right(int(batch_size / epochs * 0.1 / learning_rate), random_state)}


CAUSES = {"fewer updates": {"epochs": 10}, "learning rate": {"learning_rate": 0.2}}


def explain(function=trained_longer, **kwargs):
    defaults = {"small": 10, "large": 2000, "causes": CAUSES, "n_trials": 4, "random_state": 0, "verbose": 0}
    return explain_gap(function, **{**defaults, **kwargs})


def test_causes_are_arguments_of_the_function():
    function, calls = recorded(varying)
    explain(function, n_trials=1)
    seed = calls[0]["random_state"]
    assert calls == [
        {"batch_size": 10, "random_state": seed},
        {"batch_size": 2000, "random_state": seed},
        {"batch_size": 2000, "random_state": seed, "epochs": 10},
        {"batch_size": 2000, "random_state": seed, "epochs": 10, "learning_rate": 0.2},
        {"batch_size": 2000, "random_state": seed, "learning_rate": 0.2},
    ]


def test_parts_add_up_and_say_what_they_cover():
    found = explain()
    assert isinstance(found, GapExplanation)
    assert list(found.parts()) == ["fewer updates", "learning rate", "not explained"]
    assert sum(part.value for part in found.parts().values()) == pytest.approx(found.total().value)
    assert found.parts()["fewer updates"].low > 0
    assert all("validation samples" in part.covers for part in found.parts().values())
    text = str(found)
    assert "scores that trained_longer returns of 400 validation samples" in text
    assert "part of the gap: validation score" in text
    assert "cannot check that the trials are paired" in text
    for written in (found.to_latex(), found.to_markdown(), found._repr_html_(), found.to_json()):
        assert "fewer updates" in written
    assert "validation" in found.plot().name


def test_the_rate_is_scaled_by_name():
    function, calls = recorded(varying)
    explain(function, n_trials=1, causes=["learning rate"], learning_rate=0.1, small=10, large=1000)
    assert [call["learning_rate"] for call in calls] == pytest.approx([0.1, 0.1, 1.0])


@pytest.mark.parametrize("score", [0.5, {"correct": [True, False, True]}])
def test_a_large_batch_that_does_not_lose(score):
    function, _ = recorded(score)
    found = explain(function)
    assert found.verdict[0].startswith("The large batch does not lose here: it scores")
    assert "not to use random_state" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"causes": None}, "causes must be given for a training function"),
        ({"causes": ["fewer updates"]}, r"causes must be given .*\{'fewer updates': \{'epochs': 320\}\}"),
        ({"causes": ["learning rate"]}, "learning_rate must be given"),
        ({"causes": {}}, "causes must be a dict"),
        ({"causes": {"a": {}}}, "causes must be a dict"),
        ({"causes": {"a": {"batch_size": 3}}}, "causes must not set batch_size"),
        ({"causes": {"a": {"epochs": 3}, "b": {"epochs": 4}}}, "must not set a parameter twice"),
        ({"causes": {"a": {"callbacks": [1]}, "b": {"callbacks": [2]}}}, "must not set a parameter twice"),
        ({"causes": {"a": {"unknown": 1}}}, "unknown"),
        ({"small": "SB"}, "small must be an integer"),
        ({"large": 0.1}, "large must be an integer"),
        ({"small": 2000}, "small must be a smaller batch"),
        ({"X": [[0.0]]}, "X must be left out"),
        ({"epsilon": 1e-3}, "epsilon must be left out"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"n_trials": 0}, "n_trials"),
    ],
)
def test_explanations_that_are_refused(parameters, words):
    with pytest.raises((ValueError, TypeError), match=words):
        explain(**parameters)


def test_an_interrupted_explanation_and_its_memory(tmp_path):
    found = explain(interrupting(4), causes={"rate": {"learning_rate": 0.2}})
    assert found.interrupted
    assert len(found.records) == 3
    first = explain(memory=tmp_path)
    assert explain(memory=tmp_path).records == first.records


def test_every_interval_is_an_estimate():
    for estimate in (compute().gap(100), explain().total()):
        assert isinstance(estimate, Estimate)


@pytest.mark.parametrize("name", ["neg_logloss", "negLogLoss", "minus_bits", "lossless", "erroneous", "glossary"])
def test_names_that_only_look_like_losses_are_scores(name):
    assert compute(lambda **k: {name: varying(**k)}).scores[0].name == name


@pytest.mark.parametrize("value", [10**400, -(10**400), fractions.Fraction(10**400)])
def test_a_number_beyond_all_floats_is_not_finite(value):
    assert "no finite score" in str(compute(lambda batch_size, random_state: value if batch_size > 10 else 0.5))
