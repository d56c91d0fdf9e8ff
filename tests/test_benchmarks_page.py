"""The page of the benchmarks: its numbers are those of the records, and what is not recorded is not shown."""

import importlib.util
import json
import math
import re
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


def drawn(picture, kind, colour):
    """Return where on the x-axis circles ("cx") or strokes ("x1") of a colour stand."""
    return [float(x) for x in re.findall(rf'<(?:circle|line) {kind}="([\d.]+)"[^>]*class="(?:aim )?{colour}"', picture)]


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
    text = benchmarks.page({"growth": growing(exponent, error)})
    assert f"| rows | fit | {shown} | 1.5 |" in text
    assert f">fit: {shown}</text>" in text


def test_every_record_has_its_command_and_its_hardware():
    text = benchmarks.page({"growth": growing(), "training_overhead": training(case("one", 1.1))})
    for name in ("growth", "training_overhead"):
        assert f"`{name}.json`: {HEAD['environment']}.\n\n```text\n{HEAD['command']}\n```" in text


@pytest.mark.parametrize("missing", ["training_overhead", "measuring", "growth"])
def test_what_is_not_recorded_has_no_section(missing):
    found = {
        "training_overhead": training(case("one", 1.1)),
        "measuring": {**HEAD, "cases": [{"case": "gradient", "ratios": {"bare": 1.0, "sklgap": 1.04}, "aims": {}}]},
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
    assert "two, a whole fit: 140 megabytes" in section
    assert "two, the loop by hand: 1 megabytes" in section
    assert "one, a whole fit" not in section


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


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_marks_stand_where_the_values_are():
    rows = [("one", {"a": 0.5, "b": 2.0}, {"a": 1.0}), ("two", {"a": 1.0, "b": 8.0}, {"a": 2.0, "b": None})]
    picture = benchmarks.dots("times", rows, mark_one=True)
    # The legend's mark comes first.
    a, b = drawn(picture, "cx", "first")[1:], drawn(picture, "cx", "second")[1:]
    aims = drawn(picture, "x1", "first")
    assert aims == [a[1], b[0]]
    assert not drawn(picture, "x1", "second")
    # A factor of two is the same way everywhere.
    assert a[1] - a[0] == pytest.approx(b[0] - a[1], abs=0.2)
    assert b[1] - b[0] == pytest.approx(2 * (b[0] - a[1]), abs=0.2)


@pytest.mark.parametrize("names", [["loop", "sklgap", "skorch"], ["sklgap", "skorch"], ["bare", "sklgap", "skorch"]])
def test_a_name_has_one_colour_in_all_pictures(names):
    picture = benchmarks.dots("times", [("row", {name: 1.0 + i for i, name in enumerate(names)}, {})])
    for name, colour in (("sklgap", "first"), ("skorch", "third")):
        found = re.search(rf'class="(\w+)"><title>row, {benchmarks.NAMES[name]}:', picture)
        assert found[1] == colour
    assert len(set(re.findall(r'class="(\w+)"><title>', picture))) == len(names)


def test_lines_of_a_power_are_straight():
    picture = benchmarks.curves("rows", {"line": [(10, 1.0), (100, 10.0), (1000, 100.0)]})
    points = re.search(r'polyline points="([^"]+)"', picture)[1].split()
    (x1, y1), (x2, y2), (x3, y3) = (map(float, point.split(",")) for point in points)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.2)
    assert y1 > y2 > y3


@pytest.mark.parametrize("values", [[1.0], [0.9, 1.1], [0.7, 6.7], [1, 500], [1e3, 1e7]])
def test_an_axis_has_ticks_and_holds_its_values(values):
    at, ticks = benchmarks._log_axis(values, 0.0, 100.0)
    assert all(0 <= at(value) <= 100 for value in [*values, *ticks])
    assert ticks
    assert ticks == sorted(ticks)


def test_names_are_escaped():
    picture = benchmarks.curves("rows", {"a < b & c": [(1, 1.0), (2, 2.0)]})
    assert "a &lt; b &amp; c" in picture
    assert "a < b" not in picture
