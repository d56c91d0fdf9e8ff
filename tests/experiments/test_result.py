import json
import sys

import numpy as np
import pytest
from scipy import stats

from tests.experiments.records import LB_ACCURACY, SB_ACCURACY, comparison, record


def _strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _both(trial, sb=None, lb=None):
    return [record("SB", trial, **(sb or {})), record("LB", trial, **(lb or {}))]


# -- statistics --------------------------------------------------------------------------------------------------------


def test_the_gap_and_its_interval_are_the_paired_t_tests():
    (gap,) = comparison().gaps()
    test = stats.ttest_rel(SB_ACCURACY, LB_ACCURACY)
    interval = test.confidence_interval(0.95)
    assert gap.mean == pytest.approx(np.mean(SB_ACCURACY) - np.mean(LB_ACCURACY), rel=1e-12)
    assert (gap.low, gap.high) == pytest.approx((interval.low, interval.high), rel=1e-10)
    assert (gap.regime, gap.n_trials) == ("LB", 3)


def test_gaps_of_every_regime_but_the_reference():
    labels = ("SB", "LB", "LB + proximal")
    assert [gap.regime for gap in comparison(labels=labels).gaps()] == ["LB", "LB + proximal"]
    assert [gap.regime for gap in comparison(reference="LB").gaps()] == ["SB"]
    assert comparison(reference="LB").gaps()[0].mean == -comparison().gaps()[0].mean


def test_only_trials_that_both_finished_are_paired():
    report = comparison([record("LB", 2), record("SB", 0), record("LB", 0), record("SB", 1)], interrupted=True)
    (gap,) = report.gaps()
    assert (gap.n_trials, gap.mean) == (1, pytest.approx(SB_ACCURACY[0] - LB_ACCURACY[0]))
    assert np.isnan([gap.low, gap.high]).all()
    np.testing.assert_array_equal(report.values("LB", "trial"), [0, 2])
    one, other = report.paired("LB", "test_accuracy")
    np.testing.assert_array_equal(one, [SB_ACCURACY[0]])
    np.testing.assert_array_equal(other, [LB_ACCURACY[0]])


def test_records_and_estimators_are_ordered_by_trial_and_regime():
    shuffled = [record("LB", 1), record("SB", 2), record("SB", 0), record("LB", 0), record("LB", 2), record("SB", 1)]
    report = comparison(shuffled)
    order = [(r["trial"], r["regime"]) for r in report.records]
    assert order == [(0, "SB"), (0, "LB"), (1, "SB"), (1, "LB"), (2, "SB"), (2, "LB")]
    assert report.estimators_ == {label: [f"model {label} {trial}" for trial in range(3)] for label in ("SB", "LB")}


# -- warnings ----------------------------------------------------------------------------------------------------------


def test_no_warning_without_a_reason():
    assert comparison().warnings() == []
    assert "Please note" not in str(comparison())


def _warns(report, *words):
    sentences = [s for s in report.warnings() if all(word in s for word in words)]
    assert len(sentences) == 1, report.warnings()
    assert sentences[0] in str(report)
    assert sentences[0] in _strictly(report.to_json())["warnings"]


def test_a_gap_whose_interval_contains_0():
    accuracies = (0.95, 0.97, 0.94)
    report = comparison([r for t in range(3) for r in _both(t, lb={"test_accuracy": accuracies[t]})])
    gap = report.gaps()[0]
    assert gap.low < 0 < gap.high
    _warns(report, "interval of the gap contains 0 for LB:")


def test_equal_accuracies_in_all_trials():
    report = comparison([r for t in range(3) for r in _both(t, lb={"test_accuracy": SB_ACCURACY[t]})])
    assert (report.gaps()[0].low, report.gaps()[0].high) == (0, 0)
    _warns(report, "interval of the gap contains 0 for LB:")


@pytest.mark.parametrize(("loss", "warned"), [(0.021, True), (0.019, False), (0.0049, True), (0.0051, False)])
def test_unequal_training_losses(loss, warned):
    report = comparison([r for t in range(3) for r in _both(t, lb={"train_loss": loss})])
    if warned:
        _warns(report, "Training losses of SB (1.0e-02) and LB", "more than a factor of 2")
    else:
        assert report.warnings() == []


def test_regimes_without_a_stopping_rule():
    """Nothing says whether training for a fixed number of epochs would have gone on."""
    report = comparison([r for t in range(3) for r in _both(t, sb={"converged": None}, lb={"converged": None})])
    _warns(report, "All were trained for max_epochs, without a stopping rule.")
    one = comparison([r for t in range(3) for r in _both(t, lb={"converged": None})])
    _warns(one, "LB was trained for max_epochs, without a stopping rule.")
    assert "had not converged" not in str(report)
    assert json.loads(report.to_json())["records"][0]["converged"] is None


def test_regimes_that_had_not_converged():
    report = comparison([r for t in range(3) for r in _both(t, lb={"converged": t == 1})])
    _warns(report, "LB had not converged", "in 2 of 3 fits")
    assert not any(sentence.startswith("SB") for sentence in report.warnings())


def test_one_trial():
    report = comparison(_both(0), n_trials=1)
    _warns(report, "gap of LB has no interval", "at least 2 paired trials")
    assert "nan" not in str(report)
    assert "SB minus the regime over 1 paired trial (seeds, not the draw of the test set)" in str(report)
    gap = _strictly(report.to_json())["gaps"][0]
    assert (gap["low"], gap["high"]) == (None, None)


def test_one_regime_leaves_no_gap_to_read():
    report = comparison([record("SB", trial) for trial in range(3)], labels=("SB",))
    assert report.gaps() == []
    assert "regime gap" not in str(report)
    assert "\n\n\n" not in str(report)


def test_unequal_losses_where_another_trial_of_the_reference_diverged():
    records = [
        *_both(0, lb={"train_loss": 1e-5}),
        *_both(1, lb={"train_loss": 1e-5}),
        record("SB", 2, train_loss=np.nan),
    ]
    (sentence,) = [s for s in comparison(records, interrupted=True).warnings() if "Training losses" in s]
    assert "nan" not in sentence


def test_interrupted():
    report = comparison([*_both(0), record("SB", 1)], interrupted=True)
    _warns(report, "Interrupted: 3 of 6 fits had finished")
    assert _strictly(report.to_json())["interrupted"] is True


@pytest.mark.parametrize("finished", ["SB", "LB"])
def test_interrupted_after_the_first_fit(finished):
    report = comparison([record(finished, 0)], interrupted=True)
    text = str(report)
    assert "nan" not in text
    assert "Interrupted: 1 of 6" in text
    _strictly(report.to_json())


def test_a_loss_that_is_not_a_number_does_not_stop_the_report():
    nan = float("nan")
    diverged = {"train_loss": nan, "test_loss": nan, "sharpness_0.001": nan, "converged": False}
    report = comparison([r for t in range(3) for r in _both(t, lb=diverged)])
    _warns(report, "LB had not converged")
    assert _strictly(report.to_json())["records"][1]["train_loss"] is None


# -- print -------------------------------------------------------------------------------------------------------------


def test_the_print_names_policy_sample_and_both_gaps():
    text = str(comparison())
    assert repr(comparison()) == text
    assert "1,000 training and 200 test samples, 3 paired trials, mean ± std" in text
    assert "batch_norm='batch'" in text
    assert "batch statistics" in text
    assert "on 800 training samples, solver 'auto'" in text
    assert (
        "SB minus the regime, with its 95 % interval over 3 paired trials (seeds, not the draw of the test set)" in text
    )
    assert "Please note" not in text


@pytest.mark.parametrize(
    ("policy", "words"), [("population", "population statistics"), ("running", "running averages")]
)
def test_every_policy_is_named(policy, words):
    assert f"{words} in batch norm (batch_norm='{policy}')" in str(comparison(batch_norm=policy))


def test_the_table():
    lines = {line.partition("   ")[0].strip(): line.split("   ") for line in str(comparison()).splitlines()}

    def cells(name):
        return [cell.strip() for cell in lines[name][1:] if cell.strip()]

    assert cells("batch size") == ["25", "100"]
    assert cells("train accuracy (%)") == ["99.00 ± 0.00", "99.00 ± 0.00"]
    assert cells("test accuracy (%)") == ["95.50 ± 0.50", "91.33 ± 1.26"]
    assert cells("train loss") == ["1.00e-02 ± 0.00e+00"] * 2
    assert cells("sharpness 0.001 (%)") == ["3 ± 1", "301 ± 1"]
    assert cells("sharpness 0.0005, 100 dims (%)") == ["0.25 ± 0", "6 ± 0"]
    assert cells("distance from start") == ["12.00 ± 0.00", "4.00 ± 0.00"]
    assert cells("epochs") == ["20 ± 0", "20 ± 0"]
    assert cells("updates") == ["800 ± 0", "200 ± 0"]
    assert cells("seconds to fit") == ["1.5 ± 0.0", "1.5 ± 0.0"]
    # 99 minus the mean test accuracies of 95.5 and 91.33.
    assert cells("train-test gap (points)") == ["3.50 ± 0.50", "7.67 ± 1.26"]
    gap = comparison().gaps()[0]
    assert cells("regime gap (points)") == [f"+{100 * gap.mean:.2f} [+{100 * gap.low:.2f}, +{100 * gap.high:.2f}]"]
    assert cells("distance ratio") == ["3.00 ± 0.00"]


def test_many_regimes_stand_in_several_tables():
    labels = tuple(f"LB {number}" for number in range(9))
    report = comparison([record(label, t) for t in range(3) for label in ("SB", *labels)], labels=("SB", *labels))
    lines = str(report).splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["SB"])
    heads = [line.split() for line in lines[first:] if line.startswith(" ")]
    assert len(heads) == sum(line.startswith("regime gap (points)") for line in lines) > 1
    assert " ".join(word for head in heads for word in head) == " ".join(("SB", *labels))
    assert max(len(line) for line in lines if line.startswith(("train ", "regime gap (points)"))) <= 120


def test_warnings_of_one_kind_are_one_sentence():
    labels = ("SB", *(f"LB {number}" for number in range(9)))
    report = comparison(
        [record(label, t, test_accuracy=SB_ACCURACY[t]) for t in range(3) for label in labels], labels=labels
    )
    _warns(report, "interval of the gap contains 0 for LB 0, LB 1, LB 2, LB 3, LB 4, LB 5 and 3 more:")


def test_without_sharpness():
    assert "sharpness" not in str(comparison(epsilons=[], subspace_dims=[]))


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_to_frame():
    pytest.importorskip("pandas")
    frame = comparison().to_frame()
    assert len(frame) == 6
    assert frame.loc[frame["regime"] == "LB", "test_accuracy"].tolist() == list(LB_ACCURACY)
    assert set(frame.columns) == set(record("SB", 0))


def test_to_frame_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_frame needs pandas"):
        comparison().to_frame()


def test_to_json_is_strict_json_and_holds_everything(tmp_path):
    report = comparison(
        [r for t in range(3) for r in _both(t, sb={"test_accuracy": np.float64(0.5), "n_updates": np.int64(3)})]
    )
    text = report.to_json(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == text + "\n"
    content = _strictly(text)
    assert content["records"] == report.records
    assert content["settings"]["reference"] == "SB"
    assert content["gaps"][0]["mean"] == report.gaps()[0].mean
    assert content["warnings"] == report.warnings()
    assert content["interrupted"] is False


def test_no_address_in_memory_in_what_is_written():
    content = json.loads(comparison(regimes={"SB": {"callbacks": [object()]}}).to_json())
    assert content["settings"]["regimes"]["SB"]["callbacks"] == ["<object object>"]


def test_infinities_and_nan_become_null():
    report = comparison(_both(0, lb={"train_loss": float("inf"), "test_loss": np.float32("nan")}))
    content = _strictly(report.to_json())
    assert (content["records"][1]["train_loss"], content["records"][1]["test_loss"]) == (None, None)


def test_a_large_batch_that_is_not_sharper_is_pointed_out():
    flat = [record("LB", trial, **{"sharpness_0.001": 0.1}) for trial in range(3)]
    found = comparison([*(record("SB", trial) for trial in range(3)), *flat]).warnings()
    assert any("Not sharper than SB here: LB." in sentence for sentence in found)
    assert not any("sharper" in sentence for sentence in comparison().warnings())
