"""The candidate that `gap_report` compares the others with."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import SwitchBatch, gap_report
from tests.experiments.searches import grid, made_up, two
from tests.tiny import blobs, small


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


@pytest.mark.parametrize(
    ("values", "name", "smallest"),
    [
        ([5000, 256, 1000], "batch_size", 1),
        ([0.5, 0.1, -1], "batch_size", 1),
        ([-1, 128], "batch_size", 1),
        (["LB", "SB"], "batch_regime", 1),
        ([0.5, SwitchBatch()], "clf__batch_regime", 1),
        ([32, 0.5], "a__b__batch_size", 0),
    ],
)
def test_the_smallest_batch(values, name, smallest):
    report = gap_report(grid(values, name))
    assert [record["is_reference"] for record in report.records].index(True) == smallest
    assert report.records[0]["label"].startswith(name.rsplit("__", 1)[-1] + "=")


def test_a_smallest_batch_that_depends_on_the_size_of_the_data():
    with pytest.raises(
        ValueError, match=r"^reference must be given, because .* depends .*; the candidates have 256, 0.1"
    ):
        gap_report(grid([256, 0.1]))
    assert gap_report(grid([256, 0.1]), reference=1).settings["reference"] == "batch_size=0.1"
    net = SimpleNamespace(n_samples_=60_000)
    assert gap_report(grid([0.1, 256], best_estimator_=net, cv=3)).settings["reference"] == "batch_size=256"
    net = SimpleNamespace(n_samples_=1000)
    assert gap_report(grid([0.1, 256], best_estimator_=net, cv=3)).settings["reference"] == "batch_size=0.1"


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
    assert "2 candidates have the smallest batch size" in str(report)


def test_no_reference_where_batches_do_not_vary():
    report = gap_report(grid([0.1, 0.2], "lr"))
    assert report.settings["reference"] is None
    assert "regime_gap" not in report.records[0]
    assert "All candidates have the same batch size" in str(report)
    assert gap_report(grid([0.1, 0.2], "lr"), reference={"lr": 0.2}).records[0]["regime_gap"] == 0
