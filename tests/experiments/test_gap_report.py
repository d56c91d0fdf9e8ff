import json
import math

import numpy as np
import pytest
import torch
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
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import gap_report
from sklgap.experiments._estimate import folds_estimate
from tests.counting import growth
from tests.experiments.searches import TEST, TRAIN, Remembers, grid, made_up, rows, two
from tests.tiny import blobs, small

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
    report = gap_report(two(), test_ratio=0.25)
    record = report.records[0]
    differences = np.subtract(TEST["32"], TEST["256"])
    # Nadeau and Bengio (2003): the variance is (1/J + n2/n1) s^2 with J - 1 degrees of freedom.
    low, high = stats.t.interval(
        0.95, 3, loc=differences.mean(), scale=math.sqrt((1 / 4 + 0.25) * differences.var(ddof=1))
    )
    assert (record["regime_gap_low"], record["regime_gap_high"]) == pytest.approx((low, high))
    assert (report.gap(0).low, report.gap("batch_size=256").high) == pytest.approx((low, high))
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
        covered += not folds_estimate(differences, 1 / (n_folds - 1)).excludes(0)
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
    assert not [sentence for sentence in report.notes if "test_ratio" in sentence]
    if before is not None:
        np.testing.assert_array_equal(cv.random_state.get_state()[1], before)


@pytest.mark.parametrize(
    "cv", [TimeSeriesSplit(3), iter(list(KFold(3).split(np.arange(120))))], ids=["time", "iterator"]
)
def test_folds_that_are_not_known_are_said_to_be_taken_for_k_fold(cv):
    search = GridSearchCV(Remembers(), {"batch_size": [1, 5]}, cv=cv, return_train_score=True, refit=False)
    assert "assume folds of k-fold" in str(gap_report(search.fit(*rows())))


def test_rows_of_the_folds_of_cross_validate():
    results = {
        size: cross_validate(
            Remembers(size), *rows(), cv=ShuffleSplit(3, test_size=0.5, random_state=0), return_train_score=True
        )
        for size in (1, 5)
    }
    report = gap_report(results)
    assert report.settings["test_to_train_ratio"] == 1 / 2
    assert "assume folds of k-fold" in str(report)
    results = {
        size: cross_validate(Remembers(size), *rows(), cv=4, return_train_score=True, return_indices=True)
        for size in (1, 5)
    }
    report = gap_report(results)
    assert report.settings["test_to_train_ratio"] == pytest.approx(1 / 3)
    assert "assume folds of k-fold" not in str(report)


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
    assert any("test samples only" in sentence for sentence in report.notes)


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
    values = {"train_accuracy": train, "test_accuracy": np.array(scores) + 1e-4 * np.eye(4, 3)}
    report = gap_report(made_up(parameters, values))

    def about(words):
        (sentence,) = [sentence for sentence in report.notes if words in sentence]
        return {size for size in (2, 3, 4) if f"batch_size={size}" in sentence}

    assert about("contains 0") == {3}
    assert about("These are better than") == {4}
    assert about("have a training accuracy") == {2}
    assert any("Each of the 3 intervals" in sentence for sentence in report.notes)
    assert report._verdict()[0].startswith("batch_size=2 is")
    assert "below batch_size=1" in report._verdict()[0]


@pytest.mark.parametrize(
    ("scores", "why"),
    [([[0.8], [0.7]], "at least 2"), ([[0.8, 0.9], [0.7, 0.8]], "the same result")],
    ids=["one", "equal"],
)
def test_folds_that_say_nothing_have_no_interval(scores, why):
    report = gap_report(made_up([{"batch_size": 1}, {"batch_size": 2}], {"train_score": scores, "test_score": scores}))
    gap = report.gap(1)
    assert gap.value == pytest.approx(0.1)
    assert not gap.has_interval
    assert any(why in sentence and "batch_size=2" in sentence for sentence in report.notes)
    assert "in brackets" not in str(report)
    assert "without an interval" in report._verdict()[0]


def test_one_candidate():
    report = gap_report(cross_validate(Remembers(), *rows(), cv=3, return_train_score=True))
    assert report.settings["reference"] is None
    assert "There is only one candidate" in str(report)
    assert report.gaps() == {}
    assert "highest mean test" in report._verdict()[0]


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


# -- any score ---------------------------------------------------------------------------------------------------------


def test_which_score_is_read():
    scores = {f"{part}_{name}": [[0.9, 0.8]] * 2 for part in ("train", "test") for name in ("auc", "balanced_accuracy")}
    search = made_up([{"batch_size": 1}, {"batch_size": 2}], scores)
    assert gap_report(search).settings["scoring"] == "balanced_accuracy"
    assert gap_report(search, scoring="auc").settings["scoring"] == "auc"
    with pytest.raises(ValueError, match=r"^scoring must name .* one of 'auc', 'balanced_accuracy'; got 'accuracy'\.$"):
        gap_report(search, scoring="accuracy")
    others = {key.replace("balanced_accuracy", "f1"): values for key, values in scores.items()}
    with pytest.raises(ValueError, match=r"^scoring must name .* one of 'auc', 'f1'; got None\.$"):
        gap_report(made_up([{"batch_size": 1}, {"batch_size": 2}], others))


@pytest.mark.parametrize("beside", ["sharpness", "neg_log_loss"])
def test_the_only_score_beside_what_is_measured_for_the_report(beside):
    scores = {f"{part}_{name}": [[0.9, 0.8]] * 2 for part in ("train", "test") for name in ("ap", beside)}
    report = gap_report(made_up([{"batch_size": 1}, {"batch_size": 2}], scores))
    assert report.settings["scoring"] == "ap"


@pytest.mark.parametrize("scoring", [None, "accuracy", {"right": "accuracy"}, {"right": "accuracy", "f1": "f1"}])
def test_accuracy_by_another_name_is_in_points(scoring):
    search = GridSearchCV(
        Remembers(), {"batch_size": [1, 5]}, cv=3, scoring=scoring, return_train_score=True, refit=False
    ).fit(*rows())
    report = gap_report(search)
    assert report.settings["in_points"]
    assert report.settings["scoring"] == ("right" if isinstance(scoring, dict) else "accuracy")
    gap = report.gap(1)
    assert f"{100 * gap.value:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]" in str(report)


@pytest.mark.parametrize("scoring", ["f1", {"accuracy": "f1"}, "neg_brier_score"])
def test_what_is_no_accuracy_is_in_its_own_units(scoring):
    model = Remembers()
    search = GridSearchCV(model, {"batch_size": [1, 5]}, cv=3, scoring="f1", return_train_score=True, refit=False)
    if scoring == "neg_brier_score":
        search = made_up(
            [{"batch_size": 1}, {"batch_size": 2}],
            {f"{part}_neg_brier": [[-0.1, -0.2], [-0.15, -0.22]] for part in ("train", "test")},
        )
    else:
        search = search.set_params(scoring=scoring).fit(*rows())
    report = gap_report(search)
    assert not report.settings["in_points"]
    assert f"{report.gap(1).value:+.4f} [" in str(report)
    assert "point" not in str(report)


def test_a_score_of_a_dict_is_not_taken_for_accuracy():
    result = cross_validate(Remembers(), *rows(), cv=3, return_train_score=True, scoring="f1")
    report = gap_report({"SB": result, "LB": result})
    assert (report.settings["scoring"], report.settings["in_points"]) == ("score", False)


@pytest.mark.parametrize(("seed", "words"), [(None, "and new seeds"), (0, "with the same seed")])
def test_what_the_interval_covers(seed, words):
    X, y = blobs(n=45)
    model = small(max_epochs=1, random_state=seed)
    search = GridSearchCV(model, {"batch_size": [5, 0.5]}, cv=3, return_train_score=True, refit=False).fit(X, y)
    report = gap_report(search)
    assert report.gap("batch_size=0.5").covers.endswith(words)
    assert words in str(report)
    with pytest.raises(ValueError, match=r"^candidate must have a regime gap \(batch_size=0.5\); got"):
        report.gap("batch_size=5")


def test_the_seeds_of_a_dict_are_not_known():
    assert "if the folds had different seeds" in gap_report(two()).gap(0).covers


# -- training losses ---------------------------------------------------------------------------------------------------

SHARP = {"train_sharpness": [[9, 8, 7, 8], [1, 2, 1, 2]]}


def test_the_log_loss_is_the_training_loss():
    report = gap_report(two(**SHARP, train_neg_log_loss=[[-0.4, -0.5, -0.6, -0.5], [-0.01] * 4]))
    assert [record["training_loss"] for record in report.records] == pytest.approx([0.5, 0.01])
    assert any("differ by more than a factor" in sentence for sentence in report.notes)
    # Of how many classes the loss of guessing is, nothing says here.
    assert any("not known for any candidate" in sentence for sentence in report.notes)


@pytest.fixture(scope="module")
def scored():
    """Two batch sizes of real nets, of which the large one learns nothing; with the estimators of the folds."""
    X, y = blobs(n=60)
    scoring = {"accuracy": "accuracy", "sharpness": constant}
    return {
        str(size): cross_validate(
            small(batch_size=size, max_epochs=12), X, y, cv=2, scoring=scoring, return_train_score=True,
            return_estimator=True,
        )
        for size in (4, -1)
    }  # fmt: skip


def constant(estimator, X, y):
    return 1.0


def test_the_losses_of_the_estimators_of_the_folds(scored):
    report = gap_report(scored)
    for record, result in zip(report.records, scored.values(), strict=True):
        assert record["training_loss"] == pytest.approx(np.mean([model.train_loss_ for model in result["estimator"]]))
    (sentence,) = [sentence for sentence in report.notes if "far from a minimum" in sentence]
    assert "-1" in sentence
    assert "4" not in sentence.split(".")[0]
    assert report.settings["n_classes"] == 3


def test_losses_that_nobody_has(scored):
    bare = {label: {k: v for k, v in result.items() if k != "estimator"} for label, result in scored.items()}
    report = gap_report(bare)
    assert "training_loss" not in report.records[0]
    assert "train loss" not in str(report)
    assert any("return_estimator=True" in sentence for sentence in report.notes)
    assert not any("minimum" in sentence for sentence in gap_report(two()).notes)  # no sharpness, no question


@pytest.mark.parametrize("in_pipeline", [True, False])
def test_the_loss_of_the_model_that_a_search_fitted_again(in_pipeline):
    X, y = blobs(n=45)
    model = small(max_epochs=1)
    name = "lbgapclassifier__batch_size" if in_pipeline else "batch_size"
    model = make_pipeline(StandardScaler(), model) if in_pipeline else model
    scoring = {"accuracy": "accuracy", "sharpness": constant}
    search = GridSearchCV(
        model, {name: [5, 0.5]}, cv=3, scoring=scoring, refit="accuracy", return_train_score=True
    ).fit(X, y)
    report = gap_report(search)
    best = search.best_estimator_.steps[-1][1] if in_pipeline else search.best_estimator_
    losses = [record["training_loss"] for record in report.records]
    assert losses[search.best_index_] == best.train_loss_
    assert math.isnan(losses[1 - search.best_index_])
    other = report.labels[1 - search.best_index_]
    assert any(
        sentence.startswith("Sharpness means little") and f"for {other} whether" in sentence
        for sentence in report.notes
    )


def test_a_loss_that_is_no_cross_entropy_is_not_read(scored):
    class Other:
        classes_, criterion_, history = np.arange(3), torch.nn.MultiMarginLoss(), [{"train_loss": 0.1}]
        get_loss = initialized_ = True

    result = {**scored["4"], "estimator": [Other(), Other()]}
    assert gap_report({"a": result, "b": result}).settings["train_loss_from"] == ""


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_it_leaves_in_all_formats():
    labels = {"a & b_c|d<e>": 32, "other": 256}
    results = {
        label: {"fit_time": np.ones(4), "train_accuracy": TRAIN[str(n)], "test_accuracy": TEST[str(n)]}
        for label, n in labels.items()
    }
    report = gap_report(results)
    assert r"a \& b\_c|d$<$e$>$" in report.to_latex()
    assert r"a & b_c\|d<e>" in report.to_markdown()
    assert "a &amp; b_c|d&lt;e&gt;" in report._repr_html_()
    content = json.loads(report.to_json())
    assert content["gaps"][0]["covers"] == report.gap("other").covers
    assert content["notes"] == report.notes


def test_unequal_folds_and_metrics():
    three, four = (cross_validate(Remembers(), *rows(), cv=cv, return_train_score=True) for cv in (3, 4))
    with pytest.raises(ValueError, match=r"results over the same folds; got \[3, 4\] folds"):
        gap_report({"SB": three, "LB": four})
    with pytest.raises(ValueError, match=r"search must have 'train_score' for every label; 'LB' does not have it\.$"):
        gap_report({"SB": three, "LB": cross_validate(Remembers(), *rows(), cv=3)})


@pytest.mark.parametrize("ratio", [0, -1, math.inf, True, "0.2"])
def test_bad_test_ratio(ratio):
    with pytest.raises(ValueError, match=r"^test_ratio must be a number above 0; got .*\.$"):
        gap_report(two(), test_ratio=ratio)


# -- growth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [lambda r: r, str, lambda r: r.to_json(), lambda r: r.gaps()])
def test_reading_takes_time_in_proportion_to_the_candidates(read):
    assert growth(lambda n: lambda: read(gap_report(grid(list(range(1, n + 1))), reference=0)), 100) < 2.3


def test_reading_a_halving_search_takes_time_in_proportion_to_its_candidates():
    def make(n):
        sizes = list(range(1, n + 1))
        search = grid([*sizes, *sizes[: n // 2]], iter=[0] * n + [1] * (n // 2), n_resources=[50] * n + [99] * (n // 2))
        return lambda: gap_report(search, reference=n // 2 - 1)

    assert growth(make, 100) < 2.3
