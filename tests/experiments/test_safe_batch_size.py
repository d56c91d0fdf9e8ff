"""The largest batch that is shown to be safe: what it needs, what it refuses, and what it says."""

import json
import operator

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import fbeta_score, get_scorer, make_scorer

from sklgap.experiments import SafeBatchSize, largest_safe_batch_size
from sklgap.experiments._estimate import crossed_components, fixed_sequence, loss_test, trial_components
from sklgap.experiments._scores import Samples, Score, check_scoring
from tests.experiments.records import comparison, curve, right, scored_curve

SMALL, LARGE = (0.950, 0.960, 0.955, 0.958), (0.948, 0.961, 0.951, 0.957)
MARGIN = 0.005
WORSE = np.subtract(SMALL, 0.02)


def crossed(one, other, n=1000):
    pairs = enumerate(zip(one, other, strict=True))
    return crossed_components(
        [np.subtract(right(a, n, t).values, right(b, n, t).values, dtype=float) for t, (a, b) in pairs]
    )


def noted(safe, *words):
    assert any(all(word in note for word in words) for note in safe.notes), safe.notes


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_bound_and_p_value_are_crossed(confidence):
    """Of new seeds and new samples: wider than those of the seeds alone."""
    safe = largest_safe_batch_size(curve({100: SMALL, 200: LARGE}), MARGIN, confidence=confidence)
    (test,) = safe.tests
    expected = crossed(SMALL, LARGE)
    assert (test.bound, test.p_value) == (expected.bound(confidence), expected.p_value(MARGIN))
    assert test.lost == pytest.approx(np.mean(SMALL) - np.mean(LARGE), rel=1e-12)
    assert test.shown == (test.p_value < 1 - confidence)
    assert (test.batch_size, test.score, test.n_trials, test.n_failed) == (200, "accuracy", 4, 0)
    assert test.worst == pytest.approx(0.004)
    assert "new seeds and new validation samples" in str(safe)


def test_seeds_alone_would_have_called_it_safe():
    """All trials lose the same samples' worth, and other samples would not: rows hold what seeds do not show."""
    hard = np.random.default_rng(0).permutation(1000)
    ones, lost = np.ones(1000, dtype=bool), [3, 2, 3, 2]
    ones[hard[:20]] = False  # the reference is wrong on these samples, and the large batch on others, in all trials
    both = {100: [Samples(ones)] * 4, 200: []}
    for k in lost:
        others = np.ones(1000, dtype=bool)
        others[hard[20 : 40 + k]] = False
        both[200].append(Samples(others))
    values = {size: [own.values.mean() for own in of_size] for size, of_size in both.items()}
    assert trial_components(np.subtract(values[100], values[200])).bound() < MARGIN
    seeds = largest_safe_batch_size(curve(values, samples=False))
    assert int(seeds) == 200
    assert "It covers new seeds.\n" in str(seeds)
    safe = largest_safe_batch_size(curve(values, samples=both))
    assert safe.tests[0].bound > MARGIN
    assert int(safe) == 100


def test_without_samples_the_test_is_students():
    (test,) = largest_safe_batch_size(curve({100: SMALL, 200: LARGE}, samples=False), MARGIN).tests
    reference = stats.ttest_rel(np.add(LARGE, MARGIN), SMALL, alternative="greater")
    assert test.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    interval = stats.ttest_rel(SMALL, LARGE, alternative="less").confidence_interval(0.95)
    assert test.bound == pytest.approx(interval.high, rel=1e-9)


def test_a_larger_batch_that_is_better_is_safe():
    safe = largest_safe_batch_size(curve({100: LARGE, 200: SMALL}))
    assert safe.tests[0].lost < 0
    assert int(safe) == 200


@pytest.mark.parametrize("lost", [0.0, 0.004])
def test_identical_trials_are_no_evidence(lost):
    c = curve({100: [0.95] * 3, 200: [0.95 - lost] * 3}, samples=False)
    safe = largest_safe_batch_size(c, MARGIN)
    (test,) = safe.tests
    assert np.isinf(test.bound)
    assert np.isnan(test.p_value)
    assert not test.shown
    assert "nan" not in str(safe)
    noted(safe, "no interval", "200", "the same result")


# -- the level of the whole --------------------------------------------------------------------------------------------


def simulated(rng, lost, n_trials, n_rows):
    """Return trials x samples of what a size loses: right or wrong, by chances that vary with seeds and samples."""
    of_seeds = 0.002 * rng.standard_normal((n_trials, 1))
    of_rows = 0.05 * rng.choice([-1, 1], n_rows)
    reference = rng.random((n_trials, n_rows)) < 0.9
    return np.subtract(reference, rng.random((n_trials, n_rows)) < 0.9 - lost + of_seeds + of_rows, dtype=float)


def test_the_level_of_the_sequence():
    """One safe size and two that lose exactly the margin: any of the two is called safe in at most 5 %."""
    n_runs, wrong, safe, margin, rng = 300, 0, 0, 0.02, np.random.default_rng(0)
    for _ in range(n_runs):
        sizes = (crossed_components(simulated(rng, lost, 5, 800)) for lost in (-0.02, margin, margin))
        tested = fixed_sequence(sizes, lambda losses: [loss_test(losses, margin)])
        shown = sum(test.shown for _, (test,) in tested)
        safe += shown >= 1
        wrong += shown >= 2
    assert wrong / n_runs < 0.06 + 4 * (0.05 * 0.95 / n_runs) ** 0.5
    assert safe / n_runs > 0.6  # that is asked of the sequence, not of nothing


# -- the sequence ------------------------------------------------------------------------------------------------------


def test_the_first_failure_ends_the_search():
    """A size above one that failed is not tested, even if it would pass."""
    safe = largest_safe_batch_size(curve({100: SMALL, 200: LARGE, 400: WORSE, 800: SMALL, 1600: SMALL}), 0.006)
    assert int(safe) == 200
    assert [(test.batch_size, test.shown) for test in safe.tests] == [(200, True), (400, False)]
    assert safe.untested == [800, 1600]
    assert str(safe).count("not tested") == 2


def test_a_loss_that_is_shown_is_called_one():
    """A clear loss is not told to need more trials; an undecided one is."""
    clear = str(largest_safe_batch_size(curve({100: SMALL, 200: np.subtract(SMALL, (0.09, 0.10, 0.08, 0.09))}), 0.04))
    assert "They are shown to lose more." in clear
    assert "does not prove" not in clear
    open_ = str(largest_safe_batch_size(curve({100: SMALL, 200: np.subtract(SMALL, (0.0, 0.02, 0.005, 0.015))}), 0.01))
    assert "does not prove that they lose more" in open_
    assert "shown to lose more" not in open_


def test_the_reference_itself_where_nothing_is_shown():
    safe = largest_safe_batch_size(curve({100: SMALL, 200: WORSE}))
    assert (int(safe), safe.reference, safe.confirmed) == (100, 100, None)
    first = str(safe).splitlines()
    assert "100" in first[0]
    assert all(word in first[1] for word in ("200", "not shown", "0.5 points of accuracy", "shown to lose more"))


def test_a_curve_with_nothing_above_the_reference():
    safe = largest_safe_batch_size(curve({100: SMALL}))
    assert (int(safe), safe.tests) == (100, [])
    assert "nothing was tested" in str(safe)


def test_sizes_below_the_reference_are_not_considered():
    safe = largest_safe_batch_size(curve({50: SMALL, 100: SMALL, 200: LARGE}, reference="100"))
    assert [test.batch_size for test in safe.tests] == [200]
    assert int(safe) == 200
    assert "A larger one may be safe too" in str(safe)


def test_validation_decides_and_test_data_do_not():
    bad = {100: SMALL, 200: np.subtract(SMALL, 0.3)}
    good = {100: SMALL, 200: LARGE}
    assert int(largest_safe_batch_size(curve(good, test=bad))) == 200
    assert int(largest_safe_batch_size(curve(bad, test=good))) == 100


def test_unpaired_trials_of_an_interrupted_curve():
    skip = [(200, 3), *((400, t) for t in (1, 2, 3)), *((800, t) for t in range(4))]
    best = np.add(SMALL, 0.01)
    safe = largest_safe_batch_size(curve({100: SMALL, 200: best, 400: best, 800: best}, skip=skip, interrupted=True))
    assert [(test.n_trials, test.shown) for test in safe.tests] == [(3, True), (1, False)]
    assert np.isinf(safe.tests[1].bound)
    assert "nan" not in str(safe)
    assert json.loads(safe.to_json(), parse_constant=pytest.fail)["records"][1]["bound"] is None


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fall", "failed"), [(0.025, 0), (0.026, 1)])
def test_a_size_that_fails_in_one_trial_is_not_safe(fall, failed):
    """Whatever the other trials show: more than five margins are lost in one of ten."""
    one = np.full(10, 0.95) + np.arange(10) % 3 / 1000
    other = one + 0.004
    other[4] = one[4] - fall
    safe = largest_safe_batch_size(curve({100: one, 200: other}), MARGIN)
    (test,) = safe.tests
    assert test.bound < MARGIN
    assert test.worst == pytest.approx(fall)
    assert (test.n_failed, test.shown) == (failed, not failed)
    if failed:
        noted(safe, "200", "failed in 1 of 10 trials", "5 margins")
        assert "not prove" not in str(safe)
    else:
        noted(safe, "26 %", "10 trials")  # 1 - 0.05 ** (1 / 10)


def test_a_trial_without_a_score_has_failed():
    """It diverged: to leave it out would call safe what fails."""
    accuracy = np.add(SMALL, (0.004, 0.005, np.nan, 0.005))
    safe = largest_safe_batch_size(curve({100: SMALL, 200: accuracy}, samples=False), MARGIN)
    (test,) = safe.tests
    assert test.bound < MARGIN
    assert (test.shown, test.n_failed, test.n_trials, test.worst) == (False, 1, 4, np.inf)
    noted(safe, "failed in 1 of 4 trials", "no finite accuracy")
    assert json.loads(safe.to_json(), parse_constant=pytest.fail)["records"][0]["worst"] is None
    none = largest_safe_batch_size(curve({100: SMALL, 200: [np.nan] * 4}, samples=False), MARGIN)
    assert (int(none), none.tests[0].n_failed) == (100, 4)
    assert "nan" not in str(none)


def test_which_rate_of_failures_five_trials_do_not_see():
    five = (*SMALL, 0.957)
    noted(largest_safe_batch_size(curve({100: five, 200: np.add(five, 0.001)})), "45 %", "5 trials")


# -- margins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_valid", "margin", "words"),
    [
        (999, None, "at least 0.0051 with 999 validation .* hold-out of 1,000"),
        (100, 0.01, "at least 0.05 with 100 validation .* hold-out of 500"),
        (700, 0.007, r"at least 0.0072 with 700 validation .* hold-out of 715"),
    ],
)
def test_a_margin_that_the_hold_out_cannot_resolve(n_valid, margin, words):
    c = curve({100: (0.9, 0.8), 200: (0.8, 0.9)}, n_valid=n_valid, samples=False)
    with pytest.raises(ValueError, match=f"margin must be {words}"):
        largest_safe_batch_size(c, margin)


@pytest.mark.parametrize(("n_valid", "margin"), [(1000, None), (100, 0.05), (700, 0.0072), (5000, 0.001)])
def test_the_smallest_margin_that_it_can(n_valid, margin):
    c = curve({100: (0.9, 0.8), 200: (0.8, 0.9)}, n_valid=n_valid, samples=False)
    assert largest_safe_batch_size(c, margin).margins == {"accuracy": margin or 0.005}


LOSS, KAPPA = check_scoring("neg_log_loss")[0], check_scoring("matthews_corrcoef")[0]
AP = check_scoring("average_precision")[0]
LOSSES = {100: (-0.30, -0.31, -0.29), 200: (-0.31, -0.315, -0.30)}


@pytest.mark.parametrize("score", [LOSS, KAPPA, Score("own", lambda estimator, X, y: 0.0)], ids=lambda s: s.name)
def test_scores_that_may_lie_outside_of_0_and_1_need_a_margin(score):
    c = scored_curve(score, LOSSES)
    with pytest.raises(ValueError, match=f"margin must be given for {score.name}, in its units"):
        largest_safe_batch_size(c)
    for margin in (0, -1, "small", np.inf, True):
        with pytest.raises(ValueError, match=f"margin must be a number above 0, in the units of {score.name}"):
            largest_safe_batch_size(c, margin)
    safe = largest_safe_batch_size(c, 2.0)  # which is no fraction, and needs no five samples
    assert int(safe) == 200
    assert "2 of" in str(safe)
    assert "points" not in str(safe).split("lost:")[0]


def test_a_fraction_has_the_margin_of_accuracy():
    c = scored_curve(AP, {100: (0.5, 0.51, 0.52), 200: (0.6, 0.62, 0.61)})
    assert largest_safe_batch_size(c).margins == {"average_precision": 0.005}
    with pytest.raises(ValueError, match=r"margin must be a number above 0 and below 1 .*; got 2"):
        largest_safe_batch_size(c, 2)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_all_scores_must_be_shown():
    """Accuracy is 0.9 everywhere but for what is given, and the first score decides together with it."""
    rng = np.random.default_rng(0)
    values = {100: 0.5 + 0.001 * rng.random(4), 200: 0.6 + 0.001 * rng.random(4), 400: 0.4 + 0.001 * rng.random(4)}
    c = scored_curve(AP, values)
    for one in c.records:
        one["valid_accuracy"] = {100: SMALL, 200: LARGE, 400: LARGE}[one["batch_size"]][one["trial"]]
    assert int(largest_safe_batch_size(c, 0.01)) == 200
    assert int(largest_safe_batch_size(c, 0.01, scoring="accuracy")) == 400
    both = largest_safe_batch_size(
        c, {"average_precision": 0.01, "accuracy": 0.006}, scoring=["average_precision", "accuracy"]
    )
    assert int(both) == 200
    assert [(t.batch_size, t.score, t.shown) for t in both.tests] == [
        (200, "average_precision", True),
        (200, "accuracy", True),
        (400, "average_precision", False),
        (400, "accuracy", True),
    ]
    assert "0.01 of average_precision and 0.6 points of accuracy" in str(both)
    strict = largest_safe_batch_size(c, {"accuracy": 0.005}, scoring=["accuracy", "average_precision"])
    assert strict.margins == {"accuracy": 0.005, "average_precision": 0.005}
    worse = {**values, 200: values[100] - 0.1}
    c = scored_curve(AP, worse)
    assert int(largest_safe_batch_size(c, scoring=["accuracy", "average_precision"])) == 100


def f_score(beta, **more):
    return make_scorer(fbeta_score, beta=beta, **more)


def test_scores_by_name_scorer_and_dict():
    (score,) = check_scoring({"f": f_score(2)})
    c = scored_curve(score, {100: (0.5, 0.51, 0.52), 200: (0.6, 0.62, 0.61)})
    for scoring in (None, "f", score.scorer, f_score(2), ["f"], {"f": f_score(2)}):
        assert largest_safe_batch_size(c, scoring=scoring).tests[0].score == "f"
    by_name = scored_curve(AP, {100: (0.5, 0.51, 0.52), 200: (0.6, 0.62, 0.61)})
    assert int(largest_safe_batch_size(by_name, scoring={"average_precision": "average_precision"})) == 200
    assert int(largest_safe_batch_size(by_name, scoring=get_scorer("average_precision"))) == 200


@pytest.mark.parametrize(
    "scoring",
    [
        "f1",
        f_score(1),
        f_score(2, greater_is_better=False),
        {"f": f_score(1)},
        {"f": "f1"},
        {"g": f_score(2)},
        ["f", "f1"],
        3,
        [],
    ],
    ids=str,
)
def test_a_score_that_was_not_measured_is_refused(scoring):
    """Also another scorer by the name of one that was."""
    (score,) = check_scoring({"f": f_score(2)})
    c = scored_curve(score, {100: (0.5, 0.51), 200: (0.6, 0.62)})
    with pytest.raises(
        ValueError, match=r"scoring must name scores that the curve has measured, 'f', 'accuracy'; got "
    ):
        largest_safe_batch_size(c, scoring=scoring)


def test_two_functions_without_names_are_not_one_score():
    measured, asked = (make_scorer(lambda y, found, k=k: k * (y == found).mean()) for k in (1, 2))
    c = scored_curve(Score("own", measured), {100: (0.5, 0.51), 200: (0.6, 0.62)})
    assert int(largest_safe_batch_size(c, 0.1, scoring=measured)) == 200
    with pytest.raises(ValueError, match="scoring must name scores that the curve has measured"):
        largest_safe_batch_size(c, 0.1, scoring=asked)


def test_margins_by_names_that_are_not_tested():
    with pytest.raises(ValueError, match="margin must have the names of the scores tested; got 'f1'"):
        largest_safe_batch_size(curve({100: SMALL, 200: LARGE}), {"f1": 0.1})


def test_a_score_whose_samples_are_too_few_for_an_interval_is_refused():
    """Seeds alone would call too much safe, and new samples cannot be covered."""
    rng = np.random.default_rng(0)
    outputs = {size: [Samples(rng.random((18, 2)), "predict_proba") for _ in range(2)] for size in (100, 200)}
    c = scored_curve(AP, {100: (0.5, 0.51), 200: (0.6, 0.62)}, outputs, n_valid=18, n_test=18)
    with pytest.raises(ValueError, match="at least 10 samples of every class"):
        largest_safe_batch_size(c, 0.5)


# -- confirming --------------------------------------------------------------------------------------------------------


def _second(test, **kwargs):
    return curve({100: SMALL, 200: SMALL}, test=test, first_seed=99, **kwargs)


def test_confirmed_on_the_test_data_of_other_seeds():
    first = curve({100: SMALL, 200: LARGE, 400: np.subtract(SMALL, 0.1)})
    good, bad = {100: SMALL, 200: LARGE}, {100: SMALL, 200: WORSE}
    safe = largest_safe_batch_size(first, confirm=_second(good))
    assert safe.confirmed is True
    (test,) = safe.confirmations
    assert test.p_value == crossed(SMALL, LARGE).p_value(MARGIN)
    said = [line for line in str(safe).splitlines() if "confirmed" in line]
    assert any(all(w in line for w in ("200", "confirmed", "4 trials", "other seeds", "test data")) for line in said)
    refuted = largest_safe_batch_size(first, confirm=_second(bad))
    assert (int(refuted), refuted.confirmed) == (200, False)
    assert "NOT confirmed" in str(refuted)
    assert "not confirmed with other seeds" in str(largest_safe_batch_size(first))
    assert json.loads(refuted.to_json())["confirmed"] is False


def test_there_is_nothing_to_confirm_where_the_reference_is_chosen():
    first = curve({100: SMALL, 200: np.subtract(SMALL, 0.1)})
    assert largest_safe_batch_size(first, confirm=_second({100: SMALL, 200: SMALL})).confirmed is None


def test_several_scores_are_confirmed_together():
    values = {100: (0.5, 0.51, 0.52), 200: (0.6, 0.62, 0.61)}
    first, second = scored_curve(AP, values), scored_curve(AP, values, first_seed=99)
    for c in (first, second):
        for one in c.records:
            one["valid_accuracy"] = one["test_accuracy"] = 0.9 + 0.001 * one["trial"] * (one["batch_size"] == 100)
    safe = largest_safe_batch_size(first, scoring=["average_precision", "accuracy"], margin=0.01, confirm=second)
    assert [test.score for test in safe.confirmations] == ["average_precision", "accuracy"]
    assert safe.confirmed is True


def test_shared_seeds_are_refused():
    first = curve({100: SMALL, 200: LARGE})
    with pytest.raises(ValueError, match=r"confirm must be a curve with other seeds, .* used 4 seeds of it"):
        largest_safe_batch_size(first, confirm=first)
    tuned = curve({100: SMALL, 200: LARGE}, first_seed=50, tuning_seeds=[11], lr="tuned")
    with pytest.raises(ValueError, match="1 seed of it"):
        largest_safe_batch_size(first, confirm=tuned)


EQUAL = {100: SMALL, 200: SMALL}
BAD_SECOND = {
    "no curve": (lambda: comparison(), TypeError, "confirm must be None or a BatchSizeCurve; got RegimeComparison"),
    "other reference": (
        lambda: curve({50: SMALL, 200: SMALL}, first_seed=99),
        ValueError,
        "confirm must have the reference 100 and the chosen batch size, 200; got the reference 50",
    ),
    "without the size": (lambda: curve({100: SMALL}, first_seed=99), ValueError, r"and the batch sizes \[100\]"),
    "other lr": (lambda: _second(EQUAL, lr="sqrt"), ValueError, "the lr of the first curve, 'fixed'; got 'sqrt'"),
    "other learning rate": (
        lambda: _second(EQUAL, values={100: {"lr": 0.01}, 200: {"lr": 0.01}}),
        ValueError,
        "confirm must have the learning rate of the first curve, 0.001 at batches of 100; got 0.01",
    ),
    "other budget": (lambda: _second(EQUAL, budget="updates"), ValueError, "the budget of the first"),
    "other epochs": (lambda: _second(EQUAL, max_epochs=7), ValueError, "the max_epochs of the first curve, .*; got 7"),
    "other data": (lambda: _second(EQUAL, n_train=500), ValueError, "the n_train of .*; got 500"),
    "few test samples": (
        lambda: _second(EQUAL, n_test=500),
        ValueError,
        "confirm must have at least 1,000 test samples for a margin of 0.005; it has 500",
    ),
}


@pytest.mark.parametrize("case", BAD_SECOND)
def test_a_second_curve_that_asks_something_else(case):
    second, error, sentence = BAD_SECOND[case]
    with pytest.raises(error, match=sentence):
        largest_safe_batch_size(curve({100: SMALL, 200: LARGE}), confirm=second())


def test_a_second_curve_of_another_score():
    values = {100: (0.5, 0.51, 0.52), 200: (0.6, 0.62, 0.61)}
    one, other = (check_scoring({"f": f_score(beta)})[0] for beta in (1, 2))
    first = scored_curve(one, values)
    for second in (scored_curve(other, values, first_seed=99), scored_curve(AP, values, first_seed=99)):
        with pytest.raises(ValueError, match="confirm must have measured 'f' too"):
            largest_safe_batch_size(first, confirm=second)


# -- what it says, and bad input ---------------------------------------------------------------------------------------


def test_assumptions_are_printed():
    text = str(largest_safe_batch_size(curve({100: SMALL, 200: LARGE}), 0.01))
    for words in ("one-sided at level 5 %", "new seeds and new validation samples", "1,000 validation samples"):
        assert words in text
    assert "less than 1 point of accuracy" in text
    assert "learning rates were chosen" not in text
    assert "learning rates were chosen" in str(largest_safe_batch_size(curve({100: SMALL, 200: LARGE}, lr="tuned")))


def test_what_the_curve_notes_stands_beside_the_decision():
    """A batch size that is trained less far is not judged as a batch size."""
    unequal = curve({100: SMALL, 200: LARGE}, values={200: {"train_loss": 0.1}})
    safe = largest_safe_batch_size(unequal)
    noted(safe, "The curve:", "200 (1.0e-01)", "factor of 2")
    assert json.loads(safe.to_json())["notes"] == safe.notes
    assert not any("The curve" in note for note in largest_safe_batch_size(curve({100: SMALL, 200: LARGE})).notes)


def test_it_serves_as_an_integer(tmp_path):
    safe = largest_safe_batch_size(curve({100: SMALL, 200: LARGE}))
    assert isinstance(safe, SafeBatchSize)
    assert int(safe) == operator.index(safe) == safe.batch_size == 200
    content = json.loads(safe.to_json(tmp_path / "safe.json"), parse_constant=pytest.fail)
    assert json.loads((tmp_path / "safe.json").read_text(encoding="utf-8")) == content
    assert content["batch_size"] == 200
    assert content["components"]["200, accuracy"]["n_rows"] == 1000
    assert "shown" in safe.to_markdown()
    assert r"\toprule" in safe.to_latex()
    assert "<table>" in safe._repr_html_()
    pytest.importorskip("pandas")
    assert safe.to_frame()["batch_size"].tolist() == [200]


BAD = {
    "margin 0": ({"margin": 0}, "margin must be a number above 0 and below 1 .*; got 0"),
    "margin True": ({"margin": True}, "margin must be .*; got True"),
    "margin text": ({"margin": "small"}, "margin must be .*; got 'small'"),
    "confidence 0.5": ({"confidence": 0.5}, "confidence must be a number above 0.5 and below 1; got 0.5"),
    "confidence 1": ({"confidence": 1}, "confidence must be .*; got 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(case):
    kwargs, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence):
        largest_safe_batch_size(curve({100: SMALL, 200: LARGE}), **kwargs)


def test_curves_that_cannot_tell():
    with pytest.raises(TypeError, match="curve must be a BatchSizeCurve; got RegimeComparison"):
        largest_safe_batch_size(comparison())
    with pytest.raises(ValueError, match="at least 2 trials"):
        largest_safe_batch_size(curve({100: [0.9], 200: [0.9]}))
    with pytest.raises(ValueError, match="a finished fit of its reference"):
        largest_safe_batch_size(curve({100: SMALL, 200: SMALL}, skip=[(100, t) for t in range(4)], interrupted=True))
