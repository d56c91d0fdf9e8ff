import json
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import BaggingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  scikit-learn's switch
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    PredefinedSplit,
    RandomizedSearchCV,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import SwitchBatch, gap_report, neg_sharpness_scorer, sharpness_score
from tests.tiny import blobs, small

TEST = {"32": [0.95, 0.96, 0.94, 0.97], "256": [0.90, 0.93, 0.92, 0.91]}
TRAIN = {"32": [0.99, 0.98, 1.0, 0.99], "256": [0.97, 0.98, 0.96, 0.97]}


class Remembers(ClassifierMixin, BaseEstimator):
    """A classifier whose accuracy is chosen by its parameters and by the rows it got."""

    def __init__(self, batch_size=1, batch_regime="SB", lr=0.1, max_epochs=1):
        self.batch_size = batch_size
        self.batch_regime = batch_regime
        self.lr = lr
        self.max_epochs = max_epochs

    def fit(self, X, y):
        if self.lr is None and y[0] == 1:
            raise RuntimeError("fails on some folds")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        right = X[:, 0] > (0.1 if self.batch_size in (1, 8) else 0.4) * self.lr if self.lr else X[:, 0] > 0.5
        return np.where(right, X[:, 1], 1 - X[:, 1]).astype(int)


def rows(n=120):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n)
    return np.stack([rng.uniform(size=n), y], axis=1), y


def made_up(parameters, scores, **attributes):
    """Return a finished search with these scores: ``{"train_accuracy": (n_candidates, n_folds)}``."""
    results = {
        "params": parameters,
        "mean_fit_time": np.ones(len(parameters)),
        "std_fit_time": np.full(len(parameters), 0.3),
        **{key: attributes.pop(key) for key in ("iter", "n_resources") if key in attributes},
    }
    for name, values in scores.items():
        for fold, column in enumerate(np.array(values, dtype=float).T):
            results[f"split{fold}_{name}"] = column
    return SimpleNamespace(cv_results_=results, **attributes)


def two(**more):
    parameters = [{"batch_size": 256}, {"batch_size": 32}]
    scores = {"train_accuracy": [TRAIN["256"], TRAIN["32"]], "test_accuracy": [TEST["256"], TEST["32"]]}
    return made_up(parameters, {**scores, **more})


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


# -- the reference -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [1, "batch_size=32", {"batch_size": 32}, None, np.int64(1)],
    ids=["index", "label", "dict", "None", "np"],
)
def test_the_reference(reference):
    assert gap_report(two(), reference=reference).settings["reference"] == "batch_size=32"


def test_another_reference_turns_the_sign():
    one, other = (gap_report(two(), reference=i).records[1 - i] for i in (0, 1))
    assert one["regime_gap"] == -other["regime_gap"]
    assert one["regime_gap_low"] == -other["regime_gap_high"]


@pytest.mark.parametrize("reference", [2, -1, True, "batch_size=3", {"batch_size": 3}, {}, {"lr": 1}, 1.0])
def test_no_such_reference(reference):
    with pytest.raises(ValueError, match=r"^reference must be the index, the label or the parameters of one of 2"):
        gap_report(two(), reference=reference)


def grid(values, name="batch_size", **attributes):
    scores = np.full((len(values), 3), 0.9)
    return made_up([{name: value} for value in values], {"train_score": scores, "test_score": scores}, **attributes)


@pytest.mark.parametrize(
    ("values", "name", "smallest"),
    [
        ([5000, 256, 1000], "batch_size", 1),
        ([0.5, 0.1, -1], "batch_size", 1),
        ([-1, 128], "batch_size", 1),
        (["LB", "SB"], "batch_regime", 1),
        (["LB", None], "batch_regime", 1),
        ([0.5, SwitchBatch()], "clf__batch_regime", 1),
        ([32, 0.5], "a__b__batch_size", 0),
    ],
)
def test_the_smallest_batch(values, name, smallest):
    report = gap_report(grid(values, name))
    assert [record["is_reference"] for record in report.records].index(True) == smallest
    assert report.records[0]["label"].startswith(name.rsplit("__", 1)[-1] + "=")


def test_a_smallest_batch_that_depends_on_the_size_of_the_data():
    with pytest.raises(ValueError, match=r"^reference must be given where it depends .*; the candidates have 256, 0.1"):
        gap_report(grid([256, 0.1]))
    assert gap_report(grid([256, 0.1]), reference=1).settings["reference"] == "batch_size=0.1"
    net = SimpleNamespace(n_samples_=60_000)
    assert gap_report(grid([0.1, 256], best_estimator_=net)).settings["reference"] == "batch_size=256"
    net = SimpleNamespace(n_samples_=1000)
    assert gap_report(grid([0.1, 256], best_estimator_=net)).settings["reference"] == "batch_size=0.1"


def test_the_size_of_the_data_is_known_from_the_refitted_net():
    X, y = blobs(n=90)
    model = make_pipeline(StandardScaler(), small(max_epochs=1))
    search = GridSearchCV(model, {"lbgapclassifier__batch_size": [20, 0.1]}, cv=3, return_train_score=True).fit(X, y)
    assert gap_report(search).settings["reference"] == "batch_size=0.1"
    ensemble = BaggingClassifier(model, n_estimators=1, random_state=0)
    grid_ = {"estimator__lbgapclassifier__batch_size": [20, 0.1]}
    search = GridSearchCV(ensemble, grid_, cv=3, return_train_score=True).fit(X, y)
    with pytest.raises(ValueError, match="reference must be given"):
        gap_report(search)


def test_several_with_the_smallest_batch():
    parameters = [{"batch_size": size, "lr": lr} for lr in (0.1, 0.2) for size in (20, 10)]
    scores = np.full((4, 3), 0.9)
    report = gap_report(made_up(parameters, {"train_score": scores, "test_score": scores}))
    assert report.settings["reference"] == "batch_size=10, lr=0.1"
    assert "2 candidates share the smallest batch" in str(report)


def test_no_reference_where_batches_do_not_vary():
    report = gap_report(grid([0.1, 0.2], "lr"))
    assert report.settings["reference"] is None
    assert "regime_gap" not in report.records[0]
    assert "The batch size does not vary" in str(report)
    assert gap_report(grid([0.1, 0.2], "lr"), reference={"lr": 0.2}).records[0]["regime_gap"] == 0


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


# -- real searches -----------------------------------------------------------------------------------------------------


def test_a_grid_search_with_sharpness_and_its_files(tmp_path):
    X, y = blobs(n=90)
    scoring = {"accuracy": "accuracy", "sharpness": sharpness_score, "flatness_of_sharpness": neg_sharpness_scorer}
    search = GridSearchCV(
        make_pipeline(StandardScaler(), small()),
        {"lbgapclassifier__batch_size": [10, 0.5]},
        scoring=scoring,
        refit="accuracy",
        cv=3,
        return_train_score=True,
    ).fit(X, y)
    report = gap_report(search, reference={"batch_size": 10})
    results = search.cv_results_
    for i, record in enumerate(report.records):
        assert record["test_accuracy"] == pytest.approx(results["mean_test_accuracy"][i])
        assert record["sharpness"] == pytest.approx(results["mean_train_sharpness"][i])
        assert record["flatness_of_sharpness"] == pytest.approx(record["sharpness"])
        assert record["param_lbgapclassifier__batch_size"] == results["params"][i]["lbgapclassifier__batch_size"]
    text = str(report)
    assert "sharpness (%)" in text
    assert "regime gap [95 %]" in text
    frame = report.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 2
    content = json.loads(report.to_json(tmp_path / "report.json"))
    assert content == json.loads((tmp_path / "report.json").read_text())
    assert content["records"][1]["label"] == "batch_size=0.5"


def test_a_halving_search_is_compared_within_iterations():
    search = HalvingGridSearchCV(
        Remembers(), {"batch_size": [8, 20, 30, 40], "lr": [1.0]}, cv=3, factor=2, random_state=0, min_resources=30,
        return_train_score=True,
    ).fit(*rows(240))  # fmt: skip
    report = gap_report(search)
    assert report.settings["reference"] == "batch_size=8"
    results = search.cv_results_
    for i, record in enumerate(report.records):
        beside = [
            j
            for j, parameters in enumerate(results["params"])
            if parameters["batch_size"] == 8 and results["iter"][j] == results["iter"][i]
        ]
        if beside and not record["is_reference"]:
            expected = results["mean_test_score"][beside[0]] - results["mean_test_score"][i]
            assert record["regime_gap"] == pytest.approx(expected)
    assert {record["iteration"] for record in report.records} == set(results["iter"])
    assert "compare candidates within an iteration only" in str(report)
    assert "0 (30 rows)" in str(report)


def test_a_reference_that_dropped_out():
    parameters = [{"batch_size": 8}, {"batch_size": 9}, {"batch_size": 9}]
    scores = [[0.8, 0.9], [0.9, 0.95], [0.9, 0.95]]
    search = made_up(
        parameters, {"train_score": scores, "test_score": scores}, iter=[0, 0, 1], n_resources=[5, 5, 10],
        resource="max_epochs",
    )  # fmt: skip
    report = gap_report(search)
    assert report.records[1]["regime_gap"] == pytest.approx(-0.075)
    assert (report.records[2]["n_pairs"], report.records[2]["is_reference"]) == (0, False)
    assert "1 (10 max_epochs)" in str(report)


def test_a_randomized_search_with_failures():
    search = RandomizedSearchCV(
        Remembers(), {"batch_size": [1, 5], "lr": [None, 0.5]}, n_iter=4, cv=KFold(4), return_train_score=True,
        random_state=0, refit=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of the failures
        search.fit(*rows())
    report = gap_report(search, reference={"batch_size": 1, "lr": 0.5})
    assert any("Fits failed" in sentence for sentence in report.warnings)
    assert len(report.records) == 4


def test_a_thousand_candidates_print_as_a_page():
    text = str(gap_report(grid(range(1, 1001))))
    assert len(text.splitlines()) < 80
    assert "... and 950 more: to_frame() has them all" in text


def test_values_that_print_alike_get_a_number():
    labels = [r["label"] for r in gap_report(grid(["x" * 50 + "a", "x" * 50 + "b"], "init"), reference=0).records]
    assert len(set(labels)) == 2


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
