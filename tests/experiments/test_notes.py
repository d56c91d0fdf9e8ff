"""What a reader must know: each sentence where it belongs, and nowhere else. Asserted by numbers and labels."""

import json

import numpy as np
import pytest

from sklgap.experiments import _notes as notes
from sklgap.experiments._estimate import NEW_SEEDS_AND_ROWS, Estimate
from sklgap.experiments._scores import Score, check_scoring
from tests.experiments.records import SB_ACCURACY, comparison, curve, record


def _both(trial, sb=None, lb=None):
    return [record("SB", trial, **(sb or {})), record("LB", trial, **(lb or {}))]


def _all(sb=None, lb=None, **settings):
    return comparison([r for t in range(3) for r in _both(t, sb, lb)], **settings)


def _noted(report, *words):
    """One note has all these words, and stands in what is printed and written."""
    sentences = [s for s in report.notes if all(word in s for word in words)]
    assert len(sentences) == 1, report.notes
    assert sentences[0] in str(report)
    assert sentences[0] in json.loads(report.to_json(), parse_constant=pytest.fail)["notes"]


# -- of a comparison ---------------------------------------------------------------------------------------------------


def test_no_note_without_a_reason():
    assert comparison().notes == []
    assert "Please note" not in str(comparison())


def test_an_interval_that_contains_0():
    accuracies = (0.95, 0.97, 0.94)
    report = comparison([r for t in range(3) for r in _both(t, lb={"test_accuracy": accuracies[t]})])
    assert report.gap("LB").low < 0 < report.gap("LB").high
    _noted(report, "contains 0", "LB", "accuracy", "SB")


def test_equal_accuracies_in_all_trials_show_nothing_of_other_seeds():
    """The same samples right, in all trials: no interval, however many there are."""
    report = comparison([r for t in range(3) for r in _both(t, lb={"test_accuracy": SB_ACCURACY[t]})])
    assert not report.gap("LB").has_interval
    _noted(report, "no interval for LB", "the same result")


@pytest.mark.parametrize(("loss", "noted"), [(0.021, True), (0.019, False), (0.0049, True), (0.0051, False)])
def test_unequal_training_losses(loss, noted):
    report = _all(lb={"train_loss": loss})
    if noted:
        _noted(report, "SB (1.0e-02)", f"LB ({loss:.1e})", "factor of 2")
    else:
        assert report.notes == []


def test_unequal_losses_where_another_trial_of_the_reference_diverged():
    records = [
        *_both(0, lb={"train_loss": 1e-5}),
        *_both(1, lb={"train_loss": 1e-5}),
        record("SB", 2, train_loss=np.nan),
    ]
    (sentence,) = [s for s in comparison(records, interrupted=True).notes if "factor" in s]
    assert "nan" not in sentence


def test_regimes_without_a_stopping_rule():
    """Nothing says whether training for a fixed number of epochs would have gone on."""
    report = _all(sb={"converged": None}, lb={"converged": None})
    _noted(report, "All fits", "no stopping rule")
    assert json.loads(report.to_json())["records"][0]["converged"] is None
    _noted(_all(lb={"converged": None}), "LB", "no stopping rule")


def test_regimes_that_had_not_converged():
    report = comparison([r for t in range(3) for r in _both(t, lb={"converged": t == 1})])
    _noted(report, "not converged", "LB (in 2 of 3 fits)")
    assert not any("SB" in sentence for sentence in report.notes)


def test_one_trial():
    report = comparison(_both(0), n_trials=1)
    _noted(report, "no interval for LB", "2 paired trials")
    assert "nan" not in str(report)


def test_interrupted():
    _noted(comparison([*_both(0), record("SB", 1)], interrupted=True), "Interrupted", "3 of 6 fits")


def test_a_large_batch_that_is_not_sharper():
    report = comparison([r for t in range(3) for r in _both(t, lb={"sharpness_0.001": 0.1})])
    _noted(report, "not sharper than SB", "LB")


def test_a_large_batch_that_is_better():
    best = (0.98, 0.985, 0.99)
    report = comparison([r for t in range(3) for r in _both(t, lb={"test_accuracy": best[t]})])
    _noted(report, "These are better than SB", "accuracy", "LB")


def test_intervals_for_new_seeds_alone():
    _noted(comparison(samples=False), "LB", "but not new samples")


def test_labels_of_one_note_are_one_sentence():
    labels = ("SB", *(f"LB {number}" for number in range(9)))
    report = comparison(
        [record(label, t, test_accuracy=SB_ACCURACY[t]) for t in range(3) for label in labels], labels=labels
    )
    _noted(report, "no interval", "LB 0, LB 1, LB 2, LB 3, LB 4, LB 5 and 3 more")


def test_trials_without_a_score():
    """A difference that leaves out the fits that diverged flatters."""
    accuracies = (np.nan, *SB_ACCURACY[1:])
    records = [r for t in range(3) for r in _both(t, lb={"test_accuracy": accuracies[t]})]
    report = comparison(records, samples=False)
    _noted(report, "no finite accuracy", "LB (in 1 of 3 trials)")
    assert report.gap("LB").n == 2


# -- of a curve --------------------------------------------------------------------------------------------------------

VALID = {100: (0.96, 0.95, 0.955), 200: (0.96, 0.951, 0.954), 400: (0.90, 0.91, 0.92)}


def _own(c):
    """The notes of a curve but those that every curve of three sizes has."""
    return [note for note in c.notes if "intervals holds" not in note and "smallest margin" not in note]


def test_no_note_of_a_curve_without_a_reason():
    assert _own(curve(VALID)) == []


def test_fits_of_a_curve_that_had_not_converged():
    c = curve(VALID, values={400: {"converged": False}})
    _noted(c, "not converged", "batches of 400 (in 3 of 3 fits)")
    c = curve(VALID, values={400: {"converged": False}}, budget="loss", target_loss=0.1)
    _noted(c, "target loss", "batches of 400 (in 3 of 3 fits)")
    _noted(curve(VALID, values={size: {"converged": None} for size in VALID}), "whole budget")


def test_unequal_losses_of_a_curve_in_one_sentence():
    c = curve(VALID, values={200: {"train_loss": 0.03}, 400: {"train_loss": 0.5}})
    _noted(c, "batches of 100 (1.0e-02)", "200 (3.0e-02) and 400 (5.0e-01)")
    _noted(curve(VALID, values={400: {"train_loss": np.nan}}), "not finite", "batches of 400 (in 3 of 3 fits)")


def test_rates_at_the_edge():
    rates = [1e-4, 1e-3, 1e-2]
    c = curve(VALID, lr="tuned", learning_rates=rates, values={200: {"lr": 1e-2}, 400: {"lr": 1e-4}})
    _noted(c, "edge of learning_rates", "200 (0.01)", "400 (0.0001)")
    (other,) = _own(curve(VALID, lr="tuned", learning_rates=rates))
    assert "too coarse to decide" in other
    assert _own(curve(VALID, lr="tuned", learning_rates=[1e-3])) == []


def test_a_curve_of_one_trial():
    c = curve({size: accuracies[:1] for size, accuracies in VALID.items()})
    _noted(c, "no interval for 200 and 400", "2 paired trials")
    assert "nan" not in str(c)
    assert "largest_safe_batch_size(curve)" not in str(c)  # it takes two
    assert str(curve(VALID)).count("largest_safe_batch_size(curve)") == 1


def test_an_interrupted_curve():
    c = curve(VALID, skip=[(200, 1), (400, 1), (200, 2), (400, 2)], interrupted=True)
    _noted(c, "Interrupted", "5 of 9 fits")
    only = curve(VALID, skip=[(size, t) for size in VALID for t in range(3) if (size, t) != (200, 0)], interrupted=True)
    assert "nothing can be compared" in str(only)
    assert "nan" not in str(only)
    tried = [{"batch_size": 100, "lr": 1e-3, "trial": 0}]
    rates = {"lr": "tuned", "learning_rates": [1e-3, 1e-2], "tuning_seeds": [1, 2]}
    none = curve({100: (0.9,), 200: (0.9,)}, skip=[(100, 0), (200, 0)], interrupted=True, tuning=tried, **rates)
    _noted(none, "Interrupted", "learning rates", "1 of 8")
    assert "nan" not in str(none)


def test_many_intervals_of_a_curve():
    _noted(curve(VALID), "2 intervals", "95 %")
    assert not any("intervals" in note for note in curve({100: VALID[100], 200: VALID[400]}).notes)


def test_the_margin_that_the_hold_out_can_show():
    assert not any("hold-out of" in note for note in curve(VALID).notes)
    few = curve({100: (0.9, 0.8), 200: (0.8, 0.9)}, n_valid=100)
    _noted(few, "100 validation samples", "0.05 (5 samples)", "hold-out of 1,000")
    assert notes.resolution(100, check_scoring("neg_log_loss")[0]) == []
    assert "0.0072 (" in notes.resolution(700, Score("accuracy"))[0]  # 5 / 700, rounded up
    assert notes.resolution(1000, Score("accuracy")) == []


# -- each by itself ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[0] * 9 + [1], ["no"] * 9 + ["late"], [2] * 9 + [1, 1, 1] + [3]], ids=str)
def test_the_largest_class(labels):
    """Not one model beats what always says the largest class."""
    share = 9 / len(labels)
    (sentence,) = notes.majority_class({"SB": share, "LB": share - 0.1}, np.array(labels))
    for words in (f"{labels[0]}", f"{100 * share:.1f} %", "average_precision", "balanced_accuracy"):
        assert words in sentence
    many = np.array(labels * 1000)  # 10,000 samples or more: a standard error of at most half a point
    assert notes.majority_class({"SB": share + 0.001, "LB": 0.0}, many)
    assert notes.majority_class({"SB": share + 0.01, "LB": 0.0}, many) == []
    assert notes.majority_class({"SB": np.nan, "LB": share - 0.1}, np.array(labels)) != []
    assert notes.majority_class({}, np.array(labels)) == []


@pytest.mark.parametrize("n", range(1, 200, 7))
def test_the_largest_class_for_any_share(n):
    """The mean of equal shares may lie above them by a rounding."""
    labels = np.repeat([0, 1], [200, n])
    assert notes.majority_class({"LB": np.mean([200 / (200 + n)] * 3)}, labels)


def test_the_largest_class_in_a_comparison_and_a_curve():
    low = (0.49, 0.45, 0.5)
    records = [record(label, t, test_accuracy=low[t]) for t in range(3) for label in ("SB", "LB")]
    assert any("Always predicting 0" in note and "50.0 %" in note for note in comparison(records).notes)
    assert not any("Always predicting" in note for note in comparison().notes)
    assert any("Always predicting 0" in note for note in curve({100: low, 200: low}).notes)


@pytest.mark.parametrize(("n", "percent"), [(1, 95), (2, 78), (5, 45), (10, 26), (20, 14)])
def test_failures_that_few_trials_do_not_see(n, percent):
    (sentence,) = notes.unseen_failures(n)
    assert f"{percent} %" in sentence
    assert f"{n} trial" in sentence
    assert percent == round(100 * (1 - 0.05 ** (1 / n)))


def test_no_trials_have_no_failures():
    assert notes.unseen_failures(0) == []


def test_far_from_a_minimum():
    """From half the loss of guessing on, sharpness compares no minima."""
    losses = {"SB": 0.01, "LB": 0.4, "late": 0.34}
    (sentence,) = notes.far_from_a_minimum(losses, 2)
    assert "LB" in sentence
    assert "SB" not in sentence
    assert "late" not in sentence
    assert notes.far_from_a_minimum(losses, 10) == []  # where guessing costs 2.3


def test_which_intervals_contain_0():
    estimates = {
        "lost": Estimate(1.0, 0.5, 1.5, 3, NEW_SEEDS_AND_ROWS),
        "none": Estimate(0.1, -0.5, 0.7, 3, NEW_SEEDS_AND_ROWS),
        "single": Estimate(0.1, -np.inf, np.inf, 1),
        "equal": Estimate(0.1, -np.inf, np.inf, 4),
        "gained": Estimate(-1.0, -1.5, -0.5, 3),
    }
    (undecided,) = notes.undecided("SB", estimates, "f1")
    assert "none" in undecided
    assert "f1" in undecided
    assert not any(label in undecided for label in ("lost", "single", "equal", "gained"))
    few, equal = notes.no_interval(estimates)
    assert "for single:" in few
    assert "for equal:" in equal
    (better,) = notes.better("SB", estimates, "f1")
    assert "gained" in better
    assert "lost" not in better
    (seeds,) = notes.seeds_only(estimates)
    assert "gained" in seeds
    assert "lost" not in seeds
