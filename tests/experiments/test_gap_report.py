import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_validate,
)

from sklgap import gap_report
from tests.experiments.searches import TEST, TRAIN, Remembers, grid, made_up, rows, two

# -- numbers -----------------------------------------------------------------------------------------------------------


def test_the_gaps():
    large, small_ = gap_report(two()).records
    assert large["train_accuracy"] == pytest.approx(np.mean(TRAIN["256"]))
    assert large["test_accuracy_std"] == pytest.approx(np.std(TEST["256"], ddof=1))
    differences = np.subtract(TRAIN["256"], TEST["256"])
    assert large["train_test_gap"] == pytest.approx(differences.mean())
    assert large["train_test_gap_std"] == pytest.approx(differences.std(ddof=1))
    assert large["regime_gap"] == pytest.approx(np.mean(TEST["32"]) - np.mean(TEST["256"]))
    assert (small_["is_reference"], math.isnan(small_["regime_gap"])) == (True, True)
    assert (large["fit_seconds"], large["fit_seconds_std"]) == (1, pytest.approx(0.3 * math.sqrt(4 / 3)))


def test_the_interval_is_the_corrected_resampled_t_test():
    record = gap_report(two(), test_ratio=0.25).records[0]
    differences = np.subtract(TEST["32"], TEST["256"])
    # Nadeau and Bengio (2003): the variance is (1/J + n2/n1) s^2 with J - 1 degrees of freedom.
    low, high = stats.t.interval(
        0.95, 3, loc=differences.mean(), scale=math.sqrt((1 / 4 + 0.25) * differences.var(ddof=1))
    )
    assert (record["regime_gap_low"], record["regime_gap_high"]) == pytest.approx((low, high))
    # Without the correction it would be that of the paired t-test.
    plain = stats.ttest_rel(TEST["32"], TEST["256"]).confidence_interval(0.95)
    assert high - low == pytest.approx((plain.high - plain.low) * math.sqrt(1 + 4 * 0.25))


def test_the_interval_covers_where_the_plain_one_does_not():
    # Equal true accuracies; scores of folds as correlated as Nadeau and Bengio take them, n2 / (n1 + n2).
    rng = np.random.default_rng(0)
    covered = plain = 0
    n_repeats, n_folds = 400, 5
    rho = 1 / n_folds
    for _ in range(n_repeats):
        common = rng.normal() * math.sqrt(rho)
        differences = 0.01 * (common + math.sqrt(1 - rho) * rng.normal(size=n_folds))
        scores = [np.full(n_folds, 0.9), 0.9 - differences]
        parameters = [{"batch_size": 1}, {"batch_size": 2}]
        record = gap_report(made_up(parameters, {"train_accuracy": scores, "test_accuracy": scores})).records[1]
        covered += record["regime_gap_low"] <= 0 <= record["regime_gap_high"]
        plain += stats.ttest_1samp(differences, 0).pvalue > 0.05
    standard_error = math.sqrt(0.95 * 0.05 / n_repeats)
    assert abs(covered / n_repeats - 0.95) < 4 * standard_error
    assert plain / n_repeats < 0.95 - 3 * standard_error


# -- what the interval knows of the folds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cv", "ratio"),
    [
        (4, 1 / 3),
        (None, 1 / 4),
        (KFold(3), 1 / 2),
        (RepeatedKFold(n_splits=4, n_repeats=2), 1 / 3),
        (ShuffleSplit(3, test_size=0.2, random_state=np.random.RandomState(0)), 0.25),
        ([(np.arange(90), np.arange(90, 120)), (np.arange(30, 120), np.arange(30))], 1 / 3),
        (PredefinedSplit([-1] * 60 + [0] * 30 + [1] * 30), 1 / 3),
    ],
    ids=["int", "default", "k-fold", "repeated", "shuffled", "list", "predefined"],
)
def test_rows_of_the_folds(cv, ratio):
    search = GridSearchCV(Remembers(), {"batch_size": [1, 5]}, cv=cv, return_train_score=True).fit(*rows())
    before = cv.random_state.get_state()[1].copy() if isinstance(cv, ShuffleSplit) else None
    report = gap_report(search)
    assert report.settings["test_to_train_ratio"] == pytest.approx(ratio)
    assert not [sentence for sentence in report.warnings if "test_ratio" in sentence]
    if before is not None:
        np.testing.assert_array_equal(cv.random_state.get_state()[1], before)


@pytest.mark.parametrize(
    "cv", [TimeSeriesSplit(3), iter(list(KFold(3).split(np.arange(120))))], ids=["time", "iterator"]
)
def test_folds_that_are_not_known_are_said_to_be_taken_for_k_fold(cv):
    search = GridSearchCV(Remembers(), {"batch_size": [1, 5]}, cv=cv, return_train_score=True, refit=False)
    assert "are taken for those of k-fold" in str(gap_report(search.fit(*rows())))


def test_rows_of_the_folds_of_cross_validate():
    results = {
        size: cross_validate(
            Remembers(size), *rows(), cv=ShuffleSplit(3, test_size=0.5, random_state=0), return_train_score=True
        )
        for size in (1, 5)
    }
    report = gap_report(results)
    assert report.settings["test_to_train_ratio"] == 1 / 2
    assert "are taken for those of k-fold" in str(report)
    results = {
        size: cross_validate(Remembers(size), *rows(), cv=4, return_train_score=True, return_indices=True)
        for size in (1, 5)
    }
    report = gap_report(results)
    assert report.settings["test_to_train_ratio"] == pytest.approx(1 / 3)
    assert "are taken for those of k-fold" not in str(report)


# -- sharpness ---------------------------------------------------------------------------------------------------------


def test_sharpness_is_the_train_column():
    report = gap_report(two(train_sharpness=[[9, 8, 7, 8], [1, 2, 1, 2]], test_sharpness=[[70] * 4, [60] * 4]))
    assert [record["sharpness"] for record in report.records] == [8, 1.5]
    assert "70" not in str(report)


def test_a_scorer_that_prefers_flat_minima_is_turned():
    report = gap_report(two(train_neg_sharpness=[[-9, -8, -7, -8], [0, -2, -1, -2]]))
    assert [record["neg_sharpness"] for record in report.records] == [8, 1.25]


def test_sharpness_of_test_rows_alone_is_refused_and_said():
    report = gap_report(two(test_sharpness=[[70] * 4, [60] * 4]))
    assert "sharpness" not in report.records[0]
    assert any("Sharpness was scored on test rows only" in sentence for sentence in report.warnings)


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_failed_fits_are_left_out_of_both():
    scores = {"train_accuracy": [TRAIN["256"], TRAIN["32"]], "test_accuracy": [[0.9, math.nan, 0.92, 0.91], TEST["32"]]}
    report = gap_report(made_up([{"batch_size": 256}, {"batch_size": 32}], scores))
    record = report.records[0]
    assert record["test_accuracy"] == pytest.approx(0.91)
    assert record["train_accuracy"] == pytest.approx(np.mean([0.97, 0.96, 0.97]))
    assert record["regime_gap"] == pytest.approx(np.mean([0.95, 0.94, 0.97]) - 0.91)
    assert (record["n_finished"], record["n_pairs"]) == (3, 3)
    assert "1 of batch_size=256" in str(report)


def test_a_candidate_that_always_failed():
    scores = {"train_score": [[math.nan] * 3, [0.9] * 3], "test_score": [[math.nan] * 3, [0.9] * 3]}
    report = gap_report(made_up([{"batch_size": 256}, {"batch_size": 32}], scores))
    assert (report.records[0]["n_pairs"], report.records[0]["n_finished"]) == (0, 0)
    assert "3 of batch_size=256" in str(report)
    json.loads(report.to_json(), parse_constant=pytest.fail)


def test_sentences_on_the_gaps():
    scores = [[0.90, 0.91, 0.92], [0.80, 0.81, 0.82], [0.905, 0.900, 0.92], [0.95, 0.96, 0.97]]
    train = [[0.99] * 3, [0.97] * 3, [0.99] * 3, [0.99] * 3]
    parameters = [{"batch_size": size} for size in (1, 2, 3, 4)]
    report = gap_report(
        made_up(parameters, {"train_score": train, "test_score": np.array(scores) + 1e-4 * np.eye(4, 3)})
    )
    text = "\n".join(report.warnings)
    assert "shows no difference, for batch_size=3." in text
    assert "More accurate than batch_size=1 here: batch_size=4." in text
    assert "1 point below that of batch_size=1: batch_size=2. Part of" in text
    assert "of 3, some may miss 0 by chance" in text


def test_one_fold_has_no_interval():
    scores = {"train_score": [[0.9], [0.9]], "test_score": [[0.8], [0.7]]}
    report = gap_report(made_up([{"batch_size": 1}, {"batch_size": 2}], scores))
    assert report.records[1]["regime_gap"] == pytest.approx(0.1)
    assert "A gap has no interval where fewer than two folds" in str(report)


def test_one_candidate():
    report = gap_report(cross_validate(Remembers(), *rows(), cv=3, return_train_score=True))
    assert report.settings["reference"] is None
    assert "There is one candidate" in str(report)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_without_training_scores():
    search = GridSearchCV(Remembers(), {"batch_size": [1, 5]}, cv=3).fit(*rows())
    with pytest.raises(ValueError, match=r"^search must have training scores.* return_train_score=True"):
        gap_report(search)
    with pytest.raises(ValueError, match="return_train_score=True"):
        gap_report(cross_validate(Remembers(), *rows(), cv=3))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (GridSearchCV(Remembers(), {}), "got GridSearchCV, which is not fitted"),
        (Remembers(), "got Remembers"),
        ({}, "got dict with the keys of nothing"),
        ({"a": 1}, "got dict with the keys 'a'"),
        (None, "got NoneType"),
    ],
)
def test_no_result_of_a_search(search, message):
    with pytest.raises(TypeError, match=f"^search must be a fitted GridSearchCV.*{message}"):
        gap_report(search)


def test_which_score_is_accuracy():
    scores = {f"{part}_{name}": [[0.9, 0.8]] * 2 for part in ("train", "test") for name in ("auc", "balanced_accuracy")}
    search = made_up([{"batch_size": 1}, {"batch_size": 2}], scores)
    assert gap_report(search).settings["accuracy"] == "balanced_accuracy"
    assert gap_report(search, accuracy="auc").settings["accuracy"] == "auc"
    with pytest.raises(ValueError, match=r"one of 'auc', 'balanced_accuracy'; got 'accuracy'\.$"):
        gap_report(search, accuracy="accuracy")
    with pytest.raises(ValueError, match=r"^accuracy must name the score .* one of 'neg_log_loss'; got None"):
        gap_report(grid([1, 2], scoring="neg_log_loss"))


def test_unequal_folds_and_metrics():
    three, four = (cross_validate(Remembers(), *rows(), cv=cv, return_train_score=True) for cv in (3, 4))
    with pytest.raises(ValueError, match=r"results over the same folds; got \[3, 4\] folds"):
        gap_report({"SB": three, "LB": four})
    with pytest.raises(ValueError, match=r"search must have 'train_score' for every label; 'LB' has none\.$"):
        gap_report({"SB": three, "LB": cross_validate(Remembers(), *rows(), cv=3)})


@pytest.mark.parametrize("ratio", [0, -1, math.inf, True, "0.2"])
def test_bad_test_ratio(ratio):
    with pytest.raises(ValueError, match=r"^test_ratio must be a number above 0; got .*\.$"):
        gap_report(two(), test_ratio=ratio)
