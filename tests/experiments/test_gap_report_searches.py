"""`gap_report` of scikit-learn's searches."""

import json
import warnings

import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, KFold, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import gap_report, neg_sharpness_scorer, sharpness_score
from tests.experiments.searches import Remembers, grid, made_up, rows
from tests.tiny import blobs, small


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
    assert "in brackets: 95 % interval" in text
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
    assert "0 (30 samples)" in str(report)


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
    assert any("Fits that failed" in sentence for sentence in report.notes)
    assert len(report.records) == 4


def test_a_thousand_candidates_print_as_a_page():
    text = str(gap_report(grid(range(1, 1001))))
    assert len(text.splitlines()) < 80
    assert "... and 950 more" in text
    assert "to_frame() has all" in text


def test_values_that_print_alike_get_a_number():
    labels = [r["label"] for r in gap_report(grid(["x" * 50 + "a", "x" * 50 + "b"], "init"), reference=0).records]
    assert len(set(labels)) == 2
