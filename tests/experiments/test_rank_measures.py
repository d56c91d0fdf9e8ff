import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sklgap import rank_measures
from sklgap.experiments import MeasureRanking, MinimaCensus, RankedMeasure
from sklgap.experiments._minima_census import minima_census
from tests.experiments.experiments import COMMON, census_record, leaves, outcomes, said
from tests.tiny import blobs, small

RATES, REGIMES = (0.001, 0.01), ("SB", "LB")


def minimum(regime, rate, trial, **values):
    """Return a record: ``flat`` orders the minima as the test error does, ``noise`` does not."""
    error = 0.1 + 0.02 * (regime == "LB") + 0.01 * (rate == 0.01) + 0.001 * trial
    own = {"learning_rate": rate, "test_accuracy": 1 - error, "train_accuracy": 1.0}
    own |= {"flat": 100 * error, "noise": float(np.random.default_rng(trial).permutation(8)[2 * (rate == 0.01)])}
    own |= {"sharpness_0.001": 1 / error}
    return {**census_record(regime, "torch", trial), **own, **values}


def minima(n_trials=4, **values):
    return [minimum(g, r, t, **values) for t in range(n_trials) for g in REGIMES for r in RATES]


def census(records=None, interrupted=False, **settings):
    records = minima() if records is None else records
    groups = [(regime, "torch", str(rate)) for regime in REGIMES for rate in RATES]
    own = {"n_trials": 4, "reference": "SB, torch, 0.001", "target_loss": None, "measures": ["flat", "noise"]}
    own |= {"learning_rates": list(RATES)}
    return MinimaCensus(outcomes(records), groups, {**COMMON, **own, **settings}, interrupted)


def values_of(ranking, name):
    measure = ranking.measures[name]
    return [tau.value for tau in measure.taus().values()]


# -- what is ranked ----------------------------------------------------------------------------------------------------


def test_the_measures_of_a_census():
    found = rank_measures(census())
    assert isinstance(found, MeasureRanking)
    assert list(found.measures) == ["sharpness_0.001", "flat", "noise"]
    assert all(isinstance(measure, RankedMeasure) for measure in found.measures.values())
    assert list(found.measures["flat"].axes) == ["learning_rate", "regime"]
    np.testing.assert_allclose(values_of(found, "flat"), 1)
    np.testing.assert_allclose(values_of(found, "sharpness_0.001"), -1)
    assert found.measures["flat"].n_minima == 16
    leaves(found)


def test_plain_is_kendall_s_tau_with_the_test_error():
    records = minima()
    found = rank_measures(records, measures=["noise"]).measures["noise"]
    noise, accuracy = (np.array([record[name] for record in records]) for name in ("noise", "test_accuracy"))
    assert found.plain.value == pytest.approx(stats.kendalltau(noise, 1 - accuracy).statistic)
    by_setting = [
        stats.kendalltau(noise[i::4], 1 - accuracy[i::4]).statistic for i in range(4)
    ]  # records come trial by trial, in the order of the settings
    assert found.within.value == pytest.approx(np.mean(by_setting))


def test_the_gap_as_the_target():
    # Where the training accuracy is lower by more than the test accuracy, the gap has the opposite order.
    records = [{**record, "train_accuracy": 3 * record["test_accuracy"] - 2} for record in minima()]
    assert rank_measures(records, measures=["flat"]).measures["flat"].plain.value == pytest.approx(1)
    found = rank_measures(records, measures=["flat"], target="gap")
    assert found.measures["flat"].plain.value == pytest.approx(-1)
    assert "train-test gap" in str(found)
    leaves(found)


def test_any_number_of_the_records_is_a_measure():
    records = [{**record, "train_loss": -record["test_accuracy"]} for record in minima()]
    found = rank_measures(census(records), measures=["train_loss", "flat"])
    np.testing.assert_allclose(values_of(found, "train_loss"), values_of(found, "flat"))


def test_another_score():
    records = [{**record, "test_f1": -record["test_accuracy"]} for record in minima()]
    assert rank_measures(records, measures=["flat"], score="f1").measures["flat"].plain.value == pytest.approx(-1)
    with pytest.raises(ValueError, match=r"^score must be one of 'accuracy'"):
        rank_measures(census(), score="f1")


def test_records_as_dicts_and_as_a_table():
    found = rank_measures(census(), measures=["flat", "noise"])
    assert rank_measures(minima(), measures=["flat", "noise"]).measures == found.measures
    pandas = pytest.importorskip("pandas")
    assert rank_measures(pandas.DataFrame(minima()), measures=["flat", "noise"]).measures == found.measures
    assert rank_measures(census().to_frame(), measures=["flat", "noise"]).measures == found.measures


def test_hyperparameters_by_their_names():
    records = [
        {"trial": f"seed {record['trial']}", "size": record["regime"], "flat": record["flat"], "test_accuracy": a}
        for record in minima()
        if record["learning_rate"] == RATES[0]
        for a in [record["test_accuracy"]]
    ]
    found = rank_measures(records, measures=["flat"], hyperparameters=["size"]).measures["flat"]
    assert list(found.axes) == ["size"]
    alone = [record for record in records if record["size"] == REGIMES[0]]
    none = rank_measures(alone, measures=["flat"], hyperparameters=[]).measures["flat"]
    assert math.isnan(none.granulated.value)
    assert none.plain == none.within


@pytest.mark.parametrize("score", ["loss", "error_rate", "mean_squared_error"])
def test_a_loss_is_no_score(score):
    records = [
        {**r, f"test_{score}": 1 - r["test_accuracy"], f"test_neg_{score}": r["test_accuracy"]} for r in minima()
    ]
    with pytest.raises(ValueError, match=rf"^score must name a score of which larger is better; got '{score}'"):
        rank_measures(records, measures=["flat"], score=score)
    found = rank_measures(records, measures=["flat"], score=f"neg_{score}")
    assert found.measures["flat"].plain.value == pytest.approx(1)


@pytest.mark.parametrize("hyperparameters", [None, [], ["learning_rate"]])
def test_settings_that_are_not_named_are_not_taken_for_seeds(hyperparameters):
    # The accuracy depends on the batch size alone, and the measure on the batch size and on chance.
    rng = np.random.default_rng(0)
    records = [
        {"trial": t, "batch_size": size, "lr": rate, "learning_rate": 1, "test_accuracy": 1 - size / 1000}
        | {"flat": size + rng.normal()}
        for t in range(4)
        for size in (32, 64, 128)
        for rate in (0.1, 0.2)
    ]
    with pytest.raises(ValueError, match=r"^hyperparameters must name all settings .* They differ in lr\.$"):
        rank_measures(records, measures=["flat"], hyperparameters=hyperparameters)
    with pytest.raises(ValueError, match="They differ in lr"):
        rank_measures(records, measures=["flat"], hyperparameters=["batch_size"])
    found = rank_measures(records, measures=["flat"], hyperparameters=["batch_size", "lr"])
    assert math.isnan(found.measures["flat"].within.value)  # all accuracies of a setting are equal


def test_a_model_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match=r"two models of trial 0 are equal.*Leave one of them out"):
        rank_measures([*minima(), minima()[0]], measures=["flat"])


def test_a_real_census_is_ranked():
    X, y = blobs(75)
    found = minima_census(
        *(small(), X[:50], y[:50], X[50:], y[50:]),
        regimes=(10, 50),
        inits=["torch"],
        learning_rates=[0.01, 0.1],
        measures=["largest_eigenvalue"],
        n_trials=2,
        max_samples=10,
        solver="power",
        random_state=0,
        verbose=0,
    )
    ranking = rank_measures(found)
    assert list(ranking.measures) == ["sharpness_0.001", "largest_eigenvalue"]
    assert ranking.settings["census"]["learning_rates"] == [0.01, 0.1]
    measure, error = (np.array([r[name] for r in found.records]) for name in ("largest_eigenvalue", "test_accuracy"))
    assert ranking.measures["largest_eigenvalue"].plain.value == pytest.approx(
        stats.kendalltau(measure, -error).statistic
    )
    leaves(ranking)


# -- properties --------------------------------------------------------------------------------------------------------

ORDERS = st.lists(st.integers(-3, 3), min_size=16, max_size=16)


def ranked(values, records=None, **kwargs):
    records = minima() if records is None else records
    own = [{**record, "flat": float(value)} for record, value in zip(records, values, strict=True)]
    return rank_measures(own, measures=["flat"], n_resamples=20, **kwargs).measures["flat"]


@given(ORDERS)
def test_monotone_maps_change_nothing(values):
    one, other = ranked(values), ranked([math.exp(value) for value in values])
    assert repr(one) == repr(other)  # as NaN is not NaN


@given(ORDERS)
def test_the_reversed_measure_has_the_reversed_tau(values):
    one, other = ranked(values).taus(), ranked([-value for value in values]).taus()
    for name, tau in one.items():
        assert other[name].value == pytest.approx(-tau.value, nan_ok=True)
        assert (other[name].low, other[name].high) == pytest.approx((-tau.high, -tau.low), nan_ok=True)


@given(ORDERS, st.permutations(range(16)))
def test_the_order_of_the_records_does_not_count(values, order):
    records = minima()
    trials = ranked(values).taus()
    shuffled = ranked([values[i] for i in order], [records[i] for i in order]).taus()
    for name, tau in trials.items():
        assert shuffled[name].value == pytest.approx(tau.value, nan_ok=True)
        if name != "granulated":  # resamples draw trials in the order in which they come
            assert shuffled[name].n == tau.n


# -- what is said ------------------------------------------------------------------------------------------------------


def _noisy(seed, n_trials=5, effect=0.0, settings=0.0):
    """Minima whose ``flat`` goes with the error by ``effect`` within settings, and by ``settings`` between them."""
    rng = np.random.default_rng(seed)
    found = []
    for record in minima(n_trials):
        setting = (record["regime"] == "LB") + (record["learning_rate"] == 0.01)
        step = rng.normal()
        error = setting * settings + effect * step + rng.normal()
        found.append({**record, "flat": step + 4 * setting, "test_accuracy": 0.5 - 0.01 * error})
    return found


def test_the_verdict_where_nothing_is_shown():
    found = rank_measures(_noisy(0), measures=["flat"])
    assert found.measures["flat"].plain.has_interval
    assert "no measure is shown to be related to test accuracy" in found.verdict[0]
    assert "learning rate" in found.verdict[0]
    assert "batch regime" in found.verdict[0]


def test_the_verdict_where_flatter_is_better():
    found = rank_measures(_noisy(1, effect=3.0, settings=2.0), measures=["flat"])
    assert "better test accuracy by flat (+" in found.verdict[0]
    assert "Over all minima" in found.verdict[1]
    reverse = [{**record, "flat": -record["flat"]} for record in _noisy(1, effect=3.0, settings=2.0)]
    assert "worse test accuracy by flat (-" in rank_measures(reverse, measures=["flat"]).verdict[0]
    gap = [{**record, "train_accuracy": 1.0} for record in _noisy(1, effect=3.0, settings=2.0)]
    assert "the smaller train-test gap by flat" in rank_measures(gap, measures=["flat"], target="gap").verdict[0]


def test_settings_that_turn_the_sign_are_told():
    # A trial with a larger seed is flatter and worse by far; within a trial the sharper setting is worse.
    records = [
        {**record, "flat": record["flat"] - 50 * record["trial"], "test_accuracy": a + jitter}
        for i, record in enumerate(minima(5))
        for jitter in [0.04 if i == 9 else 0.0]
        for a in [record["test_accuracy"] - 0.05 * record["trial"]]
    ]
    found = rank_measures(records, measures=["flat"])
    assert found.measures["flat"].granulated.low > 0 > found.measures["flat"].plain.high
    assert said(found, "opposite", "flat")


def test_one_trial_has_no_interval():
    found = rank_measures(minima(1), measures=["flat", "noise"])
    assert not any(tau.has_interval for measure in found.measures.values() for tau in measure.taus().values())
    assert "no interval" in found.verdict[0]
    assert "flat" in found.verdict[0]
    assert said(found, "no interval", "at least 2")
    assert math.isnan(found.measures["flat"].within.value)
    leaves(found)


def test_equal_trials_have_no_interval():
    # Of the pairs of a trial three are in order and one is not, in the same way everywhere.
    records = [
        {**r, "steady": {("SB", 0.001): 0, ("SB", 0.01): 3, ("LB", 0.001): 1, ("LB", 0.01): 2}[key]}
        for r in minima()
        for key in [(r["regime"], r["learning_rate"])]
    ]
    found = rank_measures(records, measures=["flat", "steady"])
    assert not found.measures["steady"].granulated.has_interval
    assert said(found, "no interval", "steady", "the same result")
    assert "the same tau: steady (+0" in found.verdict[0]


def test_a_perfect_order_in_every_trial_has_an_interval():
    found = rank_measures(minima(5), measures=["flat"])
    assert found.measures["flat"].granulated.low == pytest.approx(2 * 0.05**0.2 - 1)
    assert "better test accuracy by flat (+1.00)" in found.verdict[0]
    few = rank_measures(minima(4), measures=["flat"])
    assert "no measure is shown" in few.verdict[0]


def test_one_rate_is_no_axis():
    found = rank_measures(census([minimum(g, 0.001, t) for g in REGIMES for t in range(4)]), measures=["flat"])
    assert list(found.measures["flat"].axes) == ["regime"]
    assert said(found, "learning rate", "alone")
    assert not said(rank_measures(census(), measures=["flat"]), "learning rate", "alone")
    leaves(found)


def test_seeds_alone():
    found = rank_measures([minimum("SB", 0.001, t) for t in range(6)], measures=["flat"])
    assert math.isnan(found.measures["flat"].granulated.value)
    assert found.measures["flat"].within.value == found.measures["flat"].plain.value
    assert "seed" in found.verdict[0]
    leaves(found)


def test_settings_that_change_together_are_no_pair():
    records = [r for r in minima() if (r["regime"] == "SB") == (r["learning_rate"] == 0.001)]
    found = rank_measures(records, measures=["flat"])
    assert math.isnan(found.measures["flat"].granulated.value)
    assert said(found, "learning rate", "batch regime", "alone")


@pytest.mark.parametrize("value", [1.0, math.nan, None])
def test_a_measure_that_is_constant_or_missing(value):
    found = rank_measures(minima(5, noise=value), measures=["noise", "flat"])
    assert all(math.isnan(tau) for tau in values_of(found, "noise"))
    assert said(found, "no tau for noise")
    assert ("noise (20 of 20)" in str(found)) == (value != 1.0)
    assert "flat" in found.verdict[0]
    leaves(found)


def test_constant_scores():
    found = rank_measures(minima(test_accuracy=0.9), measures=["flat"])
    assert "No tau" in found.verdict[0]
    leaves(found)


def test_minima_without_a_number_are_left_out():
    records = minima()
    records[3] = {**records[3], "flat": math.nan}
    records[5] = {**records[5], "train_loss": math.inf}
    found = rank_measures(records, measures=["flat", "noise"])
    assert [measure.n_minima for measure in found.measures.values()] == [14, 15]
    assert said(found, "left out", "flat (2 of 16)", "noise (1 of 16)")
    kept = [r for i, r in enumerate(records) if i not in (3, 5)]
    assert found.measures["flat"].plain.value == rank_measures(kept, measures=["flat"]).measures["flat"].plain.value


def test_minima_of_unequal_loss():
    unequal = [{**record, "train_loss": 0.1 if record["regime"] == "LB" else 0.01} for record in minima()]
    assert said(rank_measures(unequal, measures=["flat"]), "1.0e-02", "1.0e-01", "target_loss")
    missed = census([{**record, "converged": record["trial"] > 0} for record in minima()], target_loss=0.1)
    assert said(rank_measures(missed, measures=["flat"]), "target loss", "0.001, SB, torch (in 1 of 4 fits)")
    assert not any("training losses" in note for note in rank_measures(census()).notes)


def test_ties():
    records = [{**record, "test_accuracy": round(record["test_accuracy"], 1)} for record in minima()]
    found = rank_measures(records, measures=["flat"])
    assert said(found, "% of all pairs", "equal")
    assert not said(rank_measures(minima(), measures=["flat"]), "% of all pairs", "equal")


def test_interrupted():
    assert said(rank_measures(census(interrupted=True)), "interrupted")


def test_several_intervals_are_counted():
    found = rank_measures(_noisy(0), measures=["flat"])
    n = sum(tau.has_interval for tau in found.measures["flat"].taus().values())
    assert n == 5
    assert said(found, f"Each of the {n} intervals")


def test_the_table_and_the_files(tmp_path):
    found = rank_measures(_noisy(0), measures=["flat", "noise"])
    text = str(found)
    for header in ("all minima", "granulated", "only the learning rate differs", "only the seed differs"):
        assert header in text
    assert "in brackets: 95 % interval, for new seeds" in text
    content = json.loads(found.to_json(tmp_path / "ranking.json"), parse_constant=pytest.fail)
    assert content["records"][0]["pairs"] == "plain"
    assert content["measures"][1]["name"] == "noise"
    assert len(found.records) == 2 * 5
    odd = rank_measures([{**r, "<a>|b_1": r["flat"]} for r in minima()], measures=["<a>|b_1"])
    assert "<a>" not in odd._repr_html_()
    assert r"b\_1" in odd.to_latex()
    leaves(odd)


def test_resamples_are_repeatable():
    one, same = (rank_measures(_noisy(0), measures=["flat"]).measures["flat"] for _ in (0, 1))
    assert one == same
    other = rank_measures(_noisy(0), measures=["flat"], random_state=np.random.RandomState(5)).measures["flat"]
    assert other.plain.value == one.plain.value
    assert other.plain.low != one.plain.low


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD = {
    "no records": ([], {"measures": ["flat"]}, "census must be a MinimaCensus, or records"),
    "a text": ("census", {"measures": ["flat"]}, "census must be a MinimaCensus, or records"),
    "numbers": ([1, 2], {"measures": ["flat"]}, "census must have dicts as its records"),
    "no names": (minima(), {}, "measures must be names of columns for records"),
    "one name": (minima(), {"measures": "flat"}, "measures must be None or a sequence of names"),
    "empty": (minima(), {"measures": []}, "measures must be None or a sequence of names"),
    "twice": (minima(), {"measures": ["flat", "flat"]}, "measures must not have the same column twice"),
    "unknown": (minima(), {"measures": ["sharp"]}, "measures must name columns that all records have"),
    "words": (minima(), {"measures": ["regime"]}, "measures must name columns of numbers; 'regime' is not one"),
    "target": (minima(), {"measures": ["flat"], "target": "train"}, "target must be 'test' or 'gap'; got 'train'"),
    "score": (minima(), {"measures": ["flat"], "score": "f1"}, "score must name columns that all records have"),
    "no score": (minima(), {"measures": ["flat"], "score": 1}, "score must be None or the name of a score"),
    "setting": (minima(), {"measures": ["flat"], "hyperparameters": ["depth"]}, "hyperparameters must name columns"),
    "trial": (minima(), {"measures": ["flat"], "hyperparameters": ["trial"]}, "hyperparameters must not be the trial"),
    "resamples": (minima(), {"measures": ["flat"], "n_resamples": 1}, "n_resamples must be an integer from 20 to"),
    "too many": (minima(), {"measures": ["flat"], "n_resamples": 10**9}, "n_resamples must be an integer from 20 to"),
    "no trial": ([{"flat": 1, "test_accuracy": 1}], {"measures": ["flat"]}, "census must name columns that all"),
    "a setting that is missing": (minima(learning_rate=None), {"measures": ["flat"]}, "hyperparameters must be known"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values(case):
    records, kwargs, sentence = BAD[case]
    with pytest.raises((ValueError, TypeError), match=f"^{sentence}"):
        rank_measures(records, **kwargs)
