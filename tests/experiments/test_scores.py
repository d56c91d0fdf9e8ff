"""Scores: what is accepted, that values are scikit-learn's, and what is kept sample by sample."""

import functools

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    fbeta_score,
    get_scorer,
    make_scorer,
    roc_auc_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklgap import sharpness_score
from sklgap.experiments import _scores
from sklgap.experiments._estimate import (
    NEW_SEEDS,
    NEW_SEEDS_AND_ROWS,
    bootstrap_components,
    crossed_components,
    trial_components,
)
from sklgap.experiments._scores import Samples, Score, check_scoring, difference, measure_score, try_scores
from tests.ids import plain
from tests.tiny import blobs, small

X, CLASSES = blobs(120, n_classes=2, seed=3)
WRONG = np.random.default_rng(0).random(120) < 0.25
Y = np.where(WRONG, 1 - CLASSES, CLASSES)  # accuracies are not all 1, and both classes are predicted
LABELS = {
    "0 and 1": np.array([0, 1]),
    "1 and 2": np.array([1, 2]),
    "-1 and 1": np.array([-1, 1]),
    "words": np.array(["late", "on time"]),
    "flags": np.array([False, True]),
}


@functools.cache
def trained(name="0 and 1", lr=0.01):
    """Two models of two trials."""
    return tuple(small(lr=lr, random_state=trial, max_epochs=3).fit(X, LABELS[name][Y]) for trial in range(2))


def score_of(scoring):
    (score,) = check_scoring(scoring)
    return score


def f_of_late(beta=2.0):
    return make_scorer(fbeta_score, beta=beta, pos_label="late")


# -- what is accepted --------------------------------------------------------------------------------------------------


def names(scoring):
    return [score.name for score in check_scoring(scoring)]


def any_scorer(estimator, X, y):
    return 0.5


@pytest.mark.parametrize(
    ("scoring", "expected"),
    [
        (None, ["accuracy"]),
        ("accuracy", ["accuracy"]),
        ("f1", ["f1"]),
        (get_scorer("f1"), ["f1"]),
        (make_scorer(accuracy_score), ["predict_accuracy"]),
        (any_scorer, ["any_scorer"]),
        (lambda estimator, X, y: 0.0, ["lambda"]),
        (functools.partial(any_scorer), ["partial"]),
        (["accuracy", "f1", "f1"], ["accuracy", "f1"]),
        (("roc_auc",), ["roc_auc"]),
        ({"accuracy": "accuracy", "own": any_scorer, "ap": "average_precision"}, ["accuracy", "own", "ap"]),
    ],
    ids=plain,
)
def test_every_kind(scoring, expected):
    assert names(scoring) == expected


BAD = {
    "a name that is none": ("f_one", "the name of one of .*; got 'f_one'"),
    "a number": (3, "be None, a scorer, .*; got 3"),
    "nothing": ([], r"got \[\]"),
    "no names": ({}, r"got \{\}"),
    "a set, which has no order": ({"f1"}, r"got \{'f1'\}"),
    "a list of scorers": ([get_scorer("f1")], "a dict from names to these"),
    "a number for a name": ({1: "f1"}, r"got \{1: 'f1'\}"),
    "no name": ({"": "f1"}, "got"),
    "a dict of a number": ({"f": 1}, r"got \{'f': 1\}"),
    "accuracy by another name": ({"mine": "accuracy"}, "accuracy under its own name; got 'mine'"),
    "another accuracy": (
        {"accuracy": get_scorer("f1")},
        "'accuracy', because this name is for the value under batch_norm",
    ),
    "another loss": (
        {"loss": get_scorer("neg_log_loss")},
        "'loss', because this name is for the value under batch_norm",
    ),
    "a metric": (f1_score, "called with a model; got the metric .*make_scorer"),
    "a metric by a name": ({"f": average_precision_score}, "called with a model; got the metric .*make_scorer"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_scoring(case):
    scoring, sentence = BAD[case]
    with pytest.raises(ValueError, match=f"scoring must .*{sentence}"):
        check_scoring(scoring)


@pytest.mark.parametrize(
    ("scoring", "fraction"),
    [
        (None, True),
        ("f1", True),
        ("average_precision", True),
        ("roc_auc", True),
        (f_of_late(), True),
        ("neg_log_loss", False),
        ("matthews_corrcoef", False),
        (any_scorer, False),
        (make_scorer(f1_score, greater_is_better=False), False),
        (make_scorer(balanced_accuracy_score, adjusted=True), False),
    ],
    ids=plain,
)
def test_which_scores_lie_between_0_and_1(scoring, fraction):
    assert score_of(scoring).is_fraction == fraction


def test_policies():
    """Scorers see predict, which has its own batch-norm statistics."""
    assert score_of(None).policy("batch", small()) == "batch"
    assert score_of("f1").policy("batch", small()) == "population"
    assert score_of("f1").policy("batch", small(recompute_batch_norm=False)) == "running"


# -- before training ---------------------------------------------------------------------------------------------------

THREE = np.arange(30) % 3
CANNOT = {
    "three classes": ("f1", THREE, THREE, "multiclass"),
    "words": ("f1", LABELS["words"][Y], None, "pos_label"),
    "labels 2 and 3": ("f1", Y + 2, None, "pos_label"),
    "a class that is not held out": ("roc_auc_ovr", THREE[THREE < 2], THREE, "roc_auc_ovr is not"),
    "log loss of a class that is not held out": ("neg_log_loss", THREE[THREE < 2], THREE, "neg_log_loss is not"),
    "one class": ("roc_auc", np.zeros(20, int), Y, "roc_auc is not: it is nan"),
    "a method that the classifier lacks": (
        make_scorer(roc_auc_score, response_method="decision_function"),
        Y,
        None,
        "decision_function",
    ),
    "an argument that the metric lacks": (make_scorer(f1_score, gamma=2), Y, None, "gamma"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_scorers_that_cannot_work_are_refused_before_training(case):
    scoring, y, y_train, words = CANNOT[case]
    with pytest.raises(ValueError, match=f"scoring must be defined for these labels; .*{words}"):
        try_scores(check_scoring(scoring), y, y_train)


def test_the_way_out_for_words():
    with pytest.raises(ValueError, match=r"make_scorer\(..., pos_label"):
        try_scores(check_scoring("average_precision"), LABELS["words"][Y], LABELS["words"])
    try_scores(check_scoring(f_of_late()), LABELS["words"][Y], LABELS["words"])


@pytest.mark.parametrize("name", LABELS)
def test_scorers_that_work_are_not_refused(name):
    y = LABELS[name][Y]
    scoring = ["balanced_accuracy", "neg_log_loss", "roc_auc", "f1_macro", "matthews_corrcoef"]
    try_scores(check_scoring(scoring), y.tolist(), y)
    try_scores(check_scoring({"any": any_scorer, "sharpness": sharpness_score}), y, y)
    try_scores(check_scoring(["accuracy", "roc_auc_ovr", "f1_macro"]), THREE, THREE)


# -- values and samples ------------------------------------------------------------------------------------------------

VALUES = [(name, scoring) for name in LABELS for scoring in ("balanced_accuracy", "roc_auc", "neg_log_loss")]
VALUES += [("0 and 1", scoring) for scoring in ("average_precision", "f1", "f1_macro", "neg_brier_score", "jaccard")]
VALUES += [
    ("-1 and 1", "average_precision"),
    ("1 and 2", "average_precision"),
    ("1 and 2", "f1"),
    ("words", f_of_late()),
]
VALUES += [("words", make_scorer(average_precision_score, response_method="predict_proba", pos_label="late"))]


@pytest.mark.parametrize(("name", "scoring"), VALUES, ids=plain)
def test_values_are_those_of_scikit_learn(name, scoring):
    """And so are those of what is kept, for the samples themselves and for some of them."""
    model, y = trained(name)[0], LABELS[name][Y]
    score = score_of(scoring)
    value, samples = measure_score(score, model, X, y)
    assert value == get_scorer(scoring)(model, X, y)
    assert samples is not None
    assert len(samples.values) == len(y)
    if not samples.method:
        assert samples.values.mean() == pytest.approx(value, rel=1e-12)
        return
    function, labels, convert = _scores._function_of(score.scorer, samples.method, model.classes_, y)
    some = np.random.default_rng(1).integers(len(y), size=90)
    found = function(labels[some], convert(samples.values)[some])
    assert found == pytest.approx(get_scorer(scoring)(model, X[some], y[some]), rel=1e-12)


@pytest.mark.parametrize("name", LABELS)
def test_bits_of_accuracy(name):
    model, y = trained(name)[0], LABELS[name][Y]
    value, samples = measure_score(score_of(make_scorer(accuracy_score)), model, X, y)
    assert samples.values.dtype == bool
    np.testing.assert_array_equal(samples.values, model.predict(X) == y)
    assert value == model.score(X, y)


@pytest.mark.parametrize("name", ["0 and 1", "words"])
def test_rows_of_the_log_loss(name):
    model, y = trained(name)[0], LABELS[name][Y]
    samples = measure_score(score_of("neg_log_loss"), model, X, y)[1]
    own = model.predict_proba(X)[np.arange(len(y)), Y]
    np.testing.assert_allclose(samples.values, np.log(own), rtol=1e-12)


def test_three_classes():
    features, y = blobs(90, seed=2)
    y = np.where(np.random.default_rng(0).random(90) < 0.2, (y + 1) % 3, y)
    model = small().fit(features, y)
    for scoring in ("roc_auc_ovr", "f1_macro", "balanced_accuracy", "neg_log_loss", "average_precision"):
        value, samples = measure_score(score_of(scoring), model, features, y)
        assert value == get_scorer(scoring)(model, features, y)
        assert samples is not None


def test_a_pipeline():
    model = make_pipeline(StandardScaler(), small()).fit(X, Y)
    value, samples = measure_score(score_of("average_precision"), model, X, Y)
    assert value == average_precision_score(Y, model.predict_proba(X)[:, 1])
    assert samples.method == "predict_proba"


def test_predictions_are_computed_once(monkeypatch):
    model, calls = trained()[0], []
    original = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda self, data: calls.append(1) or original(self, data))

    def mean_of_two(estimator, X, y):
        return (estimator.predict(X) == y).mean() / 2 + estimator.score(X, y) / 2

    value, samples = measure_score(score_of(mean_of_two), model, X, Y)
    assert value == (original(model, X) == Y).mean()
    assert calls == [1]
    assert samples.method == "predict"
    assert "predict" not in vars(model)  # the model itself is not touched


# -- scorers that read more than outputs -------------------------------------------------------------------------------


def of_the_first_half(estimator, X, y):
    return (estimator.predict(X[:60]) == y[:60]).mean()


def weighted_by_x(estimator, X, y):
    return np.average(estimator.predict(X) == y, weights=np.abs(X[:, 0]))


def with_the_epochs(estimator, X, y):
    return (estimator.predict(X) == y).mean() - 1e-3 * estimator.n_iter_


def by_two_methods(estimator, X, y):
    return (estimator.predict(X) == y).mean() + estimator.predict_proba(X)[:, 1].mean()


@pytest.mark.parametrize(
    "scorer", [sharpness_score, of_the_first_half, weighted_by_x, with_the_epochs, by_two_methods, any_scorer]
)
def test_scorers_that_read_more_have_no_samples(scorer):
    model = trained()[0]
    value, samples = measure_score(score_of(scorer), model, X, Y)
    assert samples is None
    assert value == pytest.approx(scorer(model, X, Y), rel=1e-12)
    values = np.array([0.5, 0.25]), np.array([0.25, 0.125])
    found = difference(score_of(scorer), Y, np.unique(Y), values, ([None, None], [None, None]))
    assert found == trial_components(values[0] - values[1])
    assert found.estimate().covers == NEW_SEEDS


def test_a_scorer_that_fails_names_itself():
    def broken(estimator, X, y):
        raise KeyError("column")

    with pytest.raises(ValueError, match=r"scoring must be .*; broken raised KeyError: 'column'"):
        measure_score(score_of(broken), trained()[0], X, Y)


def test_outputs_that_are_not_finite_have_no_score():
    """Training diverged, which must not cost the other fits."""
    model = small(max_epochs=1).fit(X, Y)
    next(model.module_.parameters()).data.fill_(np.nan)
    value, samples = measure_score(score_of("average_precision"), model, X, Y)
    assert np.isnan(value)
    assert samples is None


# -- differences -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(_scores, "bootstrap_components", resampled)


def resampled(*args):
    return bootstrap_components(*args, n_resamples=20)


def measured(scoring, name="0 and 1"):
    """Return what `difference` gives for two kinds of models, and its arguments."""
    y, score = LABELS[name][Y], score_of(scoring)
    sides = [[measure_score(score, model, X, y) for model in trained(name, lr)] for lr in (0.01, 0.001)]
    values = tuple(np.array([value for value, _ in side]) for side in sides)
    samples = tuple([own for _, own in side] for side in sides)
    return difference(score, y, LABELS[name], values, samples), y, values, samples


def plain_bootstrap(scoring, name):
    """Return the components from scikit-learn's own functions on the predictions."""
    y = LABELS[name][Y]
    function, method = scoring
    outputs = [[getattr(model, method)(X) for model in trained(name, lr)] for lr in (0.01, 0.001)]
    if method == "predict_proba":
        outputs = [[proba[:, 1] for proba in side] for side in outputs]
    return resampled(function, y, *outputs)


BOOTSTRAPPED = {
    "f1": ("f1", "0 and 1", (f1_score, "predict")),
    "average precision": ("average_precision", "0 and 1", (average_precision_score, "predict_proba")),
    "average precision of -1 and 1": ("average_precision", "-1 and 1", (average_precision_score, "predict_proba")),
    "roc auc": ("roc_auc", "0 and 1", (roc_auc_score, "predict_proba")),
    "roc auc of words": ("roc_auc", "words", (roc_auc_score, "predict_proba")),
    "balanced accuracy": ("balanced_accuracy", "0 and 1", (balanced_accuracy_score, "predict")),
    "balanced accuracy of words": ("balanced_accuracy", "words", (balanced_accuracy_score, "predict")),
    "balanced accuracy of 1 and 2": ("balanced_accuracy", "1 and 2", (balanced_accuracy_score, "predict")),
    "f of words": (
        f_of_late(),
        "words",
        (
            lambda y, found, sample_weight=None: fbeta_score(
                y, found, beta=2.0, pos_label="late", sample_weight=sample_weight
            ),
            "predict",
        ),
    ),
    "lost f1": (
        make_scorer(f1_score, greater_is_better=False),
        "0 and 1",
        (lambda y, found, sample_weight=None: -f1_score(y, found, sample_weight=sample_weight), "predict"),
    ),
}


@pytest.mark.parametrize("case", BOOTSTRAPPED)
def test_scores_without_samples_have_the_bootstrap(case):
    scoring, name, plain = BOOTSTRAPPED[case]
    found, _, values, _ = measured(scoring, name)
    expected = plain_bootstrap(plain, name)
    assert found.trials == pytest.approx(tuple(values[0] - values[1]), abs=1e-12)
    assert found.trials == pytest.approx(expected.trials, abs=1e-12)
    assert (found.seeds, found.rows, found.residual) == pytest.approx(
        (expected.seeds, expected.rows, expected.residual), rel=1e-6, abs=1e-15
    )
    assert found.estimate().covers == NEW_SEEDS_AND_ROWS


@pytest.mark.parametrize("scoring", [make_scorer(accuracy_score), "neg_log_loss"], ids=["accuracy", "log loss"])
def test_means_over_samples_have_the_crossed_interval(scoring):
    found, _, values, (one, other) = measured(scoring)
    rows = np.array([np.subtract(a.values, b.values, dtype=float) for a, b in zip(one, other, strict=True)])
    assert found == crossed_components(rows)
    assert found.trials == pytest.approx(tuple(values[0] - values[1]))


def test_a_scorer_without_weights_resamples_the_samples_themselves():
    def share_of_late(estimator, X, y):
        found = estimator.predict(X)
        return (found == y).mean() * (found == found[0]).mean()

    found, y, _, _ = measured(share_of_late)
    outputs = [[model.predict(X) for model in trained("0 and 1", lr)] for lr in (0.01, 0.001)]
    expected = resampled(lambda y, f: (f == y).mean() * (f == f[0]).mean(), y, *outputs)
    assert (found.value, found.rows) == pytest.approx((expected.value, expected.rows), abs=1e-12)


def test_too_few_samples_of_a_class():
    y = np.r_[np.zeros(111, int), np.ones(9, int)]
    own = Samples(np.column_stack([1 - CLASSES, CLASSES]) * 0.5 + 0.25, "predict_proba")
    with pytest.raises(ValueError, match=r"at least 10 samples of every class.* 9"):
        difference(score_of("average_precision"), y, np.array([0, 1]), (np.ones(1), np.ones(1)), ([own], [own]))


def test_one_trial_without_samples_leaves_the_seeds():
    score = Score("accuracy")
    known = Samples(np.ones(4, dtype=bool))
    values = np.array([1.0, 1.0]), np.array([1.0, 0.5])
    assert difference(score, Y[:4], np.unique(Y), values, ([known, known], [known, None])).n_rows is None
    none = difference(score, Y[:4], np.unique(Y), (np.array([]), np.array([])), ([], []))
    assert (none.n_trials, none.shows) == (0, False)
