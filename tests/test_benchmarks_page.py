"""The page of the benchmarks: its numbers are those of the records, and what is not recorded is not shown."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SPEC = importlib.util.spec_from_file_location("benchmarks_page", DOCS / "_ext" / "benchmarks.py")
benchmarks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmarks)

HEAD = {"command": "python made_up.py --json x.json", "environment": "CPU (made-up), 1 thread(s)"}


def case(name, fit, epochs=0.9, skorch=2.0, aim=None, peaks=None):
    found = {
        "case": name,
        "seconds": {"loop": 0.5},
        "ratios": {"loop": 1.0, "sklgap": fit, "skorch": skorch, "sklgap epochs": epochs},
        "aims": {"sklgap": aim, "sklgap epochs": None},
    }
    return found if peaks is None else {**found, "peak_megabytes": peaks}


def training(*cases):
    return {**HEAD, "cases": list(cases)}


def growing(exponent=1.03, error=0.02, of="rows", name="fit"):
    one = {"of": of, "name": name, "sizes": [10, 100, 1000], "seconds": [0.1, 0.2, 1.5]}
    return {**HEAD, "growth": [{**one, "exponent": exponent, "standard_error": error}]}


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_it_opens_with_the_answer():
    text = benchmarks.page({"training_overhead": training(case("one", 0.8), case("two", 1.2, skorch=1.0))})
    assert text.startswith("A whole fit takes 0.80 to 1.20 times as long as the loop")
    assert "and 0.40 to 1.20 times as long as plain skorch." in text


@pytest.mark.parametrize(("aim", "cell"), [(None, "0.87"), (0.9, "0.87 (0.9)"), (1.6, "0.87 (1.6)")])
def test_a_row_of_the_table(aim, cell):
    text = benchmarks.page({"training_overhead": training(case("digits | full", 0.8712, aim=aim))})
    assert rf"| digits \| full | {cell} | 0.90 | 2.00 | 0.5 |" in text


@pytest.mark.parametrize(
    ("exponent", "error", "shown"), [(1.034, 0.021, "1.03 ± 0.02"), (0.5, math.nan, "0.50"), (2.0, None, "2.00")]
)
def test_exponents_stand_in_the_table_and_in_the_legend(exponent, error, shown):
    record = growing(exponent, error)
    assert f"| rows | fit | {shown} | 1.5 |" in benchmarks.page({"growth": record})
    (axes,) = benchmarks.growth_figure(record["growth"]).axes
    assert [line.get_label() for line in axes.lines] == [f"fit: {shown}"]


def test_every_record_has_its_command_and_its_hardware():
    text = benchmarks.page({"growth": growing(), "training_overhead": training(case("one", 1.1))})
    for name in ("growth", "training_overhead"):
        assert f"`{name}.json`: {HEAD['environment']}.\n\n```text\n{HEAD['command']}\n```" in text


@pytest.mark.parametrize("missing", ["training_overhead", "measuring", "growth"])
def test_what_is_not_recorded_has_no_section(missing):
    found = {
        "training_overhead": training(case("one", 1.1)),
        "measuring": {
            **HEAD,
            "cases": [{"case": "gradient", "seconds": {"bare": 1}, "ratios": {"bare": 1.0, "point": 1.04}, "aims": {}}],
        },
        "growth": growing(),
    }
    title = f"## {benchmarks.TITLES[missing]}\n"
    assert title in benchmarks.page(found)
    del found[missing]
    assert title not in benchmarks.page(found)
    assert f"{missing}.json" not in benchmarks.page(found)


def test_without_records():
    assert benchmarks.page({}) == "Nothing has been recorded yet.\n"


def test_peaks_of_memory_are_shown_where_they_were_measured():
    without, with_peaks = case("one", 1.1), case("two", 1.2, peaks={"loop": 0.0, "sklgap": 140.0, "skorch": 20.0})
    assert "### Memory" not in benchmarks.page({"training_overhead": training(without)})
    text = benchmarks.page({"training_overhead": training(without, with_peaks)})
    section = text.partition("### Memory")[2]
    assert "| megabytes | a whole fit | plain skorch | the loop by hand |" in section
    assert "| two | 140.0 | 20.0 | 0.0 |" in section
    assert "| one |" not in section


def test_records_of_the_repository(tmp_path):
    found = benchmarks.records()
    assert next(iter(found)) == "training_overhead"
    text = benchmarks.page(found)
    for one in found["training_overhead"]["cases"]:
        assert f"| {one['case']} | {one['ratios']['sklgap']:.2f}" in text
    for name in ("zeta", "growth"):
        (tmp_path / f"{name}.json").write_text(json.dumps(growing()))
    assert list(benchmarks.records(tmp_path)) == ["growth", "zeta"]


def test_the_page_has_the_mark_and_is_linked():
    assert benchmarks.MARK in (DOCS / "benchmarks.md").read_text().splitlines()
    assert "\nbenchmarks\n" in (DOCS / "index.md").read_text()
    assert "(../benchmarks.md)" in (DOCS / "results" / "README.md").read_text()


# -- figures -----------------------------------------------------------------------------------------------------------


def ratios(values, aims):
    return {"case": "one", "ratios": values, "aims": aims}


def marks(axes, color):
    """Return the places of the values, and of the aims, of one colour."""
    circles, strokes = (line for line in axes.lines if line.get_color() == color)
    return circles.get_xydata().tolist(), strokes.get_xydata().tolist()


def test_marks_stand_where_the_values_are():
    cases = [
        ratios({"a": 0.5, "b": 2.0}, {"a": 1.0}),
        ratios({"a": 1.0}, {"a": 2.0, "b": None}),
        ratios({"b": 8.0}, {}),
    ]
    (axes,) = benchmarks.ratio_figure(cases, ["a", "b"], "times").axes
    assert axes.get_xscale() == "log"
    assert marks(axes, "C0") == ([[0.5, 0], [1.0, 1]], [[1.0, 0], [2.0, 1]])
    assert marks(axes, "C1") == ([[2.0, 0], [8.0, 2]], [])


@pytest.mark.parametrize("name", ["training_overhead", "measuring", "gpu_overhead"])
def test_the_figure_and_the_table_say_what_times_are_divided_by(name):
    base = "bare" if name == "measuring" else "loop"
    cases = [{"case": "one", "seconds": {base: 1.0}, "ratios": {base: 1.0, "x": 1.04, "y": 3.0}, "aims": {"x": 1.05}}]
    unit = benchmarks.UNITS.get(name, benchmarks.LOOP)
    text = "\n".join(benchmarks.ratio_section(cases, unit))
    assert ("bare passes" in unit) == (name == "measuring")
    assert f"| {unit} | x | y |" in text
    assert "| one | 1.04 (1.05) | 3.00 |" in text
    assert benchmarks.ratio_figure(cases, ["x", "y"], unit).axes[0].get_xlabel() == unit


def test_a_variant_that_was_refused_has_an_empty_cell():
    cases = [
        {"case": "one", "seconds": {"loop": 1.0}, "ratios": {"loop": 1.0, "compiled": 0.5}, "aims": {}},
        {"case": "two", "seconds": {"loop": 2.0}, "ratios": {"loop": 1.0}, "aims": {}},
    ]
    text = "\n".join(benchmarks.ratio_section(cases, benchmarks.LOOP))
    assert "| one | 0.50 | 1 |" in text
    assert "| two |  | 2 |" in text


@pytest.mark.parametrize("kinds", [["rows"], ["rows", "trials"], ["rows", "trials", "candidates"]])
def test_each_kind_of_size_has_a_panel(kinds):
    growth = [one for of in kinds for name in ("fit", "predict") for one in growing(of=of, name=name)["growth"]]
    figure = benchmarks.growth_figure(growth)
    assert [axes.get_xlabel() for axes in figure.axes] == kinds
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == ["fit: 1.03 ± 0.02", "predict: 1.03 ± 0.02"]
        assert axes.lines[0].get_xydata().tolist() == [[10, 0.1], [100, 0.2], [1000, 1.5]]


def test_equal_records_give_equal_pages():
    found = {"growth": growing(), "training_overhead": training(case("one", 1.1, aim=1.0))}
    assert benchmarks.page(found) == benchmarks.page(found)
