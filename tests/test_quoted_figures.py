"""Every figure that the papers page and the results page quote is that of its record.

Any page may have markers (docs/_ext/quoted.py), and all of them are read. The pages below must have one for each
figure.
"""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from sklgap.inspection import WeightDistanceDisplay

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("quoted", ROOT / "docs" / "_ext" / "quoted.py")
quoted = sys.modules["quoted"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(quoted)

COMPLETE = ["README.md", "docs/index.md", "docs/papers.md", "docs/results/README.md"]
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if not {"api", "auto_examples", "_build"} & set(path.relative_to(ROOT).parts)
)
READ = '<!-- made_up.json: trials("SB", "accuracy")[0] -->'
MEAN = '<!-- made_up.json: mean_std(100 * trials(row, "accuracy")) -->'


@pytest.fixture
def folder(tmp_path):
    accuracies = {"SB": [0.98, 0.97, 0.99], "1000": [0.95, 0.96, 0.955]}
    record = {
        "gap": {"value": 0.025, "low": 0.01, "high": None},
        "records": [
            {"regime": regime, "trial": i, "accuracy": value}
            for regime, values in accuracies.items()
            for i, value in reversed(list(enumerate(values)))
        ],
    }
    (tmp_path / "made_up.json").write_text(json.dumps(record))
    return tmp_path


# -- the pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_those_of_their_records(page):
    complete = str(page.relative_to(ROOT)) in COMPLETE
    assert quoted.faults(page.read_text(encoding="utf-8"), complete) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_comment_swallows_no_text(page):
    # Markdown takes a line that begins with a comment for HTML up to the end of that line.
    for line in page.read_text(encoding="utf-8").splitlines():
        assert not re.match(r" {0,3}<!--.*-->\s*\S", line), line


@pytest.mark.parametrize("name", COMPLETE)
def test_there_are_markers(name):
    # A search that finds nothing would pass.
    least = {"README.md": 9, "docs/index.md": 2}.get(name, 20)
    assert quoted.n_markers((ROOT / name).read_text(encoding="utf-8")) >= least


def test_the_results_page_lists_every_record():
    folder = ROOT / "docs" / "results"
    listed = re.findall(r"\]\(([\w./-]+\.json)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))


# -- how a figure is read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", ["0.98", "1.0", "0.980", "9.8e-1"])
def test_a_figure_that_agrees(folder, figure):
    assert quoted.faults(f"It is {figure} {READ} there.", folder=folder) == []


@pytest.mark.parametrize("figure", ["0.97", "0.981", "9.9e-1", "-0.98"])
def test_a_figure_that_differs(folder, figure):
    (fault,) = quoted.faults(f"It is {figure} {READ} there.", folder=folder)
    assert fault == f"line 1: the text says {figure}, and made_up.json says 0.98"


@pytest.mark.parametrize(
    ("text", "value", "agrees"),
    [("1,980", 1979, True), ("1,980", 1974, False), ("545", 545.4, True), ("545", 545.6, False), ("100", 101, False)],
)
def test_whole_numbers_may_be_rounded_to_three_figures(folder, text, value, agrees):
    found = quoted.faults(f"There are {text} <!-- made_up.json: {value} -->", folder=folder)
    assert (found == []) == agrees


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("2.5 [1.0, not bounded] <!-- made_up.json: estimate(record['gap'], 100) -->", True),
        ("2.5 [1.0, 4.0] <!-- made_up.json: estimate(record['gap'], 100) -->", False),
        (
            "0.98 and 7 and 2.5 <!-- made_up.json: trials('SB', 'accuracy')[0], ..., 100 * record['gap']['value'] -->",
            True,
        ),
        (
            "0.025 [-0.008, 0.058] <!-- made_up.json: paired(trials('SB', 'accuracy'), trials('1000', 'accuracy')) -->",
            True,
        ),
        ("0.98 <!-- made_up.json: trials('SB', 'loss')[0] -->", False),
        ("0.98 <!-- missing.json: record -->", False),
        ("0.98 <!-- made_up.json: open('x') -->", False),
    ],
)
def test_expressions(folder, text, fine):
    assert (quoted.faults(text, folder=folder) == []) == fine


def test_numbers_of_a_figure(folder):
    examples = str(ROOT / "examples")
    sys.path.insert(0, examples)
    try:
        from _options import encoded
    finally:
        sys.path.remove(examples)
    curve = WeightDistanceDisplay({"SB": (np.array([1, 2]), np.array([0.5, np.inf]))})
    (folder / "figure.json").write_text(json.dumps({"drawn": encoded({"curve": curve, "rates": {("a", 1): 0.25}})}))
    for expression in ("drawn('rates')['a', 1]", "drawn('curve')['curves']['SB'][1][0] / 2"):
        assert quoted.faults(f"0.25 % <!-- figure.json: {expression} -->", folder=folder) == []
        assert quoted.faults(f"0.26 % <!-- figure.json: {expression} -->", folder=folder) != []


def test_a_marker_in_a_head_is_for_the_column(folder):
    head = f"| batch size | test {MEAN} | [K] <!-- published --> |\n|---|---|---|\n"
    fine = "| SB | 98.00 ± 1.00 | 98.1 |\n| 1,000 | **95.50** ± 0.50 | |\n"
    assert quoted.faults(head + fine, folder=folder) == []
    assert quoted.faults(head + "| SB | | 98.1 |\n", folder=folder) == []
    (fault,) = quoted.faults(head + "| 1,000 | 95.60 ± 0.50 | 98.1 |\n", folder=folder)
    assert fault == "line 3: the text says 95.60, and made_up.json says 95.5"
    (fault,) = quoted.faults(head + "| SB | 98.00 | |\n", folder=folder)
    assert "1 numbers stand before" in fault


def test_a_block_of_text_is_that_of_the_record(folder):
    (folder / "said.json").write_text(json.dumps({"answers": ["40 is safe.", "100 is not,\nby 3.8 points."]}))
    page = '<!-- said.json: record["answers"] -->\n\n```text\n40 is safe.\n\n100 is\nnot, by {} points.\n```\n'
    assert quoted.faults(page.format("3.8"), folder=folder) == []
    assert quoted.faults(page.format("3.9"), folder=folder) == ["line 4: the text is not that of said.json"]
    page = '<!-- said.json: record["answers"] -->\n\n> **40** is safe.\n>\n> 100 is not, by {} points.\n\nEnd.\n'
    assert quoted.faults(page.format("3.8"), folder=folder) == []
    assert quoted.faults(page.format("3.9"), folder=folder) == ["line 3: the text is not that of said.json"]


# -- figures without a marker ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SB tests at 98.48.",
        "SB tests at 98 %.",
        "It gains 2 points.",
        "It is 200 times as sharp.",
        "It grows 77-fold.",
        "A loss of 7e-5.",
        "98 ± 1",
        "[1, 2]",
        "* 98.48",
        "| a | b |\n|---|---|\n| F1 | 98.48 |",
        f"It is 0.98 {READ}, and 0.97 too.",
        f"It is 0.97 and 0.98 {READ}.",
    ],
)
def test_a_figure_needs_a_marker(folder, text):
    (*_, fault) = quoted.faults(text, folder=folder)
    assert fault.endswith("has no marker")
    assert quoted.faults(text, complete=False, folder=folder) == []


@pytest.mark.parametrize(
    "text",
    [
        "Five trials on 10,000 images, in 14 x 14 pixels.",
        "A 95 % interval, epsilon 1e-3 and 5e-4, at a rate of 0.1, torch 2.13.0, Metric 2.1, arXiv:1609.04836.",
        "Write `lr=0.05` or [half](#at-0.5).",
        "```\n98.48 %\n```",
        "They report 98.03 % <!-- published -->.",
        "Measured once: 98.48 % (no record).",
        "# A\n\n**No record.** Once.\n\n98.48 %\n\n| | b |\n|---|---|\n| F1 | 98.48 |",
        "| a | b |\n|---|---|\n| convex, 0.1 | 98 |",
    ],
)
def test_other_numbers_need_none(folder, text):
    assert quoted.faults(text, folder=folder) == []


def test_no_record_holds_for_its_section_alone(folder):
    assert len(quoted.faults("# A\n\n**No record.**\n\n# B\n\n98.48 %", folder=folder)) == 1
