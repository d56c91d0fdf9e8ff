"""What `gap_report` knows of a search: the sizes of its folds, the batch sizes of its candidates, and its scorers."""

from functools import partial

import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    HalvingGridSearchCV,
    KFold,
    LeaveOneGroupOut,
    LeavePGroupsOut,
    PredefinedSplit,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
    cross_validate,
)
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklgap import (
    ConstantBatch,
    SwitchBatch,
    gap_report,
    make_sharpness_scorer,
    neg_sharpness_scorer,
    sharpness_score,
)
from tests.experiments.searches import Remembers, grid, made_up, rows
from tests.tiny import Mlp, blobs, small

N = 120
GROUPS = np.repeat([0, 1, 2, 3], [80, 16, 16, 8])
X, Y = blobs(n=96)


def searched(cv, groups=None, data=None, **parameters):
    search = GridSearchCV(Remembers(), {"batch_size": [1, 5]}, cv=cv, return_train_score=True, refit=False)
    return search.set_params(**parameters).fit(*(rows(N) if data is None else data), groups=groups)


class Purged(KFold):
    """K-fold whose training sets leave out half of the other samples."""

    def split(self, X, y=None, groups=None):
        for train, test in super().split(X, y, groups):
            yield train[::2], test


# -- sizes of the folds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cv", "ratio"),
    [
        (RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0), 1 / 2),
        (StratifiedKFold(4), 1 / 3),
        (np.int64(4), 1 / 3),
        (ShuffleSplit(3, random_state=0), 1 / 9),
        (ShuffleSplit(3, train_size=0.75, random_state=0), 1 / 3),
        (ShuffleSplit(3, train_size=0.3, test_size=0.15, random_state=0), 1 / 2),
        (StratifiedShuffleSplit(3, test_size=0.25, random_state=0), 1 / 3),
        (StratifiedShuffleSplit(3, train_size=30, test_size=60, random_state=0), 2),
        (ShuffleSplit(3, train_size=np.int64(80), test_size=40, random_state=0), 1 / 2),
        (PredefinedSplit([-1] * 60 + [0] * 40 + [1] * 20), (40 / 80 + 20 / 100) / 2),
        ([(np.arange(90), np.arange(90, 120)), (np.arange(30, 120), np.arange(30))], 1 / 3),
        ([(np.arange(N) % 4 > 0, np.arange(N) % 4 == 0), (np.arange(N) % 4 > 1, np.arange(N) % 4 == 1)], 5 / 12),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
def test_known_sizes(cv, ratio):
    search = searched(cv)
    report = gap_report(search)
    # The ratio is that of the splits which the search used.
    splits = [(np.arange(N)[a], np.arange(N)[b]) for a, b in search._checked_cv_orig.split(*rows(N))]
    assert np.mean([len(test) / len(train) for train, test in splits]) == pytest.approx(ratio)
    assert report.settings["test_to_train_ratio"] == pytest.approx(ratio)
    assert report.settings["test_to_train_ratio_known"]
    assert "test_ratio=" not in str(report)


@pytest.mark.parametrize(
    ("cv", "groups"),
    [
        (ShuffleSplit(3, test_size=40, random_state=0), None),
        (ShuffleSplit(3, train_size=40, random_state=0), None),
        (ShuffleSplit(3, train_size=40, test_size=0.25, random_state=0), None),
        (StratifiedShuffleSplit(3, train_size=0.25, test_size=20, random_state=0), None),
        (GroupShuffleSplit(3, test_size=1, random_state=0), GROUPS),
        (GroupShuffleSplit(3, test_size=0.25, random_state=0), GROUPS),
        (GroupKFold(3), GROUPS),
        (StratifiedGroupKFold(3), GROUPS),
        (LeaveOneGroupOut(), GROUPS),
        (LeavePGroupsOut(2), GROUPS),
        (TimeSeriesSplit(3), None),
        (Purged(3), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_sizes_that_are_not_known_are_said_to_be_taken_for_k_fold(cv, groups):
    search = searched(cv, groups)
    report = gap_report(search)
    assert not report.settings["test_to_train_ratio_known"]
    assert any("equal sizes; for other folds, such as those of groups, give test_ratio=." in s for s in report.notes)
    report = gap_report(search, test_ratio=0.8)
    assert (report.settings["test_to_train_ratio"], report.settings["test_to_train_ratio_known"]) == (0.8, True)
    assert not any("test_ratio=" in sentence for sentence in report.notes)


def results(*cvs, groups=None, **options):
    return {
        f"cv {i}": cross_validate(
            Remembers(), *rows(N), cv=cv, groups=groups, return_train_score=True, return_indices=True, **options
        )
        for i, cv in enumerate(cvs)
    }


def test_the_indices_know_the_sizes_of_groups():
    report = gap_report(results(GroupKFold(3), GroupKFold(3), groups=GROUPS))
    assert report.settings["test_to_train_ratio"] == pytest.approx((80 / 40 + 16 / 104 + 24 / 96) / 3)
    assert report.settings["test_to_train_ratio_known"]
    # They are those of any result that has them.
    one, other = results(GroupKFold(3), GroupKFold(3), groups=GROUPS).values()
    del one["indices"]
    report_ = gap_report({"a": one, "b": other})
    assert report_.settings["test_to_train_ratio"] == report.settings["test_to_train_ratio"]


# -- the same folds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cvs", "fold"),
    [
        ((KFold(3), KFold(3, shuffle=True, random_state=0)), 0),
        ((KFold(3), KFold(3), KFold(3, shuffle=True, random_state=0)), 0),
        ((ShuffleSplit(3, random_state=0), ShuffleSplit(3, random_state=1)), 0),
        (([*KFold(3).split(np.arange(N))], [*KFold(3).split(np.arange(N))][::-1]), 0),
        (([*KFold(3).split(np.arange(N))], [(a[i:], b) for i, (a, b) in enumerate(KFold(3).split(np.arange(N)))]), 1),
    ],
    ids=["shuffled", "third", "seed", "order", "training"],
)
def test_different_folds_are_refused(cvs, fold):
    name = f"cv {len(cvs) - 1}"
    with pytest.raises(
        ValueError,
        match=rf"^search must have results over the same folds; '{name}' and 'cv 0' have .* in fold {fold}\. Use",
    ):
        gap_report(results(*cvs))


def test_the_same_folds_in_other_words():
    folds = list(KFold(3).split(np.arange(N)))
    shuffled = [(train[::-1], test[::-1]) for train, test in folds]
    masks = [tuple(np.isin(np.arange(N), part) for part in fold) for fold in folds]
    report = gap_report(results(KFold(3), folds, shuffled, masks), reference=0)
    assert report.settings["folds_compared"]
    assert report.settings["test_to_train_ratio"] == 1 / 2
    assert not any("same folds" in sentence for sentence in report.notes)


def test_folds_that_cannot_be_compared_are_reported():
    found = results(KFold(3), KFold(3, shuffle=True, random_state=0))
    del found["cv 1"]["indices"]
    report = gap_report(found)
    assert not report.settings["folds_compared"]
    assert any("not known whether all results have the same folds" in sentence for sentence in report.notes)
    # Two results with indices are compared beside a third without them.
    with pytest.raises(ValueError, match="'c' and 'cv 0' have different training or test samples in fold 0"):
        gap_report({**found, "c": results(KFold(3, shuffle=True, random_state=0))["cv 0"]})


def test_one_result_and_a_search_need_no_comparison():
    assert gap_report(results(KFold(3))["cv 0"]).settings["folds_compared"]
    assert gap_report(searched(ShuffleSplit(3))).settings["folds_compared"]


# -- batch sizes -------------------------------------------------------------------------------------------------------


def reference(model, parameters, cv=3, **options):
    model.set_params(**{name: 1 for name in model.get_params() if name.split("__")[-1] == "max_epochs"})
    search = GridSearchCV(model, parameters, cv=cv, return_train_score=True, **options).fit(X, Y)
    settings = gap_report(search).settings
    return settings["reference"], settings["n_sharing_the_smallest_batch"]


def net(**parameters):
    return NeuralNetClassifier(
        Mlp, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, iterator_train__shuffle=True, **parameters
    )


@pytest.mark.parametrize(
    ("own", "parameters", "expected"),
    [
        ({"batch_regime": "LB"}, {"batch_size": [None, 4]}, ("batch_size=4", 1)),
        ({"batch_regime": 0.5}, {"batch_size": [None, 16]}, ("batch_size=16", 1)),
        ({"batch_regime": 0.5}, {"batch_size": [None, 0.25]}, ("batch_size=0.25", 1)),
        ({"batch_regime": 4}, {"batch_size": [16, None]}, ("batch_size=None", 1)),
        ({"batch_regime": ConstantBatch(30)}, {"batch_regime__size": [40, 30]}, ("size=30", 1)),
        ({"batch_size": 40}, [{"lr": [0.1, 0.2]}, {"batch_size": [30]}], ("batch_size=30", 1)),
        ({"batch_size": 40}, [{"lr": [0.1, 0.2]}, {"batch_size": [50]}], ("lr=0.1", 2)),
        ({"batch_size": 40}, [{"lr": [0.1]}, {"batch_size": [0.25]}], ("batch_size=0.25", 1)),
        ({"batch_size": 40}, [{"lr": [0.1]}, {"batch_size": [None]}], ("batch_size=None", 1)),
        ({"batch_size": 0.5}, [{"lr": [0.1]}, {"batch_size": [20]}], ("batch_size=20", 1)),
        ({"batch_size": -1}, [{"lr": [0.1]}, {"batch_size": [20]}], ("batch_size=20", 1)),
        ({"batch_size": 40}, {"batch_regime": ["SB", "LB"]}, (None, 0)),
        ({"batch_size": 0.5}, {"batch_regime": ["LB", 0.25]}, (None, 0)),
        ({}, {"batch_regime": [0.5, "SB"]}, ("batch_regime=SB", 1)),
        ({}, {"batch_regime": [0.5, SwitchBatch()]}, ("batch_regime=SwitchBatch()", 1)),
        ({}, {"micro_batch_size": [4, 8]}, (None, 0)),
        ({"batch_size": 4}, {"iterator_train__batch_size": [32, 16]}, ("batch_size=16", 1)),
    ],
)
@pytest.mark.parametrize("in_pipeline", [False, True])
def test_the_batch_sizes_of_the_estimator(own, parameters, expected, in_pipeline):
    model = small(tol=None, random_state=0, **own)
    if in_pipeline:
        model = make_pipeline(StandardScaler(), model)
        parameters = [
            {f"lbgapclassifier__{name}": values for name, values in one.items()}
            for one in (parameters if isinstance(parameters, list) else [parameters])
        ]
    assert reference(model, parameters) == expected


@pytest.mark.parametrize(
    ("own", "parameters", "expected"),
    [
        ({}, [{"lr": [0.1]}, {"batch_size": [200]}], ("lr=0.1", 1)),
        ({}, [{"lr": [0.1]}, {"batch_size": [64]}], ("batch_size=64", 1)),
        ({}, [{"batch_size": [-1]}, {"lr": [0.1]}], ("lr=0.1", 1)),
        ({}, {"iterator_valid__batch_size": [32, 200]}, (None, 0)),
        ({"iterator_valid__batch_size": 8}, {"batch_size": [32, 16]}, ("batch_size=16", 1)),
        ({}, {"iterator_train__batch_size": [32, 16]}, ("batch_size=16", 1)),
        ({"iterator_train__batch_size": 16}, {"batch_size": [64, 32]}, (None, 0)),
    ],
)
def test_the_batch_sizes_of_a_skorch_net(own, parameters, expected):
    assert reference(net(**own), parameters) == expected


def test_the_batch_sizes_of_estimators_among_the_parameters():
    pipeline = make_pipeline(StandardScaler(), small())
    models = [small(max_epochs=1, batch_size=32), small(max_epochs=1, batch_size=8)]
    search = GridSearchCV(
        pipeline, {"lbgapclassifier": models, "lbgapclassifier__lr": [0.1]}, cv=3, return_train_score=True
    ).fit(X, Y)
    report = gap_report(search)
    assert [record["is_reference"] for record in report.records] == [False, True]
    # Reading the batch sizes leaves the models of the user as they are.
    assert [model.lr for model in models] == [small().lr] * 2
    both = {"lbgapclassifier": models[:1], "lbgapclassifier__batch_size": [16, 4]}
    search = GridSearchCV(pipeline, both, cv=3, return_train_score=True).fit(X, Y)
    assert gap_report(search).settings["reference"] == "batch_size=4"
    assert models[0].batch_size == 32


def test_the_batch_size_of_a_net_inside_an_ensemble():
    model = BaggingClassifier(small(batch_size=20), n_estimators=1, random_state=0)
    assert reference(model, [{"estimator__lr": [0.1]}, {"estimator__batch_size": [10]}]) == ("batch_size=10", 1)
    assert reference(model, {"estimator__batch_regime": ["SB", "LB"]}) == (None, 0)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (
            VotingClassifier([("a", small(batch_size=8)), ("b", small(batch_size=16))]),
            {"a__batch_size": [8, 32]},
        ),
        (
            make_pipeline(small()),
            [{"lbgapclassifier": [LogisticRegression()]}, {"lbgapclassifier__batch_size": [8]}],
        ),
        (MLPClassifier(max_iter=500, tol=1), [{"alpha": [0.1]}, {"batch_size": [8]}]),
    ],
    ids=["two nets", "no net", "auto"],
)
def test_batch_sizes_that_are_not_known(model, parameters):
    with pytest.raises(ValueError, match=r"^reference must be given, because the batch sizes .* are not known; .*\.$"):
        reference(model, parameters)


def test_a_search_inside_the_estimator_may_choose_any_batch_size():
    inner = GridSearchCV(small(), {"batch_size": [4, 16]}, cv=2)
    with pytest.raises(ValueError, match=r"^reference must be given, because the search inside the estimator may"):
        reference(inner, {"estimator__lr": [0.1, 0.2]})


def test_no_value_and_no_estimator():
    with pytest.raises(ValueError, match="batch sizes of the candidates are not known; the candidates have 16, None"):
        gap_report(grid([16, None]))
    with pytest.raises(ValueError, match="the candidates have no batch size, 16"):
        gap_report(made_up([{"lr": 1}, {"batch_size": 16}], dict.fromkeys(("train_score", "test_score"), [[1, 2]] * 2)))
    assert gap_report(grid([16, 8], "iterator_valid__batch_size")).settings["reference"] is None


@pytest.mark.parametrize(
    ("cv", "expected"),
    [
        (3, "batch_size=12"),
        (ShuffleSplit(3, train_size=0.5, random_state=0), "batch_size=12"),
        (KFold(2), "batch_size=12"),
        (ShuffleSplit(3, train_size=0.2, test_size=0.2, random_state=0), None),
        (ShuffleSplit(3, train_size=20, random_state=0), None),
        (PredefinedSplit([0] * 76 + [1] * 20), None),
        ([(np.arange(20), np.arange(20, 96))], None),
        ([(np.arange(48), np.arange(48, 96))], "batch_size=12"),
        (TimeSeriesSplit(3), None),
    ],
)
def test_small_training_sets_decide_which_batch_is_the_smallest(cv, expected):
    # Half of the samples of a training set are more than 12 with k-fold, and fewer where the training set is small.
    model, parameters = small(tol=None, random_state=0), {"batch_size": [0.5, 12]}
    if expected is not None:
        assert reference(model, parameters, cv)[0] == expected
        return
    with pytest.raises(ValueError, match=r"depends on the number of training samples; the candidates have 0\.5, 12\.$"):
        reference(model, parameters, cv)


@pytest.mark.parametrize(("fraction", "expected"), [(0.5, "batch_size=0.5"), (0.9, "batch_size=16")])
def test_the_sizes_of_the_first_iteration_of_a_halving_search(fraction, expected):
    search = HalvingGridSearchCV(
        Remembers(), {"batch_size": [16, fraction]}, cv=2, factor=2, min_resources=40 if fraction > 0.5 else 24,
        max_resources=80, random_state=0, return_train_score=True,
    ).fit(*rows(240))  # fmt: skip
    assert gap_report(search).settings["reference"] == expected


# -- scorers of sharpness ----------------------------------------------------------------------------------------------


def scored(scoring, **options):
    model = small(max_epochs=1, tol=None, random_state=0)
    search = GridSearchCV(model, {"batch_size": [8, 32]}, cv=2, scoring=scoring, return_train_score=True, **options)
    return search.fit(X, Y)


@pytest.mark.parametrize("scoring", [None, "score"])
@pytest.mark.parametrize(
    "scorer", [make_sharpness_scorer(), make_sharpness_scorer(greater_is_better=True), neg_sharpness_scorer]
)
def test_sharpness_alone_is_refused(scorer, scoring):
    with pytest.raises(ValueError, match=r"^scoring must name a score other than sharpness.* 'score'\. Add one"):
        gap_report(scored(scorer), scoring=scoring)


def test_the_name_of_sharpness_alone_is_refused():
    scores = dict.fromkeys(("train_sharpness", "test_sharpness"), [[1, 2]] * 2)
    with pytest.raises(ValueError, match="other than sharpness"):
        gap_report(made_up([{"batch_size": 1}, {"batch_size": 2}], scores))


def test_sharpness_is_recognised_under_any_name():
    scorers = {
        "flat": neg_sharpness_scorer,
        "made": make_sharpness_scorer(),
        "sharp": sharpness_score,
        "partial": partial(sharpness_score, batch_norm="batch"),
        "up": make_sharpness_scorer(greater_is_better=True),
    }
    search = scored({**scorers, "balanced": "balanced_accuracy"}, refit="balanced")
    report = gap_report(search)
    assert report.settings["scoring"] == "balanced"
    assert report.settings["sharpness"] == list(scorers)
    for i, record in enumerate(report.records):
        expected = search.cv_results_["mean_train_sharp"][i]
        assert expected > 0
        assert [record[name] for name in scorers] == pytest.approx([expected] * 5)
    assert not report.settings["sharpness_of_test_rows_alone"]
    with pytest.raises(ValueError, match="other than sharpness"):
        gap_report(search, scoring="flat")


def test_a_score_that_is_called_sharpness_is_none():
    search = scored({"sharpness": "balanced_accuracy"}, refit=False)
    report = gap_report(search)
    assert (report.settings["scoring"], report.settings["sharpness"]) == ("sharpness", [])


def test_the_scorers_of_a_user_are_known_by_name():
    def sharpness_of_mine(estimator, X, y):
        return -2.0

    report = gap_report(scored({"my_sharpness": sharpness_of_mine, "accuracy": "accuracy"}, refit=False))
    assert [record["my_sharpness"] for record in report.records] == [2.0, 2.0]
