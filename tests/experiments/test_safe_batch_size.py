import json
import operator

import numpy as np
import pytest
from scipy import stats

from sklgap.experiments import SafeBatchSize, largest_safe_batch_size
from tests.experiments.records import comparison, curve

SMALL, LARGE = (0.950, 0.960, 0.955, 0.958), (0.948, 0.961, 0.951, 0.957)
MARGIN = 0.005
# Simulations of a rate compared with its exact value: standard errors allowed.
N_ERRORS = 4


def _simulated(means, spread, n_trials, n_simulations, seed):
    """Yield curves whose validation accuracies fall from 0.95 by ``means``; ``spread``: std of a paired difference."""
    rng = np.random.default_rng(seed)
    for _ in range(n_simulations):
        common = 0.01 * rng.standard_normal(n_trials)  # a trial's seed moves all sizes alike
        noise = spread / 2**0.5 * rng.standard_normal((len(means), n_trials))
        yield curve({100 * 2**k: 0.95 - mean + common + noise[k] for k, mean in enumerate(means)})


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_bound_and_p_value_are_those_of_the_paired_t_test(confidence):
    safe = largest_safe_batch_size(curve({100: SMALL, 200: LARGE}), MARGIN, confidence=confidence)
    (test,) = safe.tests
    reference = stats.ttest_rel(np.add(LARGE, MARGIN), SMALL, alternative="greater")
    assert test.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    interval = stats.ttest_rel(SMALL, LARGE, alternative="less").confidence_interval(confidence)
    assert test.bound == pytest.approx(interval.high, rel=1e-9)
    assert test.accuracy_lost == pytest.approx(np.mean(SMALL) - np.mean(LARGE), rel=1e-12)
    assert test.shown == (reference.pvalue < 1 - confidence)
    assert (test.batch_size, test.n_trials) == (200, 4)


def test_a_larger_batch_that_is_better_is_safe():
    safe = largest_safe_batch_size(curve({100: LARGE, 200: SMALL}))
    assert safe.tests[0].accuracy_lost < 0
    assert int(safe) == 200


@pytest.mark.parametrize(("lost", "shown"), [(4, True), (5, False), (6, False)])
def test_trials_without_spread(lost, shown):
    """A loss of exactly the margin is none below it, whatever rounding makes of the difference."""
    for right in range(900, 1000):  # of 1,000 rows
        c = curve({100: [right / 1000] * 3, 200: [(right - lost) / 1000] * 3})
        (test,) = largest_safe_batch_size(c, MARGIN).tests
        assert test.shown == shown
        assert test.p_value == float(not shown)


# -- the error rate and the power --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_trials", [2, 5])
def test_what_is_worse_by_the_margin_is_called_safe_in_5_percent(n_trials):
    n = 1500
    chosen = [int(largest_safe_batch_size(c, MARGIN)) for c in _simulated([0, MARGIN], 0.004, n_trials, n, seed=0)]
    rate = np.mean(np.array(chosen) == 200)
    assert abs(rate - 0.05) < N_ERRORS * (0.05 * 0.95 / n) ** 0.5


def test_several_sizes_need_no_correction():
    """Two safe sizes and three that lose exactly the margin: the chance to call any of the three safe is 5 %."""
    n, means = 1000, [0, 0, 0.001, MARGIN, MARGIN, MARGIN]
    chosen = [int(largest_safe_batch_size(c, MARGIN)) for c in _simulated(means, 0.002, 5, n, seed=1)]
    wrong = np.mean(np.array(chosen) > 400)
    assert wrong < 0.05 + N_ERRORS * (0.05 * 0.95 / n) ** 0.5
    # Each of them on its own would be called safe in 5 %, and one of three far more often.
    assert np.mean(np.array(chosen) == 400) > 0.8


@pytest.mark.parametrize("spread", [0.002, 0.005])
def test_power_is_that_of_the_noncentral_t_distribution(spread):
    n, n_trials = 1000, 5
    chosen = [int(largest_safe_batch_size(c, MARGIN)) for c in _simulated([0, 0], spread, n_trials, n, seed=2)]
    shift = MARGIN / (spread / n_trials**0.5)
    power = stats.nct.sf(stats.t.ppf(0.95, n_trials - 1), n_trials - 1, shift)
    assert abs(np.mean(np.array(chosen) == 200) - power) < N_ERRORS * (power * (1 - power) / n) ** 0.5
    assert power > (0.95 if spread == 0.002 else 0.5)


# -- the sequence ------------------------------------------------------------------------------------------------------


def test_the_first_failure_ends_the_search():
    """A size above one that failed is not tested, even if it would pass."""
    worse = np.subtract(SMALL, 0.02)
    safe = largest_safe_batch_size(curve({100: SMALL, 200: LARGE, 400: worse, 800: SMALL, 1600: SMALL}), 0.006)
    assert int(safe) == 200
    assert [(test.batch_size, test.shown) for test in safe.tests] == [(200, True), (400, False)]
    assert safe.untested == [800, 1600]
    assert "800" in str(safe)
    assert str(safe).count("not tested") == 2


def test_the_reference_itself_where_nothing_is_shown():
    safe = largest_safe_batch_size(curve({100: SMALL, 200: np.subtract(SMALL, 0.02)}))
    assert (int(safe), safe.reference, safe.confirmed) == (100, 100, None)
    assert "No larger size is shown to lose less than 0.5 points of validation accuracy" in str(safe)
    assert "no proof that they lose more" in str(safe)


def test_sizes_below_the_reference_are_not_considered():
    c = curve({50: SMALL, 100: SMALL, 200: SMALL}, reference="100")
    safe = largest_safe_batch_size(c)
    assert [test.batch_size for test in safe.tests] == [200]
    assert int(safe) == 200
    assert "a larger one may be safe too" in str(safe)


def test_validation_decides_and_test_data_do_not():
    bad = {100: SMALL, 200: np.subtract(SMALL, 0.3)}
    good = {100: SMALL, 200: SMALL}
    assert int(largest_safe_batch_size(curve(good, test=bad))) == 200
    assert int(largest_safe_batch_size(curve(bad, test=good))) == 100


def test_unpaired_trials_of_an_interrupted_curve():
    c = curve({100: SMALL, 200: SMALL, 400: SMALL}, skip=[(200, 3), *((400, t) for t in (1, 2, 3))], interrupted=True)
    safe = largest_safe_batch_size(c)
    assert [(test.n_trials, test.shown) for test in safe.tests] == [(3, True), (1, False)]
    assert np.isinf(safe.tests[1].bound)
    assert "nan" not in str(safe)
    assert json.loads(safe.to_json(), parse_constant=pytest.fail)["tests"][1]["bound"] is None


# -- confirming --------------------------------------------------------------------------------------------------------


def _second(test, **kwargs):
    return curve({100: SMALL, 200: SMALL}, test=test, first_seed=99, **kwargs)


def test_confirmed_on_the_test_accuracy_of_other_seeds():
    first = curve({100: SMALL, 200: LARGE, 400: np.subtract(SMALL, 0.1)})
    good, bad = {100: SMALL, 200: LARGE}, {100: SMALL, 200: np.subtract(SMALL, 0.02)}
    safe = largest_safe_batch_size(first, confirm=_second(good))
    assert safe.confirmed is True
    expected = stats.ttest_rel(np.add(LARGE, MARGIN), SMALL, alternative="greater").pvalue
    assert safe.confirmation.p_value == pytest.approx(expected, rel=1e-9)
    assert "Batches of 200 are confirmed by the test accuracy of 4 trials with other seeds" in str(safe)
    refuted = largest_safe_batch_size(first, confirm=_second(bad))
    assert (int(refuted), refuted.confirmed) == (200, False)
    assert "Batches of 200 are NOT confirmed" in str(refuted)
    assert "Not confirmed on other seeds: see the parameter confirm." in str(largest_safe_batch_size(first))


def test_there_is_nothing_to_confirm_where_the_reference_is_chosen():
    first = curve({100: SMALL, 200: np.subtract(SMALL, 0.1)})
    assert largest_safe_batch_size(first, confirm=_second({100: SMALL, 200: SMALL})).confirmed is None


def test_shared_seeds_are_refused():
    first = curve({100: SMALL, 200: LARGE})
    with pytest.raises(ValueError, match=r"confirm must be a curve of other seeds, .*; 4 seeds of it were used"):
        largest_safe_batch_size(first, confirm=first)
    tuned = curve({100: SMALL, 200: LARGE}, first_seed=50, tuning_seeds=[11], lr="tuned")
    with pytest.raises(ValueError, match="1 seed of it"):
        largest_safe_batch_size(first, confirm=tuned)


BAD_SECOND = {
    "no curve": (lambda: comparison(), TypeError, "confirm must be None or a BatchSizeCurve; got RegimeComparison"),
    "other reference": (
        lambda: curve({50: SMALL, 200: SMALL}, first_seed=99),
        ValueError,
        r"confirm must have the reference 100 and the batch size chosen, 200; got the reference 50",
    ),
    "without the size": (lambda: curve({100: SMALL}, first_seed=99), ValueError, r"and batch sizes \[100\]"),
    "other lr": (
        lambda: _second({100: SMALL, 200: SMALL}, lr="sqrt"),
        ValueError,
        "confirm must have the lr of the first curve, 'fixed'; got 'sqrt'",
    ),
    "other learning rate": (
        lambda: _second({100: SMALL, 200: SMALL}, values={100: {"lr": 0.01}, 200: {"lr": 0.01}}),
        ValueError,
        "confirm must have the learning rate of the first curve, 0.001 at batches of 100; got 0.01",
    ),
    "other budget": (
        lambda: _second({100: SMALL, 200: SMALL}, budget="updates"),
        ValueError,
        "the budget of the first",
    ),
    "other epochs": (
        lambda: _second({100: SMALL, 200: SMALL}, max_epochs=7),
        ValueError,
        "the max_epochs of the first curve, .*; got 7",
    ),
    "other data": (lambda: _second({100: SMALL, 200: SMALL}, n_train=500), ValueError, "the n_train of .*; got 500"),
}


@pytest.mark.parametrize("case", BAD_SECOND)
def test_a_second_curve_that_asks_something_else(case):
    second, error, sentence = BAD_SECOND[case]
    with pytest.raises(error, match=sentence):
        largest_safe_batch_size(curve({100: SMALL, 200: LARGE}), confirm=second())


# -- what it says, and bad input ---------------------------------------------------------------------------------------


def test_assumptions_are_printed():
    text = str(largest_safe_batch_size(curve({100: SMALL, 200: LARGE}), 0.01))
    assert "Assumptions:" in text
    for words in ("Student's t", "independent and normal", "not in their data", "1,000 validation samples", "accuracy"):
        assert words in text
    assert "below 1 point\n" in text.replace(" \n", "\n")
    assert "learning rates were chosen" not in text
    assert "learning rates were chosen" in str(largest_safe_batch_size(curve({100: SMALL, 200: LARGE}, lr="tuned")))


def test_few_validation_samples_are_pointed_out():
    """Accuracy 0.95575 on 1,000 rows: a standard error of 0.65 points, half of a margin of 1.3."""
    c = curve({100: SMALL, 200: LARGE})
    assert largest_safe_batch_size(c).sampling_error == pytest.approx((0.95575 * 0.04425 / 1000) ** 0.5)
    assert "small for 1,000 validation samples" in str(largest_safe_batch_size(c, 0.0128))
    assert "small for" not in str(largest_safe_batch_size(c, 0.0132))


def test_what_the_curve_warns_of_stands_beside_the_decision():
    """A batch size that is trained less far is not judged as a batch size."""
    equal = curve({100: SMALL, 200: LARGE})
    unequal = curve({100: SMALL, 200: LARGE}, values={200: {"train_loss": 0.1}})
    assert largest_safe_batch_size(equal).notes == equal.warnings() == []
    assert "Please note" not in str(largest_safe_batch_size(equal))
    safe = largest_safe_batch_size(unequal)
    assert safe.notes == unequal.warnings()
    assert "Please note of the curve:\n* Training losses of batches of 200 differ" in str(safe)
    assert json.loads(safe.to_json())["notes"] == safe.notes


def test_it_serves_as_an_integer(tmp_path):
    safe = largest_safe_batch_size(curve({100: SMALL, 200: LARGE}))
    assert isinstance(safe, SafeBatchSize)
    assert int(safe) == operator.index(safe) == safe.batch_size == 200
    content = json.loads(safe.to_json(tmp_path / "safe.json"), parse_constant=pytest.fail)
    assert json.loads((tmp_path / "safe.json").read_text(encoding="utf-8")) == content
    assert content["batch_size"] == 200
    pytest.importorskip("pandas")
    assert safe.to_frame()["batch_size"].tolist() == [200]


BAD = {
    "margin 0": ({"margin": 0}, "margin must be a number above 0 and below 1; got 0"),
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
