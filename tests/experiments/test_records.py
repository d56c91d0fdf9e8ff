"""Records of trials: pairing, labels, intervals from the samples that are kept, and files."""

import json

import numpy as np
import pytest

from sklgap.experiments._estimate import NEW_SEEDS, NEW_SEEDS_AND_ROWS, Estimate, crossed_components, trial_components
from sklgap.experiments._notes import majority
from sklgap.experiments._scores import Samples, Score, check_scoring
from tests.counting import growth
from tests.experiments.records import LB_ACCURACY, SB_ACCURACY, comparison, curve, record, right, scored_curve

VALID = {100: (0.96, 0.95, 0.955), 200: (0.96, 0.951, 0.954), 400: (0.90, 0.91, 0.92)}
TEST = {100: (0.95, 0.94, 0.945), 200: (0.951, 0.939, 0.945), 400: (0.90, 0.91, 0.90)}


def rows(one, other, n):
    """Differences over trials x samples of two made-up models."""
    return np.array(
        [
            np.subtract(right(a, n, t).values, right(b, n, t).values, dtype=float)
            for t, (a, b) in enumerate(zip(one, other, strict=True))
        ]
    )


# -- values and pairs --------------------------------------------------------------------------------------------------


def test_records_and_estimators_are_ordered_by_trial_and_regime():
    shuffled = [record("LB", 1), record("SB", 2), record("SB", 0), record("LB", 0), record("LB", 2), record("SB", 1)]
    report = comparison(shuffled)
    order = [(r["trial"], r["regime"]) for r in report.records]
    assert order == [(0, "SB"), (0, "LB"), (1, "SB"), (1, "LB"), (2, "SB"), (2, "LB")]
    assert report.estimators_ == {label: [f"model {label} {trial}" for trial in range(3)] for label in ("SB", "LB")}


def test_only_trials_that_both_finished_are_paired():
    report = comparison([record("LB", 2), record("SB", 0), record("LB", 0), record("SB", 1)], interrupted=True)
    gap = report.gap("LB")
    assert (gap.n, gap.value) == (1, pytest.approx(SB_ACCURACY[0] - LB_ACCURACY[0]))
    assert not gap.has_interval
    np.testing.assert_array_equal(report.values("LB", "trial"), [0, 2])
    np.testing.assert_array_equal(report.by_trial("LB", "test_accuracy"), [LB_ACCURACY[0], np.nan, LB_ACCURACY[2]])
    np.testing.assert_array_equal(report.finished("SB"), [True, True, False])
    one, other = report.paired("SB", "LB", "test_accuracy")
    np.testing.assert_array_equal(one, [SB_ACCURACY[0]])
    np.testing.assert_array_equal(other, [LB_ACCURACY[0]])


def test_what_is_compared_with_the_reference():
    labels = ("SB", "LB", "LB + proximal")
    assert list(comparison(labels=labels).gaps()) == ["LB", "LB + proximal"]
    assert list(comparison(reference="LB").gaps()) == ["SB"]
    assert comparison(reference="LB").gap("SB").value == -comparison().gap("LB").value
    assert comparison([record("SB", 0)], interrupted=True).gaps() == {}


@pytest.mark.parametrize("label", [200, "200", np.int64(200)])
def test_labels_as_numbers_and_texts(label):
    c = curve(VALID, TEST)
    np.testing.assert_array_equal(c.values(label, "valid_accuracy"), VALID[200])
    assert c.estimators_[label] == [f"model 200 {trial}" for trial in range(3)]
    assert c.gap(label) == c.gaps()["200"]
    assert c.difference(100, label) == c.gap(label)
    assert c.samples_of(label, 1) is not None
    for unknown in (300, "300"):
        with pytest.raises(KeyError, match="300"):
            c.estimators_[unknown]


def test_quantities_of_a_curve():
    np.testing.assert_array_equal(curve(VALID, TEST).quantity("test_accuracy"), list(TEST.values()))
    partly = curve(VALID, skip=[(200, 1)], interrupted=True)
    np.testing.assert_array_equal(np.isnan(partly.quantity("n_updates")), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_scores_by_name():
    ap = check_scoring("average_precision")[0]
    c = scored_curve(ap, {100: (0.5, 0.6), 200: (0.4, 0.7)})
    assert c.score() is ap
    assert c.score("average_precision") is ap
    assert c.score("accuracy").name == "accuracy"
    with pytest.raises(ValueError, match=r"score must be one of 'average_precision'.*; got 'f1'"):
        c.gap(200, "f1")


# -- differences -------------------------------------------------------------------------------------------------------


def test_a_gap_covers_new_seeds_and_new_samples():
    expected = crossed_components(rows(SB_ACCURACY, LB_ACCURACY, 200))
    report = comparison()
    assert report.components("SB", "LB") == expected
    assert report.gap("LB") == expected.estimate()
    assert report.gap("LB").covers == NEW_SEEDS_AND_ROWS
    seeds = trial_components(np.subtract(SB_ACCURACY, LB_ACCURACY)).estimate()
    assert report.gap("LB").value == pytest.approx(seeds.value)


def test_the_samples_are_those_of_the_part_that_is_named():
    c = curve(VALID, TEST)
    assert c.components(100, 400, "valid_accuracy") == crossed_components(rows(VALID[100], VALID[400], 1000))
    assert c.components(100, 400) == crossed_components(rows(TEST[100], TEST[400], 1000))
    assert c.gaps()["400"] == c.components(100, 400).estimate()


def test_what_does_not_vary_with_samples():
    """Losses, sharpness and figures of the training data have an interval for new seeds."""
    report = comparison()
    for name in ("sharpness_0.001", "test_loss", "train_accuracy", "weight_distance"):
        one, other = report.paired("SB", "LB", name)
        found = report.components("SB", "LB", name)
        assert found == trial_components(one - other)
        assert found.estimate().covers == NEW_SEEDS


def test_trials_whose_samples_are_not_known():
    assert comparison(samples=False).gap("LB") == trial_components(np.subtract(SB_ACCURACY, LB_ACCURACY)).estimate()
    assert comparison(samples=False).gap("LB").covers == NEW_SEEDS


def test_unfinished_trials_take_their_samples_with_them():
    c = curve(VALID, skip=[(200, 1), (100, 2)], interrupted=True)
    assert c.components(100, 200, "valid_accuracy") == crossed_components(rows(VALID[100], VALID[200], 1000)[:1])
    assert c.components(100, 400, "valid_accuracy") == crossed_components(rows(VALID[100], VALID[400], 1000)[:2])


def test_the_interval_of_few_samples():
    """One sample has no variance, and a class of fewer than ten no resamples: the interval is for new seeds alone."""
    accuracy = {100: (1.0, 0.0, 1.0), 200: (0.0, 0.0, 1.0)}
    assert curve(accuracy, n_valid=1, n_test=1).gap(200).covers == NEW_SEEDS
    ap, rng = check_scoring("average_precision")[0], np.random.default_rng(0)
    outputs = {size: [Samples(rng.random((12, 2)), "predict_proba") for _ in range(3)] for size in (100, 200)}
    c = scored_curve(ap, {100: (0.5, 0.6, 0.4), 200: (0.4, 0.7, 0.4)}, outputs, n_valid=12, n_test=12)
    assert c.gap(200).covers == NEW_SEEDS
    with pytest.raises(ValueError, match="at least 10 samples of every class"):
        c.components(100, 200, "valid_average_precision", strict=True)


# -- files -------------------------------------------------------------------------------------------------------------


def test_components_in_the_file():
    report = comparison()
    (gap,) = json.loads(report.to_json(), parse_constant=pytest.fail)["gaps"]
    expected = report.components("SB", "LB")
    assert (gap["regime"], gap["score"], gap["value"]) == ("LB", "accuracy", expected.value)
    parts = gap["components"]
    assert (parts["seeds"], parts["rows"], parts["residual"]) == (expected.seeds, expected.rows, expected.residual)
    assert (tuple(parts["trials"]), parts["n_rows"]) == (expected.trials, 200)
    assert "samples" not in json.loads(report.to_json())


def test_samples_in_the_file_on_request(tmp_path):
    report = comparison()
    text = report.to_json(tmp_path / "report.json", samples=True)
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == text + "\n"
    content = json.loads(text, parse_constant=pytest.fail)
    assert {k: v for k, v in content.items() if k != "samples"} == json.loads(report.to_json())
    assert len(content["samples"]) == 6
    for own in content["samples"]:
        bits = np.frombuffer(bytes.fromhex(own["right"]), dtype=np.uint8)
        expected = report.samples_of(own["regime"], own["trial"], own["name"]).values
        np.testing.assert_array_equal(np.unpackbits(bits, count=own["n"]).astype(bool), expected)
        assert expected.mean() == report.by_trial(own["regime"], "test_accuracy")[own["trial"]]


def test_outputs_in_the_file_on_request():
    ap, outputs = check_scoring("average_precision")[0], np.array([[0.1, 0.9], [0.6, 0.4]])
    own = {size: [Samples(outputs, "predict_proba")] for size in (100, 200)}
    c = scored_curve(ap, {100: (0.5,), 200: (0.4,)}, own, n_valid=2, n_test=2)
    found = json.loads(c.to_json(samples=True))["samples"]
    assert [one["name"] for one in found] == ["valid_average_precision", "test_average_precision"] * 2
    assert found[0]["method"] == "predict_proba"
    assert found[0]["values"] == outputs.tolist()


def test_samples_that_were_not_recorded():
    report = comparison(samples=False)
    assert report.samples_of("SB", 0) is None
    assert comparison().samples_of("SB", 7) is None
    assert json.loads(report.to_json(samples=True))["samples"] == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.02, "2.00 points of accuracy below"),
        (-0.02, "2.00 points of accuracy above"),
        (-1e-9, "0.00 points of accuracy above"),
    ],
)
def test_a_label_is_below_or_above_the_reference(value, said):
    assert comparison()._apart(Estimate(value, -np.inf, np.inf, 1)) == said


def test_differences_among_some_trials():
    found = comparison(samples=False)
    some = np.array([True, False, True])
    both = found.components("SB", "LB", among=some)
    np.testing.assert_allclose(both.trials, np.subtract(SB_ACCURACY, LB_ACCURACY)[some])
    assert found.components("SB", "LB").n_trials == 3
    assert found.components("SB", "LB", among=~some).n_trials == 1


@pytest.mark.parametrize(("names", "is_said"), [(["accuracy"], True), (["b", "accuracy"], True), (["b"], False)])
def test_the_largest_class_is_named_where_accuracy_is_asked_for(names, is_said):
    found = comparison([record(label, t, test_accuracy=0.5) for t in range(3) for label in ("SB", "LB")])
    found.scores = tuple(Score(name) for name in names)
    assert bool(majority(found)) == is_said


# -- growth ------------------------------------------------------------------------------------------------------------


def many(n):
    """A curve of n batch sizes."""
    return curve({10 * (i + 1): (0.9, 0.91, 0.92) for i in range(n)}, n_valid=20, n_test=20)


@pytest.mark.parametrize(
    "read",
    [
        lambda c: c.notes,
        str,
        lambda c: c._repr_html_(),
        lambda c: c.to_json(),
        lambda c: [c.values(label, "lr") for label in c.labels],
        lambda c: c.gaps(),
    ],
    ids=["notes", "text", "html", "json", "values", "gaps"],
)
def test_reading_takes_time_in_proportion_to_the_labels(read):
    def make(n):
        c = many(n)
        return lambda: read(c)

    assert growth(make, 10) < 2.3


def test_labels_in_another_order_than_the_records():
    shuffled = [record(label, trial) for label in ("c", "a", "b", "SB") for trial in (2, 0, 1)]
    report = comparison(shuffled, labels=("SB", "a", "b", "c"))
    assert [r["regime"] for r in report.records[:4]] == ["SB", "a", "b", "c"]
    assert report.estimators_["b"] == ["model b 0", "model b 1", "model b 2"]
    assert report.values("c", "trial").tolist() == [0, 1, 2]
    assert comparison([record("SB", 0)], labels=("SB", "a")).done == ["SB"]
    assert comparison([record("SB", 0)], labels=("SB", "a")).values("a", "trial").tolist() == []
