"""What a result prints, and the files it leaves, by the example of a comparison."""

import html.parser
import json
import re
import sys

import numpy as np
import pytest

from sklgap.experiments._result import mean_std
from tests.experiments.records import LB_ACCURACY, comparison, record


def _strictly(text):
    return json.loads(text, parse_constant=pytest.fail)


def _both(trial, sb=None, lb=None):
    return [record("SB", trial, **(sb or {})), record("LB", trial, **(lb or {}))]


# -- print -------------------------------------------------------------------------------------------------------------


def test_the_answer_stands_first():
    first = str(comparison()).splitlines()[0]
    assert all(word in first for word in ("LB", "4.17 points of accuracy", "below SB", "test"))
    assert "interval contains 0" not in first
    ahead = str(comparison(reference="LB")).splitlines()[0]
    assert all(word in ahead for word in ("SB", "4.17 points", "above LB"))
    close = (0.945, 0.965, 0.950)
    doubtful = comparison([r for t in range(3) for r in _both(t, lb={"test_accuracy": close[t]})])
    assert "interval contains 0" in str(doubtful).splitlines()[0]
    assert "without an interval" in str(comparison(_both(0), n_trials=1)).splitlines()[0]


def test_the_print_names_policy_samples_and_what_intervals_cover():
    text = str(comparison())
    assert repr(comparison()) == text
    for words in ("1,000 training and 200 test samples", "3 paired trials, mean ± std", "batch_norm='batch'"):
        assert words in text
    assert "measured on 800 training samples with solver 'auto'" in text
    assert text.count("95 % interval, for new seeds and new test samples, for this training set") == 1
    assert "95 % interval, for new seeds\n" in str(comparison(samples=False))


@pytest.mark.parametrize(
    ("policy", "words"), [("population", "population statistics"), ("running", "running averages")]
)
def test_every_policy_is_named(policy, words):
    text = str(comparison(batch_norm=policy))
    assert words in text
    assert f"test accuracy (%), {policy}" in text


def test_the_table():
    lines = {line.partition("   ")[0].strip(): line.split("   ") for line in str(comparison()).splitlines()}

    def cells(name):
        return [cell.strip() for cell in lines[name][1:] if cell.strip()]

    assert cells("batch size") == ["25", "100"]
    assert cells("train accuracy (%), batch") == ["99.00 ± 0.00", "99.00 ± 0.00"]
    assert cells("test accuracy (%), batch") == ["95.50 ± 0.50", "91.33 ± 1.26"]
    assert cells("train loss") == ["1.00e-02 ± 0.00e+00"] * 2
    assert cells("sharpness 0.001 (%)") == ["3 ± 1", "301 ± 1"]
    assert cells("sharpness 0.0005, 100 dims (%)") == ["0.25 ± 0", "6 ± 0"]
    assert cells("distance from start") == ["12.00 ± 0.00", "4.00 ± 0.00"]
    assert cells("epochs") == ["20 ± 0", "20 ± 0"]
    assert cells("updates") == ["800 ± 0", "200 ± 0"]
    assert cells("seconds to fit") == ["1.5 ± 0.0", "1.5 ± 0.0"]
    # 99 minus the mean test accuracies of 95.5 and 91.33.
    assert cells("train-test gap (points)") == ["3.50 ± 0.50", "7.67 ± 1.26"]
    gap = comparison().gap("LB").scaled(100)
    assert cells("regime gap (points)") == [f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"]
    assert cells("worst trial (points)") == ["+5.00"]
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


def test_without_sharpness():
    assert "sharpness" not in str(comparison(epsilon=[], subspace_dims=[]))


@pytest.mark.parametrize("finished", ["SB", "LB"])
def test_interrupted_after_the_first_fit(finished):
    report = comparison([record(finished, 0)], interrupted=True)
    assert "nan" not in str(report)
    assert any("Interrupted" in note and "1 of 6" in note for note in report.notes)
    for text in (report.to_latex(), report.to_markdown(), report._repr_html_()):
        assert finished in text
    assert _strictly(report.to_json())["interrupted"] is True


def test_one_regime_leaves_no_gap_to_read():
    report = comparison([record("SB", trial) for trial in range(3)], labels=("SB",))
    assert report.gaps() == {}
    assert "regime gap" not in str(report)
    assert "\n\n\n" not in str(report)


def test_a_loss_that_is_not_a_number_does_not_stop_the_report():
    nan = float("nan")
    diverged = {"train_loss": nan, "test_loss": nan, "sharpness_0.001": nan, "converged": False}
    report = comparison([r for t in range(3) for r in _both(t, lb=diverged)])
    assert any("diverged" in note and "LB" in note for note in report.notes)
    assert _strictly(report.to_json())["records"][1]["train_loss"] is None


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
    assert content["gaps"][0]["value"] == report.gap("LB").value
    assert content["gaps"][0]["covers"] == report.gap("LB").covers
    assert content["notes"] == report.notes
    assert content["verdict"] == str(report).splitlines()[:1]
    assert content["interrupted"] is False


def test_no_address_in_memory_in_what_is_written():
    content = json.loads(comparison(regimes={"SB": {"callbacks": [object()]}}).to_json())
    assert content["settings"]["regimes"]["SB"]["callbacks"] == ["<object object>"]


def test_infinities_and_nan_become_null():
    report = comparison(_both(0, lb={"train_loss": float("inf"), "test_loss": np.float32("nan")}), n_trials=1)
    content = _strictly(report.to_json())
    assert (content["records"][1]["train_loss"], content["records"][1]["test_loss"]) == (None, None)
    assert (content["gaps"][0]["low"], content["gaps"][0]["high"]) == (None, None)


LABELS = ("SB", "LB & 5 % of <b>x_1</b> | {2}")


class Cells(html.parser.HTMLParser):
    """The texts of a page by their tags."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = {}, []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.found.setdefault(self.open[-1], []).append(data)


def named(**settings):
    return comparison([record(label, t) for t in range(3) for label in LABELS], labels=LABELS, **settings)


def test_html_is_escaped_and_begins_with_the_answer():
    page = named()._repr_html_()
    cells = Cells(page).found
    assert cells["th"] == list(LABELS)
    assert cells["b"] == str(named()).splitlines()[:1]  # and not the b of the label
    assert "95.50 ± 0.50" in cells["td"]
    assert page.index("<b>") < page.index("<table>")
    unequal = comparison([r for t in range(3) for r in _both(t, lb={"train_loss": 1.0})])
    assert Cells(unequal._repr_html_()).found["li"] == unequal.notes


def test_latex_is_escaped(tmp_path):
    text = named().to_latex(tmp_path / "table.tex")
    assert (tmp_path / "table.tex").read_text(encoding="utf-8") == text + "\n"
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert lines[2] == r" & SB & LB \& 5 \% of $<$b$>$x\_1$<$/b$>$ | \{2\} \\"
    assert r"95.50 $\pm$ 0.50" in text
    rows = [line for line in lines if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {2}
    assert text.count("rule") == 3


def test_brackets_in_latex():
    bracket = comparison([record("SB", t) for t in range(3)], labels=("SB",))
    bracket._table = lambda: [["", "a"], ["[2pt]", "1"], ["*", "2"], ["b [1]", "3"]]
    assert bracket.to_latex().splitlines()[4:7] == [r"{}[2pt] & 1 \\", r"{}* & 2 \\", r"b [1] & 3 \\"]


def test_markdown_is_escaped(tmp_path):
    text = named().to_markdown(tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text + "\n"
    lines = text.splitlines()
    assert {line.replace(r"\|", "").count("|") for line in lines} == {4}
    assert lines[1] == "| --- | ---: | ---: |"
    assert any(line.startswith("| test accuracy (%), batch | 95.50 ± 0.50 |") for line in lines)


@pytest.mark.parametrize(
    ("values", "spec", "shown"),
    [
        ([1.0, 2.0, np.nan], ".1f", "1.5 ± 0.7 (2 of 3)"),
        ([1.0, np.inf], ".2f", "1.00 (1 of 2)"),
        ([np.nan, -np.inf], ".2f", "-"),
        ([], ".2f", "-"),
        ([3.0], ".2e", "3.00e+00"),
        ([1e30, 1e30], ".4f", "1.00e+30 ± 0.0000"),
        ([1e12], ",.0f", "1,000,000,000,000"),
    ],
)
def test_a_mean_says_how_many_values_it_rests_on(values, spec, shown):
    assert mean_std(np.array(values), spec) == shown


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_trial_of_three_that_diverged(value):
    diverged = {"train_loss": value, "test_loss": value, "sharpness_0.001": value}
    report = comparison(
        [*(record("SB", t) for t in range(3)), record("LB", 0, **diverged), record("LB", 1), record("LB", 2)]
    )
    assert "1.00e-02 ± 0.00e+00 (2 of 3)" in str(report)
    assert not re.search(r"\b(nan|inf)\b", str(report))


def test_a_training_that_ends_where_it_began():
    report = comparison([record(label, t, weight_distance=0.0) for t in range(3) for label in ("SB", "LB")])
    assert "distance ratio" in str(report)


def test_what_is_not_compared_is_said_first():
    alone = comparison([record("SB", t) for t in range(3)], labels=("SB",))
    assert str(alone).startswith("Only SB was trained")
    for records in ([record("LB", 0)], [record("SB", 0)], [record("SB", 0), record("LB", 1)]):
        assert str(comparison(records, interrupted=True)).startswith("No trial has a score for SB")


def test_parts_of_the_text_may_be_left_out():
    result = comparison()
    assert str(result) == result.text()
    table = result.text(verdict=False, head=False, notes=False)
    assert table in result.text()
    assert result.verdict[0] not in table
    assert "Please note" not in table
    assert "test accuracy (%)" in table
